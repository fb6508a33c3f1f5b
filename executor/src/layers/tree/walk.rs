//! How the paths of an archive become places in a layer.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, ResolveFlags};
use rustix::io::Errno;

use super::{Before, Place, Tree, write_error};
use crate::layers::attributes::At;
use crate::layers::lowers::{FOLDER, Found, Lowers};
use crate::layers::unpack::UnpackError;

/// One name of a walk.
enum Step {
    Down(OwnedFd),
    Link(Vec<u8>),
}

impl Tree<'_> {
    /// The names of an archive's path. A leading `/` means the layer's root.
    pub(super) fn names(path: &[u8]) -> Result<VecDeque<OsString>, UnpackError> {
        let names: VecDeque<OsString> = split(path).collect();
        let refused = |why| UnpackError::Refused {
            path: PathBuf::from(OsStr::from_bytes(path)),
            why,
        };
        if names.iter().any(|name| name == "..") {
            return Err(refused("its path goes up"));
        }
        if names.is_empty() && path.is_empty() {
            return Err(refused("its path is empty"));
        }
        Ok(names)
    }

    pub(super) fn check_length(&self, path: &Path) -> Result<(), UnpackError> {
        if path.as_os_str().len() > self.limits.path_bytes_max {
            return Err(UnpackError::TooLarge {
                what: "a path, its links resolved,",
                max: u64::try_from(self.limits.path_bytes_max).unwrap_or(u64::MAX),
            });
        }
        Ok(())
    }

    /// Counts names that are looked at.
    fn count_names(&mut self, count: usize) -> Result<(), UnpackError> {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.names_walked = self.names_walked.saturating_add(count);
        if self.names_walked > self.limits.names_walked_max {
            return Err(UnpackError::TooLarge {
                what: "the number of names on the way to its entries",
                max: self.limits.names_walked_max,
            });
        }
        Ok(())
    }

    /// Walks down from the root, following links within it and making the folders that are missing.
    pub(super) fn walk(
        &mut self,
        mut names: VecDeque<OsString>,
    ) -> Result<(OwnedFd, PathBuf), UnpackError> {
        let mut path = PathBuf::new();
        let mut folder = self.reopen(&path)?;
        let mut links = 0;
        while let Some(name) = names.pop_front() {
            if name == ".." {
                path.pop();
                self.count_names(path.iter().count())?;
                folder = self.reopen(&path)?;
                continue;
            }
            let place = Place {
                path: path.join(&name),
                folder,
                name,
            };
            self.check_length(&place.path)?;
            self.count_names(1)?;
            match self.step(&place)? {
                Step::Down(next) => (folder, path) = (next, place.path),
                Step::Link(target) => {
                    links += 1;
                    if links > self.limits.links_followed_max {
                        return Err(UnpackError::Refused {
                            path: place.path,
                            why: "too many links on its way",
                        });
                    }
                    if target.starts_with(b"/") {
                        path = PathBuf::new();
                        folder = self.reopen(&path)?;
                    } else {
                        folder = place.folder;
                    }
                    for name in split(&target).collect::<Vec<_>>().into_iter().rev() {
                        names.push_front(name);
                    }
                }
            }
        }
        Ok((folder, path))
    }

    /// One name of a walk: the folder of that name, or the link in its place.
    fn step(&mut self, place: &Place) -> Result<Step, UnpackError> {
        let look = |error: Errno| write_error(&place.path, "look at")(error.into());
        match open_folder(place) {
            Ok(folder) => return Ok(Step::Down(folder)),
            Err(Errno::NOENT) if self.ledger.is_removed(&place.path) => {
                // Removed, and made anew by what comes into it.
                let before = self.make_room(place, true)?;
                self.make_folder(place, before)?;
                self.describe_folder(place, &self.plain_folder())?;
            }
            Err(Errno::NOENT) => match self.beneath(&place.path)? {
                Found::Symlink(_, target) => return Ok(Step::Link(target)),
                Found::Directory(lower) => {
                    let attributes = At::folder(&lower)
                        .attributes()
                        .map_err(write_error(&place.path, "read the attributes of"))?;
                    self.make_folder(place, Before::Nothing)?;
                    self.describe_folder(place, &attributes)?;
                }
                Found::File(_) | Found::Special(_) | Found::Nothing => {
                    self.make_folder(place, Before::Nothing)?;
                    self.describe_folder(place, &self.plain_folder())?;
                }
            },
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let stat = place.at().stat().map_err(look)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                    let target = rustix::fs::readlinkat(&place.folder, &place.name, Vec::new());
                    return Ok(Step::Link(target.map_err(look)?.into_bytes()));
                }
                return Err(UnpackError::Refused {
                    path: place.path.clone(),
                    why: "a file stands in the place of a folder",
                });
            }
            Err(error) => return Err(look(error)),
        }
        open_folder(place).map(Step::Down).map_err(look)
    }

    /// What the layers beneath have at a path, unless this layer hides it.
    pub(super) fn beneath(&mut self, path: &Path) -> Result<Found, UnpackError> {
        if self.ledger.is_hidden(path) {
            return Ok(Found::Nothing);
        }
        let layer_count = self.lowers()?.count();
        self.count_names(path.iter().count().saturating_mul(layer_count))?;
        self.lowers()?
            .lookup(path)
            .map_err(write_error(path, "look beneath"))
    }

    fn lowers(&mut self) -> Result<&Lowers, UnpackError> {
        if let Err(source) = &mut self.lowers {
            let folders = source
                .take()
                .map_or_else(|| Ok(Vec::new()), |source| source())?;
            let opened = Lowers::open(&folders)
                .map_err(write_error(Path::new("/"), "open a layer beneath"))?;
            self.lowers = Ok(opened);
        }
        match &self.lowers {
            Ok(lowers) => Ok(lowers),
            Err(_) => Err(UnpackError::LowersLost),
        }
    }

    /// Opens a folder of the layer by a path that holds no link.
    pub(super) fn reopen(&self, path: &Path) -> Result<OwnedFd, UnpackError> {
        let is_root = path.as_os_str().is_empty();
        let relative = if is_root { Path::new(".") } else { path };
        // The kernel's own guard: never out of the root, never through a link.
        let resolve =
            ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.root, relative, FOLDER, Mode::empty(), resolve)
            .map_err(|error| write_error(path, "open")(error.into()))
    }
}

fn open_folder(place: &Place) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(&place.folder, &place.name, FOLDER, Mode::empty())
}

fn split(path: &[u8]) -> impl Iterator<Item = OsString> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(|name| OsStr::from_bytes(name).to_owned())
}
