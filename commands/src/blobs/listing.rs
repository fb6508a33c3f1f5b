//! Which blobs there are.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use domain::Digest;
use domain::time::Timestamp;

use super::{BlobError, BlobStore, blocking, io_error};

/// A blob as the store's list shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredBlob {
    /// The SHA-256 of its content.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
    /// When it came, or came again.
    pub stored_at: Option<Timestamp>,
}

impl BlobStore {
    /// All blobs, the oldest first.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub async fn list(&self) -> Result<Vec<StoredBlob>, BlobError> {
        let dir = self.dir.clone();
        blocking(move || {
            let mut blobs = Vec::new();
            for name in names(&dir)? {
                // `incoming` has another length.
                if name.len() == 2 {
                    list_folder(&dir.join(name), &mut blobs)?;
                }
            }
            blobs.sort_by_key(|blob| (blob.stored_at, blob.digest));
            Ok(blobs)
        })
        .await
    }
}

/// When a file came, or came again.
pub(super) fn came(status: &Metadata) -> Option<Timestamp> {
    let micros = status.mtime().checked_mul(1_000_000);
    let micros = micros.and_then(|micros| micros.checked_add(status.mtime_nsec() / 1000));
    micros.and_then(Timestamp::from_unix_micros)
}

fn names(dir: &Path) -> Result<Vec<String>, BlobError> {
    let entries = std::fs::read_dir(dir).map_err(io_error("list", dir))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("list", dir))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}

fn list_folder(folder: &Path, blobs: &mut Vec<StoredBlob>) -> Result<(), BlobError> {
    for name in names(folder)? {
        let Ok(digest) = Digest::from_hex(&name) else {
            continue;
        };
        let path = folder.join(name);
        let status = match std::fs::metadata(&path) {
            Ok(status) => status,
            // Removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        blobs.push(StoredBlob {
            digest,
            bytes: status.len(),
            stored_at: came(&status),
        });
    }
    Ok(())
}
