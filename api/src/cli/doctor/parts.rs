//! The parts that builds and restores need, and how each is looked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use executor::native::container::check_ids;
use executor::process::{Tool, find};

use super::{Part, buildkit};
use crate::config::{Accelerator, Config};
use crate::wiring;

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// BuildKit's client and daemon, where they usually are.
const BUILDCTL: &str = "buildctl";
const BUILDKITD: &str = "unix:///run/buildkit/buildkitd.sock";

/// A program that must be there.
struct Program {
    name: &'static str,
    version_flag: &'static str,
    purpose: &'static str,
    how_to_get: &'static str,
}

const PROGRAMS: [Program; 9] = [
    Program {
        name: "runc",
        version_flag: "--version",
        purpose: "containers of build steps",
        how_to_get: "apt-get install runc",
    },
    Program {
        name: "slirp4netns",
        version_flag: "--version",
        purpose: "network of build steps and machines",
        how_to_get: "apt-get install slirp4netns",
    },
    Program {
        name: "ip",
        version_flag: "-V",
        purpose: "routes of build steps and machines",
        how_to_get: "apt-get install iproute2",
    },
    Program {
        name: "unshare",
        version_flag: "--version",
        purpose: "namespaces of build steps",
        how_to_get: "apt-get install util-linux",
    },
    Program {
        name: "nsenter",
        version_flag: "--version",
        purpose: "namespaces of build steps",
        how_to_get: "apt-get install util-linux",
    },
    Program {
        name: "mkfs.ext4",
        version_flag: "-V",
        purpose: "root filesystems",
        how_to_get: "apt-get install e2fsprogs",
    },
    Program {
        name: "e2fsck",
        version_flag: "-V",
        purpose: "checking root filesystems",
        how_to_get: "apt-get install e2fsprogs",
    },
    Program {
        name: "resize2fs",
        version_flag: "",
        purpose: "growing root filesystems",
        how_to_get: "apt-get install e2fsprogs",
    },
    Program {
        name: "qemu-img",
        version_flag: "--version",
        purpose: "disks of restored machines",
        how_to_get: "apt-get install qemu-utils",
    },
];

/// Looks for every part.
pub(super) async fn examine(config: &Config) -> Vec<Part> {
    let mut parts = vec![root()];
    for program in &PROGRAMS {
        parts.push(look_for(program).await);
    }
    parts.extend(buildkit::examine(Path::new(BUILDCTL), &[BUILDKITD.to_owned()]).await);
    parts.push(qemu(config).await);
    parts.push(kernel(config));
    parts.push(guest_agent(config));
    parts.push(overlay());
    parts.push(user_namespace(config));
    parts.push(device(
        "tun device",
        "/dev/net/tun",
        true,
        "network of build steps and machines",
        "modprobe tun, and let the service see /dev/net/tun",
    ));
    parts.push(device(
        "kvm",
        "/dev/kvm",
        config.vmm.accelerator == Accelerator::Kvm,
        "fast machines; without it they are emulated",
        "a host with hardware virtualisation that lets the service open /dev/kvm",
    ));
    parts
}

fn root() -> Part {
    let found = rustix::process::geteuid().is_root();
    Part {
        name: "root",
        required: true,
        found,
        detail: if found { "yes" } else { "no" }.to_owned(),
        purpose: "mounting layers, namespaces of build steps",
        how_to_get: "run nullspaced as root",
    }
}

async fn look_for(program: &Program) -> Part {
    let (found, detail) = match find(program.name) {
        None => (false, "not found".to_owned()),
        Some(path) if program.version_flag.is_empty() => (true, path.display().to_string()),
        Some(path) => (true, version(&path, program.version_flag).await),
    };
    Part {
        name: program.name,
        required: true,
        found,
        detail,
        purpose: program.purpose,
        how_to_get: program.how_to_get,
    }
}

/// Where a program is that is given by its path, or by its name alone.
pub(super) fn locate(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        program.is_file().then(|| program.to_owned())
    } else {
        find(program)
    }
}

/// The first line of what a program says of itself; where it is, if it says nothing.
pub(super) async fn version(path: &Path, flag: &str) -> String {
    let said = Tool::new(path).arg(flag).run(PATIENCE).await;
    let place = path.display().to_string();
    let Ok(finished) = said else {
        return place;
    };
    // Some programs say it on standard error.
    let text = [finished.stdout, finished.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    line.map_or(place, str::to_owned)
}

async fn qemu(config: &Config) -> Part {
    let qemu = &config.vmm.qemu;
    let (found, detail) = match locate(qemu) {
        None => (false, format!("{} not found", qemu.display())),
        Some(path) => (true, version(&path, "--version").await),
    };
    Part {
        name: "qemu",
        required: true,
        found,
        detail,
        purpose: "machines that are booted and captured",
        how_to_get: "apt-get install qemu-system-x86 (or set vmm.qemu)",
    }
}

fn kernel(config: &Config) -> Part {
    let newest = match &config.vmm.kernel {
        Some(path) => path.is_file().then(|| path.display().to_string()),
        None => cloud_kernel(),
    };
    Part {
        name: "guest kernel",
        required: true,
        found: newest.is_some(),
        detail: newest.unwrap_or_else(|| "not found".to_owned()),
        purpose: "the kernel inside machines",
        how_to_get: "apt-get install linux-image-cloud-amd64 (or set vmm.kernel)",
    }
}

/// A cloud kernel below `/boot`, if there is one.
fn cloud_kernel() -> Option<String> {
    let kernels = fs::read_dir("/boot").ok()?;
    kernels
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("vmlinuz-") && name.contains("cloud"))
        .max()
        .map(|name| format!("/boot/{name}"))
}

fn guest_agent(config: &Config) -> Part {
    let (found, detail) = match wiring::guest_agent(config) {
        Ok(path) if path.is_file() => (true, path.display().to_string()),
        Ok(path) => (false, format!("{} not found", path.display())),
        Err(err) => (false, err.to_string()),
    };
    Part {
        name: "guest agent",
        required: true,
        found,
        detail,
        purpose: "the first process inside machines",
        how_to_get: "make agent; then set vmm.guest_agent or put it beside nullspaced",
    }
}

fn overlay() -> Part {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let found = known
        .lines()
        .any(|line| line.split_whitespace().last() == Some("overlay"));
    Part {
        name: "overlayfs",
        required: true,
        found,
        detail: if found {
            "in the kernel"
        } else {
            "unknown to the kernel"
        }
        .to_owned(),
        purpose: "layers of images and steps",
        how_to_get: "modprobe overlay",
    }
}

fn user_namespace(config: &Config) -> Part {
    // The data folder may not be there yet; the one that it will be in is on the same filesystem.
    let data_dir = config.data_dir.path();
    let folder = data_dir.ancestors().find(|folder| folder.is_dir());
    let checked = check_ids(folder.unwrap_or_else(|| Path::new("/")));
    Part {
        name: "user namespace",
        required: config.executor.step_user_namespace,
        found: checked.is_ok(),
        detail: match checked {
            Ok(()) => "the kernel and the data folder's filesystem map users".to_owned(),
            Err(error) => error.to_string(),
        },
        purpose: "steps whose root is nobody on the host",
        how_to_get: "a kernel with user namespaces and a data folder on ext4, xfs or btrfs; or set \
                     executor.step_user_namespace = false and run steps without",
    }
}

fn device(
    name: &'static str,
    path: &'static str,
    required: bool,
    purpose: &'static str,
    how_to_get: &'static str,
) -> Part {
    // Being there is not enough: it must open.
    let opened = fs::File::options().read(true).write(true).open(path);
    Part {
        name,
        required,
        found: opened.is_ok(),
        detail: match opened {
            Ok(_) => path.to_owned(),
            Err(err) => format!("{path}: {err}"),
        },
        purpose,
        how_to_get,
    }
}
