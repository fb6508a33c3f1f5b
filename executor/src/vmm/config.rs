//! What the driver needs to know, and what a machine is made of.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::VmmError;
use crate::limits::vmm::VmmLimits;

/// Where the driver's parts are, and how it runs machines.
#[derive(Clone, Debug)]
pub struct VmmConfig {
    /// `qemu-system-x86_64`, by path or by name.
    pub qemu: PathBuf,
    /// `qemu-img`, by path or by name.
    pub qemu_img: PathBuf,
    /// The kernel as packaged (`vmlinuz-*`); without it, the newest cloud kernel in `/boot`.
    pub kernel: Option<PathBuf>,
    /// The folder of the kernel's modules; without it, `/lib/modules` and the kernel's release.
    pub modules: Option<PathBuf>,
    /// The guest agent, a static program.
    pub guest_agent: PathBuf,
    /// Where what is made once is kept: the unpacked kernel, initial file systems, empty overlays.
    pub cache_dir: PathBuf,
    /// How instructions of machines are run.
    pub accelerator: AcceleratorChoice,
    /// The user and group id of QEMU processes; it owns nothing but the files of its machine.
    pub unprivileged_uid: u32,
    /// Bounds.
    pub limits: VmmLimits,
}

impl VmmConfig {
    /// The usual places: programs by name, the newest cloud kernel, user 65534, default bounds.
    pub fn new(guest_agent: impl Into<PathBuf>, cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            qemu: "qemu-system-x86_64".into(),
            qemu_img: "qemu-img".into(),
            kernel: None,
            modules: None,
            guest_agent: guest_agent.into(),
            cache_dir: cache_dir.into(),
            accelerator: AcceleratorChoice::Auto,
            unprivileged_uid: 65_534,
            limits: VmmLimits::default(),
        }
    }
}

/// How instructions of machines are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcceleratorChoice {
    /// By the processor if a probe shows that it really does, else emulated.
    #[default]
    Auto,
    /// By the processor, through KVM.
    Kvm,
    /// Emulated.
    Tcg,
}

/// The shape of a machine.
///
/// A snapshot can only be restored into the shape that it was taken from; the name may differ, and
/// the network may be another namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSpec {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// The host name that programs inside see.
    pub hostname: String,
    /// The network that programs inside have.
    pub network: MachineNetwork,
}

impl MachineSpec {
    /// The memory in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        u64::from(self.memory_mib) * 1024 * 1024
    }

    /// Checks the shape against the bounds.
    pub(super) fn check(&self, limits: &VmmLimits) -> Result<(), VmmError> {
        // What the kernel accepts (__NEW_UTS_LEN) and what is a label elsewhere.
        const HOSTNAME_BYTES_MAX: usize = 64;
        let complaint = if !(1..=limits.vcpus_max).contains(&self.vcpus) {
            format!(
                "{} vCPUs are not within 1 to {}",
                self.vcpus, limits.vcpus_max
            )
        } else if !(64..=limits.memory_mib_max).contains(&self.memory_mib) {
            format!(
                "{} MiB of memory are not within 64 to {}",
                self.memory_mib, limits.memory_mib_max
            )
        } else if !(1..=HOSTNAME_BYTES_MAX).contains(&self.hostname.len()) {
            format!(
                "the host name `{}` is not 1 to 64 bytes long",
                self.hostname
            )
        } else {
            return Ok(());
        };
        Err(VmmError::Spec { complaint })
    }
}

/// The network of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineNetwork {
    /// No network device at all.
    None,
    /// User-mode network of a QEMU process that runs in a network namespace.
    ///
    /// The machine reaches everything that the namespace reaches, its loopback included.
    Namespace {
        /// The namespace, as a file (`/run/netns/NAME` or `/proc/PID/ns/net`).
        path: PathBuf,
        /// Whom the machine asks for names, as the namespace reaches it. Set at boot, and part of
        /// the snapshot.
        name_server: Ipv4Addr,
    },
}

/// The files of a snapshot; none of them is ever changed by a clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFiles {
    /// The machine's memory.
    pub memory: PathBuf,
    /// The state of its devices.
    pub device_state: PathBuf,
    /// The raw image of its disk, as it was when the memory was captured.
    pub disk: PathBuf,
}
