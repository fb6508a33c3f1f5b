//! Rows in a folder, by sled. The folder is disposable: whatever is wrong with it, it is deleted
//! and the views are folded anew.
//!
//! The engine's files are not synced: after a power cut rows may be missing. That is found on open,
//! because the last commit says how many rows there are and what they sum up to.

use std::fs::{self, File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::seal::Seal;
use super::{Changes, Checkpoint, Row, Scan, StoreError, ViewStore};
use crate::limits::EmbeddedLimits;

/// The key of the row that says how far the rows are. Tables' names do not begin with a zero byte.
const META_KEY: &[u8] = b"\0meta";

/// Rows in a folder.
#[derive(Debug)]
pub struct Embedded {
    rows_folder: PathBuf,
    limits: EmbeddedLimits,
    /// Nothing after a failed attempt to open the store anew.
    engine: RwLock<Option<sled::Db>>,
    /// Held as long as the store lives; the engine's own lock dies with the folder it is in.
    _lock: File,
}

/// What is kept beside the rows.
#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    checkpoint: Checkpoint,
    seal: Seal,
}

impl Embedded {
    /// Opens the rows in `folder`, and makes it if it is not there. Blocks: it reads every row.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has the folder; any other [`StoreError`] if not
    /// even an empty store can be made there.
    pub fn open(folder: &Path, limits: EmbeddedLimits) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(|source| StoreError::Folder {
            action: "make",
            path: folder.to_owned(),
            source,
        })?;
        let lock = lock(&folder.join("lock"))?;
        let rows_folder = folder.join("rows");
        let engine = match open_engine(&rows_folder, limits) {
            Ok(engine) => engine,
            Err(err) => {
                tracing::warn!(
                    error = crate::as_error(&err),
                    path = %rows_folder.display(),
                    "the views cannot be used and are folded anew"
                );
                delete(&rows_folder)?;
                open_engine(&rows_folder, limits)?
            }
        };
        Ok(Self {
            rows_folder,
            limits,
            engine: RwLock::new(Some(engine)),
            _lock: lock,
        })
    }

    /// Does something with the engine, whose panics are errors.
    fn with<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&sled::Db) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        let engine = engine.as_ref().ok_or(StoreError::Closed)?;
        guarded(action, || work(engine))
    }
}

impl ViewStore for Embedded {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        const ACTION: &str = "read a row";
        self.with(ACTION, |engine| {
            let value = engine.get(key).map_err(|err| failed(ACTION, err))?;
            Ok(value.map(|value| value.to_vec()))
        })
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<Row>, StoreError> {
        const ACTION: &str = "read rows";
        if scan.from >= scan.to {
            return Ok(Vec::new());
        }
        self.with(ACTION, |engine| {
            let range = engine.range(scan.from.as_slice()..scan.to.as_slice());
            let owned = |row: sled::Result<(sled::IVec, sled::IVec)>| {
                row.map(|(key, value)| (key.to_vec(), value.to_vec()))
                    .map_err(|err| failed(ACTION, err))
            };
            if scan.backwards {
                range.rev().take(scan.count_max).map(owned).collect()
            } else {
                range.take(scan.count_max).map(owned).collect()
            }
        })
    }

    fn checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        self.with("read the checkpoint", |engine| {
            Ok(meta(engine)?.map(|meta| meta.checkpoint))
        })
    }

    fn commit(&self, changes: &Changes, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        const ACTION: &str = "commit rows";
        self.with(ACTION, |engine| {
            let mut seal = meta(engine)?.map(|meta| meta.seal).unwrap_or_default();
            let mut batch = sled::Batch::default();
            for (key, value) in changes {
                if let Some(old) = engine.get(key).map_err(|err| failed(ACTION, err))? {
                    seal.remove(key, &old);
                }
                match value {
                    Some(value) => {
                        seal.add(key, value);
                        batch.insert(key.as_slice(), value.as_slice());
                    }
                    None => batch.remove(key.as_slice()),
                }
            }
            let meta = Meta {
                checkpoint: checkpoint.clone(),
                seal,
            };
            let meta =
                serde_json::to_vec(&meta).map_err(|source| StoreError::row(META_KEY, source))?;
            batch.insert(META_KEY, meta);
            engine.apply_batch(batch).map_err(|err| failed(ACTION, err))
        })
    }

    fn reset(&self) -> Result<(), StoreError> {
        let mut engine = self.engine.write().unwrap_or_else(PoisonError::into_inner);
        let old = engine.take();
        // What a damaged engine says when it is closed does not matter: its files go away.
        if let Err(err) = guarded("close", || {
            drop(old);
            Ok(())
        }) {
            tracing::warn!(error = crate::as_error(&err), "closing damaged views");
        }
        delete(&self.rows_folder)?;
        *engine = Some(open_engine(&self.rows_folder, self.limits)?);
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        const ACTION: &str = "write out rows";
        self.with(ACTION, |engine| {
            engine
                .flush()
                .map(|_bytes| ())
                .map_err(|err| failed(ACTION, err))
        })
    }
}

/// Takes the lock, or says who has it.
fn lock(path: &Path) -> Result<File, StoreError> {
    let folder_error = |source| StoreError::Folder {
        action: "lock",
        path: path.to_owned(),
        source,
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(folder_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(folder_error(source)),
    }
}

/// Deletes what is there under this name, be it a folder or, by accident, a file.
fn delete(path: &Path) -> Result<(), StoreError> {
    let deleted = match fs::remove_dir_all(path) {
        Err(err) if err.kind() == std::io::ErrorKind::NotADirectory => fs::remove_file(path),
        deleted => deleted,
    };
    match deleted {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(StoreError::Folder {
            action: "delete",
            path: path.to_owned(),
            source,
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Opens the engine and checks that every row is there.
fn open_engine(folder: &Path, limits: EmbeddedLimits) -> Result<sled::Db, StoreError> {
    const ACTION: &str = "open";
    wait_for_release(&folder.join("db"))?;
    guarded(ACTION, || {
        let engine = sled::Config::new()
            .path(folder)
            .cache_capacity(limits.cache_bytes_max)
            .flush_every_ms(Some(limits.flush_interval_ms))
            .open()
            .map_err(|err| failed(ACTION, err))?;
        check_seal(&engine)?;
        Ok(engine)
    })
}

/// Waits until nobody has the engine's file. A thread of the engine may hold it a moment longer
/// than the store that was closed, and the engine itself does not wait. No other process can have
/// it: whoever opens it has our own lock first.
fn wait_for_release(path: &Path) -> Result<(), StoreError> {
    let released = match File::open(path) {
        Ok(file) => file.lock(),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(err) => Err(err),
    };
    released.map_err(|source| StoreError::Folder {
        action: "lock",
        path: path.to_owned(),
        source,
    })
}

fn check_seal(engine: &sled::Db) -> Result<(), StoreError> {
    const ACTION: &str = "check the rows";
    let mut found = Seal::default();
    for row in engine.iter() {
        let (key, value) = row.map_err(|err| failed(ACTION, err))?;
        if key.as_ref() != META_KEY {
            found.add(&key, &value);
        }
    }
    let wanted = meta(engine)?.map(|meta| meta.seal).unwrap_or_default();
    if found == wanted {
        return Ok(());
    }
    Err(StoreError::Damaged(format!(
        "{} rows were committed, {} are there, or some are changed",
        wanted.row_count(),
        found.row_count()
    )))
}

fn meta(engine: &sled::Db) -> Result<Option<Meta>, StoreError> {
    engine
        .get(META_KEY)
        .map_err(|err| failed("read the checkpoint", err))?
        .map(|bytes| {
            serde_json::from_slice(&bytes).map_err(|source| StoreError::row(META_KEY, source))
        })
        .transpose()
}

fn failed(action: &'static str, err: sled::Error) -> StoreError {
    StoreError::Engine {
        action,
        source: Box::new(err),
    }
}

/// Runs `work`; a panic of the engine becomes an error. Nothing that `work` leaves half-made is
/// used again: the caller throws the store away.
fn guarded<T>(
    action: &'static str,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        Err(StoreError::Panicked { action, message })
    })
}

#[cfg(test)]
mod tests;
