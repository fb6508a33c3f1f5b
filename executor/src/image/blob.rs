//! A layer's bytes on their way into its folder: digest of what came, inflating, digest of the archive.

use std::io::{self, BufRead as _, BufReader, Read};
use std::path::PathBuf;

use domain::Digest;
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::download::Piece;
use crate::layers::{Staging, UnpackError, Unpacked, unpack};
use crate::limits::layers::LayerLimits;

/// The bytes that are buffered before inflating.
const BUFFER_BYTES: usize = 64 * 1024;

/// What was unpacked, and the digests that have to be right for it to count.
pub(super) struct Blob {
    pub(super) unpacked: Unpacked,
    /// Of the bytes as they were transferred.
    pub(super) digest: Digest,
    /// Of the uncompressed archive.
    pub(super) diff_id: Digest,
}

/// Unpacks a blob. Blocking.
pub(super) fn unpack_blob(
    bytes: impl Read,
    staging: &Staging,
    lowers: impl FnOnce() -> Result<Vec<PathBuf>, UnpackError>,
    limits: &LayerLimits,
    zstd_window_log_max: u32,
) -> Result<Blob, UnpackError> {
    let failed = |source| UnpackError::Read { source };
    let received = Hashed::new(bytes);
    let inflated = Inflated::new(received, zstd_window_log_max).map_err(failed)?;
    let mut inflated = Hashed::new(inflated);
    let unpacked = unpack(&mut inflated, staging.path(), lowers, limits)?;
    let (inflated, diff_id) = inflated.finish();
    let mut received = inflated.into_inner();
    // What an inflater leaves unread belongs to the blob all the same.
    io::copy(&mut received, &mut io::sink()).map_err(failed)?;
    let (_, digest) = received.into_inner().finish();
    Ok(Blob {
        unpacked,
        digest,
        diff_id,
    })
}

/// Reads the pieces of a channel; one that closes before its end is an error.
pub(super) struct PieceReader {
    pieces: mpsc::Receiver<Piece>,
    current: bytes::Bytes,
    ended: bool,
}

impl PieceReader {
    pub(super) fn new(pieces: mpsc::Receiver<Piece>) -> Self {
        Self {
            pieces,
            current: bytes::Bytes::new(),
            ended: false,
        }
    }
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(piece)) => self.current = piece,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::Error::other("the transfer was given up")),
            }
        }
        let taken = self.current.len().min(buffer.len());
        let piece = self.current.split_to(taken);
        if let Some(target) = buffer.get_mut(..taken) {
            target.copy_from_slice(&piece);
        }
        Ok(taken)
    }
}

/// A reader that hashes what passes.
struct Hashed<R> {
    inner: R,
    hasher: Sha256,
}

impl<R> Hashed<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
        }
    }

    fn finish(self) -> (R, Digest) {
        (
            self.inner,
            Digest::from_bytes(self.hasher.finalize().into()),
        )
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// A layer's archive, however it is compressed.
enum Inflated<R: Read> {
    Plain(BufReader<R>),
    Gzip(Box<MultiGzDecoder<BufReader<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, BufReader<R>>),
}

impl<R: Read> Inflated<R> {
    /// Looks at the first bytes: no tar archive starts like gzip or zstd does, unless it is made to,
    /// and then its digest differs.
    fn new(received: R, zstd_window_log_max: u32) -> io::Result<Self> {
        let mut received = BufReader::with_capacity(BUFFER_BYTES, received);
        let start = received.fill_buf()?;
        if start.starts_with(&[0x1f, 0x8b]) {
            return Ok(Self::Gzip(Box::new(MultiGzDecoder::new(received))));
        }
        if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(received)?;
            decoder.window_log_max(zstd_window_log_max)?;
            return Ok(Self::Zstd(decoder));
        }
        Ok(Self::Plain(received))
    }

    fn into_inner(self) -> BufReader<R> {
        match self {
            Self::Plain(received) => received,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
        }
    }
}

impl<R: Read> Read for Inflated<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(plain) => plain.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}
