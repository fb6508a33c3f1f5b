//! Folders that are not artifacts yet, or no longer.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use domain::build::FileRecord;
use tempfile::TempDir;

use super::error::{blocking, io_error};
use super::{ArtifactError, FILE_MODE, FOLDER_MODE, MANIFEST, Manifest, is_same, set_mode};
use crate::rootfs::sparse;

/// How the names of temporary folders begin.
pub(super) const TEMPORARY_PREFIX: &str = ".tmp-";

/// A file of every artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The root file system as an ext4 image.
    Rootfs,
    /// The machine's memory.
    Memory,
    /// The state of its devices.
    DeviceState,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Rootfs, Self::Memory, Self::DeviceState];

    /// The file's name in its folder.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Rootfs => "rootfs.ext4",
            Self::Memory => "memory",
            Self::DeviceState => "device-state",
        }
    }

    /// What a manifest says about it.
    pub const fn record(self, manifest: &Manifest) -> &FileRecord {
        match self {
            Self::Rootfs => &manifest.rootfs,
            Self::Memory => &manifest.memory,
            Self::DeviceState => &manifest.device_state,
        }
    }
}

/// A folder in which an artifact is made. Dropping it removes it.
#[derive(Debug)]
pub struct Staging {
    dir: TempDir,
    /// Locked against being swept.
    lock: File,
}

impl Staging {
    /// The folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where a file of the artifact must be.
    pub fn path(&self, part: Part) -> PathBuf {
        self.dir().join(part.file_name())
    }

    /// Moves a file to its place in the artifact. From another file system it is copied with its
    /// holes, and then removed there.
    ///
    /// # Errors
    /// [`ArtifactError::Io`] or [`ArtifactError::DiskFull`]; the file is then where it was.
    pub async fn adopt(&self, part: Part, from: &Path) -> Result<(), ArtifactError> {
        let (from, to) = (from.to_owned(), self.path(part));
        blocking(move || match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                sparse::copy(&from, &to).map_err(io_error("copy", &to))?;
                fs::remove_file(&from).map_err(io_error("remove", &from))
            }
            moved => moved.map_err(io_error("move", &from)),
        })
        .await
    }

    /// Adds the manifest, gives all files to this process, takes away every right to change
    /// them, and puts them on the disk.
    pub(super) fn seal(&self, manifest: &[u8]) -> Result<(), ArtifactError> {
        let dir = self.dir();
        for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
            let entry = entry.map_err(io_error("list", dir))?;
            let (path, name) = (entry.path(), entry.file_name());
            if Part::ALL.iter().any(|part| name == part.file_name()) {
                continue;
            }
            // No digest covers it.
            let kind = entry.file_type().map_err(io_error("stat", &path))?;
            let removed = if kind.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.map_err(io_error("remove", &path))?;
        }
        let path = dir.join(MANIFEST);
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(manifest))
            .map_err(io_error("write", &path))?;
        let names = Part::ALL.map(Part::file_name);
        for name in names.into_iter().chain([MANIFEST]) {
            seal_file(&dir.join(name))?;
        }
        set_mode(dir, FOLDER_MODE)?;
        self.lock.sync_all().map_err(io_error("sync", dir))
    }

    /// The lock of a folder that has been renamed: nothing is to be removed any more.
    pub(super) fn keep(self) -> File {
        // The path that is given back leads nowhere now.
        drop(self.dir.keep());
        self.lock
    }
}

/// A VMM that ran as another user may own the file.
fn seal_file(path: &Path) -> Result<(), ArtifactError> {
    let file = File::open(path).map_err(io_error("open", path))?;
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    fchown(&file, Some(user.as_raw()), Some(group.as_raw())).map_err(io_error("own", path))?;
    set_mode(path, FILE_MODE)?;
    file.sync_all().map_err(io_error("sync", path))
}

/// Makes a temporary folder and locks it.
pub(super) fn new_staging(root: &Path, attempts_max: u32) -> Result<Staging, ArtifactError> {
    for _ in 0..attempts_max {
        let dir = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .tempdir_in(root)
            .map_err(io_error("make a folder in", root))?;
        let lock = match File::open(dir.path()) {
            Ok(file) => file,
            // Swept between making and opening.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io_error("open", dir.path())(error)),
        };
        lock.lock().map_err(io_error("lock", dir.path()))?;
        if is_same(&lock, dir.path())? {
            set_mode(dir.path(), FOLDER_MODE)?;
            return Ok(Staging { dir, lock });
        }
    }
    let error = io::Error::other("each new folder was swept away by another process");
    Err(io_error("make a folder in", root)(error))
}

/// Removes the temporary folders that no one has locked.
pub(super) fn sweep(root: &Path) -> Result<(), ArtifactError> {
    for entry in fs::read_dir(root).map_err(io_error("list", root))? {
        let entry = entry.map_err(io_error("list", root))?;
        let path = entry.path();
        let name = entry.file_name();
        if !name
            .as_encoded_bytes()
            .starts_with(TEMPORARY_PREFIX.as_bytes())
        {
            continue;
        }
        let lock = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => continue,
            Err(fs::TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
        }
        match fs::remove_dir_all(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what was left unfinished"),
            // Another process sweeps, too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("remove", &path)(error)),
        }
    }
    Ok(())
}
