//! Mounts of layers: one tree that is read, or read and changed.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use super::attributes::At;
use super::lowers::open_root;
use super::store::Layer;

/// Options of every overlay. Layers must stand on their own, so nothing in an upper folder may refer
/// to the layers beneath it: no redirects, no copies of metadata alone, no index of inodes.
const OPTIONS: [(&str, &str); 4] = [
    ("redirect_dir", "off"),
    ("metacopy", "off"),
    ("index", "off"),
    ("nfs_export", "off"),
];

/// The layers that one overlay takes: the kernel's 500 (`OVL_MAX_STACK`), less a place for the empty
/// folder that may have to stand in.
pub(crate) const LAYERS_MAX: usize = 499;

/// A mounted tree of layers. Dropping it unmounts, detaching it from the tree if it is busy.
///
/// Unmounting a writable tree flushes its upper folder: unmount and drop on a thread that may block.
#[derive(Debug)]
pub struct OverlayMount {
    target: PathBuf,
    mounted: bool,
    /// Mounted layers are in use.
    _layers: Vec<Layer>,
}

/// Why a tree could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// There are more layers than the kernel mounts.
    #[error("{count} layers cannot be mounted; the most is {max}")]
    TooManyLayers {
        /// The layers.
        count: usize,
        /// The most that can be mounted.
        max: usize,
    },
    /// The target holds files, which the mount would show or hide.
    #[error("the mount point `{}` is not empty", target.display())]
    TargetNotEmpty {
        /// The mount point.
        target: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {action} at `{}`{kernel}", target.display())]
    Mount {
        /// What was tried.
        action: &'static str,
        /// The mount point.
        target: PathBuf,
        /// What the kernel said about it, after `: `, or nothing.
        kernel: String,
        /// The cause.
        source: std::io::Error,
    },
}

impl OverlayMount {
    /// Mounts `layers`, bottom first, read-only at the empty folder `target`. No layer at all gives
    /// an empty tree. Blocking.
    ///
    /// # Errors
    /// Every variant of [`OverlayError`]; nothing is mounted then.
    pub fn read_only(layers: &[Layer], target: &Path) -> Result<Self, OverlayError> {
        check(layers, target)?;
        let visible = visible(layers, target)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
        if visible.is_empty() {
            let context = open("tmpfs", target)?;
            set(&context, "mode", "0755", target)?;
            return attach(context, attributes, layers, target);
        }
        let context = open("overlay", target)?;
        for layer in &visible {
            set(&context, "lowerdir+", layer.path(), target)?;
        }
        if visible.len() == 1 {
            // Without an upper folder the kernel wants two lower ones; the empty target is at hand.
            set(&context, "lowerdir+", target, target)?;
        }
        attach(context, attributes, layers, target)
    }

    /// Mounts `layers`, bottom first, at the empty folder `target`, with changes going to `upper`.
    ///
    /// `work` is an empty folder on the filesystem of `upper`. An `upper` that is empty gets owner
    /// and mode of the root beneath it, because overlayfs shows the upper folder's. Blocking.
    ///
    /// # Errors
    /// Every variant of [`OverlayError`]; nothing is mounted then.
    pub fn writable(
        layers: &[Layer],
        upper: &Path,
        work: &Path,
        target: &Path,
    ) -> Result<Self, OverlayError> {
        let visible = prepare(layers, upper, target)?;
        let context = configure(&visible, upper, work, target)?;
        attach(context, MountAttrFlags::MOUNT_ATTR_NODEV, layers, target)
    }

    /// Where the tree is mounted.
    pub fn path(&self) -> &Path {
        &self.target
    }

    /// Unmounts the tree. Blocking: the changes of a writable tree are flushed.
    ///
    /// # Errors
    /// [`OverlayError::Mount`], for instance because a process still uses the tree: then its changes
    /// are not final. The tree is detached all the same.
    pub fn unmount(mut self) -> Result<(), OverlayError> {
        unmount(&self.target, UnmountFlags::NOFOLLOW)
            .map_err(|error| failed("unmount the layers", &self.target)(error.into()))?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for OverlayMount {
    fn drop(&mut self) {
        if !self.mounted || unmount(&self.target, UnmountFlags::NOFOLLOW).is_ok() {
            return;
        }
        if let Err(error) = unmount(&self.target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH) {
            tracing::warn!(path = %self.target.display(), %error, "layers stay mounted");
        }
    }
}

/// Merges `layers`, bottom first, with changes going to `upper`, and mounts the tree nowhere: it lives
/// as long as the descriptor, or as what it is given a place in.
///
/// `empty` is an empty folder, `work` one on the filesystem of `upper`. `become_owner` makes the caller
/// the one in whose name the kernel works on the layers; it is called when the rest is ready. Blocking.
pub(crate) fn detached(
    layers: &[Layer],
    upper: &Path,
    work: &Path,
    empty: &Path,
    become_owner: impl FnOnce() -> std::io::Result<()>,
) -> Result<OwnedFd, OverlayError> {
    let visible = prepare(layers, upper, empty)?;
    become_owner().map_err(failed("become the owner of the layers", upper))?;
    let context = configure(&visible, upper, work, empty)?;
    create(&context, MountAttrFlags::MOUNT_ATTR_NODEV, upper)
}

/// The layers that show, and an upper folder that is ready to be written to.
fn prepare<'a>(
    layers: &'a [Layer],
    upper: &Path,
    target: &Path,
) -> Result<Vec<&'a Layer>, OverlayError> {
    check(layers, target)?;
    let visible = visible(layers, target)?;
    if let Some(nearest) = visible.first() {
        inherit_root(nearest.path(), upper).map_err(failed("prepare the upper folder", target))?;
    }
    Ok(visible)
}

fn configure(
    visible: &[&Layer],
    upper: &Path,
    work: &Path,
    empty: &Path,
) -> Result<OwnedFd, OverlayError> {
    let context = open("overlay", empty)?;
    for layer in visible {
        set(&context, "lowerdir+", layer.path(), empty)?;
    }
    if visible.is_empty() {
        set(&context, "lowerdir+", empty, empty)?;
    }
    set(&context, "upperdir", upper, empty)?;
    set(&context, "workdir", work, empty)?;
    Ok(context)
}

fn check(layers: &[Layer], target: &Path) -> Result<(), OverlayError> {
    let count = layers.len();
    if count > LAYERS_MAX {
        return Err(OverlayError::TooManyLayers {
            count,
            max: LAYERS_MAX,
        });
    }
    let mut names = std::fs::read_dir(target).map_err(failed("list the mount point", target))?;
    if names.next().is_some() {
        return Err(OverlayError::TargetNotEmpty {
            target: target.to_owned(),
        });
    }
    Ok(())
}

/// The layers that show, nearest first: none beneath one whose root is opaque, which overlayfs
/// itself honours in every folder but the root.
fn visible<'a>(layers: &'a [Layer], target: &Path) -> Result<Vec<&'a Layer>, OverlayError> {
    let mut visible = Vec::new();
    for layer in layers.iter().rev() {
        visible.push(layer);
        let opaque = open_root(layer.path()).and_then(|root| At::folder(&root).is_opaque());
        if opaque.map_err(failed("look at a layer", target))? {
            break;
        }
    }
    Ok(visible)
}

fn inherit_root(lower: &Path, upper: &Path) -> std::io::Result<()> {
    if std::fs::read_dir(upper)?.next().is_some() {
        return Ok(());
    }
    let attributes = At::folder(&open_root(lower)?).attributes()?;
    At::folder(&open_root(upper)?).apply(&attributes)
}

fn open(filesystem: &str, target: &Path) -> Result<OwnedFd, OverlayError> {
    let context = fsopen(filesystem, FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|error| failed("open the filesystem", target)(error.into()))?;
    set(&context, "source", "layers", target)?;
    if filesystem == "overlay" {
        for (option, value) in OPTIONS {
            set(&context, option, value, target)?;
        }
    }
    Ok(context)
}

fn set(
    context: &OwnedFd,
    option: &'static str,
    value: impl AsRef<OsStr>,
    target: &Path,
) -> Result<(), OverlayError> {
    fsconfig_set_string(context, option, value.as_ref())
        .map_err(|error| configured("configure the layers", context, target, error))
}

/// Makes the filesystem and mounts it.
fn attach(
    context: OwnedFd,
    attributes: MountAttrFlags,
    layers: &[Layer],
    target: &Path,
) -> Result<OverlayMount, OverlayError> {
    if attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY) {
        fsconfig_set_flag(&context, "ro")
            .map_err(|error| configured("configure the layers", &context, target, error))?;
    }
    let mount = create(&context, attributes, target)?;
    let to = rustix::fs::openat(
        CWD,
        target,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| failed("open the mount point", target)(error.into()))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount.as_fd(), "", to.as_fd(), "", flags)
        .map_err(|error| failed("mount the layers", target)(error.into()))?;
    Ok(OverlayMount {
        target: target.to_owned(),
        mounted: true,
        _layers: layers.to_vec(),
    })
}

/// Makes the filesystem that `context` describes.
fn create(
    context: &OwnedFd,
    attributes: MountAttrFlags,
    target: &Path,
) -> Result<OwnedFd, OverlayError> {
    fsconfig_create(context)
        .map_err(|error| configured("merge the layers", context, target, error))?;
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|error| configured("mount the layers", context, target, error))
}

fn failed(
    action: &'static str,
    target: &Path,
) -> impl FnOnce(std::io::Error) -> OverlayError + use<> {
    let target = target.to_owned();
    move |source| OverlayError::Mount {
        action,
        target,
        kernel: String::new(),
        source,
    }
}

/// An error with the message that the kernel left in the mount's context.
fn configured(
    action: &'static str,
    context: &OwnedFd,
    target: &Path,
    error: Errno,
) -> OverlayError {
    let mut message = [0_u8; 512];
    let kernel = match rustix::io::read(context, &mut message) {
        Ok(length) => {
            let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
            format!(": {}", text.trim())
        }
        Err(_) => String::new(),
    };
    OverlayError::Mount {
        action,
        target: target.to_owned(),
        kernel,
        source: error.into(),
    }
}

#[cfg(test)]
mod tests;
