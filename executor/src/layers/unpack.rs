//! Unpacks one layer archive of an image into a layer's folder.
//!
//! | in the archive | in the layer |
//! |---|---|
//! | owner, mode with setuid, time with its fraction, `security.capability`, `user.*`, `trusted.*` | the same |
//! | pipes, devices (block 0:0 included) | the same; views are mounted so that no device can be opened |
//! | `.wh.NAME`, `.wh..wh..opq` | overlayfs's own marks, where there is something to hide |
//! | `security.*` of another machine, `user.overlay.*`, other `.wh..wh.` names, global PAX headers | nothing |
//! | a folder that only longer paths name | owner, mode, attributes and time of the layers beneath |
//! | character device 0:0, `trusted.overlay.*`, access control lists, `..`, sockets, sparse PAX files | refused |

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode};

use super::archive::{Archive, Attributes, Content, Entry, Kind};
use super::attributes::{Policy, policy};
use super::tree::{Place, Tree, write_error};
use crate::limits::layers::LayerLimits;

/// Prefix of names that stand for removed ones (OCI image specification, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// The name that makes its folder hide the layers beneath.
const OPAQUE_WHITEOUT: &[u8] = b".wh..wh..opq";
/// Prefix of bookkeeping that only the aufs driver reads.
const AUFS: &[u8] = b".wh..wh.";
/// The bytes that are moved at a time from an archive to a file.
const COPY_BYTES: usize = 128 * 1024;

/// What was unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of its regular files, holes included.
    pub content_bytes: u64,
}

/// Why an archive could not be unpacked. What was written stays and has to be thrown away.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The stream that carries the archive failed: it broke off, or does not inflate.
    #[error("the archive cannot be read")]
    Read {
        /// The cause.
        source: std::io::Error,
    },
    /// It is no well-formed tar archive.
    #[error("the archive is malformed: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// It uses a feature that is not supported.
    #[error("the archive holds {what}, which is not supported")]
    Unsupported {
        /// The feature.
        what: String,
    },
    /// An entry asks for something that no layer may do.
    #[error("the archive's entry `{}` is refused: {why}", path.display())]
    Refused {
        /// The entry, as the archive spells it or in the layer.
        path: PathBuf,
        /// The reason.
        why: &'static str,
    },
    /// It goes beyond a limit.
    #[error("the archive is refused: {what} exceeds {max}")]
    TooLarge {
        /// What goes beyond it.
        what: &'static str,
        /// The limit, in bytes or entries.
        max: u64,
    },
    /// A file could not be written: the disk is full, or the name is none for this filesystem.
    #[error("cannot {action} `{}`", path.display())]
    Write {
        /// The file's path in the layer.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// A layer beneath, which this one needs, could not be made.
    #[error("a layer beneath is missing")]
    LowersLost,
}

impl UnpackError {
    /// Whether the filesystem had no room.
    pub fn is_disk_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Write { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}

/// Unpacks `archive`, an uncompressed tar stream, into the empty folder `into`, and reads the stream
/// to its end.
///
/// `lowers` gives the folders of the layers beneath, nearest first. It is called at most once, and
/// only if an entry needs them: a folder on an entry's path that the archive does not describe is
/// looked up there. It may wait for them.
///
/// Blocking; needs the privileges of root.
///
/// # Errors
/// Every variant of [`UnpackError`]; the folder's content is then of no use.
pub fn unpack(
    archive: impl Read,
    into: &Path,
    lowers: impl FnOnce() -> Result<Vec<PathBuf>, UnpackError>,
    limits: &LayerLimits,
) -> Result<Unpacked, UnpackError> {
    let mut archive = Archive::new(archive, limits);
    let mut tree = Tree::open(into, lowers, limits)?;
    let mut unpacked = Unpacked {
        entries: 0,
        content_bytes: 0,
    };
    let mut buffer = vec![0; COPY_BYTES];
    while let Some(entry) = archive.next_entry()? {
        unpacked.entries += 1;
        if let Kind::File(content) = &entry.kind {
            unpacked.content_bytes = unpacked.content_bytes.saturating_add(content.bytes);
            tree.count_content(content.bytes)?;
        }
        tree.default_time = entry.attributes.modified;
        if !apply_whiteout(&mut tree, &entry)? {
            check(&entry)?;
            write_entry(&mut tree, &mut archive, entry, &mut buffer)?;
        }
    }
    tree.finish()?;
    archive.drain()?;
    Ok(unpacked)
}

/// Applies an entry whose name is an instruction; `false` if it is an ordinary entry.
fn apply_whiteout(tree: &mut Tree<'_>, entry: &Entry) -> Result<bool, UnpackError> {
    let path = entry.path.as_slice();
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => path.split_at_checked(slash + 1).unwrap_or((path, b"")),
        None => (&b"."[..], path),
    };
    let refused = |why| {
        Err(UnpackError::Refused {
            path: display_path(path),
            why,
        })
    };
    let reserved = |name: &[u8]| name.starts_with(WHITEOUT);
    if folder.split(|byte| *byte == b'/').any(reserved) {
        return refused("`.wh.` names are reserved for removed files");
    }
    if name == OPAQUE_WHITEOUT {
        let place = tree.folder_place(folder)?;
        tree.make_opaque(&place)?;
        return Ok(true);
    }
    if name.starts_with(AUFS) {
        return Ok(true);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(false),
        Some(b"" | b"." | b"..") => refused("it removes no name"),
        Some(removed) => {
            let place = tree.place(&[folder, b"/", removed].concat())?;
            tree.white_out(&place)?;
            Ok(true)
        }
    }
}

/// Refuses what would be an instruction to overlayfs, and attributes that cannot be kept.
fn check(entry: &Entry) -> Result<(), UnpackError> {
    let refused = |why| {
        Err(UnpackError::Refused {
            path: display_path(&entry.path),
            why,
        })
    };
    if matches!(entry.kind, Kind::CharDevice(0, 0)) {
        return refused("a character device 0:0 would remove a file");
    }
    for (name, _) in &entry.attributes.xattrs {
        if let Policy::Refuse(why) = policy(name) {
            return refused(why);
        }
    }
    Ok(())
}

fn write_entry<R: Read>(
    tree: &mut Tree<'_>,
    archive: &mut Archive<'_, R>,
    entry: Entry,
    buffer: &mut [u8],
) -> Result<(), UnpackError> {
    let attributes = portable(entry.attributes);
    let place = tree.place(&entry.path)?;
    let failed = |error: rustix::io::Errno| write_error(&place.path, "create")(error.into());
    let node = |kind, device| {
        rustix::fs::mknodat(&place.folder, &place.name, kind, Mode::empty(), device).map_err(failed)
    };
    match entry.kind {
        Kind::Directory => return tree.folder(&place, &attributes),
        // Its attributes are those of the file that it shares.
        Kind::HardLink(target) => return tree.hard_link(&place, &target),
        Kind::File(content) => {
            let file = tree.file(&place)?;
            copy(archive, &content, &file, &place, buffer)?;
        }
        Kind::Symlink(target) => {
            tree.make_room(&place, false)?;
            rustix::fs::symlinkat(target, &place.folder, &place.name).map_err(failed)?;
        }
        Kind::CharDevice(major, minor) => {
            tree.make_room(&place, false)?;
            node(FileType::CharacterDevice, rustix::fs::makedev(major, minor))?;
        }
        Kind::BlockDevice(major, minor) => {
            tree.make_room(&place, false)?;
            node(FileType::BlockDevice, rustix::fs::makedev(major, minor))?;
        }
        Kind::Fifo => {
            tree.make_room(&place, false)?;
            node(FileType::Fifo, 0)?;
        }
    }
    let apply = || -> std::io::Result<()> {
        place.at().apply(&attributes)?;
        place.at().set_modified(attributes.modified)
    };
    apply().map_err(write_error(&place.path, "set the attributes of"))
}

/// Leaves out what means something only to the machine that made the image.
fn portable(mut attributes: Attributes) -> Attributes {
    attributes
        .xattrs
        .retain(|(name, _)| policy(name) == Policy::Keep);
    attributes
}

/// Copies an entry's data; what lies between its segments stays a hole.
fn copy<R: Read>(
    archive: &mut Archive<'_, R>,
    content: &Content,
    file: &File,
    place: &Place,
    buffer: &mut [u8],
) -> Result<(), UnpackError> {
    for segment in &content.segments {
        let (mut offset, mut left) = (segment.offset, segment.bytes);
        while left > 0 {
            let wanted = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let piece = buffer.get_mut(..wanted).unwrap_or_default();
            let read = archive.read_data(piece)?;
            let piece = piece.get(..read).unwrap_or_default();
            file.write_all_at(piece, offset)
                .map_err(write_error(&place.path, "write"))?;
            let bytes = u64::try_from(read).unwrap_or(left);
            (offset, left) = (offset + bytes, left.saturating_sub(bytes));
        }
    }
    file.set_len(content.bytes)
        .map_err(write_error(&place.path, "write"))
}

fn display_path(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}

#[cfg(test)]
mod tests;
