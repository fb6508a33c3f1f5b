//! Builds.

use domain::definition::BuildConfig as DomainConfig;
use serde::Serialize;

use super::error::FailureDetail;
use super::log::LogEntry;
use super::template::{OciImageMetadata, RuntimeDefaults};

/// A build, as its owner sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TemplateBuild {
    /// `tb_…`
    pub build_id: String,
    /// `tmpl_…`
    pub template_id: String,
    /// The template's name.
    pub name: String,
    /// The tags that the finished build gets.
    pub tags: Vec<String>,
    /// `waiting`, `building`, `ready`, `error` or `cancelled`.
    pub status: &'static str,
    /// `native` or `buildkit`.
    pub build_backend: &'static str,
    /// `declarative`, `dockerfile`, `oci_import` or `template_base`.
    pub source_type: &'static str,
    /// The digest of the definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_digest: Option<String>,
    /// The digest of the context's listing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_digest: Option<String>,
    /// The digest of the Dockerfile's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile_digest: Option<String>,
    /// The key that asked for it, by its id.
    pub triggered_by: String,
    /// When it was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_at: Option<String>,
    /// When a worker first took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// From its first start to its end, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_phase: Option<&'static str>,
    /// The machine.
    pub build_config: BuildConfig,
    /// How the caches served it.
    pub cache_summary: CacheSummary,
    /// Whether the template can be started.
    pub artifact_availability: Availability,
    /// Whether a tag can be moved to it.
    pub promotability: Promotability,
    /// When the artifact goes, unless a tag is given to the build; absent while one points to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_expires_at: Option<String>,
    /// What machines start with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_defaults: Option<RuntimeDefaults>,
    /// Metadata of the base image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oci_metadata: Option<OciImageMetadata>,
    /// The artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_ids: Option<Vec<String>>,
    /// The build that it repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_of_build_id: Option<String>,
    /// The first build of its line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_build_id: Option<String>,
    /// When somebody wanted it stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_requested_at: Option<String>,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_requested_by: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancellation_reason: Option<String>,
    /// When it was accepted.
    pub created_at: String,
    /// When something last happened to it.
    pub updated_at: String,
    /// `namespace/name`
    pub canonical_ref: String,
    /// The namespace.
    pub namespace_slug: String,
    /// `private` or `public`
    pub visibility: &'static str,
    /// Why it failed, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<FailureDetail>,
}

/// A build and its log from an offset.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatusSnapshot {
    /// The build.
    pub build: TemplateBuild,
    /// Entries from the asked offset.
    pub entries: Vec<LogEntry>,
    /// The offset to ask for next.
    pub next_offset: u64,
}

/// A page of the builds of a template.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BuildList {
    /// The builds, the newest first.
    pub builds: Vec<TemplateBuild>,
    /// What to ask for the next page with; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// The machine that a template is built for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BuildConfig {
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Whether it has a network.
    pub internet_access: bool,
    /// The least size of the root filesystem in MiB, if the caller gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_mb: Option<u64>,
}

impl From<&DomainConfig> for BuildConfig {
    fn from(config: &DomainConfig) -> Self {
        Self {
            vcpus: config.vcpus,
            memory_mib: config.memory_mib,
            internet_access: config.internet_access,
            disk_mb: config.disk_mb,
        }
    }
}

/// How the caches served a build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "each field is the wire's name of a count")]
pub struct CacheSummary {
    pub final_artifact_hits: u64,
    pub final_artifact_misses: u64,
    pub final_artifact_bypasses: u64,
    pub final_artifact_stores: u64,
    pub layer_hits: u64,
    pub layer_misses: u64,
    pub layer_bypasses: u64,
    pub layer_stores: u64,
    pub file_blob_hits: u64,
    pub file_blob_misses: u64,
    pub file_blob_bypasses: u64,
    pub file_blob_stores: u64,
}

/// Whether a template can be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Availability {
    /// `available`, `publishing`, `warming`, `unavailable` or `failed`.
    pub status: &'static str,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether a tag can be moved to a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Promotability {
    /// `promotable`, `not_ready`, `expired`, `purged` or `unavailable`.
    pub status: &'static str,
    /// Whether it can.
    pub promotable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
