//! Machines: booting a root filesystem, talking to its agent, snapshots, clones.
//!
//! The driver is QEMU's `microvm` machine. It knows nothing of builds and templates: it is given a
//! disk image and a folder, and gives back a [`Machine`].
//!
//! ```text
//!  Vmm::prepare ── accelerator (kvm_probe, tsc), kernel, initramfs (with the guest agent)
//!     │
//!     ├─ boot ────────► Machine ── exec, start, probe, disk, … ── capture ──► memory, device state
//!     └─ restore ─────► Machine ◄───────────────── the same files, for any number of clones ──┘
//! ```
//!
//! A machine is three parties: the QEMU process (`qemu` writes its command line, `launch`
//! starts it without privileges, `qmp` commands it) and the agent inside (`agent`). No QEMU
//! outlives its [`Machine`]: dropping kills it, and it dies with this process.

mod accelerator;
mod agent;
mod capture;
mod config;
mod error;
mod identity;
mod initramfs;
mod kernel;
mod kvm_probe;
mod launch;
mod machine;
mod overlay;
mod prepare;
mod private_memory;
mod qemu;
mod qmp;
mod run;
mod tail;
mod tsc;

#[cfg(test)]
mod tests;

pub use capture::Captured;
pub use config::{AcceleratorChoice, MachineNetwork, MachineSpec, SnapshotFiles, VmmConfig};
pub use error::{LastWords, VmmError};
pub use guest::protocol::{
    DiskInfo, ExecRequest, ExitOutcome, OutputStream, Probe, ProbeOutcome, StartRequest,
    StartState, StartStatus,
};
pub use identity::{Accelerator, VmmIdentity};
pub use machine::Machine;
pub use prepare::Vmm;
