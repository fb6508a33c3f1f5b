//! Removal of trees that strangers made.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::lowers::open_root;

/// Removes the file or the whole tree at `path`; nothing there is fine.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    match open_root(parent) {
        Ok(parent) => remove_at(&parent, name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes the file or the whole tree `name` in an open folder; nothing there is fine.
///
/// Folders can be nested deeper than any path, stack or table of open files: only one is open at a
/// time, and the way back up is by `..`. Links are not followed.
pub(crate) fn remove_at(parent: &impl AsFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut above: Vec<Level> = Vec::new();
    let (mut folder, mut level) = Level::enter(parent, name.to_owned())?;
    loop {
        if let Some(inner) = level.folders.pop() {
            let below;
            (folder, below) = Level::enter(&folder, inner)?;
            above.push(std::mem::replace(&mut level, below));
        } else if let Some(outer) = above.pop() {
            folder = open_folder(&folder, OsStr::new(".."))?;
            if identity(&folder)? != outer.identity {
                return Err(io::Error::other("a folder was moved while it was removed"));
            }
            let empty = std::mem::replace(&mut level, outer);
            rustix::fs::unlinkat(&folder, &empty.name, AtFlags::REMOVEDIR)?;
        } else {
            rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
            return Ok(());
        }
    }
}

/// A folder on the way down.
struct Level {
    name: OsString,
    identity: (u64, u64),
    /// The folders in it that are still there.
    folders: Vec<OsString>,
}

impl Level {
    /// Opens a folder and removes its files.
    fn enter(parent: &impl AsFd, name: OsString) -> io::Result<(OwnedFd, Self)> {
        let folder = open_folder(parent, &name)?;
        let level = Self {
            identity: identity(&folder)?,
            folders: remove_files(&folder)?,
            name,
        };
        Ok((folder, level))
    }
}

fn identity(folder: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(folder)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Removes all that is no folder, and gives the names of the folders.
fn remove_files(folder: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut folders = Vec::new();
    for name in names(folder)? {
        match rustix::fs::unlinkat(folder, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => folders.push(name),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(folders)
}

/// The names in a folder, without `.` and `..`.
pub(super) fn names(folder: &impl AsFd) -> io::Result<Vec<OsString>> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == FileType::Directory && (name == b"." || name == b"..") {
            continue;
        }
        names.push(OsStr::from_bytes(name).to_owned());
    }
    Ok(names)
}

fn open_folder(parent: &impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_a_path_goes_away_and_links_stay_unfollowed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        std::fs::write(&kept, "k").unwrap();
        std::fs::create_dir(dir.path().join("top")).unwrap();
        std::os::unix::fs::symlink("..", dir.path().join("top/up")).unwrap();
        let mut folder = open_folder(&open_root(dir.path()).unwrap(), OsStr::new("top")).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&folder, "deeper", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&folder, ".removed-7", Mode::RWXU).unwrap();
            folder = open_folder(&folder, OsStr::new("deeper")).unwrap();
        }
        remove_tree(&dir.path().join("top")).unwrap();
        assert!(!dir.path().join("top").exists());
        assert_eq!(std::fs::read(&kept).unwrap(), b"k");
        remove_tree(&dir.path().join("top")).unwrap();
    }
}
