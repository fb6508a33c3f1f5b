//! What a finished build leaves: the artifact's files, what they are bound to, and how they were
//! proven.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::definition::Readiness;
use crate::digest::Digest;
use crate::ids::ArtifactId;

/// A file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// The digest of its content.
    pub digest: Digest,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What a snapshot is bound to: it restores nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmmIdentity {
    /// `qemu` or `firecracker`.
    pub kind: String,
    /// Its version.
    pub version: String,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// The processor that the guest sees.
    pub cpu_model: String,
    /// The machine type and its options.
    pub machine: String,
    /// The guest kernel.
    pub kernel_digest: Digest,
    /// The guest agent and what boots it.
    pub agent_digest: Digest,
}

/// How the snapshot was restored once before it was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreCheck {
    /// From the start of the VMM to the agent's first answer, in milliseconds.
    pub restore_ms: u64,
    /// The size of the root filesystem, as the guest sees it, in bytes.
    pub disk_bytes: u64,
}

/// What machines of the template start with; names of variables, never their values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeDefaults {
    /// The names of the variables of the environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_keys: Vec<String>,
    /// The start command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_cmd: Option<String>,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The working folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// When the start command counts as up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
}

/// Metadata of the image that a template was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciMetadata {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Ports, for example `8080/tcp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed_ports: Vec<String>,
    /// Folders that the image calls volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// How the image tells whether it is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<OciHealthcheck>,
}

/// How an image tells whether it is well, and what was made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciHealthcheck {
    /// `NONE`; `CMD` and a command's words; or `CMD-SHELL` and a line for a shell.
    pub test: Vec<String>,
    /// The time between two checks, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ns: Option<u64>,
    /// The time that one check may take, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ns: Option<u64>,
    /// The time before failures count, in nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period_ns: Option<u64>,
    /// How many failures in a row count as ill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u64>,
    /// The template's readiness, if it was made of the check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped_readiness: Option<Readiness>,
}

/// The template is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshotted {
    /// The artifact.
    pub artifact: ArtifactId,
    /// Its root filesystem, which restores anywhere.
    pub rootfs: FileRecord,
    /// The machine's memory.
    pub memory: FileRecord,
    /// The machine's devices.
    pub device_state: FileRecord,
    /// What memory and devices are bound to.
    pub vmm: VmmIdentity,
    /// How it was restored once.
    pub restore_check: RestoreCheck,
    /// What machines start with.
    pub runtime: RuntimeDefaults,
    /// Metadata of the base image.
    #[serde(default)]
    pub oci: OciMetadata,
    /// Whether the artifact was made by an earlier build.
    pub reused: bool,
}
