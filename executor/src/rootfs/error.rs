//! Why there is no root file system.

use std::io;
use std::path::{Path, PathBuf};

use crate::process::ProcessError;

/// Why an image could not be made, grown or checked.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// The host has no room for the image.
    #[error("no room for the root file system: {available_bytes} bytes are free at {}", path.display())]
    DiskFull {
        /// Where the room is missing.
        path: PathBuf,
        /// What is free there now, in bytes.
        available_bytes: u64,
    },
    /// The merged view cannot be read.
    #[error("cannot read {} of the merged layers", path.display())]
    View {
        /// What cannot be read.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file of the image cannot be worked with.
    #[error("cannot {action} the image {}", path.display())]
    Image {
        /// What was tried.
        action: &'static str,
        /// The image, or a file beside it.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The content has a file where a machine must mount something.
    #[error("{} is not a folder, but a machine must mount there", path.display())]
    MountPoint {
        /// The path within the root file system.
        path: PathBuf,
    },
    /// The content has too many files.
    #[error("the root file system has more than {max} files and folders")]
    TooManyEntries {
        /// The limit.
        max: u64,
    },
    /// The image would be larger than an image may be, or its size is not one of whole blocks.
    #[error("an image of {bytes} bytes is over the limit of {max} bytes or not of whole blocks")]
    TooLarge {
        /// What it would take.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The content did not fit images that were far larger than its size.
    #[error("the content did not fit the image after {attempts} attempts")]
    DoesNotFit {
        /// How many sizes were tried.
        attempts: u32,
    },
    /// An image is never made smaller.
    #[error("an image of {from_bytes} bytes cannot shrink to {to_bytes}")]
    Shrink {
        /// Its size.
        from_bytes: u64,
        /// The size that was asked for.
        to_bytes: u64,
    },
    /// The file system does not fill its image although resize2fs said so.
    #[error("the file system has {total_bytes} bytes instead of {wanted_bytes}")]
    NotGrown {
        /// The size that was asked for.
        wanted_bytes: u64,
        /// Its size.
        total_bytes: u64,
    },
    /// e2fsck found errors.
    #[error("the file system is damaged: {report}")]
    Damaged {
        /// What e2fsck printed.
        report: String,
    },
    /// A program of e2fsprogs is not installed.
    #[error("`{program}` is not installed (Debian package e2fsprogs)")]
    MissingTool {
        /// The program.
        program: &'static str,
    },
    /// A program of e2fsprogs failed.
    #[error("`{program}` gave no good image")]
    Tool {
        /// The program.
        program: &'static str,
        /// The cause.
        source: ProcessError,
    },
    /// The thread that worked on the image was lost.
    #[error("the work on the image was lost")]
    Lost(#[source] tokio::task::JoinError),
}

impl RootfsError {
    /// An error of a file; that the host is full is told apart.
    pub(super) fn image(action: &'static str, path: &Path, source: io::Error) -> Self {
        if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            return disk_full(path);
        }
        Self::Image {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

/// The host is full, as its file system reports it now.
pub(super) fn disk_full(path: &Path) -> RootfsError {
    RootfsError::DiskFull {
        path: path.to_owned(),
        available_bytes: available_bytes(path).unwrap_or(0),
    }
}

/// Refuses to begin what cannot end well: a full disk hurts its neighbours too.
pub(super) fn require_space(dir: &Path, needed_bytes: u64) -> Result<(), RootfsError> {
    let available_bytes =
        available_bytes(dir).map_err(|source| RootfsError::image("stat", dir, source))?;
    if available_bytes < needed_bytes {
        return Err(RootfsError::DiskFull {
            path: dir.to_owned(),
            available_bytes,
        });
    }
    Ok(())
}

/// What is free on the file system of a path that may not exist yet.
fn available_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path).or_else(|error| match path.parent() {
        Some(dir) => rustix::fs::statvfs(dir),
        None => Err(error),
    })?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Runs what blocks on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RootfsError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(RootfsError::Lost)
}
