//! Where the time of a build went.
//!
//! The time from the request to the end is cut into segments, one behind the other:
//!
//! ```text
//! queued_at                                                                     finished_at
//!    ├─ waiting ─┼─ phase ─┼─ other ─┼─ phase: step ──────────────┼─ … ─┼─ stopping ─┤
//!                                      ├─ step 1 ─┤  ├─ step 3 ─┤
//!                                         ├─ step 2 ────┤
//! ```
//!
//! Segments have no gaps and do not overlap, so their lengths add up to the whole to the
//! microsecond. Steps are within the segment that they began in, and may overlap: stages of a
//! Dockerfile are built side by side.

mod weave;

use std::collections::BTreeMap;

use domain::build::{BypassReason, Phase};
use domain::digest::Digest;
use domain::failure::Failure;
use domain::ids::WorkerId;
use domain::time::Timestamp;

use crate::builds::BuildRow;
use crate::outline::Outline;

/// How a build spent its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// The time that is told of.
    pub span: Span,
    /// All of it, without gaps.
    pub segments: Vec<Segment>,
    /// The attempts at it.
    pub attempts: Vec<AttemptSpan>,
}

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it began.
    pub from: Timestamp,
    /// When it ended; of what is under way, the moment of the question.
    pub until: Timestamp,
}

impl Span {
    /// How long it is.
    pub fn micros(self) -> u64 {
        self.until.micros_since(self.from)
    }
}

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Done,
    /// The attempt failed in it.
    Failed,
    /// Somebody wanted the build stopped.
    Cancelled,
    /// It has not ended.
    UnderWay,
}

impl Outcome {
    /// The wire's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::UnderWay => "under_way",
        }
    }
}

/// What a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SegmentKind {
    /// No worker had the build.
    Waiting,
    /// A phase of an attempt.
    Phase(Phase),
    /// Somebody wanted the build stopped, and something of it still ran.
    Stopping,
    /// A worker had the build and was in no phase.
    Other,
}

impl SegmentKind {
    /// The wire's word; a phase has its own.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Phase(phase) => phase.as_str(),
            Self::Stopping => "stopping",
            Self::Other => "other",
        }
    }
}

/// A part of a build's time.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// What it is.
    pub kind: SegmentKind,
    /// The attempt that it belongs to, or that was waited for; from 1.
    pub attempt: u32,
    /// When.
    pub span: Span,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether a finished artifact was found in it, if one was looked for.
    pub lookup: Option<Lookup>,
    /// The steps that began in it.
    pub steps: Vec<StepSpan>,
    /// What it moved.
    pub bytes: Bytes,
}

impl Segment {
    /// How long its steps took together.
    pub fn step_micros(&self) -> u64 {
        self.steps.iter().map(|step| step.span.micros()).sum()
    }

    /// How long at least one of its steps was under way: less than [`Segment::step_micros`] if some
    /// were so at once.
    pub fn busy_micros(&self) -> u64 {
        let mut spans: Vec<Span> = self.steps.iter().map(|step| step.span).collect();
        spans.sort_by_key(|span| span.from);
        let mut busy_until = self.span.from;
        let mut busy = 0;
        for span in spans {
            let from = span.from.max(busy_until);
            busy += span.until.micros_since(from);
            busy_until = busy_until.max(span.until);
        }
        busy
    }
}

/// What looking something up in a cache gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// What it was looked up by.
    pub key: Digest,
    /// What that gave.
    pub result: LookupResult,
}

/// Whether it was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupResult {
    /// It was.
    Hit,
    /// It was not.
    Missed {
        /// The first input that differs from the nearest earlier entry.
        difference: Option<String>,
    },
    /// Nobody looked.
    Bypassed(BypassReason),
}

/// A step of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSpan {
    /// Which, from 1.
    pub index: u32,
    /// Of how many.
    pub total: u32,
    /// Its title; empty if it was never told to begin.
    pub name: String,
    /// When.
    pub span: Span,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took by the clock of who did it, in milliseconds; known when it is done.
    pub measured_ms: Option<u64>,
    /// The exit code of its process, if it ran one to its end.
    pub exit_code: Option<i32>,
    /// Whether it came from the cache.
    pub is_cached: bool,
    /// What looking it up gave.
    pub lookup: Option<Lookup>,
    /// How much of it was stored, in bytes.
    pub stored_bytes: Option<u64>,
}

/// What was moved, in bytes; nothing where nothing was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Layers that came from a registry, as they are transferred.
    pub pulled: Option<u64>,
    /// Layers that were put into the store, those of steps among them.
    pub layers: Option<u64>,
    /// What the files of the root filesystem need.
    pub rootfs_content: Option<u64>,
    /// The size of the root filesystem.
    pub rootfs: Option<u64>,
    /// The artifact that was published.
    pub artifact: Option<u64>,
}

impl Bytes {
    /// Both together; of what there is one at a time, the later.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        Self {
            pulled: sum(self.pulled, later.pulled),
            layers: sum(self.layers, later.layers),
            rootfs_content: later.rootfs_content.or(self.rootfs_content),
            rootfs: later.rootfs.or(self.rootfs),
            artifact: later.artifact.or(self.artifact),
        }
    }
}

/// An attempt at a build.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptSpan {
    /// Which, from 1.
    pub number: u32,
    /// Who made it.
    pub worker: WorkerId,
    /// When.
    pub span: Span,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Whether another attempt followed, or will.
    pub is_retried: bool,
}

impl Timeline {
    /// How the build `row` spent its time up to its end; if it has none, up to `now`.
    pub fn of(row: &BuildRow, outline: &Outline, now: Timestamp) -> Self {
        weave::weave(row.created_at, row.finished_at, &outline.marks, now)
    }

    /// How long segments of each kind are together, in microseconds. These add up to the whole.
    pub fn sums(&self) -> BTreeMap<SegmentKind, u64> {
        let mut sums = BTreeMap::new();
        for segment in &self.segments {
            *sums.entry(segment.kind).or_default() += segment.span.micros();
        }
        sums
    }

    /// What was moved, over all attempts.
    pub fn bytes(&self) -> Bytes {
        let segments = self.segments.iter().map(|segment| segment.bytes);
        segments.fold(Bytes::default(), Bytes::and)
    }

    /// Each step as the last attempt that came to it did it, in order.
    pub fn latest_steps(&self) -> BTreeMap<u32, &StepSpan> {
        let steps = self.segments.iter().flat_map(|segment| &segment.steps);
        steps.map(|step| (step.index, step)).collect()
    }

    /// What the last look for a finished artifact gave.
    pub fn lookup(&self) -> Option<&Lookup> {
        let mut lookups = self
            .segments
            .iter()
            .filter_map(|segment| segment.lookup.as_ref());
        lookups.next_back()
    }
}

#[cfg(test)]
pub(crate) mod tests;
