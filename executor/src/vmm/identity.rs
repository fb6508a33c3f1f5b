//! What a snapshot is bound to: it can only be restored by a monitor with an equal identity.

use std::fmt;

use domain::Digest;
use serde::{Deserialize, Serialize};

/// How instructions of machines are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// By the processor, through KVM.
    Kvm,
    /// Emulated by QEMU.
    Tcg,
}

impl Accelerator {
    /// QEMU's name for it, which is also ours.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Everything outside of a snapshot's files on which their meaning depends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmmIdentity {
    /// The monitor: `qemu`.
    pub kind: String,
    /// Its version.
    pub version: String,
    /// How instructions are run.
    pub accelerator: Accelerator,
    /// The processor that machines see; with KVM, it names the host's.
    pub cpu_model: String,
    /// The machine model and its devices.
    pub machine: String,
    /// The packaged kernel image.
    pub kernel_digest: Digest,
    /// The initial file system: the guest agent and the kernel's modules.
    pub agent_digest: Digest,
}

impl VmmIdentity {
    /// Why a snapshot of `other` cannot be restored here: the first difference, or nothing.
    pub fn incompatible_with(&self, other: &Self) -> Option<String> {
        let fields = [
            ("kind", self.kind.clone(), other.kind.clone()),
            ("version", self.version.clone(), other.version.clone()),
            (
                "accelerator",
                self.accelerator.to_string(),
                other.accelerator.to_string(),
            ),
            ("cpu_model", self.cpu_model.clone(), other.cpu_model.clone()),
            ("machine", self.machine.clone(), other.machine.clone()),
            (
                "kernel_digest",
                self.kernel_digest.to_string(),
                other.kernel_digest.to_string(),
            ),
            (
                "agent_digest",
                self.agent_digest.to_string(),
                other.agent_digest.to_string(),
            ),
        ];
        fields
            .into_iter()
            .find(|(_, here, there)| here != there)
            .map(|(name, here, there)| format!("{name} is `{here}` here and `{there}` there"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> VmmIdentity {
        VmmIdentity {
            kind: "qemu".to_owned(),
            version: "7.2.22".to_owned(),
            accelerator: Accelerator::Tcg,
            cpu_model: "max".to_owned(),
            machine: "microvm".to_owned(),
            kernel_digest: Digest::of(b"kernel"),
            agent_digest: Digest::of(b"agent"),
        }
    }

    #[test]
    fn the_first_difference_is_named() {
        let here = identity();
        assert_eq!(here.incompatible_with(&identity()), None);
        let there = VmmIdentity {
            accelerator: Accelerator::Kvm,
            version: "8.0.0".to_owned(),
            ..identity()
        };
        assert_eq!(
            here.incompatible_with(&there).unwrap(),
            "version is `7.2.22` here and `8.0.0` there"
        );
        let there = VmmIdentity {
            agent_digest: Digest::ZERO,
            ..identity()
        };
        let complaint = here.incompatible_with(&there).unwrap();
        assert!(complaint.starts_with("agent_digest is "), "{complaint}");
    }

    #[test]
    fn an_identity_survives_a_manifest() {
        let json = serde_json::to_string(&identity()).unwrap();
        assert_eq!(
            serde_json::from_str::<VmmIdentity>(&json).unwrap(),
            identity()
        );
    }
}
