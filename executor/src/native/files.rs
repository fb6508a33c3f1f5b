//! Changes of files that steps make by our own hand, inside a view.
//!
//! They do what the commands `cp`, `mkdir -p`, `ln -s`, `rm` and `mv` of the image would do, without
//! needing them there. Nothing else changes the view meanwhile. Blocking.

mod copy;
mod relocate;

use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::account::{Account, AccountError};
use super::context::OpenBlob;
use super::key::DueDir;
use super::step::Change;
use super::view::{Last, Ownership, View, is_dir};
use crate::layers::remove::remove_at;

/// Permission bits of a folder for which none are given.
const DIR_MODE: u32 = 0o755;

/// Why a change of files was not made.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A user is none of the image's.
    #[error("cannot give files to `{user}`")]
    User {
        /// The user.
        user: String,
        /// The cause.
        source: AccountError,
    },
    /// A path stands for the whole root filesystem, which is no file to change.
    #[error("cannot {action} `{path}`: it is the root of the file system")]
    Root {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: String,
    },
    /// A stored file is not what the context says.
    #[error("the stored content of `{path}` does not match its digest")]
    Content {
        /// Where it was to go.
        path: String,
    },
    /// A stored file cannot be opened.
    #[error("cannot open the stored content of `{path}`")]
    Blob {
        /// Where it was to go.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The file system refused.
    #[error("cannot {action} `{path}`")]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: String,
        /// The cause.
        source: Refusal,
    },
}

/// Why the file system refused, in words for the author of a step.
#[derive(Debug)]
pub struct Refusal(io::Error);

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT) => f.write_str("there is no such file or folder"),
            Some(Errno::EXIST) => f.write_str("there is something already"),
            Some(Errno::NOTDIR) => f.write_str("it is not a folder"),
            Some(Errno::ISDIR) => f.write_str("it is a folder"),
            Some(Errno::NOTEMPTY) => f.write_str("the folder is not empty"),
            _ => self.0.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {}

impl FileError {
    /// Whether no space was left.
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};

        match self {
            Self::Refused {
                source: Refusal(source),
                ..
            }
            | Self::Blob { source, .. } => {
                matches!(source.kind(), StorageFull | QuotaExceeded)
            }
            Self::User { .. } | Self::Root { .. } | Self::Content { .. } => false,
        }
    }
}

/// Makes the error for `action` at `path`.
fn refused(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> FileError {
    let path = path.as_ref().to_string_lossy().into_owned();
    move |source| FileError::Refused {
        action,
        path,
        source: Refusal(source),
    }
}

/// Changes files in views.
pub struct Changer<'a> {
    /// The root filesystem.
    pub view: &'a View,
    /// Where copied content comes from.
    pub blobs: &'a OpenBlob,
    /// The largest file of accounts that is read, in bytes.
    pub account_file_bytes_max: u64,
}

impl std::fmt::Debug for Changer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changer")
            .field("view", self.view)
            .finish_non_exhaustive()
    }
}

impl Changer<'_> {
    /// Makes the working folders that are due.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn make_workdirs(&self, due: &[DueDir]) -> Result<(), FileError> {
        for dir in due {
            let path = Path::new(&dir.path);
            let exists = self.view.is_dir(path).map_err(refused("look at", path))?;
            if !exists {
                let owner = self.owner(&dir.user)?;
                self.view
                    .make_dirs(path, DIR_MODE, owner)
                    .map_err(refused("make", path))?;
            }
        }
        Ok(())
    }

    /// Makes `change`.
    ///
    /// # Errors
    /// [`FileError`]; what was done before the error stays.
    pub fn make(&self, change: &Change) -> Result<(), FileError> {
        match change {
            Change::Copy(copies) => copies.iter().try_for_each(|copy| self.copy(copy)),
            Change::MakeDir { path, mode, user } => {
                self.make_dir(Path::new(path), *mode, self.maker(user)?)
            }
            Change::MakeSymlink { target, path, user } => {
                self.make_symlink(target, Path::new(path), self.maker(user)?)
            }
            Change::Remove {
                path,
                recursive,
                force,
            } => self.remove(Path::new(path), *recursive, *force),
            Change::Rename { src, dst, force } => {
                self.rename(Path::new(src), Path::new(dst), *force)
            }
            Change::Workdir => Ok(()),
        }
    }

    fn owner(&self, user: &str) -> Result<Ownership, FileError> {
        // A number alone means the group of that number too, as `--chown=1000` does in a Dockerfile.
        if let Ok(id) = user.parse() {
            return Ok(Ownership { uid: id, gid: id });
        }
        self.maker(user)
    }

    /// Who owns what a command of `user` makes.
    fn maker(&self, user: &str) -> Result<Ownership, FileError> {
        let found = Account::find(self.view, user, self.account_file_bytes_max);
        let account = found.map_err(|source| FileError::User {
            user: user.to_owned(),
            source,
        })?;
        Ok(account.owner)
    }

    fn make_dir(&self, path: &Path, mode: Option<u32>, owner: Ownership) -> Result<(), FileError> {
        self.view
            .make_dirs(path, DIR_MODE, owner)
            .map_err(refused("make", path))?;
        if let Some(mode) = mode {
            let resolved = self
                .view
                .resolve(path, Last::Follow)
                .map_err(refused("make", path))?;
            self.view
                .set_mode(&resolved, mode)
                .map_err(refused("set the mode of", path))?;
        }
        Ok(())
    }

    fn make_symlink(&self, target: &str, path: &Path, owner: Ownership) -> Result<(), FileError> {
        let make = |error| refused("link", path)(error);
        let mut place = path.to_owned();
        if self.view.is_dir(path).map_err(make)? {
            place.push(
                Path::new(target)
                    .file_name()
                    .ok_or_else(|| FileError::Root {
                        action: "link",
                        path: target.to_owned(),
                    })?,
            );
        }
        let place = self
            .view
            .resolve(&place, Last::Keep)
            .map_err(refused("link", path))?;
        if let Some(parent) = place.parent() {
            self.view
                .make_dirs(parent, DIR_MODE, owner)
                .map_err(refused("link", path))?;
        }
        self.view
            .symlink(target, &place)
            .and_then(|()| self.view.set_owner(&place, owner))
            .map_err(refused("link", path))
    }

    fn remove(&self, path: &Path, recursive: bool, force: bool) -> Result<(), FileError> {
        let failed = |error| refused("remove", path)(error);
        let resolved = self.view.resolve(path, Last::Keep).map_err(failed)?;
        if resolved.as_os_str().is_empty() {
            return Err(root("remove", path));
        }
        match self
            .view
            .stat(&resolved, Last::Keep)
            .map_err(refused("remove", path))?
        {
            None if force => Ok(()),
            None => Err(refused("remove", path)(Errno::NOENT.into())),
            Some(stat) if is_dir(&stat) && !recursive => {
                Err(refused("remove", path)(Errno::ISDIR.into()))
            }
            Some(_) => self.remove_all(&resolved).map_err(refused("remove", path)),
        }
    }

    /// Removes whatever is at `path`, which is resolved.
    fn remove_all(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.view.parent(path)?;
        remove_at(&parent, name)
    }
}

fn root(action: &'static str, path: &Path) -> FileError {
    FileError::Root {
        action,
        path: path.to_string_lossy().into_owned(),
    }
}

#[cfg(test)]
mod tests;
