//! The files of a step while it is carried out.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

use super::{NativeBuilder, StepError};
use crate::holdings::Thing;
use crate::layers::{Layer, OverlayMount, Staging};
use crate::limits::native::NativeLimits;

/// A step's files, mounted.
pub(super) struct Tree {
    mounted: Option<(OverlayMount, PathBuf)>,
    target: PathBuf,
}

impl Tree {
    pub(super) async fn mount(
        beneath: &[Layer],
        staging: Staging,
        builder: &NativeBuilder,
    ) -> Result<Self, StepError> {
        let (beneath, mounts) = (beneath.to_vec(), builder.mounts_dir.clone());
        let holdings = builder.holdings.clone();
        blocking("mount files", move || {
            let dir = tempfile::Builder::new().prefix("step-").tempdir_in(mounts);
            // Kept, because removing it with what is in it must never meet a mount.
            let target = dir
                .map_err(|source| io("make a mount point", source))?
                .keep();
            let mount =
                OverlayMount::writable(&beneath, staging.path(), staging.work_path(), &target)?;
            holdings.hold([Thing::mount(&target), Thing::Folder(target.clone())]);
            Ok(Self {
                mounted: Some((mount, target.clone())),
                target,
            })
        })
        .await
    }

    pub(super) fn path(&self) -> &Path {
        &self.target
    }

    /// Unmounts the files, so that everything written is in the staging folder.
    pub(super) async fn unmount(mut self, limits: &NativeLimits) -> Result<(), StepError> {
        self.wait_until_idle(limits).await;
        let Some((mount, target)) = self.mounted.take() else {
            return Ok(());
        };
        blocking("unmount files", move || {
            let unmounted = mount.unmount();
            let removed = std::fs::remove_dir(target);
            unmounted?;
            removed.map_err(|source| io("remove a mount point", source))
        })
        .await
    }

    /// Waits until no process has anything of the files open.
    ///
    /// The container is gone and our own handles are closed. But a process that the service started
    /// meanwhile for something else had copies of all handles between its fork and its exec.
    async fn wait_until_idle(&self, limits: &NativeLimits) {
        let idle = async {
            while self.is_busy() {
                tokio::time::sleep(limits.poll_interval).await;
            }
        };
        // If it stays busy, the unmounting says so.
        let _in_time = tokio::time::timeout(limits.kill_wait, idle).await;
    }

    /// Asks the kernel whether the mount is in use: a first call with this flag never unmounts.
    fn is_busy(&self) -> bool {
        let flags = UnmountFlags::EXPIRE | UnmountFlags::NOFOLLOW;
        self.mounted.is_some()
            && rustix::mount::unmount(&self.target, flags) == Err(rustix::io::Errno::BUSY)
    }
}

impl Drop for Tree {
    /// A build that was dropped in the middle.
    fn drop(&mut self) {
        let Some((mount, target)) = self.mounted.take() else {
            return;
        };
        let unmount = move || {
            drop(mount);
            // If it is not empty, it is still a mount: nothing in it may be touched.
            let _left = std::fs::remove_dir(target);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(unmount)),
            Err(_) => unmount(),
        }
    }
}

/// Unmounts everything below `dir` and removes the mount points there: what a crash left. Gives the
/// number of mounts. Blocking.
///
/// To be called at a start before anything removes `dir`, because that would fail at a mount, or reach
/// through it.
///
/// # Errors
/// The mounts cannot be listed, or one cannot be taken away.
pub fn unmount_left(dir: &Path) -> std::io::Result<usize> {
    let dir = match dir.canonicalize() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        dir => dir?,
    };
    let listed = std::fs::read("/proc/self/mountinfo")?;
    let mut left: Vec<PathBuf> = mounted_below(&listed, &dir)
        .filter(|path| *path != dir)
        .collect();
    // The last mounted first: a mount may stand on another.
    left.reverse();
    for path in &left {
        rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    for entry in std::fs::read_dir(&dir)? {
        let path = entry?.path();
        if path.is_dir() {
            // One with something in it is none of ours.
            let _kept = std::fs::remove_dir(path);
        }
    }
    Ok(left.len())
}

/// What a list of mounts (`/proc/self/mountinfo`) has at `path` and below it, the first mounted first.
pub(crate) fn mounted_below(listed: &[u8], path: &Path) -> impl Iterator<Item = PathBuf> {
    listed
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(unescaped)
        .filter(move |target| target.starts_with(path))
}

/// A path as the kernel's lists write it: `\040` and the like for blanks and backslashes.
fn unescaped(written: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(written.len());
    let mut rest = written;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let code = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        path.push(code.unwrap_or(*first));
        rest = match code {
            Some(_) => after.get(3..).unwrap_or_default(),
            None => after,
        };
    }
    PathBuf::from(OsString::from_vec(path))
}

pub(super) fn io(action: &'static str, source: std::io::Error) -> StepError {
    StepError::Io { action, source }
}

pub(super) async fn blocking<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(io(action, std::io::Error::other(error))),
    }
}
