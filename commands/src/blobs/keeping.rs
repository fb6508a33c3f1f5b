//! What whoever lets blobs go needs to know of them.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use domain::Digest;
use domain::time::Timestamp;

use super::listing::came;
use super::{BlobError, BlobStore, blocking, io_error};

impl BlobStore {
    /// Whether the blob is there; if it is, it counts as having come `now`.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub async fn refresh(&self, digest: &Digest, now: Timestamp) -> Result<bool, BlobError> {
        let path = self.path(digest);
        let micros = u64::try_from(now.unix_micros()).unwrap_or_default();
        let now = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
        blocking(move || match File::open(&path) {
            Ok(file) => file
                .set_modified(now)
                .map(|()| true)
                .map_err(io_error("date", &path)),
            Err(error) => absent(error, &path),
        })
        .await
    }

    /// Whether all of these blobs are there.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub async fn contains_all(&self, digests: Vec<Digest>) -> Result<bool, BlobError> {
        let store = self.clone();
        blocking(move || {
            for digest in digests {
                let path = store.path(&digest);
                if !path.try_exists().map_err(io_error("look for", &path))? {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    /// Removes the blob if `is_old` holds for when it came, and says whether it did.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub async fn remove_if(
        &self,
        digest: &Digest,
        is_old: impl FnOnce(Timestamp) -> bool + Send + 'static,
    ) -> Result<bool, BlobError> {
        let path = self.path(digest);
        blocking(move || {
            let status = match std::fs::metadata(&path) {
                Ok(status) => status,
                Err(error) => return absent(error, &path),
            };
            if !came(&status).is_some_and(is_old) {
                return Ok(false);
            }
            match std::fs::remove_file(&path) {
                Ok(()) => Ok(true),
                Err(error) => absent(error, &path),
            }
        })
        .await
    }
}

fn absent(error: io::Error, path: &Path) -> Result<bool, BlobError> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(false)
    } else {
        Err(io_error("use", path)(error))
    }
}
