//! Copies from the context into a view: a file to a name or into a folder, what is in a folder into a
//! folder.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::Path;

use domain::Digest;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::{Changer, DIR_MODE, FileError, refused};
use crate::native::context::{BelowKind, Source, SourceFile};
use crate::native::step::Copy;
use crate::native::view::{Last, Ownership, is_dir};

/// How much is copied at once, in bytes.
const PIECE_BYTES: usize = 128 * 1024;

impl Changer<'_> {
    pub(super) fn copy(&self, copy: &Copy) -> Result<(), FileError> {
        let owner = copy
            .user
            .as_deref()
            .map_or(Ok(Ownership::ROOT), |user| self.owner(user))?;
        let dst = Path::new(&copy.dst);
        let look = |error| refused("copy to", dst)(error);
        let into_dir = copy.into_dir || self.view.is_dir(dst).map_err(look)?;
        for source in &copy.sources {
            match source {
                Source::File { name, file } => {
                    let path = if into_dir {
                        dst.join(name)
                    } else {
                        dst.to_owned()
                    };
                    self.copy_file(&path, file, copy.mode, owner)?;
                }
                Source::Dir(entries) => {
                    self.make_parents(dst, owner)?;
                    for entry in entries {
                        let path = dst.join(&entry.path);
                        match &entry.kind {
                            BelowKind::Dir(mode) => {
                                let mode = copy.mode.map_or(*mode, searchable);
                                self.copy_dir(&path, mode, owner)?;
                            }
                            BelowKind::File(file) => {
                                self.copy_file(&path, file, copy.mode, owner)?;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn make_parents(&self, path: &Path, owner: Ownership) -> Result<(), FileError> {
        self.view
            .make_dirs(path, DIR_MODE, owner)
            .map_err(refused("make", path))?;
        Ok(())
    }

    /// Makes a folder of the context; one that exists stays as it is.
    fn copy_dir(&self, path: &Path, mode: u32, owner: Ownership) -> Result<(), FileError> {
        if !self.view.is_dir(path).map_err(refused("copy to", path))? {
            self.make_parents(path, owner)?;
            let resolved = self
                .view
                .resolve(path, Last::Follow)
                .map_err(refused("copy to", path))?;
            self.view
                .set_mode(&resolved, mode)
                .map_err(refused("set the mode of", path))?;
        }
        Ok(())
    }

    fn copy_file(
        &self,
        path: &Path,
        file: &SourceFile,
        mode: Option<u32>,
        owner: Ownership,
    ) -> Result<(), FileError> {
        let failed = |error| refused("copy to", path)(error);
        // Through a link, as `cp` does: the link stays, and what it points to is replaced.
        let target = self.view.resolve(path, Last::Follow).map_err(failed)?;
        if let Some(parent) = target.parent() {
            self.make_parents(parent, owner)?;
        }
        match self
            .view
            .stat(&target, Last::Keep)
            .map_err(refused("copy to", path))?
        {
            Some(stat) if is_dir(&stat) => {
                return Err(refused("copy to", path)(Errno::ISDIR.into()));
            }
            // A new file in its place: a file of a lower layer is not read up only to be emptied.
            Some(_) => self
                .view
                .unlink(&target, false)
                .map_err(refused("replace", path))?,
            None => {}
        }
        let blob = (self.blobs)(&file.digest).map_err(|source| FileError::Blob {
            path: path.to_string_lossy().into_owned(),
            source,
        })?;
        let mut out = self
            .view
            .create(&target)
            .map_err(refused("copy to", path))?;
        let (digest, bytes) = pour(blob, &mut out).map_err(refused("copy to", path))?;
        if (digest, bytes) != (file.digest, file.bytes) {
            return Err(FileError::Content {
                path: path.to_string_lossy().into_owned(),
            });
        }
        drop(out);
        self.finish(&target, mode.unwrap_or(file.mode), owner)
            .map_err(refused("copy to", path))
    }

    /// Owner first: a change of owner takes the set-user-id bit away.
    fn finish(&self, target: &Path, mode: u32, owner: Ownership) -> io::Result<()> {
        self.view.set_owner(target, owner)?;
        self.view.set_mode(target, mode)
    }
}

/// Copies everything and says what it was.
fn pour(mut from: impl Read, to: &mut File) -> io::Result<(Digest, u64)> {
    let mut hasher = Sha256::new();
    let mut bytes = 0_u64;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = from.read(&mut piece)?;
        let Some(read) = piece.get(..count).filter(|read| !read.is_empty()) else {
            return Ok((Digest::from_bytes(hasher.finalize().into()), bytes));
        };
        hasher.update(read);
        to.write_all(read)?;
        bytes = bytes.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

/// The bits of a folder among files of mode `mode`: who may read it may also pass.
const fn searchable(mode: u32) -> u32 {
    mode | ((mode & 0o444) >> 2)
}
