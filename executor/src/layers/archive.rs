//! Layer archives as a series of entries: names, attributes and data, with bounds on all of them.
//!
//! The `tar` crate gives the shape of the headers. The walk over them is ours, because the crate's
//! reads extension headers of any size into memory, splits PAX records at newlines (a
//! `security.capability` may hold one) and takes a truncated file for a short one.

use std::io::Read;

use rustix::fs::Timespec;
use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::archive_extensions::{Extensions, id, until_nul};
use super::archive_fields::number;
use super::unpack::UnpackError;
use crate::limits::layers::LayerLimits;

const BLOCK_BYTES: u64 = 512;

/// One member of an archive, its extension headers applied.
#[derive(Debug)]
pub(super) struct Entry {
    /// The path as the archive spells it.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) attributes: Attributes,
}

/// Owner, permissions, time and extended attributes of an entry.
#[derive(Clone, Debug)]
pub(super) struct Attributes {
    pub(super) owner: u32,
    pub(super) group: u32,
    /// The permission bits with setuid, setgid and sticky.
    pub(super) mode: u32,
    pub(super) modified: Timespec,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What kind of file an entry makes.
#[derive(Debug)]
pub(super) enum Kind {
    /// A regular file; its data is read with [`Archive::read_data`].
    File(Content),
    Directory,
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// A hard link with the path of the file it shares.
    HardLink(Vec<u8>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

/// The extent of a regular file: where its data goes, and its size with the holes between.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) segments: Vec<Segment>,
    pub(super) bytes: u64,
}

/// A run of data within a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// A reader of archives. Take an entry with [`Archive::next_entry`], then its data, then the next.
pub(super) struct Archive<'a, R> {
    reader: R,
    limits: &'a LayerLimits,
    read_bytes: u64,
    /// Data of the current entry that was not read yet, and the padding after it.
    data_bytes: u64,
    padding_bytes: u64,
    entry_count: u64,
}

impl<'a, R: Read> Archive<'a, R> {
    pub(super) fn new(reader: R, limits: &'a LayerLimits) -> Self {
        Self {
            reader,
            limits,
            read_bytes: 0,
            data_bytes: 0,
            padding_bytes: 0,
            entry_count: 0,
        }
    }

    /// The next entry, `None` at the end of the archive.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut extensions = Extensions::default();
        let mut extended = false;
        loop {
            self.skip_data()?;
            let Some(header) = self.header()? else {
                if extended {
                    return Err(malformed("an extension header without its member"));
                }
                return Ok(None);
            };
            match header.entry_type().as_byte() {
                b'x' => {
                    let data = self.extension(&header, &mut extensions)?;
                    extensions.add_pax(&data)?;
                }
                b'L' => {
                    let data = self.extension(&header, &mut extensions)?;
                    extensions.long_path = Some(until_nul(data));
                }
                b'K' => {
                    let data = self.extension(&header, &mut extensions)?;
                    extensions.long_link = Some(until_nul(data));
                }
                // Defaults for all later members. Image tools write only comments there and no
                // image reader applies them, so applying them would make another tree than theirs.
                b'g' => {
                    self.extension(&header, &mut extensions)?;
                    continue;
                }
                _ => {
                    self.entry_count += 1;
                    if self.entry_count > self.limits.entries_max {
                        return Err(too_large("its entries", self.limits.entries_max));
                    }
                    return self.member(&header, extensions).map(Some);
                }
            }
            extended = true;
        }
    }

    /// Reads data of the current entry, in the order of its segments; 0 at its end.
    pub(super) fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        let wanted =
            usize::try_from(self.data_bytes).map_or(buffer.len(), |left| left.min(buffer.len()));
        let Some(buffer) = buffer.get_mut(..wanted).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        let read = self.read(buffer)?;
        if read == 0 {
            return Err(malformed("it ends within a file"));
        }
        self.data_bytes -= length(read);
        Ok(read)
    }

    /// Reads what follows the archive's end to the end of the stream: digests cover it too.
    pub(super) fn drain(&mut self) -> Result<(), UnpackError> {
        let mut buffer = [0_u8; 8 * 1024];
        while self.read(&mut buffer)? > 0 {}
        Ok(())
    }

    fn member(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, UnpackError> {
        let old = header.as_old();
        let field = |bytes: &[u8], what| number(bytes).ok_or_else(|| malformed(what));
        let attributes = Attributes {
            owner: match extensions.owner {
                Some(owner) => owner,
                None => id(field(&old.uid, "an owner is not a number")?)?,
            },
            group: match extensions.group {
                Some(group) => group,
                None => id(field(&old.gid, "a group is not a number")?)?,
            },
            mode: u32::try_from(field(&old.mode, "a mode is not a number")? & 0o7777)
                .map_err(|_| malformed("a mode is not a number"))?,
            modified: match extensions.modified {
                Some(modified) => modified,
                None => Timespec {
                    tv_sec: field(&old.mtime, "a time is not a number")?,
                    tv_nsec: 0,
                },
            },
            xattrs: extensions.xattrs,
        };
        let path = extensions
            .long_path
            .or(extensions.path)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extensions
            .long_link
            .or(extensions.link)
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
            .unwrap_or_default();
        for name in [&path, &link] {
            if name.len() > self.limits.path_bytes_max {
                return Err(too_large("a path", length(self.limits.path_bytes_max)));
            }
            if name.contains(&0) {
                return Err(malformed("a path contains NUL"));
            }
        }
        let kind = self.kind(header, &path, link, extensions.size)?;
        Ok(Entry {
            path,
            kind,
            attributes,
        })
    }

    /// The member's kind. Only files have data: the size of any other member says nothing, as Go,
    /// which wrote most images, reads it.
    fn kind(
        &mut self,
        header: &Header,
        path: &[u8],
        link: Vec<u8>,
        pax_size: Option<u64>,
    ) -> Result<Kind, UnpackError> {
        let size = || match pax_size {
            Some(size) => Ok(size),
            None => size_field(&header.as_old().size),
        };
        Ok(match header.entry_type().as_byte() {
            b'0' | b'7' => {
                let bytes = size()?;
                self.expect_data(bytes)?;
                // Archives from before POSIX mark a folder by nothing but its name. One that has data
                // is a folder to other readers too; the data is passed over.
                if path.ends_with(b"/") {
                    return Ok(Kind::Directory);
                }
                Kind::File(Content {
                    segments: vec![Segment { offset: 0, bytes }],
                    bytes,
                })
            }
            b'S' => {
                let content = self.sparse(header)?;
                let stored = size()?;
                if content
                    .segments
                    .iter()
                    .map(|segment| segment.bytes)
                    .sum::<u64>()
                    != stored
                {
                    return Err(malformed("a sparse file's map does not add up to its size"));
                }
                self.expect_data(stored)?;
                Kind::File(content)
            }
            b'5' => Kind::Directory,
            b'2' => Kind::Symlink(link),
            b'1' => Kind::HardLink(link),
            b'6' => Kind::Fifo,
            b'3' => {
                let (major, minor) = device(header)?;
                Kind::CharDevice(major, minor)
            }
            b'4' => {
                let (major, minor) = device(header)?;
                Kind::BlockDevice(major, minor)
            }
            other => {
                return Err(UnpackError::Unsupported {
                    what: format!("an entry of type {:?}", char::from(other)),
                });
            }
        })
    }

    /// Reads the map of an old GNU sparse file, which continues in blocks of its own.
    fn sparse(&mut self, header: &Header) -> Result<Content, UnpackError> {
        let gnu = header
            .as_gnu()
            .ok_or_else(|| malformed("a sparse file without a GNU header"))?;
        let mut segments = Vec::new();
        let mut end = 0_u64;
        let mut add = |parts: &[GnuSparseHeader]| {
            for part in parts.iter().filter(|part| !part.is_empty()) {
                let (offset, bytes) = (size_field(&part.offset)?, size_field(&part.numbytes)?);
                if offset < end {
                    return Err(malformed("a sparse file's map is out of order"));
                }
                end = offset
                    .checked_add(bytes)
                    .ok_or_else(|| malformed("a sparse file's map overflows"))?;
                segments.push(Segment { offset, bytes });
            }
            Ok(())
        };
        add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        let mut extension_bytes = 0;
        while more {
            extension_bytes += BLOCK_BYTES;
            if extension_bytes > self.limits.extension_bytes_max {
                return Err(too_large("a sparse map", self.limits.extension_bytes_max));
            }
            let mut block = GnuExtSparseHeader::new();
            self.read_exact(block.as_mut_bytes())?;
            add(&block.sparse)?;
            more = block.is_extended();
        }
        let bytes = size_field(&gnu.realsize)?;
        if end > bytes {
            return Err(malformed("a sparse file's map exceeds its size"));
        }
        Ok(Content { segments, bytes })
    }

    fn expect_data(&mut self, bytes: u64) -> Result<(), UnpackError> {
        // More than the archive may hold can only be a lie; the check also keeps sums in range.
        if bytes > self.limits.archive_bytes_max {
            return Err(too_large("a file", self.limits.archive_bytes_max));
        }
        self.data_bytes = bytes;
        self.padding_bytes = bytes.next_multiple_of(BLOCK_BYTES) - bytes;
        Ok(())
    }

    /// Reads an extension header's data.
    fn extension(
        &mut self,
        header: &Header,
        extensions: &mut Extensions,
    ) -> Result<Vec<u8>, UnpackError> {
        let bytes = size_field(&header.as_old().size)?;
        extensions.bytes = extensions.bytes.saturating_add(bytes.max(BLOCK_BYTES));
        if extensions.bytes > self.limits.extension_bytes_max {
            return Err(too_large(
                "the names and attributes of an entry",
                self.limits.extension_bytes_max,
            ));
        }
        self.expect_data(bytes)?;
        let bytes = usize::try_from(bytes).map_err(|_| malformed("an extension header's size"))?;
        let mut data = vec![0; bytes];
        let mut filled = 0;
        while let Some(rest) = data.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += self.read_data(rest)?;
        }
        Ok(data)
    }

    /// The next header, `None` at the end: a block of zeros, or no further block.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read(rest)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(malformed("it ends within a header")),
                read => filled += read,
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sums = |value: fn(u8) -> i64| -> i64 {
            let before: i64 = block.iter().take(148).copied().map(value).sum();
            let after: i64 = block.iter().skip(156).copied().map(value).sum();
            before + 8 * i64::from(b' ') + after
        };
        let (unsigned, signed) = (sums(i64::from), sums(|byte| i64::from(byte.cast_signed())));
        let stated = number(&header.as_old().cksum);
        // Some old writers summed signed bytes.
        if stated != Some(unsigned) && stated != Some(signed) {
            return Err(malformed("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn skip_data(&mut self) -> Result<(), UnpackError> {
        self.data_bytes += std::mem::take(&mut self.padding_bytes);
        let mut buffer = [0_u8; 8 * 1024];
        while self.read_data(&mut buffer)? > 0 {}
        Ok(())
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), UnpackError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read(rest)? {
                0 => return Err(malformed("it ends within a header")),
                read => filled += read,
            }
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        let read = loop {
            match self.reader.read(buffer) {
                Ok(read) => break read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(UnpackError::Read { source }),
            }
        };
        self.read_bytes += length(read);
        if self.read_bytes > self.limits.archive_bytes_max {
            return Err(too_large("the archive", self.limits.archive_bytes_max));
        }
        Ok(read)
    }
}

fn size_field(field: &[u8]) -> Result<u64, UnpackError> {
    number(field)
        .and_then(|size| u64::try_from(size).ok())
        .ok_or_else(|| malformed("a size is not a number"))
}

fn device(header: &Header) -> Result<(u32, u32), UnpackError> {
    let fields = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
        (None, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
        (None, None) => return Err(malformed("a device without its number")),
    };
    let part = |field: &[u8]| {
        number(field)
            .and_then(|part| u32::try_from(part).ok())
            .ok_or_else(|| malformed("a device's number"))
    };
    let (major, minor) = (part(fields.0)?, part(fields.1)?);
    // The kernel has 12 and 20 bits for them and drops the rest: 4096:0 would become 0:0, which
    // removes a file.
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(malformed("a device's number"));
    }
    Ok((major, minor))
}

pub(super) fn malformed(what: &'static str) -> UnpackError {
    UnpackError::Malformed { what }
}

fn too_large(what: &'static str, max: u64) -> UnpackError {
    UnpackError::TooLarge { what, max }
}

/// A length in memory as a number of bytes.
fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
