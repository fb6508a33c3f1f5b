//! What artifacts there are, who uses them, and taking one away.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use domain::Digest;
use domain::ids::ArtifactId;
use domain::time::Timestamp;
use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_NOW};

use super::error::{blocking, io_error};
use super::staging::new_staging;
use super::{
    Artifact, ArtifactError, ArtifactStore, KEYS, MANIFEST, Manifest, is_same, open_dir, sync_dir,
};

/// An artifact as the store's list shows it.
#[derive(Clone, Debug)]
pub struct StoredArtifact {
    /// Its name.
    pub id: ArtifactId,
    /// What it says about itself; nothing if it is damaged.
    pub manifest: Option<Manifest>,
    /// The bytes that its files take on the disk, which is less than they hold: they have holes.
    pub disk_bytes: u64,
    /// When a build or a machine used it last.
    pub used_at: Option<Timestamp>,
    /// Whether anyone holds it now, in any process.
    pub in_use: bool,
}

/// An artifact that nobody uses and, while this value lives, nobody can begin to.
#[derive(Debug)]
pub struct Claim {
    store: ArtifactStore,
    id: ArtifactId,
    lock: File,
}

impl Claim {
    /// The artifact.
    pub fn id(&self) -> &ArtifactId {
        &self.id
    }

    /// Removes it.
    ///
    /// # Errors
    /// [`ArtifactError::Io`].
    pub async fn remove(self) -> Result<(), ArtifactError> {
        blocking(move || {
            let dir = self.store.dir(&self.id);
            // The name goes at once; the files may take a while.
            let grave = new_staging(&self.store.root, self.store.limits.stage_attempts_max)?;
            fs::rename(&dir, grave.dir().join("removed")).map_err(io_error("remove", &dir))?;
            drop(self.lock);
            sync_dir(&self.store.root)
        })
        .await
    }
}

impl ArtifactStore {
    /// Takes an artifact for its removal.
    ///
    /// # Errors
    /// [`ArtifactError::InUse`] while anyone holds it, [`ArtifactError::Missing`],
    /// [`ArtifactError::Io`].
    pub async fn claim(&self, id: &ArtifactId) -> Result<Claim, ArtifactError> {
        let (store, id) = (self.clone(), id.clone());
        blocking(move || {
            let dir = store.dir(&id);
            let lock = open_dir(&dir, &id)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => return Err(ArtifactError::InUse { id }),
                Err(fs::TryLockError::Error(source)) => return Err(io_error("lock", &dir)(source)),
            }
            if !is_same(&lock, &dir)? {
                return Err(ArtifactError::Missing { id });
            }
            Ok(Claim { store, id, lock })
        })
        .await
    }

    /// As [`ArtifactStore::get`], but no use of it.
    ///
    /// # Errors
    /// As there.
    pub async fn peek(&self, id: &ArtifactId) -> Result<Artifact, ArtifactError> {
        let (store, id) = (self.clone(), id.clone());
        blocking(move || store.get_blocking(&id)).await
    }

    /// All artifacts, the longest unused first.
    ///
    /// # Errors
    /// [`ArtifactError::Io`].
    pub async fn stored(&self) -> Result<Vec<StoredArtifact>, ArtifactError> {
        let ids = self.list().await?;
        let store = self.clone();
        blocking(move || {
            let mut stored: Vec<StoredArtifact> = ids
                .into_iter()
                .filter_map(|id| store.look_at(id).transpose())
                .collect::<Result<_, _>>()?;
            stored.sort_by(|one, other| (one.used_at, &one.id).cmp(&(other.used_at, &other.id)));
            Ok(stored)
        })
        .await
    }

    /// `None`: it has gone meanwhile.
    fn look_at(&self, id: ArtifactId) -> Result<Option<StoredArtifact>, ArtifactError> {
        const STAT_BLOCK_BYTES: u64 = 512;
        let dir = self.dir(&id);
        let lock = match open_dir(&dir, &id) {
            Ok(lock) => lock,
            Err(ArtifactError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let in_use = lock.try_lock().is_err();
        drop(lock);
        let manifest = match self.get_blocking(&id) {
            Ok(artifact) => Some(artifact.manifest),
            Err(ArtifactError::Missing { .. }) => return Ok(None),
            Err(ArtifactError::Corrupt { .. } | ArtifactError::Schema { .. }) => None,
            Err(error) => return Err(error),
        };
        let mut disk_bytes = 0;
        for entry in fs::read_dir(&dir).map_err(io_error("list", &dir))? {
            let status = entry.and_then(|entry| entry.metadata());
            disk_bytes += status.map_err(io_error("measure", &dir))?.blocks() * STAT_BLOCK_BYTES;
        }
        Ok(Some(StoredArtifact {
            used_at: used_at(&dir),
            id,
            manifest,
            disk_bytes,
            in_use,
        }))
    }

    /// Which artifact each key of a finished build stands for.
    ///
    /// # Errors
    /// [`ArtifactError::Io`].
    pub async fn links(&self) -> Result<Vec<(Digest, ArtifactId)>, ArtifactError> {
        let folder = self.root.join(KEYS);
        blocking(move || {
            let mut links = Vec::new();
            for entry in fs::read_dir(&folder).map_err(io_error("list", &folder))? {
                let entry = entry.map_err(io_error("list", &folder))?;
                let key = entry
                    .file_name()
                    .to_str()
                    .and_then(|name| Digest::from_hex(name).ok());
                if let Some(key) = key
                    && let Some(id) = super::keys::linked(&entry.path())?
                {
                    links.push((key, id));
                }
            }
            links.sort_unstable();
            Ok(links)
        })
        .await
    }
}

fn used_at(dir: &Path) -> Option<Timestamp> {
    let status = fs::metadata(dir.join(MANIFEST)).ok()?;
    let micros = status.mtime().checked_mul(1_000_000)?;
    Timestamp::from_unix_micros(micros.checked_add(status.mtime_nsec() / 1000)?)
}

/// Notes that an artifact is used now, as its manifest's time of change: a lost note changes nothing
/// but what a list shows.
pub(super) fn stamp(dir: &Path) {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    let manifest = dir.join(MANIFEST);
    let stamped = rustix::fs::utimensat(rustix::fs::CWD, &manifest, &times, AtFlags::empty());
    if let Err(error) = stamped {
        tracing::debug!(path = %manifest.display(), %error, "an artifact's last use was not written");
    }
}
