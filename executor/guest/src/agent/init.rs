//! From an empty initial file system to a machine with its disk as `/`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::failure::{Doing as _, Failure};
use super::freezer::Freezer;
use super::{network, sys};

/// Where the initial file system has the kernel modules, and the order in which to load them.
const MODULES: &str = "/m";
const DISK: &str = "/dev/vda";
const NEW_ROOT: &str = "/newroot";

/// Soft and hard limit of descriptors, as service managers set them.
const DESCRIPTORS: (u64, u64) = (1024, 524_288);

/// Brings the machine up; the result holds what must be prepared before processes start.
pub(crate) fn bring_up() -> Result<Freezer, Failure> {
    mount_kernel("dev", "devtmpfs", Path::new("/dev"), "mode=0755")?;
    mount_kernel("proc", "proc", Path::new("/proc"), "")?;
    load_modules()?;
    switch_root()?;
    mount_rest()?;
    raise_limits();
    let freezer = Freezer::create()?;
    network::loopback_up()?;
    if network::has_interface() {
        network::configure()?;
    }
    write_hosts();
    Ok(freezer)
}

/// Mounts a kernel file system on a folder that is made if it is missing.
fn mount_kernel(source: &str, kind: &str, target: &Path, options: &str) -> Result<(), Failure> {
    let flags = if kind == "devtmpfs" || kind == "devpts" {
        libc::MS_NOSUID | libc::MS_NOEXEC
    } else {
        libc::MS_NOSUID | libc::MS_NODEV
    };
    let doing = || format!("mount {}", target.display());
    make_folder(target).doing(doing)?;
    sys::mount(source, target, kind, flags, options).doing(doing)
}

fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir_all(path) {
        // A dangling link or a file in the way shows in the mount that follows.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn load_modules() -> Result<(), Failure> {
    let order_path = Path::new(MODULES).join("order");
    let order =
        fs::read_to_string(&order_path).doing(|| format!("read {}", order_path.display()))?;
    for name in order.lines() {
        let path = Path::new(MODULES).join(name);
        File::open(&path)
            .and_then(|file| sys::load_module(&file))
            .doing(|| format!("load the kernel module {name}"))?;
        // The initial file system is memory that the machine never gets back otherwise.
        fs::remove_file(&path).doing(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

fn switch_root() -> Result<(), Failure> {
    let new_root = Path::new(NEW_ROOT);
    fs::create_dir_all(new_root).doing(|| format!("make {NEW_ROOT}"))?;
    sys::mount(DISK, new_root, "ext4", libc::MS_NOATIME, "")
        .doing(|| format!("mount {DISK} as the root file system"))?;
    for name in ["dev", "proc"] {
        let (from, to) = (Path::new("/").join(name), new_root.join(name));
        make_folder(&to).doing(|| format!("make {}", to.display()))?;
        sys::mount(&from.to_string_lossy(), &to, "", libc::MS_MOVE, "")
            .doing(|| format!("move {} to the root file system", from.display()))?;
    }
    // This program is in use, so its pages stay; its name need not.
    fs::remove_file("/init").doing(|| "remove /init".to_owned())?;
    std::env::set_current_dir(new_root).doing(|| format!("enter {NEW_ROOT}"))?;
    sys::mount(".", Path::new("/"), "", libc::MS_MOVE, "")
        .and_then(|()| sys::chroot_here())
        .and_then(|()| std::env::set_current_dir("/"))
        .doing(|| "make the disk the root file system".to_owned())
}

fn mount_rest() -> Result<(), Failure> {
    for (source, kind, target, options) in [
        ("sys", "sysfs", "/sys", ""),
        ("cgroup", "cgroup2", "/sys/fs/cgroup", ""),
        (
            "devpts",
            "devpts",
            "/dev/pts",
            "mode=0620,gid=5,ptmxmode=0666",
        ),
        ("shm", "tmpfs", "/dev/shm", "mode=1777"),
        ("run", "tmpfs", "/run", "mode=0755"),
    ] {
        mount_kernel(source, kind, Path::new(target), options)?;
    }
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        symlink(target, link).doing(|| format!("link {link}"))?;
    }
    // Without it `/tmp` of a minimal image is missing for every program.
    make_folder(Path::new("/tmp")).doing(|| "make /tmp".to_owned())
}

fn raise_limits() {
    let (soft, hard) = DESCRIPTORS;
    if let Err(error) = sys::raise_descriptor_limit(soft, hard) {
        sys::say(&format!(
            "nullspace-guest: descriptors stay limited: {error}"
        ));
    }
}

/// Makes `localhost` resolvable in images that have no `/etc/hosts`.
fn write_hosts() {
    let hosts = Path::new("/etc/hosts");
    if fs::metadata(hosts).is_ok_and(|metadata| metadata.len() > 0) {
        return;
    }
    let written = make_folder(Path::new("/etc"))
        .and_then(|()| fs::write(hosts, "127.0.0.1 localhost\n::1 localhost\n"));
    if let Err(error) = written {
        sys::say(&format!(
            "nullspace-guest: cannot write /etc/hosts: {error}"
        ));
    }
}
