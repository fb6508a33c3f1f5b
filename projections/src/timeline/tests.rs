//! Whether the parts make the whole, whatever happened.

use domain::build::{
    BaseResolved, CacheBypassed, CacheKind, CacheMissed, CacheStored, CacheSubject,
    CancelRequested, Cancelled, Event, PhaseFinished, PhaseStarted, RetryScheduled, RootfsBuilt,
    StepFinished, StepStarted,
};
use domain::failure::FailureReason;
use domain::recorded::Position;
use proptest::prelude::*;

use super::weave::weave;
use super::*;
use crate::outline::Mark;
use crate::testing::{at, grown, layer, snapshotted, started, step_failure};

fn phase(phase: Phase) -> Event {
    Event::PhaseStarted(PhaseStarted { phase })
}

fn phase_end(phase: Phase) -> Event {
    Event::PhaseFinished(PhaseFinished {
        phase,
        duration_ms: 1,
        pulled_bytes: None,
    })
}

fn pull_end(bytes: u64) -> Event {
    Event::PhaseFinished(PhaseFinished {
        phase: Phase::Preparing,
        duration_ms: 1,
        pulled_bytes: Some(bytes),
    })
}

fn step(index: u32) -> Event {
    Event::StepStarted(StepStarted {
        index,
        total: 3,
        name: format!("RUN {index}"),
    })
}

fn step_end(index: u32, cached: bool) -> Event {
    Event::StepFinished(StepFinished {
        index,
        total: 3,
        duration_ms: 7,
        exit_code: (!cached).then_some(0),
        cached,
    })
}

fn missed(index: u32) -> Event {
    Event::CacheMissed(CacheMissed {
        entry: layer(index, "RUN x"),
        difference: Some("the step".to_owned()),
    })
}

fn stored(entry: CacheSubject, bytes: u64) -> Event {
    Event::CacheStored(CacheStored { entry, bytes })
}

fn artifact() -> CacheSubject {
    CacheSubject {
        kind: CacheKind::FinalArtifact,
        subject: "the template".to_owned(),
        step_index: None,
        key: Digest::of(b"artifact"),
    }
}

fn retry() -> Event {
    Event::RetryScheduled(RetryScheduled {
        attempt: 1,
        max_attempts: 2,
        failure: Failure::new(FailureReason::BootFailed, "no answer"),
    })
}

fn cancel() -> Event {
    Event::CancelRequested(CancelRequested {
        by: "somebody".to_owned(),
        reason: None,
    })
}

fn cancelled() -> Event {
    Event::Cancelled(Cancelled::default())
}

/// The timeline of a build that was asked for at 0, of events with their times.
fn timeline(events: &[(i64, Event)], finished_at: Option<i64>, now: i64) -> Timeline {
    let marks: Vec<Mark> = events
        .iter()
        .map(|(micros, event)| Mark {
            position: Position::START,
            at: at(*micros),
            event: event.clone(),
        })
        .collect();
    weave(at(0), finished_at.map(at), &marks, at(now))
}

/// Each segment as `what@attempt from..until outcome`.
fn told(timeline: &Timeline) -> Vec<String> {
    let micros = |time: Timestamp| time.micros_since(at(0));
    let segments = timeline.segments.iter().map(|segment| {
        format!(
            "{}@{} {}..{} {}",
            segment.kind.as_str(),
            segment.attempt,
            micros(segment.span.from),
            micros(segment.span.until),
            segment.outcome.as_str()
        )
    });
    segments.collect()
}

#[test]
fn what_is_between_phases_is_told_as_other_time() {
    let events = [
        (10, started(1)),
        (12, phase(Phase::Preparing)),
        (20, phase_end(Phase::Preparing)),
        (20, phase(Phase::Cache)),
        (25, Event::CacheHit(artifact())),
        (30, phase_end(Phase::Cache)),
        (37, snapshotted(1)),
    ];
    let timeline = timeline(&events, Some(37), 99);
    let expected = [
        "waiting@1 0..10 done",
        "other@1 10..12 done",
        "preparing@1 12..20 done",
        "cache@1 20..30 done",
        "other@1 30..37 done",
    ];
    assert_eq!(told(&timeline), expected);
    let lookup = timeline.lookup().unwrap();
    assert_eq!(lookup.result, LookupResult::Hit);
    let sums = timeline.sums();
    assert_eq!(sums[&SegmentKind::Other], 9);
    assert_eq!(sums.values().sum::<u64>(), 37);
}

#[test]
fn steps_are_within_their_phase_and_may_overlap() {
    let events = [
        (0, started(1)),
        (0, phase(Phase::Step)),
        (10, step(1)),
        (12, step(2)),
        (12, missed(2)),
        (20, step_end(1, true)),
        (22, stored(layer(2, "RUN x"), 5)),
        (30, step_end(2, false)),
        (40, step(3)),
        (45, step_end(3, false)),
        (50, phase_end(Phase::Step)),
        (50, grown()),
        (50, snapshotted(1)),
    ];
    let timeline = timeline(&events, Some(50), 50);
    let segment = &timeline.segments[1];
    assert_eq!((segment.step_micros(), segment.busy_micros()), (33, 25));
    let [first, second, third] = segment.steps.as_slice() else {
        panic!("{segment:?}");
    };
    assert!(first.is_cached && !second.is_cached);
    assert_eq!(second.measured_ms, Some(7));
    assert_eq!((second.exit_code, first.exit_code), (Some(0), None));
    assert_eq!(second.stored_bytes, Some(5));
    let result = &second.lookup.as_ref().unwrap().result;
    let difference = Some("the step".to_owned());
    assert_eq!(*result, LookupResult::Missed { difference });
    assert_eq!(third.lookup, None);
}

#[test]
fn a_retried_attempt_is_told_as_such_and_its_steps_stay_its_own() {
    let events = [
        (1, started(1)),
        (1, phase(Phase::Step)),
        (1, step(1)),
        (4, retry()),
        (9, started(2)),
        (9, phase(Phase::Step)),
        (9, step(1)),
        (11, step_end(1, true)),
        (12, step(2)),
        (20, Event::Failed(step_failure())),
    ];
    let timeline = timeline(&events, Some(20), 99);
    let expected = [
        "waiting@1 0..1 done",
        "step@1 1..4 failed",
        "waiting@2 4..9 done",
        "step@2 9..20 failed",
    ];
    assert_eq!(told(&timeline), expected);
    let [first, second] = timeline.attempts.as_slice() else {
        panic!("{:?}", timeline.attempts);
    };
    assert!(first.is_retried && !second.is_retried);
    assert_eq!((first.span.micros(), second.span.micros()), (3, 11));
    let reason = |attempt: &AttemptSpan| attempt.failure.as_ref().unwrap().reason;
    assert_eq!(reason(first), FailureReason::BootFailed);
    assert_eq!(reason(second), FailureReason::StepFailed);
    let outcomes: Vec<_> = timeline
        .segments
        .iter()
        .flat_map(|segment| &segment.steps)
        .map(|step| (step.index, step.outcome))
        .collect();
    let expected = [
        (1, Outcome::Failed),
        (1, Outcome::Done),
        (2, Outcome::Failed),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(timeline.latest_steps()[&1].outcome, Outcome::Done);
}

#[test]
fn of_steps_side_by_side_the_one_that_failed_is_told() {
    let events = [
        (0, started(1)),
        (0, phase(Phase::Step)),
        (1, step(1)),
        (2, step(2)),
        (3, step(3)),
        (4, step_end(3, false)),
        (6, Event::Failed(step_failure())),
    ];
    let timeline = timeline(&events, Some(6), 6);
    let told: Vec<_> = timeline.segments[1]
        .steps
        .iter()
        .map(|step| (step.outcome, step.exit_code, step.span.micros()))
        .collect();
    let expected = [
        (Outcome::Cancelled, None, 5),
        (Outcome::Failed, Some(3), 4),
        (Outcome::Done, Some(0), 1),
    ];
    assert_eq!(told, expected);
}

#[test]
fn stopping_takes_time_of_its_own() {
    let events = [
        (5, started(1)),
        (5, phase(Phase::VmCreate)),
        (8, cancel()),
        (13, cancelled()),
    ];
    let stopped = timeline(&events, Some(13), 99);
    let expected = [
        "waiting@1 0..5 done",
        "vm_create@1 5..8 cancelled",
        "stopping@1 8..13 cancelled",
    ];
    assert_eq!(told(&stopped), expected);
    assert_eq!(stopped.attempts[0].outcome, Outcome::Cancelled);
    // Nothing has to be stopped of a build that waits.
    let waited = timeline(&[(4, cancel()), (4, cancelled())], Some(4), 99);
    assert_eq!(told(&waited), ["waiting@1 0..4 cancelled"]);
}

#[test]
fn a_build_that_is_under_way_is_told_up_to_now() {
    assert_eq!(told(&timeline(&[], None, 6)), ["waiting@1 0..6 under_way"]);
    let events = [(2, started(1)), (2, phase(Phase::Step)), (3, step(1))];
    let running = timeline(&events, None, 9);
    let expected = ["waiting@1 0..2 done", "step@1 2..9 under_way"];
    assert_eq!(told(&running), expected);
    let step = &running.segments[1].steps[0];
    assert_eq!((step.outcome, step.span.micros()), (Outcome::UnderWay, 6));
    assert_eq!(running.attempts[0].outcome, Outcome::UnderWay);
}

#[test]
fn bytes_of_layers_add_up_and_sizes_are_the_last() {
    let base = CacheSubject {
        step_index: None,
        ..layer(1, "layer 1 of 2")
    };
    let built = |content_bytes| {
        let digest = Digest::ZERO;
        Event::RootfsBuilt(RootfsBuilt {
            digest,
            content_bytes,
        })
    };
    let events = [
        (0, started(1)),
        (0, phase(Phase::Preparing)),
        (0, stored(base, 100)),
        (1, pull_end(70)),
        (1, phase(Phase::Sync)),
        (1, built(1)),
        (2, retry()),
        (3, started(2)),
        (3, phase(Phase::Preparing)),
        (3, pull_end(7)),
        (3, phase(Phase::Step)),
        (3, stored(layer(1, "RUN x"), 6)),
        (3, stored(layer(2, "RUN y"), 4)),
        (4, phase_end(Phase::Step)),
        (4, phase(Phase::Sync)),
        (4, built(7)),
        (5, grown()),
        (5, phase_end(Phase::Sync)),
        (6, stored(artifact(), 1_000)),
        (6, snapshotted(1)),
    ];
    let timeline = timeline(&events, Some(6), 6);
    assert_eq!(timeline.segments[1].bytes.pulled, Some(70));
    let expected = Bytes {
        pulled: Some(77),
        layers: Some(110),
        rootfs_content: Some(7),
        rootfs: Some(2 << 30),
        artifact: Some(1_000),
    };
    assert_eq!(timeline.bytes(), expected);
}

/// Any event, in any order: a timeline makes the best of what does not follow the rules.
fn any_event() -> impl Strategy<Value = Event> {
    let phases = prop::sample::select(vec![
        Phase::Preparing,
        Phase::Cache,
        Phase::Step,
        Phase::Snapshot,
    ]);
    prop_oneof![
        (1..3_u32).prop_map(started),
        phases.clone().prop_map(phase),
        phases.prop_map(phase_end),
        (1..4_u32).prop_map(step),
        (1..4_u32, any::<bool>()).prop_map(|(index, cached)| step_end(index, cached)),
        (1..4_u32).prop_map(missed),
        (1..4_u32).prop_map(|index| Event::CacheBypassed(CacheBypassed {
            entry: layer(index, "RUN x"),
            reason: BypassReason::WholeBuildSkipCache,
        })),
        (1..4_u32, 0..9_u64).prop_map(|(index, bytes)| stored(layer(index, "RUN x"), bytes)),
        Just(Event::CacheHit(artifact())),
        Just(grown()),
        Just(Event::BaseResolved(BaseResolved {
            reference: "debian".to_owned(),
            digest: Digest::ZERO,
        })),
        Just(retry()),
        Just(cancel()),
        Just(cancelled()),
        Just(snapshotted(1)),
        Just(Event::Failed(step_failure())),
    ]
}

/// Checks what holds of every timeline.
pub(crate) fn adds_up(timeline: &Timeline) -> Result<(), TestCaseError> {
    let whole = timeline.span;
    let mut until = whole.from;
    for segment in &timeline.segments {
        prop_assert_eq!(segment.span.from, until, "{:?}", timeline);
        prop_assert!(segment.span.until >= until, "{:?}", timeline);
        until = segment.span.until;
        for step in &segment.steps {
            prop_assert!(step.span.from >= segment.span.from);
            prop_assert!(step.span.until >= step.span.from);
            prop_assert!(step.span.until <= segment.span.until);
        }
        prop_assert!(segment.busy_micros() <= segment.span.micros());
        prop_assert!(segment.busy_micros() <= segment.step_micros());
    }
    prop_assert_eq!(until, whole.until);
    prop_assert_eq!(timeline.sums().values().sum::<u64>(), whole.micros());
    for attempt in &timeline.attempts {
        prop_assert!(attempt.span.from >= whole.from && attempt.span.until <= whole.until);
    }
    Ok(())
}

proptest! {
    #[test]
    fn segments_have_no_gaps_and_add_up_whatever_happened(
        // Clocks that are set back among them.
        events in prop::collection::vec((-20..200_i64, any_event()), 0..40),
        finished_at in prop::option::of(-10..250_i64),
        now in -10..250_i64,
    ) {
        let timeline = timeline(&events, finished_at, now);
        adds_up(&timeline)?;
        let end = finished_at.unwrap_or(now).max(0);
        prop_assert_eq!(timeline.span, Span { from: at(0), until: at(end) });
        let is_open = timeline.segments.iter().any(|segment| segment.outcome == Outcome::UnderWay);
        prop_assert!(!is_open || finished_at.is_none());
    }
}
