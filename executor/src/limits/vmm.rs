//! Bounds of the machines: how long each thing may take, how much is kept of what they say.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bounds of the virtual machine monitor and of the machines it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VmmLimits {
    /// From start to the agent's answer without hardware virtualisation, in seconds.
    pub boot_emulated_seconds_max: u64,
    /// From start to the agent's answer with hardware virtualisation, in seconds.
    pub boot_virtualised_seconds_max: u64,
    /// From start to the agent's answer of a machine that is restored, in seconds.
    pub restore_seconds_max: u64,
    /// An answer of the agent or of QEMU that needs no work, in seconds.
    pub answer_seconds_max: u64,
    /// Stopping all processes and writing everything back before a snapshot, in seconds.
    pub hold_seconds_max: u64,
    /// Writing the device state of a snapshot, in seconds.
    pub capture_seconds_max: u64,
    /// An orderly end of a machine, in seconds; then it is killed.
    pub shutdown_seconds_max: u64,
    /// What a command's end may lag behind its own deadline, in seconds.
    pub exec_grace_seconds: u64,
    /// A tool that prepares something small, for example an empty overlay, in seconds.
    pub tool_seconds_max: u64,
    /// The probe loop that tells whether hardware virtualisation really runs, in milliseconds.
    pub kvm_probe_ms_max: u64,
    /// What is kept of a machine's console, in bytes.
    pub console_tail_bytes_max: usize,
    /// What is kept of QEMU's standard error, in bytes.
    pub stderr_tail_bytes_max: usize,
    /// Virtual CPUs of a machine.
    pub vcpus_max: u32,
    /// Memory of a machine, in MiB.
    pub memory_mib_max: u32,
    /// A kernel image before and after unpacking, in bytes.
    pub kernel_bytes_max: u64,
}

impl Default for VmmLimits {
    fn default() -> Self {
        Self {
            boot_emulated_seconds_max: 60,
            boot_virtualised_seconds_max: 10,
            restore_seconds_max: 30,
            answer_seconds_max: 20,
            hold_seconds_max: 60,
            capture_seconds_max: 60,
            shutdown_seconds_max: 20,
            exec_grace_seconds: 10,
            tool_seconds_max: 30,
            kvm_probe_ms_max: 200,
            console_tail_bytes_max: 16 * 1024,
            stderr_tail_bytes_max: 8 * 1024,
            vcpus_max: 64,
            memory_mib_max: 256 * 1024,
            kernel_bytes_max: 256 * 1024 * 1024,
        }
    }
}

impl VmmLimits {
    /// The bound `seconds` as a duration.
    pub(crate) fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
}
