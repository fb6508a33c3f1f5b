//! The root filesystem of one command: a mount that has no place on the host.
//!
//! Only a file descriptor of ours holds it, and the mount namespace of the step's supervisor, where it
//! gets its place. Nothing has to unmount it: it goes with the last of the two, also when the service
//! is killed.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};

use super::identity::{self, StepIds};
use crate::layers::{Layer, OverlayError, Staging, overlay};

/// Where the supervisor's namespace shows the root filesystem: the first of these that is a folder and
/// hides nothing that the container needs. Any user passes to it, as the step's root must be able to:
/// the service's own folders are closed to others.
const PLACES: [&str; 6] = ["/mnt", "/media", "/srv", "/opt", "/home", "/tmp"];

/// A root filesystem, writable. Dropping the last clone flushes it: on a thread that may block.
#[derive(Clone, Debug)]
pub struct StepRoot {
    mount: Arc<OwnedFd>,
    ids: Option<StepIds>,
    /// The folder that takes what is written; none if nobody bounds it.
    written: Option<PathBuf>,
    _layers: Vec<Layer>,
}

impl StepRoot {
    /// The layers `beneath`, bottom first, with changes going to `staging`; with `ids`, owned by the
    /// users of steps. Nothing else may have `staging` mounted. Blocking.
    ///
    /// # Errors
    /// [`OverlayError`].
    pub fn layers(
        beneath: &[Layer],
        staging: &Staging,
        ids: Option<&StepIds>,
    ) -> Result<Self, OverlayError> {
        let (upper, work) = (staging.path(), staging.work_path());
        let refused = |source| OverlayError::Mount {
            action: "make a root filesystem for a step",
            target: upper.to_owned(),
            kernel: String::new(),
            source,
        };
        let mut mounted = None;
        let thread = identity::on_own_thread(|| {
            identity::own_mounts()?;
            let empty = place(&[upper])?;
            mount_empty(&empty)?;
            let map = || match ids {
                Some(ids) => {
                    let store = store_of(beneath, staging)?;
                    // At its own place, so that the layers keep their paths.
                    attach(&ids.mapped(&store)?, &store)?;
                    ids.become_root()
                }
                None => Ok(()),
            };
            mounted = Some(overlay::detached(beneath, upper, work, &empty, map));
            Ok(())
        });
        thread.map_err(refused)?;
        let lost = || Err(refused(io::ErrorKind::BrokenPipe.into()));
        let mount = mounted.unwrap_or_else(lost)?;
        Ok(Self {
            mount: Arc::new(mount),
            ids: ids.cloned(),
            written: Some(staging.folder().to_owned()),
            _layers: beneath.to_vec(),
        })
    }

    /// A folder of the host as a root filesystem, without any bound on what is written.
    ///
    /// # Errors
    /// The kernel refuses.
    #[cfg(test)]
    pub(super) fn folder(folder: &Path, ids: Option<&StepIds>) -> io::Result<Self> {
        let mount = match ids {
            Some(ids) => ids.mapped(folder)?,
            None => identity::cloned(folder)?,
        };
        Ok(Self {
            mount: Arc::new(mount),
            ids: ids.cloned(),
            written: None,
            _layers: Vec::new(),
        })
    }

    /// A path at which this process finds it.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.mount.as_raw_fd()).into()
    }

    /// The mount.
    pub(super) fn mount(&self) -> &OwnedFd {
        &self.mount
    }

    /// The device that its files are on.
    pub(super) fn device(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&*self.mount)?.st_dev)
    }

    /// Whose it is.
    pub(super) const fn ids(&self) -> Option<&StepIds> {
        self.ids.as_ref()
    }

    /// The folder that takes what is written, if that is bounded.
    pub(super) fn written(&self) -> Option<&Path> {
        self.written.as_deref()
    }

    /// Does `work` as one who may change the files.
    pub(super) fn as_owner<T: Send>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        match &self.ids {
            Some(ids) => ids.as_root(work),
            None => work(),
        }
    }
}

/// A place for a mount that hides none of `needed`.
///
/// # Errors
/// There is none.
pub(super) fn place(needed: &[&Path]) -> io::Result<PathBuf> {
    PLACES
        .iter()
        .map(PathBuf::from)
        .filter(|place| !needed.iter().any(|path| path.starts_with(place)))
        .find(|place| place.is_dir() && !place.is_symlink())
        .ok_or_else(|| io::Error::other(format!("none of {} can be mounted on", PLACES.join(", "))))
}

/// Puts a detached mount at `target`, in the mount namespace of the caller.
pub(super) fn attach(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let target = rustix::fs::openat(CWD, target, flags, Mode::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", &target, c"", flags)?)
}

/// An empty folder at `place`, to stand in for layers where there are none.
fn mount_empty(place: &Path) -> io::Result<()> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "mode", "0755")?;
    rustix::mount::fsconfig_create(&context)?;
    let (flags, attributes) = (
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NODEV,
    );
    attach(&rustix::mount::fsmount(&context, flags, attributes)?, place)
}

/// The store that `staging` and all layers are in: one mapped mount serves them all.
fn store_of(beneath: &[Layer], staging: &Staging) -> io::Result<PathBuf> {
    let store = staging.folder().parent().unwrap_or_else(|| Path::new("/"));
    if beneath.iter().all(|layer| layer.path().starts_with(store)) {
        Ok(store.to_owned())
    } else {
        Err(io::Error::other(
            "a layer is in another store than the one that is made",
        ))
    }
}
