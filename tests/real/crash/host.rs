//! What the host shows of a step: processes, mounts, control groups, namespaces, files.
//!
//! Other services may run on the host, so everything is told by what is of this service alone: its
//! process and those below it, its data folder, and the prefix of its control groups' names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};
use tests::service::Service;

/// Where control groups are mounted, and how far below a step's may be.
const GROUPS: &str = "/sys/fs/cgroup";
const GROUP_DEPTH: usize = 4;
/// How deep in the data folder a container's files may be.
const STATE_DEPTH: usize = 4;

/// A process, told from a later one of the same number by when it was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pid: u32,
    started: String,
}

impl Process {
    fn find(pid: u32) -> Option<Self> {
        let fields = stat(pid)?;
        // A zombie holds nothing; whoever is its parent now will take it.
        let is_zombie = fields.first().is_some_and(|state| state == "Z");
        let started = fields.get(19)?.clone();
        (!is_zombie).then_some(Self { pid, started })
    }

    pub(crate) fn is_alive(&self) -> bool {
        Self::find(self.pid).as_ref() == Some(self)
    }

    /// What it runs, as the kernel names it.
    pub(crate) fn name(&self) -> String {
        let name = fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        name.trim().to_owned()
    }

    fn parent(&self) -> Option<u32> {
        stat(self.pid)?.get(1)?.parse().ok()
    }

    /// The processes above it, nearest first, to the child of `top`.
    pub(crate) fn ancestors_up_to(&self, top: u32) -> Vec<Self> {
        let mut found = Vec::new();
        let mut above = self.parent();
        while let Some(pid) = above.filter(|pid| *pid != top && *pid > 1) {
            let process = Self::find(pid).expect("what is above a living process lives");
            above = process.parent();
            found.push(process);
        }
        assert_eq!(above, Some(top), "the step runs below the service");
        found
    }

    /// Ends it without warning.
    pub(crate) fn kill(&self) {
        assert!(self.is_alive(), "{self:?} ended by itself");
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        rustix::process::kill_process(pid.expect("processes have numbers"), Signal::KILL)
            .expect("it is below a child of ours");
    }
}

/// The fields of `/proc/PID/stat` behind the name: state, parent, and so on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn processes() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").expect("Linux has it").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::find)
}

/// The processes that have `word` as an argument of their own.
pub(crate) fn with_argument(word: &str) -> Vec<Process> {
    let has = |process: &Process| {
        let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|argument| argument == word.as_bytes())
    };
    processes().filter(has).collect()
}

/// All below the process `top`.
pub(crate) fn below(top: u32) -> Vec<Process> {
    let all: Vec<(Process, Option<u32>)> = processes()
        .map(|process| (process.clone(), process.parent()))
        .collect();
    let mut found: Vec<Process> = Vec::new();
    let mut next = vec![top];
    while let Some(parent) = next.pop() {
        for (process, above) in &all {
            if *above == Some(parent) && !found.contains(process) {
                next.push(process.pid);
                found.push(process.clone());
            }
        }
    }
    found
}

/// What a step and its service would leave behind.
pub(crate) struct Remains {
    /// The word that all processes of the step have.
    marker: String,
    /// Every process below the service while the step ran: the supervisor's, the network's.
    processes: Vec<Process>,
    /// What the names of the service's containers begin with.
    prefix: String,
    data_dir: PathBuf,
}

impl Remains {
    /// What there is to be left while `process` is one of a step of `service`.
    pub(crate) fn expected(service: &Service, process: &Process, marker: String) -> Self {
        let groups =
            fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).unwrap_or_default();
        let name = groups
            .lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .flat_map(|path| path.split('/'))
            .find(|name| name.starts_with("nullspace-"))
            .unwrap_or_else(|| panic!("the step is in no group of the service:\n{groups}"));
        let (prefix, _) = name.rsplit_once('-').expect("a prefix and a number");
        let remains = Self {
            marker,
            processes: below(service.pid()),
            prefix: format!("{prefix}-"),
            data_dir: service.data_dir().to_owned(),
        };
        // Each of the looks below must be able to find something.
        for (what, found) in [
            ("groups", remains.groups()),
            ("files", remains.files()),
            ("processes", remains.processes()),
        ] {
            assert!(!found.is_empty(), "a running step shows no {what}");
        }
        // Its files are mounted for it alone. A mount that anybody else saw could outlive it.
        let own = fs::read_to_string(format!("/proc/{}/mountinfo", process.pid));
        let own = own.unwrap_or_default();
        let is_overlay = |line: &str| line.contains(" / / ") && line.contains(" - overlay ");
        assert!(own.lines().any(is_overlay), "a step's root: {own}");
        remains
    }

    /// Processes of the step and of what was made for it.
    pub(crate) fn processes(&self) -> Vec<String> {
        let known = self.processes.iter().filter(|process| process.is_alive());
        known
            .map(|process| format!("process {} ({})", process.pid, process.name()))
            .collect()
    }

    /// Everything of the step and of any other of the service, which must be idle.
    pub(crate) fn all(&self, service: &Service) -> Vec<String> {
        let mut found = self.processes();
        let others = with_argument(&self.marker)
            .into_iter()
            .chain(below(service.pid()));
        found.extend(others.map(|process| format!("process {} ({})", process.pid, process.name())));
        found.extend(self.groups());
        found.extend(self.files());
        found.extend(self.mounts(service));
        found.extend(namespaces(service.pid()));
        found
    }

    fn groups(&self) -> Vec<String> {
        let mut found = Vec::new();
        named(Path::new(GROUPS), &self.prefix, GROUP_DEPTH, &mut found);
        found
    }

    /// State of the runtime, files of containers, views and layers that are not finished.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        named(&self.data_dir, &self.prefix, STATE_DEPTH, &mut found);
        for unfinished in ["layers", "artifacts"] {
            named(&self.data_dir.join(unfinished), ".tmp-", 1, &mut found);
        }
        named(&self.data_dir.join("work"), "", 1, &mut found);
        found
    }

    /// Mounts below the data folder, of files, folders and namespaces, as this process and as the
    /// service sees them.
    fn mounts(&self, service: &Service) -> Vec<String> {
        let mut found = Vec::new();
        for pid in [std::process::id(), service.pid()] {
            let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
            for line in mounts.lines() {
                let target = line.split(' ').nth(4).unwrap_or_default();
                if Path::new(target).starts_with(&self.data_dir) {
                    found.push(format!("mount {target}"));
                }
            }
        }
        found
    }
}

/// Folders below `folder` whose names begin with `prefix`.
fn named(folder: &Path, prefix: &str, depth: usize, found: &mut Vec<String>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            found.push(format!("folder {}", entry.path().display()));
        } else if depth > 1 {
            named(&entry.path(), prefix, depth - 1, found);
        }
    }
}

/// Namespaces that the process holds beside its own: open, or in one of its threads. A namespace goes
/// with its last process, mount and descriptor; this is the third, and the first within the service.
///
/// One user namespace is the service's own: all steps of its life are in it, and no step makes another.
fn namespaces(pid: u32) -> Vec<String> {
    let mut found = Vec::new();
    let mut user_namespaces = BTreeSet::new();
    let link = |path: PathBuf| {
        let target = fs::read_link(path).unwrap_or_default();
        target.to_string_lossy().into_owned()
    };
    let list = |folder: String| fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in list(format!("/proc/{pid}/fd")) {
        let target = link(entry.path());
        if target.starts_with("user:[") {
            user_namespaces.insert(target);
        } else if ["net:[", "mnt:[", "pid:["]
            .iter()
            .any(|kind| target.starts_with(kind))
        {
            found.push(format!("open namespace {target}"));
        }
    }
    for kind in ["net", "mnt"] {
        let own = link(PathBuf::from(format!("/proc/{pid}/ns/{kind}")));
        for entry in list(format!("/proc/{pid}/task")) {
            let its = link(entry.path().join("ns").join(kind));
            if its != own && !its.is_empty() {
                found.push(format!("a thread in namespace {its}"));
            }
        }
    }
    found.extend(
        user_namespaces
            .into_iter()
            .skip(1)
            .map(|more| format!("open namespace {more}")),
    );
    found
}
