//! Contents of files, each named by its digest: `<dir>/<first two hex digits>/<hex digits>`.
//!
//! What has its name is whole: it was checked while it was written to a temporary file, and synced
//! before it got the name. What was not finished is removed when the store is opened.
//! One process uses the folder.

mod incoming;
mod keeping;
mod listing;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use domain::Digest;
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::limits::BlobLimits;
use incoming::{Incoming, Piece};
pub use listing::StoredBlob;

const INCOMING_DIR: &str = "incoming";

/// What an upload has been announced as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The SHA-256 of the content.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
}

/// Why a blob was not stored or read. What was not stored left nothing behind.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The content is shorter or longer than announced.
    #[error("the content has {}{received} bytes, not {expected}", if *.more { "more than " } else { "" })]
    SizeMismatch {
        /// As announced.
        expected: u64,
        /// How many came; if there are more, as many as were announced.
        received: u64,
        /// Whether more followed, which were not counted.
        more: bool,
    },
    /// The content is another than announced.
    #[error("the content has the digest {received}, not {expected}")]
    DigestMismatch {
        /// As announced.
        expected: Digest,
        /// That of what came.
        received: Digest,
    },
    /// The content is larger than the store, or the reader, takes.
    #[error("a blob of {bytes} bytes is larger than allowed ({bytes_max} bytes)")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// The upload broke off.
    #[error("the content did not arrive")]
    Upload(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is no such blob.
    #[error("there is no blob {0}")]
    NotFound(Digest),
    /// The disk is full: try again when there is space.
    #[error("no space is left for blobs")]
    DiskFull(#[source] io::Error),
    /// A file could not be used.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// For `map_err`: an error at `path`.
fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |source| {
        let kind = source.kind();
        if matches!(
            kind,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            return BlobError::DiskFull(source);
        }
        BlobError::Io {
            action,
            path,
            source,
        }
    }
}

/// A store of blobs in a folder. Clones are the same store.
#[derive(Clone, Debug)]
pub struct BlobStore {
    dir: Arc<Path>,
    limits: BlobLimits,
}

impl BlobStore {
    /// Opens the store in folder `dir`, which is made if it is not there, and removes what earlier
    /// uploads left unfinished.
    ///
    /// # Errors
    /// [`BlobError::Io`] or [`BlobError::DiskFull`].
    pub async fn open(dir: impl Into<PathBuf>, limits: BlobLimits) -> Result<Self, BlobError> {
        let dir: PathBuf = dir.into();
        let store = Self {
            dir: dir.into(),
            limits,
        };
        let incoming = store.dir.join(INCOMING_DIR);
        blocking(move || {
            match std::fs::remove_dir_all(&incoming) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &incoming)(err));
                }
                Ok(()) | Err(_) => {}
            }
            std::fs::create_dir_all(&incoming).map_err(io_error("make", &incoming))
        })
        .await?;
        Ok(store)
    }

    /// Where the blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let (folder, _) = hex.split_at(2);
        self.dir.join(folder).join(&hex)
    }

    /// Stores what `content` brings, if it is what was announced. Stored before: the same again.
    ///
    /// If the caller stops waiting, nothing is stored.
    ///
    /// # Errors
    /// [`BlobError`]; nothing was stored then.
    pub async fn put<E>(
        &self,
        expected: Expected,
        content: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<(), BlobError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let bytes_max = self.limits.blob_bytes_max;
        if expected.bytes > bytes_max {
            let bytes = expected.bytes;
            return Err(BlobError::TooLarge { bytes, bytes_max });
        }
        let (pieces, received) = mpsc::channel(self.limits.queued_pieces_max.max(1));
        let (folder, path) = (self.dir.join(INCOMING_DIR), self.path(&expected.digest));
        let writing =
            spawn_blocking(move || Incoming::create(&folder, expected)?.receive(received, &path));
        let mut content = std::pin::pin!(content);
        let mut broken = None;
        while let Some(piece) = content.next().await {
            match piece {
                Ok(piece) => {
                    // Refused: the writer says why.
                    if pieces.send(Piece::Bytes(piece)).await.is_err() {
                        break;
                    }
                }
                Err(err) => {
                    broken = Some(BlobError::Upload(err.into()));
                    break;
                }
            }
        }
        if broken.is_none() {
            // Without this the writer takes it that the upload broke off.
            pieces.send(Piece::End).await.ok();
        }
        drop(pieces);
        let written = joined(writing.await);
        broken.map_or(written, Err)
    }

    /// Stores `content` and says under which digest.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`], [`BlobError::DiskFull`] or [`BlobError::Io`].
    pub async fn put_bytes(&self, content: Vec<u8>) -> Result<Digest, BlobError> {
        let content = Bytes::from(content);
        let hashed = content.clone();
        let digest = blocking(move || Ok(Digest::of(&hashed))).await?;
        let expected = Expected {
            digest,
            // A usize has at most 64 bits on every platform that Rust supports.
            bytes: u64::try_from(content.len()).unwrap_or(u64::MAX),
        };
        let whole = futures_util::stream::iter([Ok::<_, io::Error>(content)]);
        self.put(expected, whole).await?;
        Ok(digest)
    }

    /// Whether the blob is there.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub async fn contains(&self, digest: &Digest) -> Result<bool, BlobError> {
        let path = self.path(digest);
        blocking(move || path.try_exists().map_err(io_error("look for", &path))).await
    }

    /// Opens the blob for reading.
    ///
    /// # Errors
    /// [`BlobError::NotFound`] or [`BlobError::Io`].
    pub async fn open_blob(&self, digest: &Digest) -> Result<tokio::fs::File, BlobError> {
        let (path, digest) = (self.path(digest), *digest);
        let file = blocking(move || open_file(&path, digest)).await?;
        Ok(tokio::fs::File::from_std(file))
    }

    /// The whole content of the blob, checked against its digest.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] beyond `bytes_max`, [`BlobError::NotFound`],
    /// [`BlobError::DigestMismatch`] if the disk has damaged it, [`BlobError::Io`].
    pub async fn read(&self, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>, BlobError> {
        let (path, expected) = (self.path(digest), *digest);
        blocking(move || {
            let file = open_file(&path, expected)?;
            let bytes = file.metadata().map_err(io_error("read", &path))?.len();
            if bytes > bytes_max {
                return Err(BlobError::TooLarge { bytes, bytes_max });
            }
            let mut content = Vec::new();
            // It cannot grow, but nothing is read without a bound.
            let mut file = file.take(bytes_max);
            file.read_to_end(&mut content)
                .map_err(io_error("read", &path))?;
            let received = Digest::of(&content);
            if received == expected {
                Ok(content)
            } else {
                Err(BlobError::DigestMismatch { expected, received })
            }
        })
        .await
    }

    /// Removes the blob. None there is no error.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub async fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        let path = self.path(digest);
        blocking(move || match std::fs::remove_file(&path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &path)(err))
            }
            Ok(()) | Err(_) => Ok(()),
        })
        .await
    }
}

fn open_file(path: &Path, digest: Digest) -> Result<std::fs::File, BlobError> {
    match std::fs::File::open(path) {
        Ok(file) => Ok(file),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Err(BlobError::NotFound(digest)),
        Err(err) => Err(io_error("open", path)(err)),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    joined(spawn_blocking(work).await)
}

fn joined<T>(ended: Result<Result<T, BlobError>, tokio::task::JoinError>) -> Result<T, BlobError> {
    match ended {
        Ok(answer) => answer,
        Err(err) if err.is_panic() => std::panic::resume_unwind(err.into_panic()),
        Err(err) => Err(io_error("use", Path::new("the blob store"))(
            io::Error::other(err),
        )),
    }
}

#[cfg(test)]
mod tests;
