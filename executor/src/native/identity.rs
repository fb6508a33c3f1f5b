//! Whom the root of a step is on the host: nobody.
//!
//! A step runs in a user namespace. Its users 0, 1, 2 … are the host's `first`, `first + 1`,
//! `first + 2` …, which own nothing there. Layers keep the numbers that the step sees: a mount that
//! maps them (an "idmapped" one) stands between the step and the disk, so a layer is the same whether
//! it was made with a user namespace or without.
//!
//! Files of an image whose owner is `count` or more belong to nobody (65534) in a step: they can be
//! used as their mode allows, and not changed.
//!
//! Work on such a mount has to be done as one of its own users, because the host's root is none of
//! them: [`StepIds::as_root`]. The kernel then takes the whole service for one whose memory is not to
//! be dumped, which suits a service that holds secrets.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;

use rustix::mount::{MountPropagationFlags, OpenTreeFlags};
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitiesSecureBits, UnshareFlags};

use super::view::Ownership;
use crate::process::Tool;

/// Users and groups of the host that stand for those of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The host's number of a step's user 0.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

/// A user namespace that maps an [`IdRange`].
#[derive(Clone, Debug)]
pub struct StepIds {
    range: IdRange,
    namespace: Arc<OwnedFd>,
}

/// What the process says that makes the namespace, and how it waits until we have it.
const HOLD: &str = "echo; read -r _";

impl StepIds {
    /// A namespace that maps `range`. Blocking, briefly.
    ///
    /// # Errors
    /// The kernel has no user namespaces, or gives none.
    pub fn new(range: IdRange) -> io::Result<Self> {
        // A process of its own, because one with several threads cannot enter a user namespace.
        let mut command = Tool::new("unshare")
            .args(["--user", "--", "sh", "-c", HOLD])
            .command();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .as_std_mut()
            .spawn()?;
        let namespace = Self::map(&mut child, range);
        // It ends when its standard input does; waiting closes that first.
        child.wait()?;
        Ok(Self {
            range,
            namespace: Arc::new(namespace?),
        })
    }

    fn map(child: &mut std::process::Child, range: IdRange) -> io::Result<OwnedFd> {
        let said = child
            .stdout
            .as_mut()
            .map_or(Ok(0), |out| out.read(&mut [0]))?;
        if said == 0 {
            return Err(io::Error::other("there is no user namespace to be had"));
        }
        let process = format!("/proc/{}", child.id());
        let map = format!("0 {} {}", range.first, range.count);
        std::fs::write(format!("{process}/uid_map"), &map)?;
        std::fs::write(format!("{process}/gid_map"), &map)?;
        Ok(File::open(format!("{process}/ns/user"))?.into())
    }

    /// What is mapped.
    pub const fn range(&self) -> IdRange {
        self.range
    }

    /// The owner, on a mapped mount and as the host sees it, of what belongs to a step's root.
    pub const fn root(&self) -> Ownership {
        Ownership {
            uid: self.range.first,
            gid: self.range.first,
        }
    }

    /// Does `work` as the root of steps, with the host's root's powers. Blocking.
    ///
    /// # Errors
    /// The kernel refuses, or what `work` fails with.
    pub fn as_root<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_own_thread(|| {
            self.become_root()?;
            work()
        })
    }

    /// Becomes the root of steps, for the rest of the thread's life.
    pub(super) fn become_root(&self) -> io::Result<()> {
        let bits = rustix::thread::capabilities_secure_bits()?;
        // Without it, whoever is not user 0 loses the powers to mount and to pass by permissions.
        let keep = CapabilitiesSecureBits::NO_SETUID_FIXUP;
        rustix::thread::set_capabilities_secure_bits(bits | keep)?;
        let (uid, gid) = (
            Uid::from_raw(self.range.first),
            Gid::from_raw(self.range.first),
        );
        rustix::thread::set_thread_res_gid(None::<Gid>, Some(gid), None::<Gid>)?;
        rustix::thread::set_thread_res_uid(None::<Uid>, Some(uid), None::<Uid>)?;
        Ok(())
    }

    /// The tree of the host at `tree`, mounted nowhere, with these numbers mapped.
    ///
    /// # Errors
    /// The kernel or the filesystem has no idmapped mounts.
    pub fn mapped(&self, tree: &std::path::Path) -> io::Result<OwnedFd> {
        let mount = cloned(tree)?;
        map_ids(&mount, &self.namespace)?;
        Ok(mount)
    }
}

/// A copy of the mount at `tree`, mounted nowhere.
pub(super) fn cloned(tree: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(rustix::mount::open_tree(rustix::fs::CWD, tree, flags)?)
}

/// `struct mount_attr` of the kernel.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    namespace: u64,
}

/// The attribute that maps numbers.
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

fn map_ids(mount: &OwnedFd, namespace: &OwnedFd) -> io::Result<()> {
    let attributes = MountAttributes {
        set: MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        namespace: u64::try_from(namespace.as_fd().as_raw_fd()).map_err(io::Error::other)?,
    };
    #[expect(unsafe_code, reason = "no library wraps this call")]
    // SAFETY: the path is an empty string with its end, the attributes are as long as is said, and
    // both live through the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Does `work` on a thread that ends with it: for what cannot be undone on a thread.
pub(super) fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("step-files".to_owned())
            .spawn_scoped(scope, work)?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    })
}

/// Gives this thread, or this new process, mounts of its own: nothing that it mounts is seen elsewhere.
pub(super) fn own_mounts() -> io::Result<()> {
    #[expect(unsafe_code, reason = "unshare is unsafe for its other flags")]
    // SAFETY: the mounts and the working folder of this thread are no state that any code relies on;
    // the flag that could pull file descriptors from under other code (FILES) is not given.
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", private)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::native::view::{Last, View};

    #[test]
    fn a_mapped_tree_shows_other_owners_and_keeps_the_disks() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::write(tree.path().join("there"), "").unwrap();
        let range = IdRange {
            first: 300_000,
            count: 65_536,
        };
        let ids = StepIds::new(range).unwrap();
        let mount = ids.mapped(tree.path()).unwrap();
        let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
        let view = View::open(path.as_ref()).unwrap();
        let stat = view.stat("there".as_ref(), Last::Keep).unwrap().unwrap();
        assert_eq!((stat.st_uid, stat.st_gid), (300_000, 300_000));
        // The host's root is no user of this tree; the steps' root is.
        assert!(view.create(std::path::Path::new("new")).is_err());
        ids.as_root(|| view.create(std::path::Path::new("new")).map(drop))
            .unwrap();
        let made = std::fs::metadata(tree.path().join("new")).unwrap();
        assert_eq!((made.uid(), made.gid()), (0, 0));
        assert!(rustix::process::geteuid().is_root());
    }
}
