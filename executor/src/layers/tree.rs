//! The folder of a layer while an archive is written into it.
//!
//! Every path of an archive is walked name by name, each opened relative to the one before and
//! never followed by the kernel: links are read and resolved here, within the layer's root. The
//! final folder of each entry is therefore inside the root whatever the archive says.

mod ledger;
mod sharing;
mod walk;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Timespec};
use rustix::io::Errno;

use self::ledger::Ledger;
use super::archive::Attributes;
use super::attributes::At;
use super::lowers::{Found, Lowers, open_root};
use super::remove::remove_at;
use super::unpack::UnpackError;
use crate::limits::layers::LayerLimits;

/// Where the layers beneath come from: they may still be under way when this layer starts.
type LowerSource<'a> = Box<dyn FnOnce() -> Result<Vec<PathBuf>, UnpackError> + 'a>;

/// A layer's folder that is being filled.
pub(super) struct Tree<'a> {
    root: OwnedFd,
    lowers: Result<Lowers, Option<LowerSource<'a>>>,
    limits: &'a LayerLimits,
    ledger: Ledger,
    names_walked: u64,
    content_bytes: u64,
    /// The time that folders get which no entry describes and no lower layer has.
    pub(super) default_time: Timespec,
}

/// The place of an entry: an open folder of the layer, and the entry's name in it.
pub(super) struct Place {
    pub(super) folder: OwnedFd,
    pub(super) name: OsString,
    /// Path from the root, free of links. Empty for the root itself, whose name is `.`.
    pub(super) path: PathBuf,
}

impl Place {
    pub(super) fn at(&self) -> At<'_> {
        At::new(&self.folder, &self.name)
    }

    fn is_root(&self) -> bool {
        self.path.as_os_str().is_empty()
    }
}

/// What was at a place before an entry came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    Nothing,
    /// A folder, which is kept for another folder.
    Folder,
    /// Something that is gone now.
    Removed,
}

impl<'a> Tree<'a> {
    pub(super) fn open(
        into: &Path,
        lowers: impl FnOnce() -> Result<Vec<PathBuf>, UnpackError> + 'a,
        limits: &'a LayerLimits,
    ) -> Result<Self, UnpackError> {
        let root = open_root(into).map_err(write_error(into, "open"))?;
        Ok(Self {
            root,
            lowers: Err(Some(Box::new(lowers))),
            limits,
            ledger: Ledger::new(limits.ledger_bytes_max),
            names_walked: 0,
            content_bytes: 0,
            default_time: Timespec::default(),
        })
    }

    /// Counts what the files of the layer hold.
    pub(super) fn count_content(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.content_bytes = self.content_bytes.saturating_add(bytes);
        if self.content_bytes > self.limits.content_bytes_max {
            return Err(UnpackError::TooLarge {
                what: "the content of its files",
                max: self.limits.content_bytes_max,
            });
        }
        Ok(())
    }

    /// Finds the place of a path, making the folders on the way that are missing.
    pub(super) fn place(&mut self, path: &[u8]) -> Result<Place, UnpackError> {
        let mut names = Self::names(path)?;
        let Some(name) = names.pop_back() else {
            let folder = self
                .root
                .try_clone()
                .map_err(write_error(Path::new("/"), "open"))?;
            return Ok(Place {
                folder,
                name: OsString::from("."),
                path: PathBuf::new(),
            });
        };
        let (folder, parent) = self.walk(names)?;
        let path = parent.join(&name);
        self.check_length(&path)?;
        Ok(Place { folder, name, path })
    }

    /// Makes room for an entry, and says what was there.
    pub(super) fn make_room(&mut self, place: &Place, folder: bool) -> Result<Before, UnpackError> {
        if place.is_root() {
            if folder {
                return Ok(Before::Folder);
            }
            return Err(UnpackError::Refused {
                path: PathBuf::from("/"),
                why: "the root can only be a folder",
            });
        }
        let stat = match place.at().stat() {
            Ok(stat) => stat,
            Err(Errno::NOENT) if self.ledger.lift_whiteout(&place.path) => {
                return Ok(Before::Removed);
            }
            Err(Errno::NOENT) => return Ok(Before::Nothing),
            Err(error) => return Err(write_error(&place.path, "look at")(error.into())),
        };
        if folder && FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(Before::Folder);
        }
        self.ledger.forget(&place.path);
        remove_at(&place.folder, &place.name).map_err(write_error(&place.path, "replace"))?;
        Ok(Before::Removed)
    }

    /// Makes a folder, or gives the one that is there new attributes.
    pub(super) fn folder(
        &mut self,
        place: &Place,
        attributes: &Attributes,
    ) -> Result<(), UnpackError> {
        let before = self.make_room(place, true)?;
        if before == Before::Folder {
            // It may be here since something came into it, with the attributes of the one beneath.
            place
                .at()
                .remove_other_xattrs(attributes)
                .map_err(write_error(&place.path, "set the attributes of"))?;
        } else {
            self.make_folder(place, before)?;
        }
        self.describe_folder(place, attributes)
    }

    /// Makes an empty regular file.
    pub(super) fn file(&mut self, place: &Place) -> Result<File, UnpackError> {
        self.make_room(place, false)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&place.folder, &place.name, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(|error| write_error(&place.path, "create")(error.into()))
    }

    /// Hides the name that the layers beneath have here. What this layer has stays: a whiteout
    /// speaks of the layers beneath, wherever in the archive it stands.
    pub(super) fn white_out(&mut self, place: &Place) -> Result<(), UnpackError> {
        self.keep_copies(place)?;
        match place.at().stat() {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                self.make_opaque(place)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => self.ledger.whiteout(&place.path),
            Err(error) => Err(write_error(&place.path, "look at")(error.into())),
        }
    }

    /// Makes a folder hide what the layers beneath have in its place.
    pub(super) fn make_opaque(&mut self, place: &Place) -> Result<(), UnpackError> {
        self.keep_copies(place)?;
        place
            .at()
            .set_opaque()
            .map_err(write_error(&place.path, "hide the layers beneath"))?;
        self.ledger.opaque(&place.path)
    }

    /// The folder of the given path as a place, made if it is missing.
    pub(super) fn folder_place(&mut self, path: &[u8]) -> Result<Place, UnpackError> {
        let names = Self::names(path)?;
        let (folder, path) = self.walk(names)?;
        Ok(Place {
            folder,
            name: OsString::from("."),
            path,
        })
    }

    /// Removes what was only noted as removed, and sets the times of all folders. To be called once,
    /// after the last entry.
    pub(super) fn finish(&mut self) -> Result<(), UnpackError> {
        for path in self.ledger.take_whiteouts() {
            self.write_whiteout(&path)?;
        }
        if !self.ledger.has_folder(Path::new("")) {
            self.describe_root()?;
        }
        for (path, modified) in self.ledger.take_folder_times() {
            let folder = self.reopen(&path)?;
            At::folder(&folder)
                .set_modified(modified)
                .map_err(write_error(&path, "set the time of"))?;
        }
        Ok(())
    }

    /// Makes the mark for a removed name, if there is anything beneath to remove.
    fn write_whiteout(&mut self, path: &Path) -> Result<(), UnpackError> {
        if matches!(self.beneath(path)?, Found::Nothing) {
            return Ok(());
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(());
        };
        let folder = self.reopen(parent)?;
        rustix::fs::mknodat(&folder, name, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(|error| write_error(path, "white out")(error.into()))
    }

    fn make_folder(&mut self, place: &Place, before: Before) -> Result<(), UnpackError> {
        rustix::fs::mkdirat(&place.folder, &place.name, Mode::RWXU)
            .map_err(|error| write_error(&place.path, "create")(error.into()))?;
        if before == Before::Removed {
            // What stood here hid the layers beneath, and they stay hidden.
            self.make_opaque(place)?;
        }
        Ok(())
    }

    fn describe_folder(
        &mut self,
        place: &Place,
        attributes: &Attributes,
    ) -> Result<(), UnpackError> {
        place
            .at()
            .apply(attributes)
            .map_err(write_error(&place.path, "set the attributes of"))?;
        self.ledger.folder(&place.path, attributes.modified)
    }

    /// Gives the root the attributes of the root beneath, if no entry described it.
    fn describe_root(&mut self) -> Result<(), UnpackError> {
        let attributes = match self.beneath(Path::new(""))? {
            Found::Directory(lower) => At::folder(&lower)
                .attributes()
                .map_err(write_error(Path::new("/"), "read the attributes of"))?,
            Found::Symlink(..) | Found::File(_) | Found::Special(_) | Found::Nothing => {
                self.plain_folder()
            }
        };
        let root = self.place(b"/")?;
        self.describe_folder(&root, &attributes)
    }

    /// The attributes of a folder that nothing describes.
    fn plain_folder(&self) -> Attributes {
        Attributes {
            owner: 0,
            group: 0,
            mode: 0o755,
            modified: self.default_time,
            xattrs: Vec::new(),
        }
    }
}

/// An [`UnpackError::Write`] for the file at `path`.
pub(super) fn write_error(
    path: &Path,
    action: &'static str,
) -> impl Fn(io::Error) -> UnpackError + use<> {
    let path = path.to_owned();
    move |source| UnpackError::Write {
        path: path.clone(),
        action,
        source,
    }
}
