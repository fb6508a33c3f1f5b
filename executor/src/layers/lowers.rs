//! The layers beneath the one that is being unpacked, seen as the tree that they make together.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{At, is_whiteout};

/// The folders of the layers beneath, nearest first.
#[derive(Debug, Default)]
pub(super) struct Lowers(Vec<OwnedFd>);

/// What the layers beneath have at a path.
pub(super) enum Found {
    Directory(OwnedFd),
    /// A symbolic link: the folder that holds it, and its target.
    Symlink(OwnedFd, Vec<u8>),
    /// A regular file: the folder that holds it.
    File(OwnedFd),
    /// A device, a pipe or a socket: the folder that holds it.
    Special(OwnedFd),
    Nothing,
}

impl Lowers {
    pub(super) fn open(folders: &[PathBuf]) -> io::Result<Self> {
        folders
            .iter()
            .map(|folder| open_root(folder))
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// The layers.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Looks up a path that holds no symbolic link and no `..` before its last name.
    ///
    /// Each layer is asked in turn until one has the path, or hides it: by a whiteout, by something
    /// that is no folder on the way, or by an opaque folder on the way.
    pub(super) fn lookup(&self, path: &Path) -> io::Result<Found> {
        for root in &self.0 {
            match lookup_in(root, path)? {
                Lookup::Found(found) => return Ok(found),
                Lookup::Hidden => return Ok(Found::Nothing),
                Lookup::Transparent => {}
            }
        }
        Ok(Found::Nothing)
    }
}

enum Lookup {
    Found(Found),
    Hidden,
    Transparent,
}

fn lookup_in(root: &OwnedFd, path: &Path) -> io::Result<Lookup> {
    let mut folder = root.try_clone()?;
    let mut opaque = At::folder(&folder).is_opaque()?;
    let mut names = path.iter().peekable();
    while let Some(name) = names.next() {
        match rustix::fs::openat(&folder, name, FOLDER, Mode::empty()) {
            Ok(next) => {
                folder = next;
                opaque = opaque || At::folder(&folder).is_opaque()?;
            }
            Err(Errno::NOENT) if opaque => return Ok(Lookup::Hidden),
            Err(Errno::NOENT) => return Ok(Lookup::Transparent),
            Err(Errno::NOTDIR | Errno::LOOP) if names.peek().is_some() => {
                return Ok(Lookup::Hidden);
            }
            Err(Errno::NOTDIR | Errno::LOOP) => return not_a_folder(folder, name.to_owned()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Lookup::Found(Found::Directory(folder)))
}

fn not_a_folder(folder: OwnedFd, name: OsString) -> io::Result<Lookup> {
    let stat = rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    Ok(if is_whiteout(&stat) {
        Lookup::Hidden
    } else if kind == FileType::Symlink {
        let target = rustix::fs::readlinkat(&folder, &name, Vec::new())?;
        Lookup::Found(Found::Symlink(folder, target.into_bytes()))
    } else if kind == FileType::RegularFile {
        Lookup::Found(Found::File(folder))
    } else {
        Lookup::Found(Found::Special(folder))
    })
}

/// How folders are opened on the way: not followed if they are links, not readable.
pub(super) const FOLDER: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens a layer's folder.
pub(super) fn open_root(folder: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(folder, FOLDER, Mode::empty())?)
}
