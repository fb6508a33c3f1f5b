//! Makes a snapshot of a machine, which ends with it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use guest::protocol::Request;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;
use serde_json::json;

use super::error::{VmmError, blocking};
use super::machine::Machine;
use super::qmp::{Qmp, QmpError};
use crate::limits::vmm::VmmLimits;

/// Snapshot files are read by every clone and changed by nobody.
const READ_ONLY: u32 = 0o444;

const PAGE_BYTES: usize = 4096;
/// What is read at once when zeroes are looked for.
const SCAN_BYTES: usize = 256 * PAGE_BYTES;

/// The files of a snapshot, besides the disk image that its machine was booted from.
///
/// The three are one unit: memory, devices and disk of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The machine's memory; pages of zeroes are holes.
    pub memory: PathBuf,
    /// The state of its devices.
    pub device_state: PathBuf,
    /// The size of the memory file, in bytes.
    pub memory_bytes: u64,
    /// What the memory file takes on its disk, in bytes.
    pub memory_allocated_bytes: u64,
    /// The size of the device state, in bytes.
    pub device_state_bytes: u64,
}

impl Machine {
    /// Captures the machine into two new files in `dir`, and ends it.
    ///
    /// Its processes are stopped and its file system is frozen first, so memory and disk image are
    /// of one moment; the disk image must not be written again. `dir` must be on the file system
    /// of the machine's own folder.
    ///
    /// # Errors
    /// [`VmmError::Refused`] if the machine was itself restored, or cannot be stopped;
    /// [`VmmError::Monitor`], [`VmmError::Ended`], [`VmmError::Deadline`] if QEMU fails.
    pub async fn capture(mut self, dir: &Path) -> Result<Captured, VmmError> {
        let hold = VmmLimits::seconds(self.limits().hold_seconds_max);
        let Some(memory) = self.memory.take() else {
            return Err(VmmError::Refused {
                doing: "be captured".to_owned(),
                reason: "it was restored itself, so its memory is in no file".to_owned(),
            });
        };
        // After its answer the channel is silent, so the snapshot holds no part of a message.
        self.ask_done("stop for its snapshot", Request::Hold, hold)
            .await?;
        let state_path = dir.join("device_state");
        let state = {
            let path = state_path.clone();
            blocking(move || create(&path)).await?
        };
        let written = self.write_state(&state).await;
        if let Err(error) = written {
            return Err(self.monitor_error("write its snapshot", error).await);
        }
        let deadline = VmmLimits::seconds(self.limits().shutdown_seconds_max);
        if tokio::time::timeout(deadline, self.child.wait())
            .await
            .is_err()
        {
            self.kill().await?;
        }
        let memory_to = dir.join("memory");
        blocking(move || finish(&memory, memory_to, &state, state_path)).await
    }

    async fn write_state(&mut self, state: &File) -> Result<(), QmpError> {
        let deadline = VmmLimits::seconds(self.limits().capture_seconds_max);
        let qmp = self.qmp.get_mut();
        qmp.execute("stop", json!({})).await?;
        leave_memory_alone(qmp).await?;
        let name = json!({"fdname": "state"});
        qmp.execute_with("getfd", name, state.as_fd()).await?;
        qmp.execute("migrate", json!({"uri": "fd:state"})).await?;
        migration_ended(qmp, "migrate", deadline).await?;
        qmp.execute("quit", json!({})).await?;
        Ok(())
    }
}

/// Tells QEMU that shared memory is not part of the state, and to report how it goes.
pub(super) async fn leave_memory_alone(qmp: &mut Qmp) -> Result<(), QmpError> {
    let capabilities = json!({"capabilities": [
        {"capability": "x-ignore-shared", "state": true},
        {"capability": "events", "state": true},
    ]});
    qmp.execute("migrate-set-capabilities", capabilities)
        .await
        .map(drop)
}

/// Waits until the state is written or read.
pub(super) async fn migration_ended(
    qmp: &mut Qmp,
    command: &str,
    deadline: Duration,
) -> Result<(), QmpError> {
    let status = |data: &serde_json::Value| {
        let status = data.get("status").and_then(serde_json::Value::as_str);
        status.unwrap_or_default().to_owned()
    };
    let ended = qmp
        .wait_for("MIGRATION", deadline, |data| {
            matches!(status(data).as_str(), "completed" | "failed" | "cancelled")
        })
        .await?;
    if status(&ended) == "completed" {
        return Ok(());
    }
    let details = qmp.execute("query-migrate", json!({})).await?;
    let reason = details
        .get("error-desc")
        .and_then(serde_json::Value::as_str)
        .map_or_else(|| status(&ended), str::to_owned);
    Err(QmpError::Refused {
        command: command.to_owned(),
        reason,
    })
}

fn create(path: &Path) -> Result<File, VmmError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(VmmError::file("make", path))
}

fn finish(
    memory_from: &Path,
    memory: PathBuf,
    state: &File,
    device_state: PathBuf,
) -> Result<Captured, VmmError> {
    if memory_from != memory {
        fs::rename(memory_from, &memory)
            .map_err(VmmError::file("move the memory file to", &memory))?;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&memory)
        .map_err(VmmError::file("open", &memory))?;
    punch_zeroes(&file)
        .map_err(|error| VmmError::file("give back empty pages of", &memory)(error.into()))?;
    let seal = |file: &File, path: &Path| {
        std::os::unix::fs::fchown(file, Some(0), Some(0))
            .and_then(|()| file.set_permissions(Permissions::from_mode(READ_ONLY)))
            .and_then(|()| file.metadata())
            .map_err(VmmError::file("finish", path))
    };
    let memory_metadata = seal(&file, &memory)?;
    let state_metadata = seal(state, &device_state)?;
    Ok(Captured {
        memory,
        device_state,
        memory_bytes: memory_metadata.size(),
        // Blocks of 512 bytes, whatever the file system's are: stat(2).
        memory_allocated_bytes: memory_metadata.blocks() * 512,
        device_state_bytes: state_metadata.size(),
    })
}

/// Makes holes of the pages that hold nothing but zeroes.
fn punch_zeroes(file: &File) -> Result<(), Errno> {
    let mut chunk = vec![0_u8; SCAN_BYTES];
    let mut at = 0_u64;
    // Existing holes are skipped: the next data begins here, and ends at the next hole.
    while let Some(from) = found(seek(file, SeekFrom::Data(at)))? {
        let to = seek(file, SeekFrom::Hole(from))?;
        at = from;
        while at < to {
            let wanted = usize::try_from(to - at)
                .unwrap_or(usize::MAX)
                .min(SCAN_BYTES);
            let part = chunk.get_mut(..wanted).unwrap_or_default();
            file.read_exact_at(part, at)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            for (start, length) in zero_runs(part) {
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(file, mode, at + start, length)?;
            }
            at += bytes(wanted);
        }
    }
    Ok(())
}

fn bytes(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn found(position: Result<u64, Errno>) -> Result<Option<u64>, Errno> {
    match position {
        Ok(position) => Ok(Some(position)),
        // No data behind this position.
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The runs of whole pages of zeroes in `chunk`: start and length in bytes.
fn zero_runs(chunk: &[u8]) -> Vec<(u64, u64)> {
    const ZEROES: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut at = 0_u64;
    for page in chunk.chunks_exact(PAGE_BYTES) {
        if page == ZEROES {
            match runs.last_mut() {
                Some((start, length)) if *start + *length == at => *length += bytes(PAGE_BYTES),
                _ => runs.push((at, bytes(PAGE_BYTES))),
            }
        }
        at += bytes(PAGE_BYTES);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_pages_become_holes_and_content_stays() {
        let file = tempfile::tempfile().unwrap();
        let mut content = vec![0_u8; 3 * SCAN_BYTES];
        content[5 * PAGE_BYTES + 17] = 1;
        content[2 * SCAN_BYTES - 1] = 2;
        file.write_all_at(&content, 0).unwrap();
        file.sync_all().unwrap();
        let before = file.metadata().unwrap().blocks();
        punch_zeroes(&file).unwrap();
        let after = file.metadata().unwrap();
        assert!(before * 512 >= bytes(3 * SCAN_BYTES));
        assert!(
            after.blocks() * 512 <= bytes(4 * PAGE_BYTES),
            "{}",
            after.blocks()
        );
        let mut read = vec![1_u8; content.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read, content);
    }

    #[test]
    fn runs_of_zero_pages_are_joined() {
        let mut chunk = vec![0_u8; 6 * PAGE_BYTES];
        chunk[2 * PAGE_BYTES] = 1;
        let page = bytes(PAGE_BYTES);
        assert_eq!(zero_runs(&chunk), [(0, 2 * page), (3 * page, 3 * page)]);
    }
}
