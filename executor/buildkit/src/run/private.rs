//! A folder that only one process sees: where secrets lie while `buildctl` may read them.
//!
//! It is a filesystem in memory that is mounted nowhere on the host. A file descriptor of ours holds it
//! while it is filled; then only the mounts of the process that it was made for. Whatever ends that
//! process removes it, and nothing has to clean up: not after a crash either.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change,
    move_mount,
};
use rustix::thread::UnshareFlags;
use tokio::process::Command;

/// What there is room for beside the named files: the policy, the logins, what buildctl notes there.
const SPARE_BYTES: usize = 4 * 1024 * 1024;
/// The unit in which memory is taken, in bytes; half of it is lost by each file.
const PAGE_BYTES: usize = 4096;
/// How many files there may be beside the named ones.
const SPARE_FILES: usize = 64;

/// A filesystem in memory, mounted nowhere.
#[derive(Debug)]
pub(super) struct PrivateFolder {
    mount: OwnedFd,
}

impl PrivateFolder {
    /// An empty one, with room for files of the given sizes. Blocking, briefly.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn new(file_bytes: impl Iterator<Item = usize>) -> io::Result<Self> {
        let (mut bytes, mut files) = (SPARE_BYTES, SPARE_FILES);
        for file in file_bytes {
            bytes += file.next_multiple_of(PAGE_BYTES);
            files += 1;
        }
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "size", bytes.to_string())?;
        fsconfig_set_string(&context, "nr_inodes", files.to_string())?;
        fsconfig_set_string(&context, "mode", "0700")?;
        // So that nothing of it is ever written to a disk. Kernels before 6.4 know no such wish.
        let _may_be_swapped = fsconfig_set_flag(&context, "noswap");
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        Ok(Self { mount })
    }

    /// Makes an empty file in it, for its owner only. Blocking, briefly.
    ///
    /// # Errors
    /// There is no room, or there is such a file.
    pub(super) fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.mount, name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(file.into())
    }

    /// Gives it to the process that `command` starts, which sees it at the folder `place`. Once the
    /// command is dropped, only that process has it.
    ///
    /// # Errors
    /// The path has a zero byte.
    pub(super) fn hand_over(self, command: &mut Command, place: &Path) -> io::Result<()> {
        let place = CString::new(place.as_os_str().as_bytes())?;
        let enter = move || {
            own_mounts()?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(&self.mount, c"", CWD, place.as_c_str(), flags)?;
            Ok(())
        };
        #[expect(
            unsafe_code,
            reason = "code between fork and exec is unsafe for what it may call"
        )]
        // SAFETY: system calls and nothing else: the paths are C strings already, so no memory is
        // allocated, and no lock is taken.
        unsafe {
            command.pre_exec(enter);
        }
        Ok(())
    }
}

/// Gives a new process mounts of its own: nothing that it mounts is seen elsewhere. What the host
/// unmounts goes away here too, so that no build keeps a filesystem of the host busy.
fn own_mounts() -> io::Result<()> {
    #[expect(unsafe_code, reason = "unshare is unsafe for its other flags")]
    // SAFETY: the mounts and the working folder of a new process are no state that any code relies on;
    // the flag that could pull file descriptors from under other code (FILES) is not given.
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change(c"/", downstream)?;
    Ok(())
}
