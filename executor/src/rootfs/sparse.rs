//! Files with holes: their digest and their copies, without reading the holes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use domain::Digest;
use rustix::fs::SeekFrom as Probe;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// How much is read, or hashed as zeros, at once, in bytes.
const CHUNK_BYTES: usize = 256 * 1024;

/// The SHA-256 and the length of a file, holes counted as the zeros that they read as. Blocks.
///
/// # Errors
/// What the system says when the file cannot be opened or read.
pub fn digest(path: &Path) -> io::Result<(Digest, u64)> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let zeros = vec![0_u8; CHUNK_BYTES];
    let mut buffer = vec![0_u8; CHUNK_BYTES];
    let mut hash = Sha256::new();
    let mut hashed = 0;
    for range in DataRanges::new(&file, length) {
        let range = range?;
        hash_zeros(&mut hash, range.start - hashed, &zeros);
        (&file).seek(SeekFrom::Start(range.start))?;
        let mut rest = (&file).take(range.end - range.start);
        loop {
            let count = rest.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hash.update(buffer.get(..count).unwrap_or_default());
        }
        if rest.limit() > 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        hashed = range.end;
    }
    hash_zeros(&mut hash, length - hashed, &zeros);
    Ok((Digest::from_bytes(hash.finalize().into()), length))
}

fn hash_zeros(hash: &mut Sha256, mut count: u64, zeros: &[u8]) {
    while count > 0 {
        let now = usize::try_from(count).map_or(zeros.len(), |count| count.min(zeros.len()));
        hash.update(zeros.get(..now).unwrap_or_default());
        count -= u64::try_from(now).unwrap_or(count);
    }
}

/// Copies a file to a new one, holes as holes. Blocks.
///
/// # Errors
/// What the system says; the new file then is incomplete. It must not exist before.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let mut target = File::create_new(to)?;
    let length = source.metadata()?.len();
    target.set_len(length)?;
    for range in DataRanges::new(&source, length) {
        let range = range?;
        (&source).seek(SeekFrom::Start(range.start))?;
        target.seek(SeekFrom::Start(range.start))?;
        let wanted = range.end - range.start;
        if io::copy(&mut (&source).take(wanted), &mut target)? != wanted {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
    }
    Ok(())
}

/// How many bytes of a file lie in blocks that are not all zero. Blocks.
///
/// It depends on the content alone, not on which of its zeros are holes.
pub(super) fn nonzero_bytes(path: &Path, block_bytes: u64) -> io::Result<u64> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let block = usize::try_from(block_bytes).map_err(io::Error::other)?;
    let zeros = vec![0_u8; block];
    let mut buffer = vec![0_u8; block * 64];
    let mut nonzero = 0;
    for range in DataRanges::new(&file, length) {
        let range = range?;
        // A file system may report data from within a block of ours.
        let start = range.start - range.start % block_bytes;
        (&file).seek(SeekFrom::Start(start))?;
        let mut rest = (&file).take(range.end - start);
        loop {
            let count = read_full(&mut rest, &mut buffer)?;
            let read = buffer.get(..count).unwrap_or_default();
            for piece in read.chunks(block) {
                if Some(piece) != zeros.get(..piece.len()) {
                    nonzero += block_bytes;
                }
            }
            if count < buffer.len() {
                break;
            }
        }
    }
    Ok(nonzero)
}

/// Whether a range of a file has nothing but zeros in it. Blocks.
pub(super) fn is_zero(file: &File, range: Range<u64>) -> io::Result<bool> {
    let mut buffer = vec![0_u8; CHUNK_BYTES];
    for data in (DataRanges {
        file,
        length: range.end,
        at: range.start,
    }) {
        let data = data?;
        let mut at = file;
        at.seek(SeekFrom::Start(data.start))?;
        let mut rest = at.take(data.end - data.start);
        loop {
            let count = rest.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            if buffer.iter().take(count).any(|&byte| byte != 0) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Reads until the buffer is full or the source ends.
fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..) {
        match source.read(rest)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// The ranges of a file that are not holes, in order. A file system that knows no holes reports
/// one range.
pub(crate) struct DataRanges<'a> {
    file: &'a File,
    length: u64,
    at: u64,
}

impl<'a> DataRanges<'a> {
    pub(crate) fn new(file: &'a File, length: u64) -> Self {
        Self {
            file,
            length,
            at: 0,
        }
    }
}

impl Iterator for DataRanges<'_> {
    type Item = io::Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.length {
            return None;
        }
        let start = match rustix::fs::seek(self.file, Probe::Data(self.at)) {
            Ok(start) => start.min(self.length),
            // Only a hole is left.
            Err(Errno::NXIO) => self.length,
            Err(Errno::INVAL) => self.at,
            Err(error) => return Some(Err(error.into())),
        };
        if start >= self.length {
            self.at = self.length;
            return None;
        }
        let end = match rustix::fs::seek(self.file, Probe::Hole(start)) {
            Ok(end) => end.min(self.length),
            Err(Errno::INVAL) => self.length,
            Err(error) => return Some(Err(error.into())),
        };
        self.at = end;
        Some(Ok(start..end))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    /// A file of 3 MiB with a little data at 1 MiB + 5 and at its very end.
    fn sample(dir: &Path) -> std::path::PathBuf {
        let path = dir.join("sparse");
        let file = File::create(&path).unwrap();
        file.set_len(3 << 20).unwrap();
        file.write_all_at(b"middle", (1 << 20) + 5).unwrap();
        file.write_all_at(b"end", (3 << 20) - 3).unwrap();
        path
    }

    #[test]
    fn holes_hash_as_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let path = sample(dir.path());
        let content = std::fs::read(&path).unwrap();
        assert_eq!(digest(&path).unwrap(), (Digest::of(&content), 3 << 20));
        for content in [vec![], vec![0; 1 << 20], vec![7; CHUNK_BYTES + 1]] {
            std::fs::write(&path, &content).unwrap();
            let length = u64::try_from(content.len()).unwrap();
            assert_eq!(digest(&path).unwrap(), (Digest::of(&content), length));
        }
    }

    #[test]
    fn a_hole_at_the_end_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hole");
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        assert_eq!(
            digest(&path).unwrap(),
            (Digest::of(&vec![0; 1 << 20]), 1 << 20)
        );
    }

    #[test]
    fn a_copy_is_equal_and_stays_sparse() {
        let dir = tempfile::tempdir().unwrap();
        let (path, twin) = (sample(dir.path()), dir.path().join("copy"));
        copy(&path, &twin).unwrap();
        assert_eq!(digest(&twin).unwrap(), digest(&path).unwrap());
        let blocks = |path: &Path| path.metadata().unwrap().blocks();
        assert_eq!(blocks(&twin), blocks(&path));
        assert!(blocks(&twin) * 512 < 1 << 20);
        let error = copy(&path, &twin).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_range_is_zero_if_no_byte_in_it_is_set() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::open(sample(dir.path())).unwrap();
        let at = (1 << 20) + 5;
        for (range, expected) in [
            (0..at, true),
            (0..at + 1, false),
            (at + 5..at + 6, false),
            (at + 6..(3 << 20) - 3, true),
            ((3 << 20) - 1..3 << 20, false),
            (7..7, true),
        ] {
            assert_eq!(
                is_zero(&file, range.clone()).unwrap(),
                expected,
                "{range:?}"
            );
        }
    }

    #[test]
    fn zeros_do_not_count_whether_they_are_holes_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = sample(dir.path());
        let dense = dir.path().join("dense");
        std::fs::write(&dense, std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(nonzero_bytes(&path, 4096).unwrap(), 2 * 4096);
        assert_eq!(nonzero_bytes(&dense, 4096).unwrap(), 2 * 4096);
    }
}
