//! Where the time of a build went.

use std::collections::BTreeMap;

use domain::build::Snapshotted;
use domain::time::Timestamp;
use projections::builds::BuildRow;
use projections::logs::{CacheReason, CacheStatus};
use projections::outline::Outline;
use projections::timeline::{
    AttemptSpan, Bytes, Lookup, LookupResult, Outcome, Segment, SegmentKind, Span, StepSpan,
    Timeline,
};

use super::time;
use crate::wire::error::FailureDetail;
use crate::wire::timeline::{
    Attempt, Bytes as WireBytes, CacheLookup, Segment as WireSegment, Span as WireSpan, Step,
    Steps, Timeline as WireTimeline,
};

/// The timeline of the build `row`, up to `now` if it has no end.
pub fn timeline(row: &BuildRow, outline: &Outline, now: Timestamp) -> WireTimeline {
    let timeline = Timeline::of(row, outline, now);
    let begin = timeline.span.from;
    let snapshotted = outline.snapshotted();
    WireTimeline {
        build_id: row.build_id.to_string(),
        status: row.status.as_str(),
        queued_at: row.created_at.to_string(),
        started_at: time(row.started_at),
        finished_at: time(row.finished_at),
        total_us: timeline.span.micros(),
        sums_us: sums(&timeline),
        segments: timeline
            .segments
            .iter()
            .map(|part| segment(part, begin))
            .collect(),
        attempts: timeline
            .attempts
            .iter()
            .map(|span| attempt(row, span, begin))
            .collect(),
        bytes: WireBytes {
            snapshot: snapshotted.map(snapshot_bytes),
            ..bytes(timeline.bytes())
        },
        truncated: outline.is_cut,
    }
}

/// The lengths of the segments of each kind, by the words for them.
pub fn sums(timeline: &Timeline) -> BTreeMap<&'static str, u64> {
    let sums = timeline.sums().into_iter();
    sums.map(|(kind, micros)| (kind.as_str(), micros)).collect()
}

fn snapshot_bytes(made: &Snapshotted) -> u64 {
    made.memory.bytes.saturating_add(made.device_state.bytes)
}

fn segment(segment: &Segment, begin: Timestamp) -> WireSegment {
    let (kind, phase) = match segment.kind {
        SegmentKind::Phase(phase) => ("phase", Some(phase.as_str())),
        SegmentKind::Waiting | SegmentKind::Stopping | SegmentKind::Other => {
            (segment.kind.as_str(), None)
        }
    };
    let steps = &segment.steps;
    WireSegment {
        kind,
        phase,
        attempt: segment.attempt,
        span: span(segment.span, segment.outcome, begin),
        outcome: segment.outcome.as_str(),
        cache: segment.lookup.as_ref().map(lookup),
        bytes: bytes(segment.bytes),
        steps: (!steps.is_empty()).then(|| Steps {
            sum_us: segment.step_micros(),
            busy_us: segment.busy_micros(),
            items: steps.iter().map(|one| step(one, begin)).collect(),
        }),
    }
}

fn span(span: Span, outcome: Outcome, begin: Timestamp) -> WireSpan {
    let is_over = outcome != Outcome::UnderWay;
    WireSpan {
        started_at: span.from.to_string(),
        finished_at: is_over.then(|| span.until.to_string()),
        offset_us: span.from.micros_since(begin),
        duration_us: span.micros(),
    }
}

fn step(step: &StepSpan, begin: Timestamp) -> Step {
    Step {
        step_index: step.index,
        total_steps: step.total,
        name: step.name.clone(),
        span: span(step.span, step.outcome, begin),
        measured_ms: step.measured_ms,
        outcome: step.outcome.as_str(),
        exit_code: step.exit_code,
        cached: step.is_cached,
        cache: step.lookup.as_ref().map(lookup),
        stored_bytes: step.stored_bytes,
    }
}

/// What a look into a cache gave.
pub fn lookup(lookup: &Lookup) -> CacheLookup {
    let (status, reason, difference) = match &lookup.result {
        LookupResult::Hit => (CacheStatus::Hit, None, None),
        LookupResult::Missed { difference } => (CacheStatus::Miss, None, difference.clone()),
        LookupResult::Bypassed(reason) => (CacheStatus::Bypass, Some(*reason), None),
    };
    CacheLookup {
        key: lookup.key.to_string(),
        status: status.as_str(),
        reason: reason.map(|reason| CacheReason::from(reason).as_str()),
        difference,
    }
}

fn bytes(bytes: Bytes) -> WireBytes {
    WireBytes {
        pulled: bytes.pulled,
        layers: bytes.layers,
        rootfs_content: bytes.rootfs_content,
        rootfs: bytes.rootfs,
        artifact: bytes.artifact,
        snapshot: None,
    }
}

fn attempt(row: &BuildRow, attempt: &AttemptSpan, begin: Timestamp) -> Attempt {
    let failure = attempt.failure.as_ref();
    Attempt {
        attempt: attempt.number,
        worker: attempt.worker.to_string(),
        span: span(attempt.span, attempt.outcome, begin),
        outcome: attempt.outcome.as_str(),
        retried: attempt.is_retried,
        error_detail: failure.map(|failure| FailureDetail {
            build_id: Some(row.build_id.to_string()),
            attempt: Some(attempt.number),
            max_attempts: Some(row.max_attempts),
            ..FailureDetail::of(failure)
        }),
    }
}
