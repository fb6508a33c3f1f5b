//! What an attempt holds of the host, kept on a list so that its end can be proven.
//!
//! Whatever starts a process, makes a namespace, a mount or a folder for an attempt puts it on the
//! list, and takes processes off again that ended in their own time. After a cancellation the list is
//! what was cut short. [`Holdings::settle`] looks for each thing on it, at the kernel and not at what the
//! code believes, until all are gone or the time is over.

mod look;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::build::Aftermath;
use tokio::time::Instant;

use crate::limits::worker::WorkerLimits;
use crate::report::millis;
use look::{Host, Process};

/// The list of one attempt. Clones are the same; the default keeps no list.
#[derive(Clone, Debug, Default)]
pub struct Holdings(Option<Arc<Mutex<Register>>>);

#[derive(Debug, Default)]
struct Register {
    things: Vec<(u64, Thing)>,
    count: u64,
}

/// Something that an attempt holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    /// A process, by its number and its start.
    Process(Process),
    /// The control groups of a container, by their name.
    Groups(String),
    /// A network namespace, by its number.
    Network(u64),
    /// The mounts of a step's supervisor and everything below it, by their namespace's number.
    Mounts(u64),
    /// Something that is mounted on the host.
    Mount(PathBuf),
    /// A folder of this attempt alone.
    Folder(PathBuf),
    /// What another service does for us, and whether it says that it is over.
    Remote {
        /// What, and where.
        what: String,
        /// It says so.
        is_over: bool,
    },
}

/// Things on the list. What ended in its own time is [released](Held::released); what was dropped is not.
#[derive(Clone, Debug)]
pub struct Held {
    holdings: Holdings,
    numbers: Vec<u64>,
}

impl Thing {
    /// The process `pid`, which is a child that nobody has waited for.
    pub fn process(name: impl Into<String>, pid: u32) -> Self {
        Self::Process(Process::child(name.into(), pid))
    }

    /// The mounts that the process `pid` has for itself and those below it; nothing if it has ended.
    pub fn mounts_of(pid: u32) -> Option<Self> {
        let metadata = std::fs::metadata(format!("/proc/{pid}/ns/mnt")).ok()?;
        Some(Self::Mounts(metadata.ino()))
    }

    /// The mount at `path`, which is there. Blocking, briefly.
    pub fn mount(path: &Path) -> Self {
        // As the kernel's list has it.
        Self::Mount(path.canonicalize().unwrap_or_else(|_| path.to_owned()))
    }

    /// Whether its end is the end of something that ran.
    const fn runs(&self) -> bool {
        match self {
            Self::Process(_) | Self::Groups(_) | Self::Remote { .. } => true,
            Self::Network(_) | Self::Mounts(_) | Self::Mount(_) | Self::Folder(_) => false,
        }
    }
}

/// Folders and mounts by their names and the names of the folders that they are in: where a host keeps its
/// data is nobody's business.
impl std::fmt::Display for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |path: &Path| {
            let parent = path.parent().and_then(Path::file_name);
            let name = Path::new(parent.unwrap_or_default());
            let name = name.join(path.file_name().unwrap_or_default());
            name.to_string_lossy().into_owned()
        };
        match self {
            Self::Process(process) => write!(f, "process {process}"),
            Self::Groups(groups) => write!(f, "control groups {groups}"),
            Self::Network(number) => write!(f, "network namespace {number}"),
            Self::Mounts(number) => write!(f, "mount namespace {number}"),
            Self::Mount(path) => write!(f, "mount {}", name(path)),
            Self::Folder(path) => write!(f, "folder {}", name(path)),
            Self::Remote { what, .. } => f.write_str(what),
        }
    }
}

impl Holdings {
    /// An empty list.
    pub fn new() -> Self {
        Self(Some(Arc::default()))
    }

    /// Puts things on the list.
    pub fn hold(&self, things: impl IntoIterator<Item = Thing>) -> Held {
        let mut numbers = Vec::new();
        if let Some(mut register) = self.register() {
            for thing in things {
                let number = register.count;
                register.count += 1;
                register.things.push((number, thing));
                numbers.push(number);
            }
        }
        Held {
            holdings: self.clone(),
            numbers,
        }
    }

    /// What was running and was not taken off the list.
    pub fn running(&self) -> Vec<String> {
        let things = self.things();
        let running = things.iter().filter(|thing| thing.runs());
        running.map(ToString::to_string).collect()
    }

    /// Looks for everything on the list until all of it is gone, or `limits` say that it is not; nothing
    /// if there is no list. `since` is when the attempt was told to stop.
    pub async fn settle(&self, since: Instant, limits: &WorkerLimits) -> Option<Aftermath> {
        self.0.as_ref()?;
        let mut wanted = self.things();
        let mut gone = Vec::new();
        let deadline = Instant::now() + Duration::from_millis(limits.gone_ms_max);
        loop {
            let things = std::mem::take(&mut wanted);
            let looked = tokio::task::spawn_blocking(move || {
                let host = Host::look(&things);
                let is_there = |thing: &Thing| host.has(thing);
                things.into_iter().partition::<Vec<Thing>, _>(is_there)
            });
            let ended;
            (wanted, ended) = match looked.await {
                Ok(seen) => seen,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            gone.extend(ended.iter().map(ToString::to_string));
            if wanted.is_empty() || Instant::now() >= deadline {
                break;
            }
            // The kernel wakes nobody when mounts, namespaces and folders go.
            tokio::time::sleep(Duration::from_millis(limits.gone_look_ms)).await;
        }
        Some(Aftermath {
            gone,
            left: wanted.iter().map(ToString::to_string).collect(),
            took_ms: millis(since.into_std()),
        })
    }

    fn things(&self) -> Vec<Thing> {
        let register = self.register();
        register.map_or_else(Vec::new, |register| {
            let things = register.things.iter();
            things.map(|(_, thing)| thing.clone()).collect()
        })
    }

    /// The list is whole after every statement, so a panic elsewhere leaves none half-way.
    fn register(&self) -> Option<MutexGuard<'_, Register>> {
        let register = self.0.as_ref()?;
        Some(register.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Held {
    /// Takes the things off the list: they ended in their own time.
    pub fn released(&self) {
        if let Some(mut register) = self.holdings.register() {
            let things = &mut register.things;
            things.retain(|(number, _)| !self.numbers.contains(number));
        }
    }
}

#[cfg(test)]
mod tests;
