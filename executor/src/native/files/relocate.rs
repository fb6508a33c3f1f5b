//! Renaming in a view of layers, where the kernel cannot rename a folder of a lower layer.

use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::{Changer, FileError, refused, root};
use crate::native::view::{Last, Ownership, View, is_dir};

/// How deep the folders in a folder of a lower layer may be nested for it to be renamed. Each level
/// holds two open files and a part of the stack.
const NESTED_MAX: usize = 200;

impl Changer<'_> {
    pub(super) fn rename(&self, src: &Path, dst: &Path, force: bool) -> Result<(), FileError> {
        let failed = |error| refused("rename", src)(error);
        let from = self.view.resolve(src, Last::Keep).map_err(failed)?;
        let Some(name) = from.file_name() else {
            return Err(root("rename", src));
        };
        let stat = self
            .view
            .stat(&from, Last::Keep)
            .map_err(refused("rename", src))?;
        let stat = stat.ok_or_else(|| refused("rename", src)(Errno::NOENT.into()))?;
        // As `mv`: into a folder that is there, under the same name.
        let into = self.view.is_dir(dst).map_err(refused("rename to", dst))?;
        let place = if into { dst.join(name) } else { dst.to_owned() };
        let to = self
            .view
            .resolve(&place, Last::Keep)
            .map_err(refused("rename to", dst))?;
        if to == from {
            return Ok(());
        }
        if is_dir(&stat) && to.starts_with(&from) {
            return Err(refused("rename into itself", src)(Errno::INVAL.into()));
        }
        match self
            .view
            .stat(&to, Last::Keep)
            .map_err(refused("rename to", dst))?
        {
            Some(_) if !force => return Err(refused("rename to", dst)(Errno::EXIST.into())),
            Some(there) if is_dir(&there) && !is_dir(&stat) => {
                return Err(refused("rename to", dst)(Errno::ISDIR.into()));
            }
            Some(_) if from.starts_with(&to) => {
                return Err(refused("rename to", dst)(Errno::NOTEMPTY.into()));
            }
            Some(_) => self.remove_all(&to).map_err(refused("replace", dst))?,
            None => {}
        }
        if let Some(parent) = to.parent() {
            self.view
                .make_dirs(parent, super::DIR_MODE, Ownership::ROOT)
                .map_err(refused("rename to", dst))?;
        }
        relocate(self.view, &from, &to, NESTED_MAX).map_err(refused("rename", src))
    }
}

/// Moves whatever is at `from` to `to`, where nothing is.
fn relocate(view: &View, from: &Path, to: &Path, levels: usize) -> io::Result<()> {
    match view.rename(from, to) {
        Err(error) if error.raw_os_error() == Some(Errno::XDEV.raw_os_error()) => {}
        done => return done,
    }
    let Some(levels) = levels.checked_sub(1) else {
        return Err(io::Error::other(format!(
            "its folders are nested deeper than {NESTED_MAX} levels"
        )));
    };
    // A folder of a lower layer: a new one, into which everything moves. Files can be renamed.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let old = view.open_at(from, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&old)?;
    let owner = Ownership {
        uid: stat.st_uid,
        gid: stat.st_gid,
    };
    view.make_dirs(to, stat.st_mode & 0o7777, owner)?;
    for name in view.names(from)? {
        relocate(view, &from.join(&name), &to.join(&name), levels)?;
    }
    let new = view.open_at(to, flags, Mode::empty())?;
    copy_attributes(&old, &new)?;
    view.unlink(from, true)?;
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: stat.st_atime,
            tv_nsec: nanoseconds(stat.st_atime_nsec),
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: nanoseconds(stat.st_mtime_nsec),
        },
    };
    rustix::fs::futimens(&new, &times)?;
    Ok(())
}

fn nanoseconds(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(0)
}

/// Gives `new` the extended attributes of `old`. Overlayfs shows none of its own.
fn copy_attributes(old: &impl rustix::fd::AsFd, new: &impl rustix::fd::AsFd) -> io::Result<()> {
    let size = match rustix::fs::flistxattr_query(old) {
        // A file system without them.
        Err(Errno::NOTSUP) => return Ok(()),
        size => size?,
    };
    let mut names = vec![0_u8; size];
    let size = rustix::fs::flistxattr(old, &mut names[..])?;
    names.truncate(size);
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let size = rustix::fs::fgetxattr_query(old, name)?;
        let mut value = vec![0_u8; size];
        let size = rustix::fs::fgetxattr(old, name, &mut value[..])?;
        value.truncate(size);
        rustix::fs::fsetxattr(new, name, &value, XattrFlags::empty())?;
    }
    Ok(())
}

impl View {
    /// Renames `from` to `to`, where nothing is. Both are resolved.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let flags = RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(&from_dir, from_name, &to_dir, to_name, flags)?;
        Ok(())
    }
}
