//! The worker, and how large a build may be.

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// The worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Executor {
    /// Builds at once; the others wait.
    pub concurrent_builds: usize,
    /// Builds of one owner at once, so that others get their turn; 0: as many as there may be.
    pub owner_concurrent_builds: usize,
    /// How often a build is attempted by itself when the cause of its failure lies with us.
    pub max_attempts: u32,
    /// The largest root filesystem that a request may ask for, in MiB.
    pub disk_mb_max: u64,
    /// The least memory that a request may ask for, in MiB: a kernel needs some.
    pub memory_mib_min: u32,
    /// The most memory that a request may ask for, in MiB.
    pub memory_mib_max: u32,
    /// The most processors that a request may ask for.
    pub vcpus_max: u32,
    /// How long one step may take, in seconds.
    pub step_timeout_secs: u64,
    /// Whether steps run as users of their own, in a user namespace. Without it their root is the host's
    /// root, held back by filters alone: for hosts whose filesystem has no idmapped mounts.
    pub step_user_namespace: bool,
    /// The host's number of a step's user 0; its other users follow. 268 304 384 numbers from here on
    /// must be nobody's.
    pub step_first_user_id: u32,
    /// How much one step may write to disk, in MiB.
    pub step_disk_mb_max: u64,
    /// How many processes and threads one step may have at once.
    pub step_processes_max: u32,
    /// How long one attempt of a build may take, in seconds.
    pub build_timeout_secs: u64,
    /// How much the layer cache may hold, in MiB; the least recently used layers go beyond, except
    /// those that a running build or a template needs.
    pub layer_cache_mb_max: u64,
    /// How much of the disk is to stay free, in MiB; layers go below, with the same exceptions.
    pub free_disk_mb_min: u64,
}

impl Default for Executor {
    fn default() -> Self {
        Self {
            concurrent_builds: 2,
            owner_concurrent_builds: 0,
            max_attempts: domain::build::ATTEMPTS_MAX_DEFAULT,
            disk_mb_max: 65_536,
            memory_mib_min: 128,
            memory_mib_max: 8192,
            vcpus_max: 8,
            step_timeout_secs: 3600,
            step_user_namespace: true,
            step_first_user_id: 0x7000_0000,
            step_disk_mb_max: 20_480,
            step_processes_max: 4096,
            build_timeout_secs: 7200,
            layer_cache_mb_max: 20_480,
            free_disk_mb_min: 1024,
        }
    }
}

impl Executor {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let range = |setting, problem: String| Err(ConfigError::Range { setting, problem });
        if self.concurrent_builds == 0 {
            return range(
                "executor.concurrent_builds",
                "must be at least 1".to_owned(),
            );
        }
        if self.max_attempts == 0 {
            return range("executor.max_attempts", "must be at least 1".to_owned());
        }
        // Numbers up to here are people, services and their sub-users on one host or another.
        if !(0x1_0000..=0xf000_0000).contains(&self.step_first_user_id) {
            return range(
                "executor.step_first_user_id",
                "must be from 65536 to 4026531840".to_owned(),
            );
        }
        if self.step_disk_mb_max == 0 {
            return range("executor.step_disk_mb_max", "must be at least 1".to_owned());
        }
        if self.step_processes_max < 16 {
            return range(
                "executor.step_processes_max",
                "must be at least 16".to_owned(),
            );
        }
        if self.memory_mib_min > self.memory_mib_max {
            return range(
                "executor.memory_mib_min",
                format!(
                    "must not be above executor.memory_mib_max ({})",
                    self.memory_mib_max
                ),
            );
        }
        Ok(())
    }
}
