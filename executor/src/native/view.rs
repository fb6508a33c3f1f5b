//! A root filesystem as seen from outside: file operations that cannot leave it.
//!
//! Every path is resolved as if the view were `/`: absolute paths, `..` and symbolic links all end
//! inside. The kernel enforces it (`openat2` with `RESOLVE_IN_ROOT`), so nothing that a step left in
//! the view can lead an operation of ours to a file of the host.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

/// How many symbolic links one path may pass through: the kernel's own bound.
const LINKS_MAX: usize = 40;

/// How often an `openat2` is tried again that lost a race with a rename on the host.
const RETRIES_MAX: usize = 32;

/// A root filesystem, open for work in it.
#[derive(Debug)]
pub struct View {
    root: OwnedFd,
}

/// A path in a view after its symbolic links were followed: relative, without `..`.
///
/// The part of it that exists holds no symbolic link, except the last component if the path was
/// resolved with [`Last::Keep`]. The empty path is the view's root.
pub type Resolved = PathBuf;

/// What to do with a symbolic link that is the last component of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// Go where it points.
    Follow,
    /// Take the link itself.
    Keep,
}

/// Who owns a file, and how it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}

impl Ownership {
    /// User and group 0.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };

    fn ids(self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }
}

impl View {
    /// The view below the folder `root` of the host.
    ///
    /// # Errors
    /// `root` cannot be opened or is no folder.
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        Ok(Self { root })
    }

    /// Follows the links of `path`, which need not exist: what is missing is taken as it is written.
    ///
    /// # Errors
    /// `ELOOP` for too many links, `ENAMETOOLONG`, or an error of the file system.
    pub fn resolve(&self, path: &Path, last: Last) -> io::Result<Resolved> {
        let mut todo = parts(path);
        let mut done = PathBuf::new();
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            if part == ".." {
                done.pop();
                continue;
            }
            let here = done.join(&part);
            let keep = last == Last::Keep && todo.is_empty();
            let link = if keep { None } else { self.read_link(&here)? };
            let Some(target) = link else {
                done = here;
                continue;
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(Errno::LOOP.into());
            }
            if target.is_absolute() {
                done = PathBuf::new();
            }
            for part in parts(&target).into_iter().rev() {
                todo.push_front(part);
            }
        }
        Ok(done)
    }

    /// The text of the link at `path`, if there is a link.
    fn read_link(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        match self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                    return Ok(None);
                }
                let target = rustix::fs::readlinkat(&fd, "", Vec::new())?;
                Ok(Some(PathBuf::from(OsStr::from_bytes(target.as_bytes()))))
            }
            // A missing part, or a part below a file: the operation itself will name the fault.
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens `path` inside the view.
    ///
    /// # Errors
    /// As `openat2`.
    pub fn open_at(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RETRIES_MAX {
            match rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN) => {}
                result => return Ok(result?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// What is at `path`, or nothing.
    ///
    /// # Errors
    /// An error of the file system, other than that there is nothing.
    pub fn stat(&self, path: &Path, last: Last) -> io::Result<Option<Stat>> {
        let flags = match last {
            Last::Follow => OFlags::PATH,
            Last::Keep => OFlags::PATH | OFlags::NOFOLLOW,
        };
        match self.open_at(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(rustix::fs::fstat(&fd)?)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether `path` leads to a folder.
    ///
    /// # Errors
    /// As [`View::stat`].
    pub fn is_dir(&self, path: &Path) -> io::Result<bool> {
        Ok(self
            .stat(path, Last::Follow)?
            .is_some_and(|stat| is_dir(&stat)))
    }

    /// The open parent folder of `path`, and the last component.
    ///
    /// # Errors
    /// `EINVAL` for the view's root itself, and as `openat2`.
    pub fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = path.parent().unwrap_or_else(|| Path::new(""));
        let dir = self.open_at(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok((dir, name))
    }

    /// Reads the file at `path`, of which there may be at most `bytes_max`.
    ///
    /// # Errors
    /// `EFBIG` for a larger file, `EINVAL` for something that is no regular file, and read errors.
    pub fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        // A FIFO in the image must not block the service.
        let fd = self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL.into());
        }
        let mut bytes = Vec::new();
        let limit = bytes_max.saturating_add(1);
        File::from(fd).take(limit).read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
            return Err(Errno::FBIG.into());
        }
        Ok(bytes)
    }

    /// Makes the folder `path` and its missing parents, and says which it made, outermost first.
    ///
    /// # Errors
    /// `ENOTDIR` if a part of the path is something else, and errors of `mkdir`.
    pub fn make_dirs(&self, path: &Path, mode: u32, owner: Ownership) -> io::Result<Vec<Resolved>> {
        let path = self.resolve(path, Last::Follow)?;
        let mut new = Vec::new();
        let mut here = PathBuf::new();
        for part in path.components() {
            here.push(part);
            match self.stat(&here, Last::Keep)? {
                Some(stat) if is_dir(&stat) => {}
                Some(_) => return Err(Errno::NOTDIR.into()),
                None => {
                    self.make_dir(&here, mode, owner)?;
                    new.push(here.clone());
                }
            }
        }
        Ok(new)
    }

    /// Makes the one folder `path`, whose parent exists.
    fn make_dir(&self, path: &Path, mode: u32, owner: Ownership) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700))?;
        self.set_owner(path, owner)?;
        self.set_mode(path, mode)
    }

    /// Sets the owner of `path` itself, not of what a link there points to.
    ///
    /// # Errors
    /// As `fchownat`.
    pub fn set_owner(&self, path: &Path, owner: Ownership) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let (uid, gid) = owner.ids();
        rustix::fs::chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    /// Sets the permission bits of `path`, which must be resolved: the call follows links.
    ///
    /// # Errors
    /// As `fchmodat`; `ELOOP` if `path` is a link.
    pub fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::RDONLY;
        let fd = self.open_at(path, flags, Mode::empty())?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode & 0o7777))?;
        Ok(())
    }

    /// Creates the regular file `path`, which must be resolved and must not exist.
    ///
    /// # Errors
    /// As `open`.
    pub fn create(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o600);
        Ok(File::from(self.open_at(path, flags, mode)?))
    }

    /// Makes a symbolic link that says `target` at `path`, which must be resolved.
    ///
    /// # Errors
    /// As `symlinkat`.
    pub fn symlink(&self, target: &str, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::symlinkat(target, &parent, name)?;
        Ok(())
    }

    /// Removes the name `path`; with `dir`, an empty folder.
    ///
    /// # Errors
    /// As `unlinkat`.
    pub fn unlink(&self, path: &Path, dir: bool) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let flags = if dir {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        rustix::fs::unlinkat(&parent, name, flags)?;
        Ok(())
    }

    /// The names in the folder `path`, sorted.
    ///
    /// # Errors
    /// As `open` and `getdents`.
    pub fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let dir = rustix::fs::Dir::new(self.open_at(path, flags, Mode::empty())?)?;
        let mut names = Vec::new();
        for entry in dir {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// Whether the error says that there is nothing at a path.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Whether the entry is a folder.
pub fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// The components of a path without `/` and `.`.
fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A host folder with a file beside the view's root, which nothing may touch.
    fn host() -> (tempfile::TempDir, View) {
        let host = tempfile::tempdir().unwrap();
        std::fs::write(host.path().join("outside"), "host").unwrap();
        let root = host.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let view = View::open(&root).unwrap();
        (host, view)
    }

    #[test]
    fn links_and_dots_end_inside_the_view() {
        let (host, view) = host();
        let root = host.path().join("root");
        symlink("/outside", root.join("absolute")).unwrap();
        symlink("../../outside", root.join("relative")).unwrap();
        symlink(host.path(), root.join("host")).unwrap();
        for path in ["absolute", "relative", "../outside", "/../../outside"] {
            assert_eq!(
                view.resolve(Path::new(path), Last::Follow).unwrap(),
                Path::new("outside")
            );
            assert!(
                view.stat(Path::new(path), Last::Follow).unwrap().is_none(),
                "{path}"
            );
        }
        let error = view.read(Path::new("host/outside"), 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn folders_are_made_through_dangling_links_inside_the_view() {
        let (host, view) = host();
        let root = host.path().join("root");
        std::fs::create_dir(root.join("var")).unwrap();
        symlink("/run", root.join("var/run")).unwrap();
        let made = view.make_dirs(
            Path::new("/var/run/app"),
            0o750,
            Ownership { uid: 7, gid: 8 },
        );
        assert_eq!(made.unwrap(), [Path::new("run"), Path::new("run/app")]);
        let stat = view
            .stat(Path::new("run/app"), Last::Keep)
            .unwrap()
            .unwrap();
        assert_eq!(
            (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid),
            (0o750, 7, 8)
        );
    }

    #[test]
    fn a_circle_of_links_is_an_error() {
        let (host, view) = host();
        symlink("b", host.path().join("root/a")).unwrap();
        symlink("a", host.path().join("root/b")).unwrap();
        let error = view.resolve(Path::new("a/x"), Last::Follow).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
    }

    #[test]
    fn a_file_beyond_the_bound_and_a_pipe_are_not_read() {
        let (host, view) = host();
        std::fs::write(host.path().join("root/long"), "12345").unwrap();
        assert_eq!(view.read(Path::new("long"), 5).unwrap(), b"12345");
        assert!(view.read(Path::new("long"), 4).is_err());
        let pipe = host.path().join("root/pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(view.read(Path::new("pipe"), 4).is_err());
    }
}
