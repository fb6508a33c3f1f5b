//! The folder of an embedded log: its lock, its files, and sled itself.

use std::error::Error;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::ports::LogError;

use super::anchor;
use crate::limits::LogLimits;
use crate::log::damaged;

/// sled's data file.
pub(super) const DB_FILE: &str = "db";
/// sled's parameters.
pub(super) const CONF_FILE: &str = "conf";
const LOCK_FILE: &str = "lock";

/// Another process has the log.
#[derive(Debug, thiserror::Error)]
#[error("another process has the event log in `{}` open", dir.display())]
pub struct Locked {
    /// The log's folder.
    pub dir: PathBuf,
}

pub(super) fn unavailable(err: impl Error + Send + Sync + 'static) -> LogError {
    LogError::Unavailable(Arc::new(err))
}

/// Makes what was created or renamed in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The right to use a log's folder; given back when it is dropped.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes it, if nobody has it. The folder is made if it is not there.
    ///
    /// # Errors
    /// [`LogError::Unavailable`], with [`Locked`] if somebody has it.
    pub(super) fn take(dir: &Path) -> Result<Self, LogError> {
        fs::create_dir_all(dir).map_err(unavailable)?;
        let file = File::create(dir.join(LOCK_FILE)).map_err(unavailable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(unavailable(Locked {
                dir: dir.to_owned(),
            })),
            Err(TryLockError::Error(err)) => Err(unavailable(err)),
        }
    }
}

/// Refuses a folder from which a file has gone, before sled makes an empty one in its place.
pub(super) fn check_present(dir: &Path, anchored: bool) -> Result<(), LogError> {
    let present = |name: &str| dir.join(name).try_exists().map_err(unavailable);
    let (db, conf) = (present(DB_FILE)?, present(CONF_FILE)?);
    // sled makes `conf` before `db`, and the anchor is written once both are there.
    let missing = match (db, conf) {
        (false, _) if anchored => DB_FILE,
        (true, false) => CONF_FILE,
        (true | false, _) => return Ok(()),
    };
    Err(LogError::Damaged {
        place: dir.join(missing).display().to_string(),
        what: "the file is missing, though the log was written".to_owned(),
    })
}

/// sled and our own handle of its file.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pub(super) db: sled::Db,
    file: Arc<File>,
}

impl Store {
    /// Opens sled in `dir`. It panics on some damages.
    pub(super) fn open(dir: &Path, limits: &LogLimits) -> Result<Self, LogError> {
        let db = sled::Config::new()
            .path(dir)
            .cache_capacity(limits.cache_bytes)
            .flush_every_ms(Some(limits.flush_every_ms))
            .open()
            .map_err(|err| storage(dir, err))?;
        let file = File::open(dir.join(DB_FILE)).map_err(unavailable)?;
        let store = Self {
            db,
            file: Arc::new(file),
        };
        store.settle(dir).map_err(unavailable)?;
        Ok(store)
    }

    /// Makes the files themselves durable: sled does not.
    fn settle(&self, dir: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        File::open(dir.join(CONF_FILE))?.sync_all()?;
        sync_dir(dir)?;
        dir.parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .map_or(Ok(()), sync_dir)
    }

    /// Writes `batch` durably: at once, or, after a failure, perhaps not at all.
    pub(super) fn commit(&self, batch: sled::Batch) -> Result<(), sled::Error> {
        self.db.apply_batch(batch)?;
        self.db.flush()?;
        // sled's flush leaves the device's cache and the file's length out; a sync acts on the
        // file, whichever handle wrote it.
        Ok(self.file.sync_data()?)
    }
}

/// What an error of sled means for the log in `dir`.
pub(super) fn storage(dir: &Path, err: sled::Error) -> LogError {
    match err {
        // sled has a lock of its own, and no kind of error for it. It outlives the log for a
        // moment: sled's threads end later, and so does a process that is just being forked.
        sled::Error::Io(err) if err.to_string().contains("could not acquire lock") => {
            unavailable(Locked {
                dir: dir.to_owned(),
            })
        }
        sled::Error::Io(err) => unavailable(err),
        sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)
        | sled::Error::Corruption { .. } => damaged(dir.display().to_string(), &err),
    }
}

/// A copy of a log's files, removed when it is dropped.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) dir: PathBuf,
}

impl Copy {
    /// Copies sled's files and the anchor of the log in `dir` to a folder beside it.
    pub(super) fn of(dir: &Path) -> io::Result<Self> {
        let mut name = dir.file_name().unwrap_or_default().to_owned();
        name.push(format!(".verify-{}", std::process::id()));
        let copy = Self {
            dir: dir.with_file_name(name),
        };
        fs::create_dir(&copy.dir)?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let wanted = [DB_FILE, CONF_FILE, anchor::FILE];
            let snapshot = name.to_string_lossy().starts_with("snap.");
            if snapshot || wanted.iter().any(|file| name == *file) {
                fs::copy(entry.path(), copy.dir.join(name))?;
            }
        }
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(err) = fs::remove_dir_all(&self.dir) {
            tracing::warn!(path = %self.dir.display(), error = %err, "a copy of the log stays");
        }
    }
}
