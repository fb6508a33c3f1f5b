//! The small files in which it is kept who has sent what, and when they may go.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use domain::Digest;
use domain::time::Timestamp;

use super::{UploadName, Uploads, UploadsError, blocking, fault, read};

/// A file of the table.
#[derive(Clone, Debug)]
pub struct Kept {
    path: PathBuf,
    /// What it says was sent; none if it says nothing, which a crash leaves.
    pub content: Option<Digest>,
    /// Whether it stands for an upload of its own, which is referred to once.
    pub is_fresh: bool,
    /// When it came, or was looked at for a request.
    pub came: Option<Timestamp>,
}

impl Uploads {
    /// All that is kept, of all owners.
    ///
    /// # Errors
    /// [`UploadsError`].
    pub async fn list(&self) -> Result<Vec<Kept>, UploadsError> {
        let dir = self.dir.clone();
        blocking(move || {
            let mut kept = Vec::new();
            for owner in entries(&dir)? {
                for path in entries(&owner)? {
                    kept.extend(look(path)?);
                }
            }
            Ok(kept)
        })
        .await
    }

    /// Forgets those of `records` of which `is_over` still holds, as they are now, and says how many
    /// went. To be called while [`Uploads::alone`] is held: nobody records anything meanwhile.
    ///
    /// # Errors
    /// [`UploadsError`]; what went before it is gone.
    pub async fn forget(
        &self,
        records: Vec<Kept>,
        is_over: impl Fn(&Kept) -> bool + Send + 'static,
    ) -> Result<usize, UploadsError> {
        blocking(move || {
            let mut forgotten_count = 0;
            for record in records {
                let Some(now) = look(record.path)? else {
                    continue;
                };
                if is_over(&now) {
                    std::fs::remove_file(&now.path).map_err(fault("remove", &now.path))?;
                    forgotten_count += 1;
                }
            }
            Ok(forgotten_count)
        })
        .await
    }
}

/// The files in a folder; none if it is not there, which is so until the first upload.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, UploadsError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(fault("list", folder)(err)),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths
        .collect::<Result<_, _>>()
        .map_err(fault("list", folder))
}

/// What is kept in a file; nothing if it is gone.
fn look(path: PathBuf) -> Result<Option<Kept>, UploadsError> {
    let status = match std::fs::metadata(&path) {
        Ok(status) => status,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(fault("read", &path)(err)),
    };
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.and_then(UploadName::parse);
    let record = match &name {
        Some(_) => read(&path)?,
        // A file that was being written when the service ended.
        None => None,
    };
    Ok(Some(Kept {
        path,
        content: record.map(|record| record.content.digest),
        is_fresh: matches!(name, Some(UploadName::Fresh(_))),
        came: came(&status),
    }))
}

fn came(status: &Metadata) -> Option<Timestamp> {
    let micros = status.mtime().checked_mul(1_000_000)?;
    let micros = micros.checked_add(status.mtime_nsec() / 1000)?;
    Timestamp::from_unix_micros(micros)
}
