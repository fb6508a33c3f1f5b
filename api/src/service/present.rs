//! From views to the wire.

mod lineage;
mod timeline;

use domain::build::CacheKind;
use domain::definition::{Backend, SourceType};
use domain::failure::Failure;
use domain::name::{Namespace, Tag};
use domain::recorded::Actor;
use domain::template::Visibility;
use domain::time::Timestamp;
use projections::builds::{BuildRow, BuildStatus};
use projections::logs::{CacheReason, CacheStatus, LogEntry, LogKind};
use projections::templates::TemplateRow;

pub use lineage::{lineage, outcome};
pub use timeline::{lookup, sums, timeline};

use crate::config::{Retention, builtins};
use crate::wire::build::{Availability, BuildConfig, CacheSummary, Promotability, TemplateBuild};
use crate::wire::error::FailureDetail;
use crate::wire::log::LogEntry as WireEntry;
use crate::wire::template::{ResultMetadata, RuntimeDefaults, TemplateInfo};

/// A build, as its owner sees it; `template` is its template, if that is still known.
pub fn build(
    row: &BuildRow,
    template: Option<&TemplateRow>,
    retention: &Retention,
) -> TemplateBuild {
    let failure = row.failure.as_ref();
    let cancel = row.cancel.as_ref();
    TemplateBuild {
        build_id: row.build_id.to_string(),
        template_id: row.template_id.to_string(),
        name: row.name.to_string(),
        tags: texts(&row.tags),
        status: row.status.as_str(),
        build_backend: backend(row.backend),
        source_type: source_type(row.source_type),
        source_digest: Some(row.source_digest.to_string()),
        context_digest: row.context_digest.map(|digest| digest.to_string()),
        dockerfile_digest: row.dockerfile_digest.map(|digest| digest.to_string()),
        triggered_by: actor(&row.triggered_by),
        queued_at: Some(row.created_at.to_string()),
        started_at: time(row.started_at),
        finished_at: time(row.finished_at),
        duration_ms: row.duration_ms(),
        failure_phase: failure.map(|failure| failure.phase.as_str()),
        build_config: BuildConfig::from(&row.config),
        cache_summary: cache_summary(row),
        artifact_availability: availability(row, template),
        promotability: promotability(row, template),
        retention_expires_at: time(expires_at(row, template, retention)),
        runtime_defaults: row.runtime.as_ref().map(RuntimeDefaults::from),
        oci_metadata: row.oci.as_ref().map(Into::into),
        artifact_ids: row.artifact.as_ref().map(|id| vec![id.to_string()]),
        retry_of_build_id: row.retry_of.as_ref().map(|of| of.build.to_string()),
        original_build_id: row.retry_of.as_ref().map(|of| of.original.to_string()),
        cancel_requested_at: cancel.map(|cancel| cancel.at.to_string()),
        cancel_requested_by: cancel.map(|cancel| cancel.by.clone()),
        cancellation_reason: cancel.and_then(|cancel| cancel.reason.clone()),
        created_at: row.created_at.to_string(),
        updated_at: row.updated_at.to_string(),
        canonical_ref: format!("{}/{}", row.namespace, row.name),
        namespace_slug: row.namespace.to_string(),
        visibility: visibility(template),
        error: failure.map(|failure| failure.message.clone()),
        error_detail: failure.map(|failure| failure_of(row, failure)),
    }
}

/// Why the build `row` failed for good.
pub fn failure_of(row: &BuildRow, failure: &Failure) -> FailureDetail {
    FailureDetail {
        build_id: Some(row.build_id.to_string()),
        attempt: Some(row.attempt),
        max_attempts: Some(row.max_attempts),
        ..FailureDetail::of(failure)
    }
}

/// An entry of the log of the build `row`. Its last entry, if that is `end`, describes what was
/// made: the build must have ended in `row`, too.
pub fn entry(row: &BuildRow, template: Option<&TemplateRow>, entry: LogEntry) -> WireEntry {
    let ended = entry.kind == LogKind::End;
    let failure = entry.failure.as_ref().map(|failure| FailureDetail {
        build_id: Some(row.build_id.to_string()),
        attempt: entry.attempt,
        max_attempts: entry.max_attempts,
        ..FailureDetail::of(failure)
    });
    WireEntry {
        build_id: row.build_id.to_string(),
        template_id: row.template_id.to_string(),
        offset: entry.offset,
        timestamp: entry.at.to_string(),
        kind: entry.kind.as_str(),
        level: entry.level.as_str(),
        message: entry.message,
        phase: entry.phase,
        step_index: entry.step_index,
        total_steps: entry.total_steps,
        attempt: entry.attempt,
        max_attempts: entry.max_attempts,
        cache_kind: entry.cache_kind.map(cache_kind),
        cache_status: entry.cache_status.map(CacheStatus::as_str),
        cache_reason: entry.cache_reason.map(CacheReason::as_str),
        cache_subject: entry.cache_subject,
        error_detail: failure,
        result: ended.then(|| result(row, template)),
        result_metadata: ended.then(|| ResultMetadata {
            runtime_defaults: row.runtime.as_ref().map(Into::into).unwrap_or_default(),
            oci_metadata: row.oci.as_ref().map(Into::into).unwrap_or_default(),
        }),
    }
}

/// The template that a finished build made, with the build's own tags: those of other builds are
/// none of its results.
pub fn result(row: &BuildRow, template: Option<&TemplateRow>) -> TemplateInfo {
    TemplateInfo {
        id: row.template_id.to_string(),
        name: row.name.to_string(),
        description: String::new(),
        builtin: false,
        canonical_ref: format!("{}/{}", row.namespace, row.name),
        namespace_slug: row.namespace.to_string(),
        visibility: visibility(template),
        tags: texts(&row.tags),
        default_tag: default_tag(&row.tags),
        runtime_defaults: row.runtime.as_ref().map(Into::into),
    }
}

/// A template; `build` is the one whose defaults are shown.
pub fn template(row: &TemplateRow, build: Option<&BuildRow>) -> TemplateInfo {
    let tags: Vec<Tag> = row.tags.keys().cloned().collect();
    TemplateInfo {
        id: row.id.to_string(),
        name: row.name.to_string(),
        description: String::new(),
        builtin: false,
        canonical_ref: format!("{}/{}", row.namespace, row.name),
        namespace_slug: row.namespace.to_string(),
        visibility: visibility(Some(row)),
        tags: texts(&tags),
        default_tag: default_tag(&tags),
        runtime_defaults: build
            .and_then(|build| build.runtime.as_ref())
            .map(Into::into),
    }
}

/// The builtin template, which is made from `image`.
pub fn builtin(image: &str) -> TemplateInfo {
    let namespace = Namespace::system();
    TemplateInfo {
        id: builtins::BASE_ID.to_owned(),
        name: builtins::BASE_NAME.to_owned(),
        description: format!("Templates built on it start from the image `{image}`."),
        builtin: true,
        canonical_ref: format!("{namespace}/{}", builtins::BASE_NAME),
        namespace_slug: namespace.to_string(),
        visibility: "public",
        tags: builtins::TAGS.map(str::to_owned).to_vec(),
        default_tag: Some(Tag::default_tag().to_string()),
        runtime_defaults: None,
    }
}

/// The tag that is meant when none is said, if the template has it.
fn default_tag(tags: &[Tag]) -> Option<String> {
    let usual = Tag::default_tag();
    tags.contains(&usual).then(|| usual.to_string())
}

fn texts(tags: &[Tag]) -> Vec<String> {
    tags.iter().map(ToString::to_string).collect()
}

fn time(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}

/// The wire's word for an engine.
pub const fn backend(backend: Backend) -> &'static str {
    match backend {
        Backend::Native => "native",
        Backend::Buildkit => "buildkit",
    }
}

/// The wire's word for where a template comes from.
pub const fn source_type(source_type: SourceType) -> &'static str {
    match source_type {
        SourceType::Declarative => "declarative",
        SourceType::Dockerfile => "dockerfile",
        SourceType::OciImport => "oci_import",
        SourceType::TemplateBase => "template_base",
    }
}

const fn cache_kind(kind: CacheKind) -> &'static str {
    match kind {
        CacheKind::FileBlob => "file_blob",
        CacheKind::Layer => "layer",
        CacheKind::FinalArtifact => "final_artifact",
    }
}

/// A template that nobody has seen yet is its owner's alone.
fn visibility(template: Option<&TemplateRow>) -> &'static str {
    match template.map_or(Visibility::Private, |template| template.visibility) {
        Visibility::Private => "private",
        Visibility::Public => "public",
    }
}

fn actor(actor: &Actor) -> String {
    match actor {
        Actor::Key { id } => id.to_string(),
        Actor::Worker { id } => id.to_string(),
        Actor::Operator => "operator".to_owned(),
    }
}

/// What the caches gave a build.
pub fn cache_summary(row: &BuildRow) -> CacheSummary {
    let (artifact, layer, blob) = (
        row.cache.final_artifact,
        row.cache.layer,
        row.cache.file_blob,
    );
    CacheSummary {
        final_artifact_hits: artifact.hits,
        final_artifact_misses: artifact.misses,
        final_artifact_bypasses: artifact.bypasses,
        final_artifact_stores: artifact.stores,
        layer_hits: layer.hits,
        layer_misses: layer.misses,
        layer_bypasses: layer.bypasses,
        layer_stores: layer.stores,
        file_blob_hits: blob.hits,
        file_blob_misses: blob.misses,
        file_blob_bypasses: blob.bypasses,
        file_blob_stores: blob.stores,
    }
}

/// When the artifact of a build expires, or has expired; none while a tag points to it.
fn expires_at(
    row: &BuildRow,
    template: Option<&TemplateRow>,
    retention: &Retention,
) -> Option<Timestamp> {
    row.expired_at.or_else(|| {
        let since = template?.untagged.get(&row.build_id)?;
        retention.expires_at(*since)
    })
}

fn is_deleted(template: Option<&TemplateRow>) -> bool {
    template.is_some_and(|template| template.deleted_at.is_some())
}

const EXPIRED: &str = "no tag pointed to the build for long enough, and its artifact has expired";
const PURGED: &str = "no tag pointed to the build for long enough, and its artifact was removed";
const DELETED: &str = "the template was deleted";

fn availability(row: &BuildRow, template: Option<&TemplateRow>) -> Availability {
    let (status, reason) = match row.status {
        BuildStatus::Ready if row.purged_at.is_some() => ("unavailable", Some(PURGED)),
        BuildStatus::Ready if is_deleted(template) => ("unavailable", Some(DELETED)),
        BuildStatus::Ready if row.expired_at.is_some() => ("unavailable", Some(EXPIRED)),
        BuildStatus::Ready => ("available", None),
        BuildStatus::Waiting | BuildStatus::Building => {
            ("unavailable", Some("the build is not finished"))
        }
        BuildStatus::Error => ("failed", Some("the build failed")),
        BuildStatus::Cancelled => ("unavailable", Some("the build was cancelled")),
    };
    Availability {
        status,
        reason: reason.map(str::to_owned),
    }
}

/// Whether a tag can be moved to a build; `template` is its template, if that is still known.
pub fn promotability(row: &BuildRow, template: Option<&TemplateRow>) -> Promotability {
    let (status, promotable, reason) = match row.status {
        BuildStatus::Ready if row.purged_at.is_some() => ("purged", false, Some(PURGED)),
        BuildStatus::Ready if is_deleted(template) => ("unavailable", false, Some(DELETED)),
        BuildStatus::Ready if row.expired_at.is_some() => ("expired", false, Some(EXPIRED)),
        BuildStatus::Ready => ("promotable", true, None),
        BuildStatus::Waiting | BuildStatus::Building => {
            ("not_ready", false, Some("the build is not finished"))
        }
        BuildStatus::Error => ("unavailable", false, Some("the build failed")),
        BuildStatus::Cancelled => ("unavailable", false, Some("the build was cancelled")),
    };
    Promotability {
        status,
        promotable,
        reason: reason.map(str::to_owned),
    }
}
