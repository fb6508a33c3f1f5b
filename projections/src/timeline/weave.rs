//! From what happened in a build to where its time went.

use domain::build::{
    BypassReason, CacheKind, CacheMissed, CacheStored, CacheSubject, Event, PhaseFinished,
    StepFinished, StepStarted,
};
use domain::failure::Failure;
use domain::time::Timestamp;

use super::{
    AttemptSpan, Bytes, Lookup, LookupResult, Outcome, Segment, SegmentKind, Span, StepSpan,
    Timeline,
};
use crate::outline::Mark;

/// The timeline of a build that was asked for at `queued_at`.
///
/// Clocks are set back at times. What is then told to have happened before what stands before it,
/// or behind the end of the build, counts as happening at once: the whole stays what it is.
pub(super) fn weave(
    queued_at: Timestamp,
    finished_at: Option<Timestamp>,
    marks: &[Mark],
    now: Timestamp,
) -> Timeline {
    let until = finished_at.unwrap_or(now).max(queued_at);
    let mut loom = Loom::new(Span {
        from: queued_at,
        until,
    });
    for mark in marks {
        loom.at = mark.at.clamp(loom.at, until);
        loom.take(&mark.event);
    }
    loom.at = until;
    // Of a long build the last is left out, and with it how it ended.
    let outcome = match finished_at {
        Some(_) => Outcome::Done,
        None => Outcome::UnderWay,
    };
    loom.finish(outcome)
}

/// What is known so far.
struct Loom {
    /// The moment of what is being told.
    at: Timestamp,
    whole: Span,
    segments: Vec<Segment>,
    attempts: Vec<AttemptSpan>,
    /// What the present is part of.
    open: Segment,
}

impl Loom {
    fn new(whole: Span) -> Self {
        Self {
            at: whole.from,
            whole,
            segments: Vec::new(),
            attempts: Vec::new(),
            open: begun(SegmentKind::Waiting, 1, whole.from),
        }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Started(started) => {
                self.turn(Outcome::Done, SegmentKind::Other);
                self.open.attempt = started.attempt;
                self.attempts.push(AttemptSpan {
                    number: started.attempt,
                    worker: started.worker.clone(),
                    span: self.moment(),
                    outcome: Outcome::UnderWay,
                    failure: None,
                    is_retried: false,
                });
            }
            Event::PhaseStarted(started) => {
                self.turn(Outcome::Done, SegmentKind::Phase(started.phase));
            }
            Event::PhaseFinished(finished) => self.end_phase(finished),
            Event::CacheHit(entry) => self.look_up(entry, LookupResult::Hit),
            Event::CacheMissed(CacheMissed { entry, difference }) => {
                let difference = difference.clone();
                self.look_up(entry, LookupResult::Missed { difference });
            }
            Event::CacheBypassed(passed) => self.pass(&passed.entry, passed.reason),
            Event::CacheStored(stored) => self.store(stored),
            Event::StepStarted(started) => self.start_step(started),
            Event::StepFinished(finished) => self.finish_step(finished),
            Event::RootfsBuilt(built) => {
                self.open.bytes.rootfs_content = Some(built.content_bytes);
            }
            Event::RootfsGrown(grown) => self.open.bytes.rootfs = Some(grown.to_bytes),
            Event::Snapshotted(_) => self.end_attempt(Outcome::Done, None),
            Event::RetryScheduled(retry) => self.repeat(&retry.failure),
            Event::CancelRequested(_) => self.turn(Outcome::Cancelled, SegmentKind::Stopping),
            Event::Cancelled(_) => self.end_attempt(Outcome::Cancelled, None),
            Event::Failed(failure) => self.end_attempt(Outcome::Failed, Some(failure)),
            Event::Requested(_)
            | Event::Queued(_)
            | Event::BaseResolved(_)
            | Event::FilesCounted(_)
            | Event::StepLogged(_)
            | Event::VmBooted(_)
            | Event::StartCommandRan(_)
            | Event::ReadinessPassed(_) => {}
        }
    }

    fn moment(&self) -> Span {
        Span {
            from: self.at,
            until: self.at,
        }
    }

    /// Ends what is open, and begins something of the same attempt.
    fn turn(&mut self, outcome: Outcome, next: SegmentKind) {
        let next = begun(next, self.open.attempt, self.at);
        let ended = std::mem::replace(&mut self.open, next);
        self.keep(ended, outcome);
    }

    fn keep(&mut self, mut ended: Segment, outcome: Outcome) {
        ended.span.until = self.at;
        ended.outcome = outcome;
        for step in &mut ended.steps {
            if step.outcome == Outcome::UnderWay {
                step.span.until = self.at;
                step.outcome = outcome;
            }
        }
        // That nothing was between two phases is not worth telling.
        let is_empty = match ended.kind {
            SegmentKind::Waiting | SegmentKind::Phase(_) => false,
            SegmentKind::Stopping | SegmentKind::Other => {
                ended.span.micros() == 0
                    && ended.steps.is_empty()
                    && ended.lookup.is_none()
                    && ended.bytes == Bytes::default()
            }
        };
        if !is_empty {
            self.segments.push(ended);
        }
    }

    fn end_phase(&mut self, finished: &PhaseFinished) {
        if self.open.kind == SegmentKind::Phase(finished.phase) {
            self.open.bytes.pulled = finished.pulled_bytes;
            self.turn(Outcome::Done, SegmentKind::Other);
        }
    }

    fn repeat(&mut self, failure: &Failure) {
        self.end_attempt(Outcome::Failed, Some(failure));
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.is_retried = true;
        }
        let next = self.open.attempt.saturating_add(1);
        self.open = begun(SegmentKind::Waiting, next, self.at);
    }

    /// Ends what is open and with it the attempt, if there is one. Nothing follows but a retry.
    fn end_attempt(&mut self, outcome: Outcome, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            self.fail_step(failure);
        }
        self.turn(outcome, SegmentKind::Other);
        if let Some(attempt) = self.attempts.last_mut()
            && attempt.outcome == Outcome::UnderWay
        {
            attempt.span.until = self.at;
            attempt.outcome = outcome;
            attempt.failure = failure.cloned();
        }
    }

    /// Of steps that were under way at once, the failure names the one that failed; the others were
    /// stopped for it.
    fn fail_step(&mut self, failure: &Failure) {
        let Some(failed) = failure.step_index else {
            return;
        };
        for step in &mut self.open.steps {
            if step.outcome == Outcome::UnderWay {
                step.span.until = self.at;
                if step.index == failed {
                    step.outcome = Outcome::Failed;
                    step.exit_code = failure.exit_code;
                } else {
                    step.outcome = Outcome::Cancelled;
                }
            }
        }
    }

    fn finish(mut self, outcome: Outcome) -> Timeline {
        self.turn(outcome, SegmentKind::Other);
        if let Some(attempt) = self.attempts.last_mut()
            && attempt.outcome == Outcome::UnderWay
        {
            attempt.span.until = self.at;
            attempt.outcome = outcome;
        }
        Timeline {
            span: self.whole,
            segments: self.segments,
            attempts: self.attempts,
        }
    }

    /// The step of this number that began last in what is open.
    fn step(&mut self, index: u32) -> Option<&mut StepSpan> {
        let mut steps = self.open.steps.iter_mut().rev();
        steps.find(|step| step.index == index)
    }

    fn start_step(&mut self, started: &StepStarted) {
        let span = self.moment();
        self.open.steps.push(StepSpan {
            index: started.index,
            total: started.total,
            name: started.name.clone(),
            span,
            outcome: Outcome::UnderWay,
            measured_ms: None,
            exit_code: None,
            is_cached: false,
            lookup: None,
            stored_bytes: None,
        });
    }

    fn finish_step(&mut self, finished: &StepFinished) {
        let at = self.at;
        let Some(step) = self.step(finished.index) else {
            return;
        };
        if step.outcome == Outcome::UnderWay {
            step.span.until = at;
            step.outcome = Outcome::Done;
            step.measured_ms = Some(finished.duration_ms);
            step.exit_code = finished.exit_code;
            step.is_cached = finished.cached;
        }
    }

    fn look_up(&mut self, entry: &CacheSubject, result: LookupResult) {
        let lookup = Lookup {
            key: entry.key,
            result,
        };
        match entry.kind {
            CacheKind::FileBlob => {}
            CacheKind::FinalArtifact => self.open.lookup = Some(lookup),
            CacheKind::Layer => {
                let step = entry.step_index.and_then(|index| self.step(index));
                if let Some(step) = step {
                    step.lookup = Some(lookup);
                }
            }
        }
    }

    fn pass(&mut self, entry: &CacheSubject, reason: BypassReason) {
        self.look_up(entry, LookupResult::Bypassed(reason));
    }

    fn store(&mut self, stored: &CacheStored) {
        let bytes = &mut self.open.bytes;
        match stored.entry.kind {
            CacheKind::FileBlob => {}
            CacheKind::FinalArtifact => bytes.artifact = Some(stored.bytes),
            CacheKind::Layer => {
                let before = bytes.layers.unwrap_or(0);
                bytes.layers = Some(before.saturating_add(stored.bytes));
                let step = stored.entry.step_index.and_then(|index| self.step(index));
                if let Some(step) = step {
                    step.stored_bytes = Some(stored.bytes);
                }
            }
        }
    }
}

/// A segment that begins at `at`.
fn begun(kind: SegmentKind, attempt: u32, at: Timestamp) -> Segment {
    Segment {
        kind,
        attempt,
        span: Span {
            from: at,
            until: at,
        },
        outcome: Outcome::UnderWay,
        lookup: None,
        steps: Vec::new(),
        bytes: Bytes::default(),
    }
}
