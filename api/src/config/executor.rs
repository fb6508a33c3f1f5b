//! The worker, and how large a build may be.

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// The worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Executor {
    /// Builds at once; the others wait.
    pub concurrent_builds: usize,
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
    /// How long one attempt of a build may take, in seconds.
    pub build_timeout_secs: u64,
    /// How much the layer cache may hold, in MiB; the least recently used layers go beyond.
    pub layer_cache_mb_max: u64,
}

impl Default for Executor {
    fn default() -> Self {
        Self {
            concurrent_builds: 2,
            max_attempts: domain::build::ATTEMPTS_MAX_DEFAULT,
            disk_mb_max: 65_536,
            memory_mib_min: 128,
            memory_mib_max: 8192,
            vcpus_max: 8,
            step_timeout_secs: 3600,
            build_timeout_secs: 7200,
            layer_cache_mb_max: 20_480,
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
