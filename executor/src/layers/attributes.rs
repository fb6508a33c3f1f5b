//! Owner, permissions, extended attributes and times of files in a layer, read and applied.
//!
//! A file is named by an open folder and a name in it, or by the folder itself and `.`. No call
//! here follows a symbolic link in the last place.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};

use super::archive::Attributes;

/// Marks a folder that hides what the layers beneath have in its place.
pub(super) const OPAQUE: &str = "trusted.overlay.opaque";
/// Attributes with this prefix tell overlayfs what to do: an archive must not supply them.
pub(super) const OVERLAY_PREFIX: &[u8] = b"trusted.overlay.";

/// What becomes of an extended attribute that an archive supplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    Keep,
    /// Left out: it means something only to the machine that made the image.
    Drop,
    /// Refused, for this reason.
    Refuse(&'static str),
}

/// What becomes of an extended attribute of this name.
///
/// Labels of security modules (`security.*` but for file capabilities) belong to the machine that
/// made the image, and so does what its unprivileged overlays noted (`user.overlay.*`).
pub(super) fn policy(name: &[u8]) -> Policy {
    if name.starts_with(OVERLAY_PREFIX) {
        Policy::Refuse("its attributes `trusted.overlay.*` would steer the mount")
    } else if name == b"security.capability" {
        Policy::Keep
    } else if name.starts_with(b"security.") || name.starts_with(b"user.overlay.") {
        Policy::Drop
    } else if name.starts_with(b"user.") || name.starts_with(b"trusted.") {
        Policy::Keep
    } else {
        // A folder's default list would also change what is made in it later.
        Policy::Refuse("access control lists and attributes of other kinds are not supported")
    }
}

/// A file's place: an open folder, and a name in it that is not followed.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) folder: BorrowedFd<'a>,
    pub(super) name: &'a OsStr,
}

impl<'a> At<'a> {
    pub(super) fn new(folder: &'a impl AsFd, name: &'a OsStr) -> Self {
        Self {
            folder: folder.as_fd(),
            name,
        }
    }

    /// The folder itself.
    pub(super) fn folder(folder: &'a impl AsFd) -> Self {
        Self::new(folder, OsStr::new("."))
    }

    pub(super) fn stat(self) -> rustix::io::Result<Stat> {
        rustix::fs::statat(self.folder, self.name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// A path for the calls that take no folder. It lives as long as the folder is open.
    pub(super) fn path(self) -> PathBuf {
        let mut path = String::from("/proc/self/fd/");
        write!(path, "{}", self.folder.as_raw_fd()).expect("a string takes all text");
        PathBuf::from(path).join(self.name)
    }

    /// Sets the owner, then the mode, then the extended attributes: changing the owner clears
    /// setuid and setgid, and both changes clear file capabilities.
    pub(super) fn apply(self, attributes: &Attributes) -> io::Result<()> {
        rustix::fs::chownat(
            self.folder,
            self.name,
            Some(Uid::from_raw(attributes.owner)),
            Some(Gid::from_raw(attributes.group)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        let kind = rustix::fs::FileType::from_raw_mode(self.stat()?.st_mode);
        if kind != rustix::fs::FileType::Symlink {
            rustix::fs::chmodat(
                self.folder,
                self.name,
                Mode::from_bits_truncate(attributes.mode),
                AtFlags::empty(),
            )?;
        }
        for (name, value) in &attributes.xattrs {
            self.set_xattr(OsStr::from_bytes(name), value)?;
        }
        Ok(())
    }

    fn set_xattr(self, name: &OsStr, value: &[u8]) -> io::Result<()> {
        match rustix::fs::lsetxattr(self.path(), name, value, XattrFlags::empty()) {
            // ext4 says "no space" for what is too much for one file, too: no full disk then.
            Err(rustix::io::Errno::NOSPC) if rustix::fs::fstatvfs(self.folder)?.f_bavail > 0 => {
                Err(io::Error::other(
                    "its extended attributes take more room than a file has for them",
                ))
            }
            done => Ok(done?),
        }
    }

    /// Removes the extended attributes that an archive could have supplied and `attributes` lacks.
    pub(super) fn remove_other_xattrs(self, attributes: &Attributes) -> io::Result<()> {
        for name in self.xattr_names()? {
            let mut named = attributes.xattrs.iter().map(|(name, _)| name.as_slice());
            if policy(name.as_bytes()) == Policy::Keep
                && !named.any(|other| other == name.as_bytes())
            {
                rustix::fs::lremovexattr(self.path(), &name)?;
            }
        }
        Ok(())
    }

    /// Sets the time of the last change, and of the last access to the same.
    pub(super) fn set_modified(self, modified: Timespec) -> io::Result<()> {
        let times = Timestamps {
            last_access: modified,
            last_modification: modified,
        };
        rustix::fs::utimensat(self.folder, self.name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    /// Reads what [`At::apply`] and [`At::set_modified`] set, without overlayfs's own attributes.
    pub(super) fn attributes(self) -> io::Result<Attributes> {
        let stat = self.stat()?;
        let mut xattrs = Vec::new();
        for name in self.xattr_names()? {
            if !name.as_bytes().starts_with(OVERLAY_PREFIX) {
                let value = self.xattr(&name)?.unwrap_or_default();
                xattrs.push((name.into_vec(), value));
            }
        }
        Ok(Attributes {
            owner: stat.st_uid,
            group: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            modified: modified(&stat),
            xattrs,
        })
    }

    /// The value of an extended attribute, `None` if the file has none of that name.
    pub(super) fn xattr(self, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0_u8; 64 * 1024];
        match rustix::fs::lgetxattr(self.path(), name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                Ok(Some(value))
            }
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether this folder hides what the layers beneath have in its place.
    pub(super) fn is_opaque(self) -> io::Result<bool> {
        Ok(self
            .xattr(OsStr::new(OPAQUE))?
            .is_some_and(|value| value == b"y"))
    }

    pub(super) fn set_opaque(self) -> io::Result<()> {
        rustix::fs::lsetxattr(self.path(), OPAQUE, b"y", XattrFlags::empty())?;
        Ok(())
    }

    fn xattr_names(self) -> io::Result<Vec<OsString>> {
        // The kernel's bound on a list of names is 64 KiB (`XATTR_LIST_MAX`).
        let mut names = vec![0_u8; 64 * 1024];
        let length = match rustix::fs::llistxattr(self.path(), names.as_mut_slice()) {
            Ok(length) => length,
            Err(rustix::io::Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(error.into()),
        };
        names.truncate(length);
        Ok(names
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| OsStr::from_bytes(name).to_owned())
            .collect())
    }
}

/// The time of the last change in a file's status.
pub(super) fn modified(stat: &Stat) -> Timespec {
    Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
    }
}

/// Whether a file is overlayfs's mark for a removed name: a character device 0:0.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::CharacterDevice
        && stat.st_rdev == 0
}
