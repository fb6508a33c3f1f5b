//! The runtime's configuration of one step container.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::account::Account;
use super::identity::IdRange;
use super::seccomp;
use crate::limits::native::NativeLimits;

/// The capabilities of root in a step: those of other builders, less raw sockets.
///
/// `MKNOD` stays, because packages make device nodes; the device cgroup keeps them from being opened.
/// In a user namespace the kernel refuses to make them, and packages go on without.
const CAPABILITIES: [&str; 13] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Files of the kernel that tell about the host; steps see nothing there.
const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Files of the kernel that steps may read and not write.
const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Folders that the runtime mounts file systems of the kernel on.
pub(super) const MOUNTED_DIRS: [&str; 3] = ["/proc", "/dev", "/sys"];

/// The host's name inside a step.
pub(super) const HOSTNAME: &str = "build";

/// The program search path of a step whose environment names none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The period of the processor quota, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// A file of the host, mounted read-only into a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bind {
    /// The host's file.
    pub(super) source: String,
    /// Where the step sees it.
    pub(super) target: String,
}

/// What the configuration of one container is made of.
#[derive(Debug)]
pub(super) struct Container<'a> {
    /// The mounted root filesystem.
    pub(super) rootfs: &'a Path,
    /// Program and arguments.
    pub(super) argv: &'a [String],
    /// The environment, complete but for `PATH` and `HOME`.
    pub(super) env: BTreeMap<String, String>,
    /// The user.
    pub(super) account: &'a Account,
    /// The working folder.
    pub(super) workdir: &'a str,
    /// The network namespace to be in and the `/sys` of it; a new and empty one if none is given.
    pub(super) network: Option<(&'a Path, &'a Path)>,
    /// The host's users that stand for those of the step; the same ones if none are given.
    pub(super) ids: Option<IdRange>,
    /// Files to see.
    pub(super) binds: Vec<Bind>,
    /// The name of the control groups.
    pub(super) cgroup: &'a str,
    /// Memory in MiB.
    pub(super) memory_mib: u32,
    /// Processors.
    pub(super) vcpus: u32,
    /// Whether the host counts swap, so that it can be limited.
    pub(super) swap_counted: bool,
    /// Bounds.
    pub(super) limits: &'a NativeLimits,
}

impl Container<'_> {
    /// The configuration as the runtime reads it.
    pub(super) fn to_json(&self) -> Value {
        let mut linux = json!({
            "namespaces": self.namespaces(),
            "cgroupsPath": format!("/{}", self.cgroup),
            "resources": self.resources(),
            "seccomp": seccomp::profile(),
            "maskedPaths": MASKED_PATHS,
            "readonlyPaths": READONLY_PATHS,
        });
        if let (Some(IdRange { first, count }), Some(linux)) = (self.ids, linux.as_object_mut()) {
            let map = json!([{ "containerID": 0, "hostID": first, "size": count }]);
            linux.insert("uidMappings".to_owned(), map.clone());
            linux.insert("gidMappings".to_owned(), map);
        }
        json!({
            "ociVersion": "1.0.2",
            "process": self.process(),
            "root": { "path": self.rootfs, "readonly": false },
            "hostname": HOSTNAME,
            "mounts": self.mounts(),
            "linux": linux,
        })
    }

    fn process(&self) -> Value {
        let mut env = self.env.clone();
        env.entry("PATH".to_owned())
            .or_insert_with(|| DEFAULT_PATH.to_owned());
        env.entry("HOME".to_owned())
            .or_insert_with(|| self.account.home.clone());
        let env: Vec<String> = env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        // Another user than root holds none of them, and gets them by a setuid program at most.
        let held: &[&str] = if self.account.owner.uid == 0 {
            &CAPABILITIES
        } else {
            &[]
        };
        json!({
            "terminal": false,
            "user": {
                "uid": self.account.owner.uid,
                "gid": self.account.owner.gid,
                "additionalGids": self.account.groups,
            },
            "args": self.argv,
            "env": env,
            "cwd": self.workdir,
            "capabilities": { "bounding": CAPABILITIES, "effective": held, "permitted": held },
            // Lowering is always allowed; a core file would end up in the layer.
            "rlimits": [
                { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
                { "type": "RLIMIT_FSIZE", "soft": self.file_bytes(), "hard": self.file_bytes() },
            ],
            // True would take `sudo` and `su` from steps.
            "noNewPrivileges": false,
        })
    }

    /// How large one file may be: no larger than the service itself may make one.
    fn file_bytes(&self) -> u64 {
        let own = rustix::process::getrlimit(rustix::process::Resource::Fsize);
        let own = own.maximum.unwrap_or(u64::MAX);
        self.limits.disk_bytes_max.min(own)
    }

    fn namespaces(&self) -> Value {
        let network = match self.network {
            Some((path, _)) => json!({ "type": "network", "path": path }),
            None => json!({ "type": "network" }),
        };
        let mut namespaces = vec![network];
        namespaces.extend(["pid", "mount", "ipc", "uts"].map(|kind| json!({ "type": kind })));
        if self.ids.is_some() {
            namespaces.push(json!({ "type": "user" }));
        }
        Value::Array(namespaces)
    }

    fn mounts(&self) -> Value {
        let shm_size = format!("size={}", self.limits.shm_bytes_max);
        let mut mounts = vec![
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount(
                "/dev",
                "tmpfs",
                &["nosuid", "strictatime", "mode=755", "size=64k"],
            ),
            mount(
                "/dev/pts",
                "devpts",
                &[
                    "nosuid",
                    "noexec",
                    "newinstance",
                    "ptmxmode=0666",
                    "mode=0620",
                    "gid=5",
                ],
            ),
            mount(
                "/dev/shm",
                "tmpfs",
                &["nosuid", "noexec", "nodev", "mode=1777", &shm_size],
            ),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            match self.network {
                Some((_, sys)) => read_only_bind(sys, "/sys"),
                None => mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            },
        ];
        let binds = self.binds.iter();
        mounts.extend(binds.map(|bind| read_only_bind(Path::new(&bind.source), &bind.target)));
        Value::Array(mounts)
    }

    fn resources(&self) -> Value {
        let memory_bytes = u64::from(self.memory_mib) * 1024 * 1024;
        let memory = if self.swap_counted {
            json!({ "limit": memory_bytes, "swap": memory_bytes })
        } else {
            // Not counted, so not used: what the step has does not leave its memory.
            json!({ "limit": memory_bytes, "swappiness": 0 })
        };
        json!({
            // The runtime adds the harmless ones (null, zero, random, tty) behind this.
            "devices": [{ "allow": false, "access": "rwm" }],
            "memory": memory,
            "pids": { "limit": self.limits.pids_max },
            "cpu": { "quota": u64::from(self.vcpus) * CPU_PERIOD_US, "period": CPU_PERIOD_US },
        })
    }
}

fn mount(target: &str, kind: &str, options: &[&str]) -> Value {
    json!({ "destination": target, "type": kind, "source": kind, "options": options })
}

fn read_only_bind(source: &Path, target: &str) -> Value {
    json!({
        "destination": target,
        "type": "bind",
        "source": source,
        "options": ["bind", "ro", "nosuid", "nodev", "noexec"],
    })
}
