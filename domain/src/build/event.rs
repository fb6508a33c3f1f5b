//! The events of a build stream: past tense, the least that makes the fact whole, no secret value.

mod cache;
mod cancel;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use cache::{
    BypassReason, CacheBypassed, CacheKind, CacheMissed, CacheStored, CacheSubject, FilesCounted,
};
pub use cancel::{Aftermath, CancelRequested, Cancelled};

use super::{Fence, PinnedBase, Snapshotted};
use crate::definition::{Backend, Definition, Readiness, SourceType};
use crate::digest::Digest;
use crate::failure::Failure;
use crate::ids::{BuildId, TemplateId, WorkerId};
use crate::name::{Namespace, Owner, Tag, TemplateName};
use crate::time::Timestamp;

/// Something that happened to a build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Event {
    /// It was accepted.
    Requested(Box<Requested>),
    /// It waits for a worker, behind others of its owner or until one is free.
    Queued(Queued),
    /// A worker took it.
    Started(Started),
    /// A phase began.
    PhaseStarted(PhaseStarted),
    /// A phase ended.
    PhaseFinished(PhaseFinished),
    /// The base is known by digest.
    BaseResolved(BaseResolved),
    /// Something was in the cache.
    CacheHit(CacheSubject),
    /// Something was not in the cache, and why.
    CacheMissed(CacheMissed),
    /// The cache was not asked, and why.
    CacheBypassed(CacheBypassed),
    /// Something was put into the cache.
    CacheStored(CacheStored),
    /// Further files were looked up, and are not told one by one.
    FilesCounted(FilesCounted),
    /// A step began.
    StepStarted(StepStarted),
    /// A step ended.
    StepFinished(StepFinished),
    /// Lines were written.
    StepLogged(StepLogged),
    /// The root filesystem's image was made.
    RootfsBuilt(RootfsBuilt),
    /// The root filesystem has its size.
    RootfsGrown(RootfsGrown),
    /// The machine came up.
    VmBooted(VmBooted),
    /// The start command was started.
    StartCommandRan(StartCommandRan),
    /// The readiness probe passed.
    ReadinessPassed(ReadinessPassed),
    /// The template is there: the successful end. It also moves the build's tags.
    Snapshotted(Box<Snapshotted>),
    /// An attempt failed and another will follow.
    RetryScheduled(RetryScheduled),
    /// Somebody wants it stopped.
    CancelRequested(CancelRequested),
    /// It was stopped.
    Cancelled(Cancelled),
    /// It failed for good.
    Failed(Failure),
}

/// A request, as it was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// What to build; without secret values.
    pub definition: Definition,
    /// The digest of the definition's stored form.
    pub definition_digest: Digest,
    /// Who asked.
    pub owner: Owner,
    /// Where the template lives.
    pub namespace: Namespace,
    /// The template's name there.
    pub name: TemplateName,
    /// The template that this build is one of.
    pub template_id: TemplateId,
    /// The tags that the finished build gets; not empty.
    pub tags: Vec<Tag>,
    /// Which engine builds it.
    pub backend: Backend,
    /// Where the template comes from.
    pub source_type: SourceType,
    /// What the base meant when the request was accepted, if it did not mean an image by its name:
    /// a second attempt and a retry start from the same, wherever names and tags point by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<PinnedBase>,
    /// Registries that the request brought credentials for: host and kind of credentials.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub registry_auth: BTreeMap<String, String>,
    /// The build that this one repeats, and the first of the line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<RetryOf>,
    /// Which contents the request brought: a stored [`crate::definition::Arrivals`]. Nothing if all
    /// that it refers to was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<Digest>,
    /// The caller's idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// What the request that brought the key asked for, secret values apart: another request with the
    /// same key is told from the same one again by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_digest: Option<Digest>,
    /// How often the build is attempted by itself.
    pub max_attempts: u32,
}

/// Where a retry stands in its line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryOf {
    /// The build that was retried.
    pub build: BuildId,
    /// The first build of the line.
    pub original: BuildId,
}

/// The build waits. Recorded when it begins to, and when it has come well forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Its place in its owner's line, from 1.
    pub place: u32,
}

/// A worker took the build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The worker.
    pub worker: WorkerId,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// How many there may be.
    pub max_attempts: u32,
    /// What the attempt's reports carry.
    pub fence: Fence,
}

/// A part of the pipeline, in the wire's customary words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Resolving and pulling the base.
    Preparing,
    /// Looking for a finished artifact.
    Cache,
    /// Steps.
    Step,
    /// Making and growing the root filesystem.
    Sync,
    /// Booting.
    VmCreate,
    /// The start command.
    Startup,
    /// The readiness probe.
    Readiness,
    /// Freezing, capturing, restoring once.
    Snapshot,
    /// Publishing.
    Finalize,
    /// Releasing everything.
    Cleanup,
}

impl Phase {
    /// The wire's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Cache => "cache",
            Self::Step => "step",
            Self::Sync => "sync",
            Self::VmCreate => "vm_create",
            Self::Startup => "startup",
            Self::Readiness => "readiness",
            Self::Snapshot => "snapshot",
            Self::Finalize => "finalize",
            Self::Cleanup => "cleanup",
        }
    }
}

/// A phase began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseStarted {
    /// Which.
    pub phase: Phase,
}

/// A phase ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseFinished {
    /// Which.
    pub phase: Phase,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// How much came from a registry in it, in bytes as they are transferred; nothing if it is no
    /// phase that pulls, and in events from before this was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulled_bytes: Option<u64>,
}

/// The base is known by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseResolved {
    /// The reference that was resolved.
    pub reference: String,
    /// The image's manifest, or the artifact of the base template.
    pub digest: Digest,
}

/// A step began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepStarted {
    /// Which, 1-based.
    pub index: u32,
    /// Of how many.
    pub total: u32,
    /// Its title.
    pub name: String,
}

/// A step ended well. How a step fails is part of the build's failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFinished {
    /// Which, 1-based.
    pub index: u32,
    /// Of how many.
    pub total: u32,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Its exit code; none for steps that run no process, and for cached ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Whether it came from the cache.
    pub cached: bool,
}

/// Where a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// A process's standard output.
    Stdout,
    /// A process's standard error.
    Stderr,
    /// The builder itself.
    System,
    /// The builder itself, when something deserves attention but does not fail the build.
    Warning,
}

/// A batch of lines of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepLogged {
    /// The phase that was under way.
    pub phase: Phase,
    /// The step, 1-based, and how many there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<(u32, u32)>,
    /// The offset of the first line in the build's log. Set by [`super::decide`].
    pub first_offset: u64,
    /// The lines, in order; not empty.
    pub lines: Vec<LogLine>,
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written.
    pub at: Timestamp,
    /// Where it was written to.
    pub stream: LogStream,
    /// The text, without its end of line.
    pub text: String,
}

/// The root filesystem's image was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsBuilt {
    /// The digest of the image before it was grown.
    pub digest: Digest,
    /// What the files need, in bytes.
    pub content_bytes: u64,
}

/// The root filesystem has its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsGrown {
    /// Size before, in bytes.
    pub from_bytes: u64,
    /// Size after, in bytes.
    pub to_bytes: u64,
}

/// The machine came up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmBooted {
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// From the start of the VMM to the agent's first answer, in milliseconds.
    pub boot_ms: u64,
}

/// The start command was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartCommandRan {
    /// Its exit code; none while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// The readiness probe passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadinessPassed {
    /// The probe.
    pub probe: Readiness,
    /// How often it was tried.
    pub tries: u32,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// An attempt failed and another will follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryScheduled {
    /// The attempt that failed, from 1.
    pub attempt: u32,
    /// Of how many.
    pub max_attempts: u32,
    /// Why.
    pub failure: Failure,
}

impl Event {
    /// The event's stored and published name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Requested(_) => "Requested",
            Self::Queued(_) => "Queued",
            Self::Started(_) => "Started",
            Self::PhaseStarted(_) => "PhaseStarted",
            Self::PhaseFinished(_) => "PhaseFinished",
            Self::BaseResolved(_) => "BaseResolved",
            Self::CacheHit(_) => "CacheHit",
            Self::CacheMissed(_) => "CacheMissed",
            Self::CacheBypassed(_) => "CacheBypassed",
            Self::CacheStored(_) => "CacheStored",
            Self::FilesCounted(_) => "FilesCounted",
            Self::StepStarted(_) => "StepStarted",
            Self::StepFinished(_) => "StepFinished",
            Self::StepLogged(_) => "StepLogged",
            Self::RootfsBuilt(_) => "RootfsBuilt",
            Self::RootfsGrown(_) => "RootfsGrown",
            Self::VmBooted(_) => "VmBooted",
            Self::StartCommandRan(_) => "StartCommandRan",
            Self::ReadinessPassed(_) => "ReadinessPassed",
            Self::Snapshotted(_) => "Snapshotted",
            Self::RetryScheduled(_) => "RetryScheduled",
            Self::CancelRequested(_) => "CancelRequested",
            Self::Cancelled(_) => "Cancelled",
            Self::Failed(_) => "Failed",
        }
    }

    /// How many entries the event adds to the build's log: one, or one for each line of a batch.
    pub fn log_entry_count(&self) -> u64 {
        match self {
            // A usize has at most 64 bits on every platform that Rust supports.
            Self::StepLogged(logged) => u64::try_from(logged.lines.len()).unwrap_or(u64::MAX),
            Self::Requested(_)
            | Self::Queued(_)
            | Self::Started(_)
            | Self::PhaseStarted(_)
            | Self::PhaseFinished(_)
            | Self::BaseResolved(_)
            | Self::CacheHit(_)
            | Self::CacheMissed(_)
            | Self::CacheBypassed(_)
            | Self::CacheStored(_)
            | Self::FilesCounted(_)
            | Self::StepStarted(_)
            | Self::StepFinished(_)
            | Self::RootfsBuilt(_)
            | Self::RootfsGrown(_)
            | Self::VmBooted(_)
            | Self::StartCommandRan(_)
            | Self::ReadinessPassed(_)
            | Self::Snapshotted(_)
            | Self::RetryScheduled(_)
            | Self::CancelRequested(_)
            | Self::Cancelled(_)
            | Self::Failed(_) => 1,
        }
    }

    /// Whether the event ends its build.
    pub const fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::Snapshotted(_) | Self::Cancelled(_) | Self::Failed(_)
        )
    }

    /// Whether a worker may report the event while it builds; the others have commands of their
    /// own, because they change what may happen next.
    pub const fn is_progress(&self) -> bool {
        match self {
            Self::PhaseStarted(_)
            | Self::PhaseFinished(_)
            | Self::BaseResolved(_)
            | Self::CacheHit(_)
            | Self::CacheMissed(_)
            | Self::CacheBypassed(_)
            | Self::CacheStored(_)
            | Self::FilesCounted(_)
            | Self::StepStarted(_)
            | Self::StepFinished(_)
            | Self::StepLogged(_)
            | Self::RootfsBuilt(_)
            | Self::RootfsGrown(_)
            | Self::VmBooted(_)
            | Self::StartCommandRan(_)
            | Self::ReadinessPassed(_) => true,
            Self::Requested(_)
            | Self::Queued(_)
            | Self::Started(_)
            | Self::Snapshotted(_)
            | Self::RetryScheduled(_)
            | Self::CancelRequested(_)
            | Self::Cancelled(_)
            | Self::Failed(_) => false,
        }
    }
}
