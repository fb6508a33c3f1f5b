//! Where the time of a build went. Lengths are in microseconds, so that they add up exactly.

use std::collections::BTreeMap;

use serde::Serialize;

use super::error::FailureDetail;

/// How a build spent its time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timeline {
    /// `tb_…`
    pub build_id: String,
    /// `waiting`, `building`, `ready`, `error` or `cancelled`.
    pub status: &'static str,
    /// When it was accepted: where the first segment begins.
    pub queued_at: String,
    /// When a worker first took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended: where the last segment ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// From its acceptance to its end, or to the moment of the answer.
    pub total_us: u64,
    /// How long segments of each kind are together, those of each phase by its name: these add up
    /// to the total.
    pub sums_us: BTreeMap<&'static str, u64>,
    /// All of the time, without gaps.
    pub segments: Vec<Segment>,
    /// The attempts.
    pub attempts: Vec<Attempt>,
    /// What was moved, over all attempts.
    pub bytes: Bytes,
    /// Whether so much happened that the last of it is left out.
    pub truncated: bool,
}

/// A part of a build's time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Segment {
    /// `waiting`, `phase`, `stopping` or `other`.
    pub kind: &'static str,
    /// Which phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<&'static str>,
    /// The attempt, from 1; of a wait, the one that is waited for.
    pub attempt: u32,
    /// When.
    #[serde(flatten)]
    pub span: Span,
    /// `done`, `failed`, `cancelled` or `under_way`.
    pub outcome: &'static str,
    /// What looking for a finished artifact gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheLookup>,
    /// What it moved.
    #[serde(skip_serializing_if = "Bytes::is_empty")]
    pub bytes: Bytes,
    /// Its steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Steps>,
}

/// The steps of a segment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Steps {
    /// How long they took together.
    pub sum_us: u64,
    /// How long at least one of them was under way: less than the sum if some were so at once.
    pub busy_us: u64,
    /// The steps, by when they began.
    pub items: Vec<Step>,
}

/// When something was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// When it began.
    pub started_at: String,
    /// When it ended, unless it is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// When it began, from the acceptance of the build on.
    pub offset_us: u64,
    /// How long it is.
    pub duration_us: u64,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Which, from 1.
    pub step_index: u32,
    /// Of how many.
    pub total_steps: u32,
    /// Its title.
    pub name: String,
    /// When, by the times of the log.
    #[serde(flatten)]
    pub span: Span,
    /// How long it took by the clock of who did it, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_ms: Option<u64>,
    /// `done`, `failed`, `cancelled` or `under_way`.
    pub outcome: &'static str,
    /// The exit code of its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Whether it came from the cache.
    pub cached: bool,
    /// What looking it up gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheLookup>,
    /// How much of it was stored, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
}

/// What looking something up in a cache gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CacheLookup {
    /// What it was looked up by.
    pub key: String,
    /// `hit`, `miss` or `bypass`.
    pub status: &'static str,
    /// Why nobody looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Of a miss, the first input that differs from the nearest earlier entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<String>,
}

/// What was moved, in bytes. What nothing was told of is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// Layers that came from a registry, as they are transferred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pulled: Option<u64>,
    /// Put into the store of layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<u64>,
    /// What the files of the root filesystem need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs_content: Option<u64>,
    /// The size of the root filesystem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<u64>,
    /// The artifact, as it was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<u64>,
    /// The machine's memory and devices in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<u64>,
}

impl Bytes {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An attempt at a build.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attempt {
    /// Which, from 1.
    pub attempt: u32,
    /// Who made it: `wk_…`.
    pub worker: String,
    /// When.
    #[serde(flatten)]
    pub span: Span,
    /// `done`, `failed`, `cancelled` or `under_way`.
    pub outcome: &'static str,
    /// Whether another attempt followed, or will.
    pub retried: bool,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<FailureDetail>,
}
