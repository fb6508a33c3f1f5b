//! The machines that templates are booted in.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The guest agent's file name.
const GUEST_AGENT: &str = "nullspace-guest";

/// The machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vmm {
    /// Whether machines run on the processor's own virtualisation.
    pub accelerator: Accelerator,
    /// QEMU; looked up in `PATH` unless it is a path.
    pub qemu: PathBuf,
    /// The guest kernel; the newest cloud kernel below `/boot` if none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// The guest agent; if none is given, the one that `make agent` built for this program, or
    /// `nullspace-guest` beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_agent: Option<PathBuf>,
}

impl Default for Vmm {
    fn default() -> Self {
        Self {
            accelerator: Accelerator::Auto,
            qemu: "qemu-system-x86_64".into(),
            kernel: None,
            guest_agent: None,
        }
    }
}

impl Vmm {
    /// Where the guest agent is, if `executable` is this program.
    ///
    /// In a build folder the agent has a profile, and so a folder, of its own; what lies beside
    /// the program there is the same source compiled for the host, which boots no machine.
    pub fn guest_agent_beside(&self, executable: &Path) -> PathBuf {
        if let Some(set) = &self.guest_agent {
            return set.clone();
        }
        let build_folder = executable.parent().and_then(Path::parent);
        build_folder
            .map(|folder| folder.join("agent").join(GUEST_AGENT))
            .filter(|agent| agent.is_file())
            .unwrap_or_else(|| executable.with_file_name(GUEST_AGENT))
    }
}

/// Whether machines run on the processor's own virtualisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accelerator {
    /// KVM where a probe shows that it really runs a guest, else emulation.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Emulation.
    Tcg,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_of_a_build_folder_wins_over_a_neighbour() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("release/nullspaced");
        let neighbour = folder.path().join("release").join(GUEST_AGENT);
        let vmm = Vmm::default();
        assert_eq!(vmm.guest_agent_beside(&program), neighbour);

        std::fs::create_dir(folder.path().join("agent")).unwrap();
        let built = folder.path().join("agent").join(GUEST_AGENT);
        std::fs::write(&built, "").unwrap();
        assert_eq!(vmm.guest_agent_beside(&program), built);

        let set = Vmm {
            guest_agent: Some("/opt/agent".into()),
            ..vmm
        };
        assert_eq!(set.guest_agent_beside(&program), Path::new("/opt/agent"));
    }
}
