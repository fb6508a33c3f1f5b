//! Artifacts: a root file system, the memory and the devices of a machine that runs on it, and a
//! manifest, in a folder that is named by the digest of what it says.
//!
//! ```text
//! <root>/art_<hex>/rootfs.ext4, memory, device-state, manifest.json
//! <root>/keys/<hex>      the artifact that a final-artifact key stands for
//! <root>/.tmp-*          what is being made or removed; swept when the store is opened
//! ```
//!
//! An artifact is complete or not there: its files are on the disk before its folder gets its
//! name. Who works with a folder holds an advisory lock on it, so several processes can use the
//! store at once: no one sweeps what another stages, or removes what another reads.

mod error;
mod keys;
mod listing;
pub mod manifest;
mod staging;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::build::FileRecord;
use domain::ids::ArtifactId;
use rustix::fs::RenameFlags;

use crate::limits::artifact::ArtifactLimits;
use crate::rootfs::sparse;
pub use error::ArtifactError;
use error::{blocking, io_error};
pub use listing::{Claim, StoredArtifact};
pub use manifest::{Description, Machine, Manifest, Runtime};
pub use staging::{Part, Staging};
use staging::{new_staging, sweep};

/// The manifest's name in the folder of its artifact.
const MANIFEST: &str = "manifest.json";
/// The folder of the keys, in the store.
const KEYS: &str = "keys";
/// Whoever knows a name may open it, no one else may list names: a VMM runs as another user.
const FOLDER_MODE: u32 = 0o711;
/// A published file never changes.
const FILE_MODE: u32 = 0o444;

/// The folder of all artifacts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ArtifactStore {
    root: Arc<Path>,
    limits: ArtifactLimits,
}

/// A published artifact. It cannot be removed while a clone of this value lives, in any process.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Its folder.
    pub dir: PathBuf,
    /// What it is.
    pub manifest: Manifest,
    /// The shared lock.
    _lease: Arc<File>,
}

impl Artifact {
    /// Its name.
    pub fn id(&self) -> &ArtifactId {
        &self.manifest.artifact_id
    }

    /// The path of one of its files.
    pub fn path(&self, part: Part) -> PathBuf {
        self.dir.join(part.file_name())
    }

    /// Reads all files and compares them with the manifest.
    ///
    /// # Errors
    /// [`ArtifactError::Corrupt`] naming the file that changed.
    pub async fn verify(&self) -> Result<(), ArtifactError> {
        for part in Part::ALL {
            let found = file_record(self.path(part)).await?;
            if found != *part.record(&self.manifest) {
                return Err(corrupt(
                    self.id(),
                    format!("{} was changed", part.file_name()),
                ));
            }
        }
        Ok(())
    }
}

impl ArtifactStore {
    /// Opens the store at `root`, makes it if it is not there, and removes what earlier processes
    /// left unfinished.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] if the folder cannot be used.
    pub async fn open(root: PathBuf, limits: ArtifactLimits) -> Result<Self, ArtifactError> {
        let path = root.clone();
        blocking(move || {
            let keys = path.join(KEYS);
            fs::create_dir_all(&keys).map_err(io_error("create", &keys))?;
            set_mode(&path, FOLDER_MODE)?;
            set_mode(&keys, 0o700)?;
            sweep(&path)
        })
        .await?;
        Ok(Self {
            root: root.into(),
            limits,
        })
    }

    /// A new folder for the files of an artifact, on the store's file system. It goes away with
    /// its value unless it is published.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] or [`ArtifactError::DiskFull`].
    pub async fn stage(&self) -> Result<Staging, ArtifactError> {
        let store = self.clone();
        blocking(move || new_staging(&store.root, store.limits.stage_attempts_max)).await
    }

    /// Makes an artifact of what was staged: all of [`Part`], which no one may use any more.
    ///
    /// If an artifact of the same content exists, it is given back and the staged one dropped.
    /// Other files in the staging folder are removed.
    ///
    /// # Errors
    /// [`ArtifactError::Incomplete`] if a file is missing, [`ArtifactError::DiskFull`],
    /// [`ArtifactError::Io`]. Nothing is published then, and the staged files are gone.
    pub async fn publish(
        &self,
        staging: Staging,
        description: Description,
    ) -> Result<Artifact, ArtifactError> {
        let (rootfs, memory, device_state) = tokio::try_join!(
            staged_record(staging.path(Part::Rootfs)),
            staged_record(staging.path(Part::Memory)),
            staged_record(staging.path(Part::DeviceState)),
        )?;
        let manifest = description.manifest(rootfs, memory, device_state)?;
        let store = self.clone();
        blocking(move || store.publish_blocking(staging, manifest)).await
    }

    fn publish_blocking(
        &self,
        staging: Staging,
        manifest: Manifest,
    ) -> Result<Artifact, ArtifactError> {
        let encoded = manifest.encode()?;
        if u64::try_from(encoded.len()).is_ok_and(|bytes| bytes > self.limits.manifest_bytes_max) {
            return Err(ArtifactError::ManifestTooLarge {
                bytes: encoded.len(),
                max: self.limits.manifest_bytes_max,
            });
        }
        staging.seal(&encoded)?;
        let id = manifest.artifact_id.clone();
        let dir = self.dir(&id);
        let moved = rustix::fs::renameat_with(
            rustix::fs::CWD,
            staging.dir(),
            rustix::fs::CWD,
            &dir,
            RenameFlags::NOREPLACE,
        );
        match moved {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return self.get_blocking(&id),
            Err(error) => return Err(io_error("publish", &dir)(error.into())),
        }
        let lock = staging.keep();
        // Readers that found the folder meanwhile wait for this.
        lock.lock_shared().map_err(io_error("lock", &dir))?;
        sync_dir(&self.root)?;
        Ok(Artifact {
            dir,
            manifest,
            _lease: Arc::new(lock),
        })
    }

    /// The artifact `id`, if its manifest is what its name says and its files have their sizes.
    ///
    /// # Errors
    /// [`ArtifactError::Missing`], [`ArtifactError::Schema`] if a later version made it,
    /// [`ArtifactError::Corrupt`], [`ArtifactError::Io`].
    pub async fn get(&self, id: &ArtifactId) -> Result<Artifact, ArtifactError> {
        let (store, id) = (self.clone(), id.clone());
        blocking(move || {
            let artifact = store.get_blocking(&id)?;
            listing::stamp(&artifact.dir);
            Ok(artifact)
        })
        .await
    }

    fn get_blocking(&self, id: &ArtifactId) -> Result<Artifact, ArtifactError> {
        let dir = self.dir(id);
        let lock = open_dir(&dir, id)?;
        // Only held against this for the moment of a publication or a removal.
        lock.lock_shared().map_err(io_error("lock", &dir))?;
        if !is_same(&lock, &dir)? {
            return Err(ArtifactError::Missing { id: id.clone() });
        }
        let path = dir.join(MANIFEST);
        let encoded = error::read_bounded(&path, self.limits.manifest_bytes_max)
            .map_err(|error| missing_file(id, MANIFEST, &path, error))?;
        let manifest = Manifest::decode(&encoded, id)?;
        for part in Part::ALL {
            let path = dir.join(part.file_name());
            let metadata = fs::symlink_metadata(&path)
                .map_err(|error| missing_file(id, part.file_name(), &path, error))?;
            let expected = part.record(&manifest).bytes;
            if !metadata.is_file() || metadata.len() != expected {
                let reason = format!(
                    "{} has {} bytes instead of {expected}",
                    part.file_name(),
                    metadata.len()
                );
                return Err(corrupt(id, reason));
            }
        }
        Ok(Artifact {
            dir,
            manifest,
            _lease: Arc::new(lock),
        })
    }

    /// The names of all artifacts, in order.
    ///
    /// # Errors
    /// [`ArtifactError::Io`].
    pub async fn list(&self) -> Result<Vec<ArtifactId>, ArtifactError> {
        let root = Arc::clone(&self.root);
        blocking(move || {
            let mut ids = Vec::new();
            for entry in fs::read_dir(&root).map_err(io_error("list", &root))? {
                let entry = entry.map_err(io_error("list", &root))?;
                ids.extend(
                    entry
                        .file_name()
                        .to_str()
                        .and_then(|name| name.parse().ok()),
                );
            }
            ids.sort_unstable();
            Ok(ids)
        })
        .await
    }

    /// Removes an artifact.
    ///
    /// # Errors
    /// [`ArtifactError::InUse`] while anyone holds it, [`ArtifactError::Missing`],
    /// [`ArtifactError::Io`].
    pub async fn remove(&self, id: &ArtifactId) -> Result<(), ArtifactError> {
        self.claim(id).await?.remove().await
    }

    fn dir(&self, id: &ArtifactId) -> PathBuf {
        self.root.join(id.as_str())
    }
}

/// Opens the folder of an artifact.
fn open_dir(dir: &Path, id: &ArtifactId) -> Result<File, ArtifactError> {
    match File::open(dir) {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(ArtifactError::Missing { id: id.clone() })
        }
        Err(error) => Err(io_error("open", dir)(error)),
    }
}

/// Whether a path still leads to the file that was opened by it: it may have been renamed before
/// it was locked.
fn is_same(file: &File, path: &Path) -> Result<bool, ArtifactError> {
    let opened = file.metadata().map_err(io_error("stat", path))?;
    match fs::symlink_metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("stat", path)(error)),
    }
}

/// A file of an artifact that is missing is damage; what else is wrong with it is not.
fn missing_file(id: &ArtifactId, name: &str, path: &Path, error: io::Error) -> ArtifactError {
    if error.kind() == io::ErrorKind::NotFound {
        return corrupt(id, format!("{name} is missing"));
    }
    io_error("read", path)(error)
}

fn corrupt(id: &ArtifactId, reason: impl Into<String>) -> ArtifactError {
    ArtifactError::Corrupt {
        id: id.clone(),
        reason: reason.into(),
    }
}

/// The record of a file that must be there and be a plain one.
async fn staged_record(path: PathBuf) -> Result<FileRecord, ArtifactError> {
    let metadata = tokio::fs::symlink_metadata(&path).await;
    if !metadata.is_ok_and(|metadata| metadata.is_file()) {
        return Err(ArtifactError::Incomplete { path });
    }
    file_record(path).await
}

async fn file_record(path: PathBuf) -> Result<FileRecord, ArtifactError> {
    blocking(move || {
        let (digest, bytes) = sparse::digest(&path).map_err(io_error("read", &path))?;
        Ok(FileRecord { digest, bytes })
    })
    .await
}

fn set_mode(path: &Path, mode: u32) -> Result<(), ArtifactError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(io_error("set the mode of", path))
}

/// Makes names in a folder survive a loss of power.
fn sync_dir(dir: &Path) -> Result<(), ArtifactError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("sync", dir))
}

#[cfg(test)]
mod tests;
