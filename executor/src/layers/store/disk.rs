//! The store's files: their format, and the order of writes that a crash cannot undo.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use domain::Digest;
use domain::time::Timestamp;
use rustix::fs::{AtFlags, FlockOperation, Timespec, Timestamps, UTIME_NOW};
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use super::{Beneath, Staging, StoreError};
use crate::layers::remove::remove_tree;

pub(super) const DIFF: &str = "diff";
pub(super) const WORK: &str = "work";
pub(super) const META: &str = "meta.json";
pub(super) const TEMPORARY: &str = ".tmp-";
const LOCK: &str = "lock";
const BENEATH: &str = "beneath";
const BOTTOM: &str = "bottom";
const FORMAT: u32 = 1;

/// The description beside a layer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Meta {
    format: u32,
    pub(super) key: Digest,
    pub(super) content_bytes: u64,
}

/// Makes the store's folder if it is missing, and takes it for this process.
pub(super) fn lock(root: &Path) -> Result<OwnedFd, StoreError> {
    fs::DirBuilder::new()
        .recursive(true)
        // Layers hold setuid programs and secrets of strangers: none of it for local users.
        .mode(0o700)
        .create(root)
        .map_err(failed("create", root))?;
    let path = root.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed("open", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file.into()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Owned {
            root: root.to_owned(),
        }),
        Err(error) => Err(failed("lock", &path)(error.into())),
    }
}

/// Removes what is half done or not valid; gives the layers, longest unused first.
pub(super) fn recover(root: &Path) -> Result<Vec<Meta>, StoreError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).map_err(failed("list", root))? {
        let entry = entry.map_err(failed("list", root))?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if name.starts_with(TEMPORARY) {
            remove(&path)?;
        } else if let Ok(key) = Digest::from_hex(&name) {
            if let Some(layer) = read_meta(&path, &key) {
                found.push(layer);
            } else {
                tracing::warn!(path = %path.display(), "a damaged layer is removed");
                remove(&path)?;
            }
        }
    }
    found.sort_unstable_by_key(|(used, meta)| (*used, meta.key));
    Ok(found.into_iter().map(|(_, meta)| meta).collect())
}

/// The description of a complete layer of this format, with its last use.
fn read_meta(folder: &Path, key: &Digest) -> Option<((i64, i64), Meta)> {
    let path = folder.join(META);
    let status = fs::metadata(&path).ok()?;
    let meta: Meta = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    let valid = meta.format == FORMAT && meta.key == *key && folder.join(DIFF).is_dir();
    valid.then_some(((status.mtime(), status.mtime_nsec()), meta))
}

/// Keeps a finished layer under its final name; gives the bytes it takes.
pub(super) fn commit(
    root: &Path,
    key: &Digest,
    staging: &Staging,
    target: &Path,
) -> Result<u64, StoreError> {
    remove(staging.work_path())?;
    let content_bytes = allocated_bytes(staging.path())?;
    let meta = Meta {
        format: FORMAT,
        key: *key,
        content_bytes,
    };
    let path = staging.folder().join(META);
    let text =
        serde_json::to_vec(&meta).map_err(|error| failed("describe", &path)(error.into()))?;
    fs::write(&path, text).map_err(failed("write", &path))?;
    let folder = File::open(root).map_err(failed("open", root))?;
    // One sync of the filesystem is two orders of magnitude cheaper than one for each file.
    rustix::fs::syncfs(&folder).map_err(|error| failed("sync", root)(error.into()))?;
    // What stands there is not in the index: a layer whose content an operator removed.
    remove(target)?;
    rename(staging.folder(), target)?;
    staging.keep();
    folder.sync_all().map_err(failed("sync", root))?;
    Ok(content_bytes)
}

/// Bytes that a tree takes on the disk, files with several names counted once.
fn allocated_bytes(tree: &Path) -> Result<u64, StoreError> {
    const STAT_BLOCK_BYTES: u64 = 512;
    let mut shared = HashSet::new();
    let mut bytes = 0;
    for entry in WalkDir::new(tree) {
        let status = entry
            .and_then(|entry| entry.metadata())
            .map_err(|error| failed("measure", tree)(error.into()))?;
        let counts =
            status.is_dir() || status.nlink() == 1 || shared.insert((status.dev(), status.ino()));
        if counts {
            bytes += status.blocks() * STAT_BLOCK_BYTES;
        }
    }
    Ok(bytes)
}

/// Notes that a layer is used now.
pub(super) fn stamp(meta: &Path) -> io::Result<()> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    rustix::fs::utimensat(rustix::fs::CWD, meta, &times, AtFlags::empty())?;
    Ok(())
}

/// When a layer was used last.
pub(super) fn used_at(folder: &Path) -> Option<Timestamp> {
    let status = fs::metadata(folder.join(META)).ok()?;
    let micros = status.mtime().checked_mul(1_000_000)?;
    Timestamp::from_unix_micros(micros.checked_add(status.mtime_nsec() / 1000)?)
}

/// Writes what a layer lies on. The first word stands.
pub(super) fn lay(folder: &Path, beneath: Beneath) -> io::Result<()> {
    let text = match beneath {
        Beneath::Unknown => return Ok(()),
        Beneath::Bottom => BOTTOM.to_owned(),
        Beneath::Layer(key) => key.hex(),
    };
    match std::os::unix::fs::symlink(text, folder.join(BENEATH)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What a layer lies on, as far as it was written.
pub(super) fn beneath(folder: &Path) -> Beneath {
    let Ok(text) = fs::read_link(folder.join(BENEATH)) else {
        return Beneath::Unknown;
    };
    match text.to_str() {
        Some(BOTTOM) => Beneath::Bottom,
        Some(hex) => Digest::from_hex(hex).map_or(Beneath::Unknown, Beneath::Layer),
        None => Beneath::Unknown,
    }
}

/// Bytes that are free on the store's filesystem for whoever may use the last of them.
pub(super) fn free_bytes(root: &Path) -> Result<u64, StoreError> {
    let status = rustix::fs::statvfs(root)
        .map_err(|error| failed("ask for the free space of", root)(error.into()))?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

pub(super) fn create_folder(path: &Path) -> Result<(), StoreError> {
    fs::create_dir(path).map_err(failed("create", path))
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(failed("rename", from))
}

pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    remove_tree(path).map_err(failed("remove", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path: PathBuf = path.to_owned();
    move |source| StoreError::Io {
        action,
        path,
        source,
    }
}
