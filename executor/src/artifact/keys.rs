//! The final-artifact cache: which artifact a key stands for, one small file a key.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use domain::Digest;
use domain::ids::ArtifactId;

use super::error::{blocking, io_error, read_bounded};
use super::staging::new_staging;
use super::{Artifact, ArtifactError, ArtifactStore, KEYS, sync_dir};

/// The length of a link's text, and room for a line end, in bytes.
const LINK_BYTES_MAX: u64 = 128;

impl ArtifactStore {
    /// Makes `key` stand for the artifact `id`, whatever it stood for before. The link survives a
    /// loss of power, or the one before it does.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] or [`ArtifactError::DiskFull`].
    pub async fn link(&self, key: &Digest, id: &ArtifactId) -> Result<(), ArtifactError> {
        let (store, path, id) = (self.clone(), self.link_path(key), id.clone());
        blocking(move || {
            let scratch = new_staging(&store.root, store.limits.stage_attempts_max)?;
            let fresh = scratch.dir().join("link");
            fs::File::create_new(&fresh)
                .and_then(|mut file| {
                    writeln!(file, "{id}")?;
                    file.sync_all()
                })
                .map_err(io_error("write", &fresh))?;
            fs::rename(&fresh, &path).map_err(io_error("write", &path))?;
            sync_dir(&store.root.join(KEYS))
        })
        .await
    }

    /// The artifact that `key` stands for. A link that leads to no whole artifact is removed and
    /// counts as none: a cache never fails a build.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] if the store cannot be read.
    pub async fn find(&self, key: &Digest) -> Result<Option<Artifact>, ArtifactError> {
        let (store, path) = (self.clone(), self.link_path(key));
        blocking(move || {
            let id = match linked(&path) {
                Err(ArtifactError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    return Ok(None);
                }
                linked => linked?,
            };
            let found = id.map(|id| store.get_blocking(&id));
            match found {
                Some(Ok(artifact)) => {
                    super::listing::stamp(&artifact.dir);
                    return Ok(Some(artifact));
                }
                Some(Err(
                    error @ (ArtifactError::Corrupt { .. } | ArtifactError::Schema { .. }),
                )) => {
                    tracing::warn!(%error, "a cached artifact cannot be used");
                }
                // It was removed, or the link is not one.
                Some(Err(ArtifactError::Missing { .. })) | None => {}
                Some(Err(error)) => return Err(error),
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(io_error("remove", &path)(error))
                }
                _ => Ok(None),
            }
        })
        .await
    }

    fn link_path(&self, key: &Digest) -> PathBuf {
        self.root.join(KEYS).join(key.hex())
    }
}

/// The artifact that a link names; nothing if it names none.
///
/// # Errors
/// [`ArtifactError::Io`] if it is not there or cannot be read.
pub(super) fn linked(path: &Path) -> Result<Option<ArtifactId>, ArtifactError> {
    let text = match read_bounded(path, LINK_BYTES_MAX) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Ok(None),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let text = std::str::from_utf8(&text).ok();
    let id = text.and_then(|text| text.strip_suffix('\n'));
    Ok(id.and_then(|id| id.parse().ok()))
}
