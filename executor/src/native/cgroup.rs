//! Control groups of step containers: what they counted, and how they are taken away.
//!
//! The runtime makes them; we read them when the container has ended and remove them. Both layouts
//! are known: one tree per controller (version 1, also "hybrid"), and the one tree of version 2.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};

/// Where the control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// The control groups with one name, in every tree of the host.
#[derive(Clone, Debug)]
pub(super) struct Cgroups {
    name: String,
}

impl Cgroups {
    /// The groups called `name`, directly below the root of each tree.
    pub(super) fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// The groups whose names begin with `prefix`.
    ///
    /// # Errors
    /// The trees cannot be listed.
    pub(super) fn with_prefix(prefix: &str) -> io::Result<Vec<Self>> {
        let mut names = Vec::new();
        for tree in trees()? {
            for entry in std::fs::read_dir(tree)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if name.starts_with(prefix) {
                    names.push(name);
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names.into_iter().map(Self::named).collect())
    }

    /// The folders of these groups that exist.
    fn folders(&self) -> io::Result<Vec<PathBuf>> {
        let folders = trees()?.into_iter().map(|tree| tree.join(&self.name));
        Ok(folders.filter(|folder| folder.is_dir()).collect())
    }

    /// Their name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether one of them exists.
    ///
    /// # Errors
    /// The trees cannot be listed.
    fn exist(&self) -> io::Result<bool> {
        Ok(!self.folders()?.is_empty())
    }

    /// How many processes of the group the kernel killed for want of memory.
    ///
    /// # Errors
    /// A counter cannot be read.
    pub(super) fn oom_kills(&self) -> io::Result<u64> {
        self.sum(&["memory.oom_control", "memory.events"], "oom_kill")
    }

    /// How many processes the kernel refused because the group had as many as it may.
    ///
    /// # Errors
    /// A counter cannot be read.
    pub(super) fn processes_refused(&self) -> io::Result<u64> {
        self.sum(&["pids.events"], "max")
    }

    /// The sum of a counter over `files` of these groups, of which each tree has some.
    fn sum(&self, files: &[&str], name: &str) -> io::Result<u64> {
        let mut sum = 0;
        for folder in self.folders()? {
            for file in files {
                match std::fs::read_to_string(folder.join(file)) {
                    Ok(text) => sum += counter(&text, name),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(sum)
    }

    /// The processes in these groups, also in groups below them.
    ///
    /// # Errors
    /// A list cannot be read.
    pub(super) fn processes(&self) -> io::Result<Vec<i32>> {
        let mut pids = Vec::new();
        for folder in self.folders()? {
            for below in subtree(&folder) {
                match std::fs::read_to_string(below.join("cgroup.procs")) {
                    Ok(text) => {
                        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
                    }
                    // A group that went away between the two looks; version 1 says ENODEV.
                    Err(error) if gone(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Kills what is left in the groups and removes them; false if that took longer than `wait`.
    ///
    /// # Errors
    /// A list cannot be read, or a folder cannot be removed for another reason than that it is in use.
    pub(super) async fn remove(&self, wait: Duration, poll: Duration) -> io::Result<bool> {
        let removed = async {
            loop {
                let this = self.clone();
                let done = tokio::task::spawn_blocking(move || this.try_remove())
                    .await
                    .map_err(io::Error::other)??;
                if done {
                    return Ok(true);
                }
                tokio::time::sleep(poll).await;
            }
        };
        tokio::time::timeout(wait, removed)
            .await
            .unwrap_or(Ok(false))
    }

    /// One round of killing and removing; true when nothing is left.
    fn try_remove(&self) -> io::Result<bool> {
        for pid in self.processes()?.into_iter().filter_map(Pid::from_raw) {
            // A process that ended by itself meanwhile is as good; one that did not is met again.
            let _ended = rustix::process::kill_process(pid, Signal::KILL);
        }
        let mut done = true;
        for folder in self.folders()? {
            // Innermost first: a group with groups below it cannot be removed.
            for below in subtree(&folder).iter().rev() {
                match std::fs::remove_dir(below) {
                    Ok(()) => {}
                    Err(error) if gone(&error) => {}
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => done = false,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(done)
    }
}

/// Whether there are control groups of that name.
///
/// # Errors
/// The trees cannot be listed.
pub(crate) fn groups_exist(name: &str) -> io::Result<bool> {
    Cgroups::named(name).exist()
}

/// Whether the host counts swap, so that a limit on memory can include it.
pub(super) fn counts_swap() -> bool {
    let mount = Path::new(MOUNT);
    if mount.join("memory/memory.memsw.limit_in_bytes").exists() {
        return true;
    }
    // Version 2 has the file in every group but the root.
    mount.join("cgroup.controllers").exists()
        && std::fs::read_dir(mount).is_ok_and(|mut groups| {
            groups
                .any(|group| group.is_ok_and(|group| group.path().join("memory.swap.max").exists()))
        })
}

/// The root of each tree.
fn trees() -> io::Result<Vec<PathBuf>> {
    let mount = Path::new(MOUNT);
    if mount.join("cgroup.controllers").exists() {
        return Ok(vec![mount.to_owned()]);
    }
    let mut trees = Vec::new();
    for entry in std::fs::read_dir(mount)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            trees.push(path);
        }
    }
    Ok(trees)
}

/// A group and the groups below it, outermost first.
fn subtree(folder: &Path) -> Vec<PathBuf> {
    walkdir::WalkDir::new(folder)
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_dir())
        .map(walkdir::DirEntry::into_path)
        .collect()
}

fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// The number after `name` in a file of `name number` lines; 0 if there is none.
fn counter(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_of_each_layout_is_found() {
        let one = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(counter(one, "oom_kill"), 3);
        let two = "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\n";
        assert_eq!(counter(two, "oom_kill"), 1);
        assert_eq!(counter("", "oom_kill"), 0);
    }
}
