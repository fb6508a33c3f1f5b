//! The normalised definition of a template: what is stored, keyed and built. No secret value is in it.

mod context;
mod step;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};
use crate::name::SecretId;

pub use context::{
    Arrivals, CONTEXT_PATH_BYTES_MAX, ContextEntry, ContextKind, ContextManifest, ContextRef,
    InvalidContext,
};
pub use step::{CopyItem, Step};

/// Everything that decides what a build makes, without the values of its secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// What is built.
    pub source: Source,
    /// The files that steps may copy; their content is in the blob store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<ContextRef>,
    /// The command that runs in the machine before it is captured, by `/bin/sh -c`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_cmd: Option<String>,
    /// Defaults of every machine that is started from the template.
    #[serde(default)]
    pub runtime: RuntimeConfig,
    /// The machine.
    pub config: BuildConfig,
    /// Build everything anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_cache: bool,
    /// The ids of the secrets that the request brings; sorted, without repeats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_ids: Vec<SecretId>,
}

impl Definition {
    /// The digest of the stored form.
    ///
    /// # Panics
    /// Never: every field has a JSON form.
    pub fn digest(&self) -> Digest {
        let json = serde_json::to_vec(self)
            .expect("a definition has only string keys and no failing serializer");
        Hasher::new("definition/v1").field(json).finish()
    }
}

/// What a template is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    /// A base and steps, built by the native backend.
    Declarative {
        /// An OCI image reference, or a template reference, as the caller wrote it.
        base_image: String,
        /// The steps, in order.
        steps: Vec<Step>,
        /// Variables that steps see and machines do not.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        build_envs: BTreeMap<String, String>,
    },
    /// A Dockerfile, built by BuildKit.
    Dockerfile {
        /// Its text.
        text: String,
        /// Its path in the context; `Dockerfile` if it has none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
        /// Values of its `ARG`s.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        build_args: BTreeMap<String, String>,
        /// The stage to build; the last if none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<String>,
    },
}

/// Which engine runs a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// Our own step containers.
    Native,
    /// `buildctl` and BuildKit.
    Buildkit,
}

/// Where a template comes from, in the wire's vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceType {
    /// A base image and steps.
    Declarative,
    /// A Dockerfile.
    Dockerfile,
    /// A base image without steps.
    OciImport,
    /// Another template.
    TemplateBase,
}

/// The machine that a template is built for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildConfig {
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// The least size of the root filesystem in MiB, if the caller gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_mb: Option<u64>,
    /// Whether steps and the machine have a network.
    pub internet_access: bool,
}

/// Defaults of every machine that is started from a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeConfig {
    /// The user of processes in the machine; root if none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_user: Option<String>,
    /// Their working folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_workdir: Option<String>,
    /// Their environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub default_envs: BTreeMap<String, String>,
    /// When the start command counts as up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
}

/// When a start command counts as up. Probed from inside the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Readiness {
    /// A port accepts a connection.
    Tcp {
        /// The port on the machine's loopback.
        port: u16,
        /// How often and how long.
        #[serde(flatten)]
        schedule: ProbeSchedule,
    },
    /// A path answers with a status below 400.
    Http {
        /// The port on the machine's loopback.
        port: u16,
        /// The path, beginning with `/`.
        path: String,
        /// How often and how long.
        #[serde(flatten)]
        schedule: ProbeSchedule,
    },
    /// A command exits with 0.
    Command {
        /// The command, run by `/bin/sh -c`.
        command: String,
        /// How often and how long.
        #[serde(flatten)]
        schedule: ProbeSchedule,
    },
    /// Time has passed.
    Timeout {
        /// How much, in milliseconds.
        timeout_ms: u64,
    },
}

/// How often and how long a probe is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeSchedule {
    /// How long to try, in seconds.
    pub timeout_secs: u64,
    /// The pause between tries, in milliseconds.
    pub interval_ms: u64,
    /// The pause before the first try, in seconds.
    pub startup_grace_secs: u64,
}

impl Default for ProbeSchedule {
    /// The contract's defaults: 30 s, every 500 ms, after 2 s.
    fn default() -> Self {
        Self {
            timeout_secs: 30,
            interval_ms: 500,
            startup_grace_secs: 2,
        }
    }
}
