//! How much a step writes to disk, and that it ends when that is too much.
//!
//! The kernel's own bound would be a project quota, but it needs a filesystem that was made for it and a
//! kernel with quota formats; neither can be expected of a host, and the layer has to lie on the
//! store's filesystem, so that it is kept by a rename. So three things bound a step together:
//!
//! - no file grows beyond the bound (`RLIMIT_FSIZE`, exact, by the kernel);
//! - space is taken by writing only (`fallocate` is refused by the seccomp profile), so it is taken at
//!   the speed of writing;
//! - this watch looks at the free space every few milliseconds, which is one system call, and counts
//!   what the step has written now and then, at once when the free space has fallen by as much as the
//!   step had left.
//!
//! A step may be over its bound by what it writes between two looks and until it is dead. The host is
//! safe from that by the floor of free space, which no step may pass.
//!
//! Files that the step has removed and still holds open are counted too.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, StatVfs};
use tokio::time::Instant;

use super::cgroup::Cgroups;
use crate::limits::native::NativeLimits;

/// The unit of `st_blocks`.
const STAT_BLOCK_BYTES: u64 = 512;

/// Folders in folders that are counted; deeper ones count as too much.
const DEPTH_MAX: usize = 512;

/// A count may take this part of the time at most.
const COUNT_SHARE: u32 = 10;

/// Why a step has no disk space left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFull {
    /// It has written more than it may.
    Step {
        /// The bound in bytes.
        bytes_max: u64,
    },
    /// It has made more files and folders than it may, or nested them too deep to be counted.
    Files {
        /// The bound.
        files_max: u64,
    },
    /// The host has too little left.
    Host {
        /// What steps leave free, in bytes.
        bytes_min: u64,
    },
}

impl std::fmt::Display for DiskFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const MIB: u64 = 1024 * 1024;
        match self {
            Self::Step { bytes_max } => write!(
                f,
                "the command wrote more than the {} MiB that a step may write to disk",
                bytes_max / MIB
            ),
            Self::Files { files_max } => write!(
                f,
                "the command made more than the {files_max} files that a step may make, or nested \
                 folders deeper than {DEPTH_MAX}"
            ),
            Self::Host { bytes_min } => write!(
                f,
                "the builder's disk has less than {} MiB or almost no files left",
                bytes_min / MIB
            ),
        }
    }
}

/// What was written so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Written {
    bytes: u64,
    files: u64,
    too_deep: bool,
}

/// Watches what one step writes.
#[derive(Debug)]
pub(super) struct DiskWatch {
    folder: PathBuf,
    /// The device that the step sees its files on.
    device: u64,
    cgroups: Cgroups,
    limits: NativeLimits,
    /// The last count, the free bytes at that time, and when the next one is due.
    written: Written,
    free_bytes: u64,
    count_due: Option<Instant>,
}

impl DiskWatch {
    /// Watches `folder`, which takes what the processes in `cgroups` write to `device`.
    pub(super) fn new(
        folder: &Path,
        device: u64,
        cgroups: &Cgroups,
        limits: &NativeLimits,
    ) -> Self {
        Self {
            folder: folder.to_owned(),
            device,
            cgroups: cgroups.clone(),
            limits: *limits,
            written: Written::default(),
            free_bytes: u64::MAX,
            count_due: None,
        }
    }

    /// Waits until the step has no disk space left.
    pub(super) async fn filled(&mut self) -> DiskFull {
        loop {
            // The kernel wakes nobody when space gets scarce: this has to look.
            tokio::time::sleep(self.limits.disk_look_interval).await;
            match self.look(false).await {
                Ok(Some(full)) => return full,
                Ok(None) => {}
                // The folder cannot be looked at: the step's end will tell why.
                Err(error) => tracing::debug!(%error, "cannot see what a step has written"),
            }
        }
    }

    /// Whether the disk was full for a step that has ended.
    pub(super) async fn verdict(&mut self, succeeded: bool) -> Option<DiskFull> {
        match self.look(true).await {
            // What is there has been written, and others may have used the rest of the disk.
            Ok(Some(DiskFull::Host { .. })) if succeeded => None,
            Ok(full) => full,
            Err(error) => {
                tracing::warn!(%error, "cannot see what a step has written");
                None
            }
        }
    }

    async fn look(&mut self, count: bool) -> io::Result<Option<DiskFull>> {
        let folder = self.folder.clone();
        let free = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&folder)).await;
        let free = free.map_err(io::Error::other)??;
        let limits = &self.limits;
        let free_bytes = free.f_bavail.saturating_mul(free.f_frsize);
        if free_bytes < limits.disk_free_bytes_min || lacks_files(&free, limits) {
            let bytes_min = limits.disk_free_bytes_min;
            return Ok(Some(DiskFull::Host { bytes_min }));
        }
        let left = limits.disk_bytes_max.saturating_sub(self.written.bytes);
        let may_be_over = self.free_bytes.saturating_sub(free_bytes) > left;
        let due = self.count_due.is_none_or(|due| due <= Instant::now());
        if count || due || may_be_over && self.free_bytes != u64::MAX {
            self.count(free_bytes).await?;
        }
        Ok(self.judge())
    }

    async fn count(&mut self, free_bytes: u64) -> io::Result<()> {
        let (folder, device) = (self.folder.clone(), self.device);
        let cgroups = self.cgroups.clone();
        let began = Instant::now();
        let files_max = self.limits.disk_files_max;
        let counted = tokio::task::spawn_blocking(move || {
            let mut written = count(&folder, files_max)?;
            written.bytes += removed_bytes(&cgroups, device);
            Ok::<_, io::Error>(written)
        });
        self.written = counted.await.map_err(io::Error::other)??;
        self.free_bytes = free_bytes;
        let pause = (began.elapsed() * COUNT_SHARE).max(self.limits.disk_count_interval);
        self.count_due = Some(Instant::now() + pause);
        Ok(())
    }

    fn judge(&self) -> Option<DiskFull> {
        let bytes_max = self.limits.disk_bytes_max;
        let files_max = self.limits.disk_files_max;
        if self.written.bytes >= bytes_max {
            Some(DiskFull::Step { bytes_max })
        } else if self.written.files > files_max || self.written.too_deep {
            Some(DiskFull::Files { files_max })
        } else {
            None
        }
    }
}

/// Whether the filesystem has too few files left; some count none.
fn lacks_files(free: &StatVfs, limits: &NativeLimits) -> bool {
    free.f_files > 0 && free.f_favail < limits.disk_free_files_min
}

/// What is in a folder that changes meanwhile, up to `files_max` files.
fn count(folder: &Path, files_max: u64) -> io::Result<Written> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut written = Written::default();
    let mut shared = HashSet::new();
    // Open folders, and what is still to be opened in each: paths may be longer than the kernel takes.
    let mut open: Vec<(OwnedFd, Vec<std::ffi::CString>)> = Vec::new();
    let mut next = Some(rustix::fs::openat(CWD, folder, flags, Mode::empty())?);
    while written.files <= files_max {
        if let Some(folder) = next.take() {
            let inner = list(&folder, &mut written, &mut shared);
            open.push((folder, inner));
        }
        let depth = open.len();
        let Some((folder, inner)) = open.last_mut() else {
            break;
        };
        let Some(name) = inner.pop() else {
            open.pop();
            continue;
        };
        if depth > DEPTH_MAX {
            written.too_deep = true;
            break;
        }
        // What is gone meanwhile takes no space.
        next = rustix::fs::openat(&*folder, &name, flags, Mode::empty()).ok();
    }
    Ok(written)
}

/// Adds what is directly in `folder`, and gives the folders in it.
fn list(
    folder: &OwnedFd,
    written: &mut Written,
    shared: &mut HashSet<u64>,
) -> Vec<std::ffi::CString> {
    let mut inner = Vec::new();
    let Ok(entries) = Dir::read_from(folder) else {
        return inner;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            inner.push(name.to_owned());
        } else if stat.st_nlink > 1 && !shared.insert(stat.st_ino) {
            continue;
        }
        written.files += 1;
        written.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * STAT_BLOCK_BYTES;
    }
    inner
}

/// Bytes of files on `device` that have no name any more and that a process of the group holds open.
/// Files that are only memory are on another device, and bounded as memory.
fn removed_bytes(cgroups: &Cgroups, device: u64) -> u64 {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    // Processes come and go: what is gone holds nothing.
    for process in cgroups.processes().unwrap_or_default() {
        let Ok(handles) = std::fs::read_dir(format!("/proc/{process}/fd")) else {
            continue;
        };
        for handle in handles.flatten() {
            let Ok(file) = std::fs::metadata(handle.path()) else {
                continue;
            };
            let removed = file.is_file() && file.nlink() == 0 && file.dev() == device;
            if removed && seen.insert(file.ino()) {
                bytes += file.blocks() * STAT_BLOCK_BYTES;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(bytes: u64) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        let content = vec![1; usize::try_from(bytes).unwrap()];
        std::fs::write(folder.path().join("in/file"), content).unwrap();
        std::fs::hard_link(folder.path().join("in/file"), folder.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", folder.path().join("link")).unwrap();
        folder
    }

    #[test]
    fn a_file_of_two_names_counts_once_and_links_are_not_followed() {
        let folder = filled(1024 * 1024);
        let written = count(folder.path(), 100).unwrap();
        assert_eq!(written.files, 3);
        assert!(
            (1_048_576..1_200_000).contains(&written.bytes),
            "{written:?}"
        );
    }

    #[test]
    fn folders_that_are_nested_beyond_every_path_are_told() {
        let top = tempfile::tempdir().unwrap();
        let open = |at: &OwnedFd, name: &str| {
            rustix::fs::openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
        };
        let mut here: OwnedFd = std::fs::File::open(top.path()).unwrap().into();
        for _ in 0..=DEPTH_MAX {
            let name = "a-rather-long-name";
            rustix::fs::mkdirat(&here, name, Mode::RWXU).unwrap();
            here = open(&here, name);
        }
        assert!(count(top.path(), 10_000).unwrap().too_deep);
        assert!(!count(top.path(), 100).unwrap().too_deep);
        assert_eq!(count(top.path(), 100).unwrap().files, 101);
    }

    #[tokio::test]
    async fn too_much_of_each_kind_has_its_own_verdict() {
        let folder = filled(1024 * 1024);
        let verdict = async |change: &dyn Fn(&mut NativeLimits)| {
            let mut limits = NativeLimits::default();
            change(&mut limits);
            let groups = Cgroups::named("no-group-has-this-name");
            DiskWatch::new(folder.path(), 0, &groups, &limits)
                .verdict(false)
                .await
        };
        assert_eq!(verdict(&|_| ()).await, None);
        let step = verdict(&|limits| limits.disk_bytes_max = 500_000).await;
        assert_eq!(step, Some(DiskFull::Step { bytes_max: 500_000 }));
        let files = verdict(&|limits| limits.disk_files_max = 2).await;
        assert_eq!(files, Some(DiskFull::Files { files_max: 2 }));
        let host = verdict(&|limits| limits.disk_free_bytes_min = u64::MAX).await;
        assert_eq!(
            host,
            Some(DiskFull::Host {
                bytes_min: u64::MAX
            })
        );
    }
}
