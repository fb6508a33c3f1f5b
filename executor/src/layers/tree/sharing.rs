//! Hard links: names of a layer that share a file, and the copies that they need of files beneath.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, SeekFrom};
use rustix::io::Errno;

use super::{Place, Tree, write_error};
use crate::layers::attributes::At;
use crate::layers::lowers::Found;
use crate::layers::unpack::UnpackError;

impl Tree<'_> {
    /// Makes a hard link to a file of this layer, or to a copy of one of the layers beneath.
    pub(in crate::layers) fn hard_link(
        &mut self,
        place: &Place,
        target: &[u8],
    ) -> Result<(), UnpackError> {
        let source = self.place(target)?;
        if source.path == place.path {
            // A link to itself, as archivers write for a name that was packed twice.
            return match source.at().stat() {
                Ok(_) => Ok(()),
                Err(error) => Err(write_error(&place.path, "link")(error.into())),
            };
        }
        let refused = |why| UnpackError::Refused {
            path: place.path.clone(),
            why,
        };
        match source.at().stat() {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return Err(refused("a hard link to a folder"));
            }
            Ok(_) => {}
            Err(Errno::NOENT) if self.ledger.is_removed(&source.path) => {
                return Err(refused("a hard link to a removed file"));
            }
            Err(Errno::NOENT) => {
                if !self.copy_up(&source)? {
                    return Err(refused("a hard link to a file that does not exist"));
                }
            }
            Err(error) => return Err(write_error(&source.path, "look at")(error.into())),
        }
        if source.path.starts_with(&place.path) {
            return Err(refused("a hard link in the place of its target's folder"));
        }
        self.make_room(place, false)?;
        rustix::fs::linkat(
            &source.folder,
            &source.name,
            &place.folder,
            &place.name,
            AtFlags::empty(),
        )
        .map_err(|error| write_error(&place.path, "link")(error.into()))
    }

    /// Copies a file of the layers beneath into this one; `false` if there is none.
    fn copy_up(&mut self, place: &Place) -> Result<bool, UnpackError> {
        let failed = write_error(&place.path, "copy from a layer beneath");
        let folder = match self.beneath(&place.path)? {
            Found::Nothing | Found::Directory(_) => return Ok(false),
            Found::File(folder) => {
                let lower = open_file(&folder, place).map_err(&failed)?;
                let bytes = lower.metadata().map_err(&failed)?.len();
                self.count_content(bytes)?;
                let copy = self.file(place)?;
                copy_data(&lower, &copy, bytes).map_err(&failed)?;
                folder
            }
            Found::Symlink(folder, target) => {
                rustix::fs::symlinkat(target, &place.folder, &place.name)
                    .map_err(|error| failed(error.into()))?;
                folder
            }
            Found::Special(folder) => {
                let copied = At::new(&folder, &place.name).stat().and_then(|stat| {
                    let kind = FileType::from_raw_mode(stat.st_mode);
                    let (at, name) = (&place.folder, &place.name);
                    rustix::fs::mknodat(at, name, kind, Mode::empty(), stat.st_rdev)
                });
                copied.map_err(|error| failed(error.into()))?;
                folder
            }
        };
        let describe = || -> io::Result<()> {
            let attributes = At::new(&folder, &place.name).attributes()?;
            place.at().apply(&attributes)?;
            place.at().set_modified(attributes.modified)
        };
        describe().map_err(failed)?;
        self.ledger.copy(&place.path)?;
        Ok(true)
    }

    /// Refuses to hide what a hard link shares. The copy here stands for the file beneath, and would
    /// have to go, as if it had been hidden before the link came: that is refused, too.
    pub(super) fn keep_copies(&self, place: &Place) -> Result<(), UnpackError> {
        if self.ledger.has_copy(&place.path) {
            return Err(UnpackError::Refused {
                path: place.path.clone(),
                why: "it removes the target of a hard link",
            });
        }
        Ok(())
    }
}

fn open_file(folder: &OwnedFd, place: &Place) -> io::Result<File> {
    use rustix::fs::OFlags;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, &place.name, flags, Mode::empty())?;
    Ok(file.into())
}

/// Copies what a file holds; what is a hole stays one.
fn copy_data(from: &File, to: &File, bytes: u64) -> io::Result<()> {
    use io::Seek as _;
    to.set_len(bytes)?;
    let mut end = 0;
    while end < bytes {
        let start = match rustix::fs::seek(from, SeekFrom::Data(end)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
        let (mut from, mut to) = (from, to);
        from.seek(io::SeekFrom::Start(start))?;
        to.seek(io::SeekFrom::Start(start))?;
        io::copy(
            &mut io::Read::take(from, end.saturating_sub(start)),
            &mut to,
        )?;
    }
    Ok(())
}
