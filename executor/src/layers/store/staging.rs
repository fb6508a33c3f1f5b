//! The place where a layer is made.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{StoreError, disk};

/// A temporary folder for one layer. It goes away with the last clone unless the layer was kept.
#[derive(Clone, Debug)]
pub struct Staging(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    whole: PathBuf,
    diff: PathBuf,
    work: PathBuf,
    kept: AtomicBool,
}

impl Staging {
    pub(super) fn create(path: PathBuf) -> Result<Self, StoreError> {
        let folder = Folder {
            diff: path.join(disk::DIFF),
            work: path.join(disk::WORK),
            whole: path,
            kept: AtomicBool::new(false),
        };
        disk::create_folder(&folder.whole)?;
        // From here on, the folder goes away on every path.
        let staging = Self(Arc::new(folder));
        disk::create_folder(staging.path())?;
        disk::create_folder(staging.work_path())?;
        Ok(staging)
    }

    /// The empty folder that becomes the layer: an archive's target, or an overlay's upper folder.
    pub fn path(&self) -> &Path {
        &self.0.diff
    }

    /// An empty folder on the same filesystem, as an overlay's work folder; not part of the layer.
    pub fn work_path(&self) -> &Path {
        &self.0.work
    }

    /// The folder that holds both.
    pub(crate) fn folder(&self) -> &Path {
        &self.0.whole
    }

    pub(super) fn keep(&self) {
        self.0.kept.store(true, Ordering::Relaxed);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.kept.load(Ordering::Relaxed) {
            return;
        }
        let path = std::mem::take(&mut self.whole);
        let remove = move || {
            if let Err(error) = disk::remove(&path) {
                // The next start removes it.
                tracing::warn!(%error, "a half-made layer stays for now");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}
