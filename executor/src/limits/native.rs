//! Bounds of the native backend: one step, its container, its network, its file operations.

use std::time::Duration;

use crate::native::identity::IdRange;

/// Bounds of step containers and of the file operations of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeLimits {
    /// Processes and threads of one step at once.
    pub pids_max: u32,
    /// The host's users that stand for those of a step; none runs steps as the host's own users.
    pub step_ids: Option<IdRange>,
    /// What one step may write to disk, in bytes.
    pub disk_bytes_max: u64,
    /// How many files and folders one step may make.
    pub disk_files_max: u64,
    /// The space of the layers' filesystem that steps leave free, in bytes.
    pub disk_free_bytes_min: u64,
    /// The files of the layers' filesystem that steps leave free.
    pub disk_free_files_min: u64,
    /// The pause between two looks at the free space.
    pub disk_look_interval: Duration,
    /// The least time between two counts of what a step has written.
    pub disk_count_interval: Duration,
    /// Size of a step's `/dev/shm`, in bytes.
    pub shm_bytes_max: u64,
    /// The most that is read at once from an output stream of a step, in bytes.
    pub read_bytes: usize,
    /// The part of a failed step's standard error that its error carries, in bytes.
    pub stderr_tail_bytes: usize,
    /// The part of a failed step's standard error that its error carries, in lines.
    pub stderr_tail_lines: usize,
    /// The largest `/etc/passwd` or `/etc/group` of an image that is read, in bytes.
    pub account_file_bytes_max: u64,
    /// The largest log of the container runtime that is read, in bytes.
    pub runtime_log_bytes_max: u64,
    /// How long a container may take to be gone after it was told to go.
    pub kill_wait: Duration,
    /// The pause between two looks at something that is going away.
    pub poll_interval: Duration,
    /// How long the user-mode network may take to come up.
    pub network_ready_wait: Duration,
    /// How long one call of a host tool (`ip`) may take.
    pub tool_wait: Duration,
    /// How long a repository may take to tell its commits.
    pub commit_wait: Duration,
    /// The longest answer of a repository about its commits that is read, in bytes.
    pub commit_answer_bytes_max: usize,
}

impl Default for NativeLimits {
    fn default() -> Self {
        Self {
            pids_max: 4096,
            // Numbers that no distribution gives to users, services or their sub-users, and enough of
            // them for images whose users have large numbers.
            step_ids: Some(IdRange {
                first: 0x7000_0000,
                count: 0x0ffe_0000,
            }),
            disk_bytes_max: 20 * 1024 * 1024 * 1024,
            disk_files_max: 4_000_000,
            disk_free_bytes_min: 1024 * 1024 * 1024,
            disk_free_files_min: 10_000,
            disk_look_interval: Duration::from_millis(50),
            disk_count_interval: Duration::from_millis(500),
            shm_bytes_max: 64 * 1024 * 1024,
            read_bytes: 64 * 1024,
            stderr_tail_bytes: 8 * 1024,
            stderr_tail_lines: 20,
            account_file_bytes_max: 1024 * 1024,
            runtime_log_bytes_max: 256 * 1024,
            kill_wait: Duration::from_secs(20),
            poll_interval: Duration::from_millis(10),
            network_ready_wait: Duration::from_secs(20),
            tool_wait: Duration::from_secs(20),
            commit_wait: Duration::from_mins(2),
            commit_answer_bytes_max: 64 * 1024,
        }
    }
}
