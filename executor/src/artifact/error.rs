//! What can go wrong with artifacts.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use domain::ids::ArtifactId;

use super::manifest::SCHEMA_VERSION;

/// Why an artifact could not be published, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// There is no such artifact.
    #[error("there is no artifact {id}")]
    Missing {
        /// Its name.
        id: ArtifactId,
    },
    /// It cannot be removed now.
    #[error("artifact {id} is in use")]
    InUse {
        /// Its name.
        id: ArtifactId,
    },
    /// Its files are not those that were published.
    #[error("artifact {id} is damaged: {reason}")]
    Corrupt {
        /// Its name.
        id: ArtifactId,
        /// What is wrong.
        reason: String,
    },
    /// Another version of this program made it.
    #[error("artifact {id} has manifest version {found}; this program reads {SCHEMA_VERSION}")]
    Schema {
        /// Its name.
        id: ArtifactId,
        /// The version of its manifest.
        found: u64,
    },
    /// A file that an artifact must have was not staged.
    #[error("{} was not staged", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
    },
    /// The description of an artifact is too long.
    #[error("a manifest of {bytes} bytes is over the limit of {max} bytes")]
    ManifestTooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: u64,
    },
    /// The description of an artifact has no JSON form.
    #[error("the manifest cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
    /// The host has no room.
    #[error("no room for the artifact at {}", path.display())]
    DiskFull {
        /// Where.
        path: PathBuf,
    },
    /// A file or folder of the store cannot be worked with.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The thread that worked on the store was lost.
    #[error("the work on the artifact was lost")]
    Lost(#[source] tokio::task::JoinError),
}

/// Adds what was tried to an error of the system; that the host is full is told apart.
pub(super) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> ArtifactError {
    let path = path.to_owned();
    move |source| {
        if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            return ArtifactError::DiskFull { path };
        }
        ArtifactError::Io {
            action,
            path,
            source,
        }
    }
}

/// Runs what blocks on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(ArtifactError::Lost)?
}

/// Reads a whole file, which may have `bytes_max` bytes.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?
        .take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if u64::try_from(read).is_ok_and(|read| read <= bytes_max) {
        return Ok(bytes);
    }
    Err(io::Error::from(io::ErrorKind::FileTooLarge))
}
