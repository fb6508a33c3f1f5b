//! The builds: one row each, with everything that their status shows.

mod page;

use domain::Digest;
use domain::Event;
use domain::build::{self, CacheKind, OciMetadata, Requested, RetryOf, RuntimeDefaults};
use domain::definition::{Backend, BuildConfig, Source, SourceType};
use domain::failure::Failure;
use domain::ids::{ArtifactId, BuildId, TemplateId};
use domain::name::{Namespace, Owner, Tag, TemplateName};
use domain::recorded::{Actor, Position, Recorded, StreamName};
use domain::template;
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

pub use page::{BuildFilter, Cursor, Page};

use crate::key::Key;
use crate::projection::{ApplyError, Projection};
use crate::rows::Rows;
use crate::store::StoreError;
use crate::views::Views;

/// What has become of a build, in the wire's vocabulary. A build that is being cancelled is
/// `building` and has [`BuildRow::cancel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildStatus {
    /// No worker has it.
    Waiting,
    /// A worker has it.
    Building,
    /// The template is there.
    Ready,
    /// It failed for good.
    Error,
    /// It was stopped.
    Cancelled,
}

impl BuildStatus {
    /// The wire's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Building => "building",
            Self::Ready => "ready",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing can happen to the build any more.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Ready | Self::Error | Self::Cancelled => true,
            Self::Waiting | Self::Building => false,
        }
    }
}

/// A build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildRow {
    /// Its id.
    pub build_id: BuildId,
    /// The template that it is one of.
    pub template_id: TemplateId,
    /// Whoever asked for it: nobody else sees it.
    pub owner: Owner,
    /// Where the template lived when the build was asked for.
    pub namespace: Namespace,
    /// What the template was called then.
    pub name: TemplateName,
    /// The tags that it gets, or got, when it is ready.
    pub tags: Vec<Tag>,
    /// What has become of it.
    pub status: BuildStatus,
    /// Which engine builds it.
    pub backend: Backend,
    /// Where the template comes from.
    pub source_type: SourceType,
    /// The digest of the whole definition.
    pub source_digest: Digest,
    /// The digest of the context's listing.
    pub context_digest: Option<Digest>,
    /// The digest of the Dockerfile's text.
    pub dockerfile_digest: Option<Digest>,
    /// Who asked for it.
    pub triggered_by: Actor,
    /// The machine that it is built for.
    pub config: BuildConfig,
    /// When it was accepted; from then on it waited for a worker.
    pub created_at: Timestamp,
    /// When a worker took it for the first time.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When something happened to it last.
    pub updated_at: Timestamp,
    /// How many attempts were started.
    pub attempt: u32,
    /// How many there may be.
    pub max_attempts: u32,
    /// Why it failed; only if it failed for good.
    pub failure: Option<Failure>,
    /// Who wants it stopped.
    pub cancel: Option<Cancellation>,
    /// What the caches gave, over all attempts.
    pub cache: CacheSummary,
    /// What it made.
    pub artifact: Option<ArtifactId>,
    /// Since when its artifact has expired.
    pub expired_at: Option<Timestamp>,
    /// Since when nothing is left of it.
    pub purged_at: Option<Timestamp>,
    /// What machines of the template start with; known when it is ready.
    pub runtime: Option<RuntimeDefaults>,
    /// Metadata of the base image; known when it is ready.
    pub oci: Option<OciMetadata>,
    /// Where it stands in a line of retries.
    pub retry_of: Option<RetryOf>,
    /// How many log entries there are: the offset of the next one.
    pub next_offset: u64,
    /// Where its first event stands in the log; builds are listed by it.
    pub requested: Position,
    /// Where its last event stands in the log.
    pub updated: Position,
}

/// Somebody wants a build stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    /// Since when.
    pub at: Timestamp,
    /// Who, as the wire shows it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
}

/// What the caches gave to a build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheSummary {
    /// Whole artifacts.
    pub final_artifact: CacheCounts,
    /// What steps changed.
    pub layer: CacheCounts,
    /// Contents of files.
    pub file_blob: CacheCounts,
}

/// How often a cache did what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheCounts {
    /// It had what was asked for.
    pub hits: u64,
    /// It had not.
    pub misses: u64,
    /// It was not asked.
    pub bypasses: u64,
    /// It was given something.
    pub stores: u64,
}

impl CacheCounts {
    fn add(&mut self, counted: &build::FilesCounted) {
        self.hits += counted.hits;
        self.misses += counted.misses;
        self.bypasses += counted.bypasses;
        self.stores += counted.stores;
    }
}

impl CacheSummary {
    fn of(&mut self, kind: CacheKind) -> &mut CacheCounts {
        match kind {
            CacheKind::FinalArtifact => &mut self.final_artifact,
            CacheKind::Layer => &mut self.layer,
            CacheKind::FileBlob => &mut self.file_blob,
        }
    }
}

impl BuildRow {
    /// Whether its artifact can be used: it is ready, and has not expired.
    pub fn is_usable(&self) -> bool {
        self.status == BuildStatus::Ready && self.expired_at.is_none()
    }

    /// How long it was built, from the first start to the end, in milliseconds.
    pub fn duration_ms(&self) -> Option<u64> {
        Some(self.finished_at?.millis_since(self.started_at?))
    }

    fn new(id: &BuildId, recorded: &Recorded<Event>, requested: &Requested) -> Self {
        let definition = &requested.definition;
        let dockerfile_digest = match &definition.source {
            Source::Dockerfile { text, .. } => Some(Digest::of(text.as_bytes())),
            Source::Declarative { .. } => None,
        };
        Self {
            build_id: id.clone(),
            template_id: requested.template_id.clone(),
            owner: requested.owner.clone(),
            namespace: requested.namespace.clone(),
            name: requested.name.clone(),
            tags: requested.tags.clone(),
            status: BuildStatus::Waiting,
            backend: requested.backend,
            source_type: requested.source_type,
            source_digest: requested.definition_digest,
            context_digest: definition.context.as_ref().map(|context| context.digest),
            dockerfile_digest,
            triggered_by: recorded.actor.clone(),
            config: definition.config.clone(),
            created_at: recorded.time,
            started_at: None,
            finished_at: None,
            updated_at: recorded.time,
            attempt: 0,
            max_attempts: requested.max_attempts,
            failure: None,
            cancel: None,
            cache: CacheSummary::default(),
            artifact: None,
            expired_at: None,
            purged_at: None,
            runtime: None,
            oci: None,
            retry_of: requested.retry_of.clone(),
            next_offset: 0,
            requested: recorded.position,
            updated: recorded.position,
        }
    }

    fn change(&mut self, time: Timestamp, event: &build::Event) {
        match event {
            build::Event::Started(started) => {
                self.status = BuildStatus::Building;
                self.attempt = started.attempt;
                self.started_at.get_or_insert(time);
            }
            build::Event::CacheHit(hit) => self.cache.of(hit.kind).hits += 1,
            build::Event::CacheMissed(missed) => self.cache.of(missed.entry.kind).misses += 1,
            build::Event::CacheBypassed(passed) => self.cache.of(passed.entry.kind).bypasses += 1,
            build::Event::CacheStored(stored) => self.cache.of(stored.entry.kind).stores += 1,
            build::Event::FilesCounted(counted) => self.cache.file_blob.add(counted),
            build::Event::Snapshotted(snapshotted) => {
                self.artifact = Some(snapshotted.artifact.clone());
                self.runtime = Some(snapshotted.runtime.clone());
                self.oci = Some(snapshotted.oci.clone());
                self.finish(BuildStatus::Ready, time);
            }
            build::Event::RetryScheduled(_) => self.status = BuildStatus::Waiting,
            build::Event::CancelRequested(wanted) => {
                self.cancel = Some(Cancellation {
                    at: time,
                    by: wanted.by.clone(),
                    reason: wanted.reason.clone(),
                });
            }
            build::Event::Cancelled(_) => self.finish(BuildStatus::Cancelled, time),
            build::Event::Failed(failure) => {
                self.failure = Some(failure.clone());
                self.finish(BuildStatus::Error, time);
            }
            build::Event::Requested(_)
            | build::Event::Queued(_)
            | build::Event::PhaseStarted(_)
            | build::Event::PhaseFinished(_)
            | build::Event::BaseResolved(_)
            | build::Event::StepStarted(_)
            | build::Event::StepFinished(_)
            | build::Event::StepLogged(_)
            | build::Event::RootfsBuilt(_)
            | build::Event::RootfsGrown(_)
            | build::Event::VmBooted(_)
            | build::Event::StartCommandRan(_)
            | build::Event::ReadinessPassed(_) => {}
        }
    }

    fn finish(&mut self, status: BuildStatus, time: Timestamp) {
        self.status = status;
        self.finished_at = Some(time);
    }
}

/// The projection.
#[derive(Clone, Copy, Debug)]
pub struct Builds;

fn row_key(id: &BuildId) -> Key {
    Key::table("builds/row").text(id.as_str())
}

fn template_key(template: &TemplateId) -> Key {
    Key::table("builds/of-template").text(template.as_str())
}

fn status_key(status: BuildStatus) -> Key {
    Key::table("builds/by-status").text(status.as_str())
}

impl Projection for Builds {
    const NAME: &'static str = "builds";
    const REVISION: u32 = 3;

    fn apply(rows: &mut Rows<'_>, recorded: &Recorded<Event>) -> Result<(), ApplyError> {
        if let Event::Template(event) = &recorded.event {
            return apply_template(rows, recorded.time, event);
        }
        let (StreamName::Build(id), Event::Build(event)) = (&recorded.stream, &recorded.event)
        else {
            return Ok(());
        };
        let old: Option<BuildRow> = rows.get(&row_key(id))?;
        let old_status = old.as_ref().map(|row| row.status);
        let mut row = match (old, event) {
            (None, build::Event::Requested(requested)) => {
                let row = BuildRow::new(id, recorded, requested);
                let key = template_key(&row.template_id).number(row.requested.raw());
                rows.put(key, id)?;
                row
            }
            (Some(row), _) => row,
            (None, _) => return Err(ApplyError::OutOfPlace("nothing was requested")),
        };
        row.change(recorded.time, event);
        row.updated_at = recorded.time;
        row.updated = recorded.position;
        row.next_offset = row.next_offset.saturating_add(event.log_entry_count());
        if old_status != Some(row.status) {
            if let Some(old) = old_status {
                rows.delete(status_key(old).number(row.requested.raw()));
            }
            rows.put(status_key(row.status).number(row.requested.raw()), id)?;
        }
        rows.put(row_key(id), &row)?;
        Ok(())
    }
}

/// What becomes of a build's artifact. Nothing happens in the build's own stream any more: its log
/// stays as it is.
fn apply_template(
    rows: &mut Rows<'_>,
    time: Timestamp,
    event: &template::Event,
) -> Result<(), ApplyError> {
    let (build, is_purged) = match event {
        template::Event::ArtifactExpired { build, .. } => (build, false),
        template::Event::ArtifactPurged { build, .. } => (build, true),
        template::Event::Renamed { .. }
        | template::Event::AliasRemoved { .. }
        | template::Event::VisibilityChanged { .. }
        | template::Event::TagsAssigned { .. }
        | template::Event::TagRemoved { .. }
        | template::Event::Deleted {} => return Ok(()),
    };
    if let Some(mut row) = rows.get::<BuildRow>(&row_key(build))? {
        let since = if is_purged {
            &mut row.purged_at
        } else {
            &mut row.expired_at
        };
        *since = Some(time);
        rows.put(row_key(build), &row)?;
    }
    Ok(())
}

impl Views {
    /// A build. Whose it is, the caller must check.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn build(&self, id: &BuildId) -> Result<Option<BuildRow>, StoreError> {
        self.get(&row_key(id))
    }

    /// Builds of a template, the newest first; `cursor` is the last page's.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn builds_of_template(
        &self,
        template: &TemplateId,
        filter: &BuildFilter,
        cursor: Option<Cursor>,
        count_max: usize,
    ) -> Result<Page<BuildRow>, StoreError> {
        self.build_page(&template_key(template), filter, cursor, count_max)
    }

    /// Builds with a status, the newest first; `cursor` is the last page's.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn builds_by_status(
        &self,
        status: BuildStatus,
        cursor: Option<Cursor>,
        count_max: usize,
    ) -> Result<Page<BuildRow>, StoreError> {
        let filter = BuildFilter {
            status: Some(status),
            ..BuildFilter::default()
        };
        self.build_page(&status_key(status), &filter, cursor, count_max)
    }
}

#[cfg(test)]
mod tests;
