//! One look at the host. Blocking, briefly: everything here is read from the kernel's memory.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::Thing;
use crate::native::{groups_exist, mounted_below};

/// A process, told from a later one of the same number by when it was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    name: String,
    pid: u32,
    /// In the kernel's ticks since it was booted; nothing if the process had ended when it was noted.
    started: Option<u64>,
}

impl Process {
    pub(super) fn child(name: String, pid: u32) -> Self {
        Self {
            name,
            pid,
            started: started(pid),
        }
    }

    /// Whether it is there, also as a zombie: that has ended, but nobody has waited for it.
    fn is_there(&self) -> bool {
        self.started.is_some() && started(self.pid) == self.started
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.pid, self.name)
    }
}

/// When a process was started, if there is one of that number.
fn started(pid: u32) -> Option<u64> {
    /// Its place behind the name, which is the only field that may hold blanks.
    const STARTED: usize = 19;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(STARTED)?.parse().ok()
}

/// What was seen of the host: as much as was asked for.
pub(super) struct Host {
    /// Namespaces that processes are in, or that this process has open, as the kernel writes them.
    namespaces: BTreeSet<String>,
    /// The kernel's list of mounts.
    mounts: Vec<u8>,
}

impl Host {
    pub(super) fn look(things: &[Thing]) -> Self {
        let names_namespaces =
            |thing: &Thing| matches!(thing, Thing::Network(_) | Thing::Mounts(_));
        Self {
            namespaces: if things.iter().any(names_namespaces) {
                namespaces()
            } else {
                BTreeSet::new()
            },
            mounts: fs::read("/proc/self/mountinfo").unwrap_or_default(),
        }
    }

    pub(super) fn has(&self, thing: &Thing) -> bool {
        match thing {
            Thing::Process(process) => process.is_there(),
            // What cannot be read is not proven to be gone.
            Thing::Groups(name) => groups_exist(name).unwrap_or(true),
            Thing::Network(number) => {
                let name = format!("net:[{number}]");
                self.namespaces.contains(&name) || self.is_bound(&name)
            }
            Thing::Mounts(number) => self.namespaces.contains(&format!("mnt:[{number}]")),
            Thing::Mount(path) => mounted_below(&self.mounts, path).next().is_some(),
            Thing::Folder(path) => path.symlink_metadata().is_ok(),
            Thing::Remote { is_over, .. } => !is_over,
        }
    }

    /// Whether a namespace is kept by a mount.
    fn is_bound(&self, name: &str) -> bool {
        let fields = self.mounts.split(|byte| matches!(byte, b' ' | b'\n'));
        fields.into_iter().any(|field| field == name.as_bytes())
    }
}

fn namespaces() -> BTreeSet<String> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let is_process = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.as_bytes().iter().all(u8::is_ascii_digit)
    };
    let processes = entries(Path::new("/proc"))
        .map(|entry| entry.path())
        .filter(is_process);
    let of_processes = processes.flat_map(|process| {
        let namespaces = process.join("ns");
        [namespaces.join("net"), namespaces.join("mnt")]
    });
    let open = entries(Path::new("/proc/self/fd")).map(|entry| entry.path());
    let links = of_processes.chain(open);
    links
        .filter_map(|link| {
            fs::read_link(link)
                .ok()?
                .into_os_string()
                .into_string()
                .ok()
        })
        .filter(|target| target.starts_with("net:[") || target.starts_with("mnt:["))
        .collect()
}
