//! An upload while it comes in: a temporary file that becomes a blob, or nothing.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use domain::Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::{BlobError, Expected, io_error};

/// A part of an upload.
#[derive(Debug)]
pub(super) enum Piece {
    /// Content.
    Bytes(Bytes),
    /// That was all of it.
    End,
}

/// A temporary file, removed when it is dropped unless it has become a blob.
#[derive(Debug)]
pub(super) struct Incoming {
    expected: Expected,
    received: u64,
    hasher: Sha256,
    file: File,
    path: PathBuf,
    stored: bool,
}

impl Incoming {
    pub(super) fn create(folder: &Path, expected: Expected) -> Result<Self, BlobError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}.{number}", expected.digest.hex()));
        let file = File::create_new(&path).map_err(io_error("make", &path))?;
        Ok(Self {
            expected,
            received: 0,
            hasher: Sha256::new(),
            file,
            path,
            stored: false,
        })
    }

    /// Takes pieces until the end, then moves the file to `target`.
    pub(super) fn receive(
        mut self,
        mut pieces: mpsc::Receiver<Piece>,
        target: &Path,
    ) -> Result<(), BlobError> {
        loop {
            match pieces.blocking_recv() {
                Some(Piece::Bytes(piece)) => self.write(&piece)?,
                Some(Piece::End) => return self.finish(target),
                None => {
                    let what = "the upload ended before its end was announced";
                    return Err(BlobError::Upload(what.into()));
                }
            }
        }
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), BlobError> {
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        let room = self.expected.bytes - self.received;
        if length > room {
            return Err(BlobError::SizeMismatch {
                expected: self.expected.bytes,
                received: self.expected.bytes,
                more: true,
            });
        }
        self.received += length;
        self.hasher.update(piece);
        self.file
            .write_all(piece)
            .map_err(io_error("write", &self.path))
    }

    fn finish(mut self, target: &Path) -> Result<(), BlobError> {
        if self.received != self.expected.bytes {
            return Err(BlobError::SizeMismatch {
                expected: self.expected.bytes,
                received: self.received,
                more: false,
            });
        }
        let received = Digest::from_bytes(std::mem::take(&mut self.hasher).finalize().into());
        if received != self.expected.digest {
            let expected = self.expected.digest;
            return Err(BlobError::DigestMismatch { expected, received });
        }
        self.file.sync_all().map_err(io_error("sync", &self.path))?;
        let folder = target.parent().unwrap_or(target);
        if !folder.exists() {
            fs::create_dir_all(folder).map_err(io_error("make", folder))?;
            sync_dir(folder.parent().unwrap_or(folder))?;
        }
        fs::rename(&self.path, target).map_err(io_error("name", target))?;
        self.stored = true;
        sync_dir(folder)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.stored {
            return;
        }
        if let Err(err) = fs::remove_file(&self.path) {
            // The next start removes it.
            tracing::warn!(path = %self.path.display(), error = %err, "an unfinished upload stays");
        }
    }
}

fn sync_dir(dir: &Path) -> Result<(), BlobError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("sync", dir))
}
