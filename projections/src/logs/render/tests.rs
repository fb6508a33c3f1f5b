//! Progress, and the entries that a person reads.

use domain::Digest;
use domain::build::{
    BaseResolved, Event as BuildEvent, LogLine, LogStream, Phase, PhaseFinished, PhaseStarted,
    Queued, ReadinessPassed, RetryOf, RootfsBuilt, StartCommandRan, StepFinished, StepLogged,
    StepStarted, VmBooted,
};
use domain::definition::{ProbeSchedule, Readiness, Source};

use super::super::LogLevel::{Debug, Info, Warn};
use super::super::{LogEntry, LogKind, LogLevel};
use crate::testing::{History, at, build_id, grown, request, requested, started};

/// The entries of a build of which these events happened after it was requested and started.
pub(super) fn after_start(events: Vec<BuildEvent>) -> Vec<LogEntry> {
    let mut history = History::default();
    history.build(1, requested(1, &["a"])).build(1, started(1));
    for event in events {
        history.build(1, event);
    }
    let entries = history.views().entries(&build_id(1), 0, 1_000).unwrap();
    entries.into_iter().skip(2).collect()
}

pub(super) fn one(event: BuildEvent) -> LogEntry {
    let mut entries = after_start(vec![event]);
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

pub(super) fn text(event: BuildEvent) -> (LogKind, LogLevel, Option<String>, String) {
    let entry = one(event);
    (entry.kind, entry.level, entry.phase, entry.message)
}

pub(super) fn message(
    level: LogLevel,
    phase: &str,
    text: &str,
) -> (LogKind, LogLevel, Option<String>, String) {
    (
        LogKind::Message,
        level,
        Some(phase.to_owned()),
        text.to_owned(),
    )
}

#[test]
fn a_build_that_waits_says_at_which_place() {
    let mut history = History::default();
    history.build(1, requested(1, &["a"]));
    for place in [3, 1] {
        history.build(1, BuildEvent::Queued(Queued { place }));
    }
    let views = history.views();
    let entries = views.entries(&build_id(1), 1, 10).unwrap();
    let told: Vec<_> = entries.iter().map(|entry| entry.message.as_str()).collect();
    assert_eq!(
        told,
        [
            "Waiting for a worker: place 3 in line",
            "Waiting for a worker: next in line"
        ]
    );
    let first = &entries[0];
    assert_eq!((first.kind, first.level), (LogKind::Message, Info));
    assert_eq!(first.phase.as_deref(), Some("queued"));
    // It still waits, and stands in line.
    assert_eq!(views.queue_position(&build_id(1)).unwrap(), Some(1));
}

#[test]
fn a_log_begins_with_the_request() {
    let mut history = History::default();
    history.build(1, requested(1, &["a"])).build(1, started(1));
    let entries = history.views().entries(&build_id(1), 0, 10).unwrap();
    let start = &entries[0];
    assert_eq!((start.offset, start.kind), (0, LogKind::Start));
    assert_eq!(start.at, at(1_000));
    assert_eq!(
        start.message,
        format!("Build {} of my-app accepted", build_id(1))
    );
    let first = &entries[1];
    assert_eq!(first.message, "Attempt 1 of 2 started");
    assert_eq!((first.attempt, first.max_attempts), (Some(1), Some(2)));
}

#[test]
fn a_retry_names_the_build_that_it_repeats() {
    let mut history = History::default();
    let mut request = request(1, &["a"]);
    request.retry_of = Some(RetryOf {
        build: build_id(8),
        original: build_id(7),
    });
    history.build(1, BuildEvent::Requested(Box::new(request)));
    let entries = history.views().entries(&build_id(1), 0, 10).unwrap();
    assert_eq!(
        entries[0].message,
        format!(
            "Build {} of my-app accepted, a retry of {}",
            build_id(1),
            build_id(8)
        )
    );
}

#[test]
fn phases_say_what_is_waited_for() {
    let begin = |phase| text(BuildEvent::PhaseStarted(PhaseStarted { phase }));
    for (phase, level, name, words) in [
        (
            Phase::Preparing,
            Info,
            "preparing",
            "Resolving base image python:3.11",
        ),
        (
            Phase::Cache,
            Debug,
            "cache",
            "Looking for a finished artifact",
        ),
        (Phase::Step, Debug, "step", "Running the steps"),
        (Phase::Sync, Info, "sync", "Making the root filesystem"),
        (Phase::VmCreate, Info, "vm_create", "Booting the machine"),
        (Phase::Startup, Info, "startup", "Running the start command"),
        (
            Phase::Readiness,
            Info,
            "readiness",
            "Waiting until the start command is ready",
        ),
        (
            Phase::Snapshot,
            Info,
            "snapshot",
            "Capturing the machine and restoring it once",
        ),
        (
            Phase::Finalize,
            Debug,
            "finalize",
            "Publishing the template",
        ),
        (
            Phase::Cleanup,
            Debug,
            "cleanup",
            "Releasing what the build used",
        ),
    ] {
        assert_eq!(begin(phase), message(level, name, words));
    }
    let finished = PhaseFinished {
        phase: Phase::Sync,
        duration_ms: 12,
        pulled_bytes: None,
    };
    assert_eq!(
        text(BuildEvent::PhaseFinished(finished)),
        message(Debug, "sync", "Phase sync finished in 12 ms")
    );
}

#[test]
fn a_base_that_is_known_is_brought_in() {
    let preparing = || {
        BuildEvent::PhaseStarted(PhaseStarted {
            phase: Phase::Preparing,
        })
    };
    let resolved = BuildEvent::BaseResolved(BaseResolved {
        reference: "docker.io/library/python:3.11".into(),
        digest: Digest::ZERO,
    });
    let entries = after_start(vec![preparing(), resolved, preparing()]);
    let messages: Vec<&str> = entries.iter().map(|entry| entry.message.as_str()).collect();
    assert_eq!(messages[0], "Resolving base image python:3.11");
    assert_eq!(messages[2], "Bringing in the layers of python:3.11");
}

#[test]
fn a_dockerfile_has_no_base_to_name() {
    let mut history = History::default();
    let mut request = request(1, &["a"]);
    request.definition.source = Source::Dockerfile {
        text: "FROM x\n".into(),
        path: None,
        build_args: std::collections::BTreeMap::new(),
        target: None,
    };
    history
        .build(1, BuildEvent::Requested(Box::new(request)))
        .build(1, started(1))
        .build(
            1,
            BuildEvent::PhaseStarted(PhaseStarted {
                phase: Phase::Preparing,
            }),
        );
    let entries = history.views().entries(&build_id(1), 2, 10).unwrap();
    assert_eq!(entries[0].message, "Preparing the Dockerfile's build");
}

#[test]
fn the_machine_is_told_in_numbers() {
    let digest = Digest::of(b"x");
    for (event, phase, words) in [
        (
            BuildEvent::BaseResolved(BaseResolved {
                reference: "python:3.11".into(),
                digest,
            }),
            "preparing",
            format!("Base image python:3.11 is {digest}"),
        ),
        (
            BuildEvent::BaseResolved(BaseResolved {
                reference: format!("acme/my-app:{}", build_id(1)),
                digest,
            }),
            "preparing",
            format!("Base template acme/my-app:{} is {digest}", build_id(1)),
        ),
        (
            BuildEvent::RootfsBuilt(RootfsBuilt {
                digest,
                content_bytes: 64 << 20,
            }),
            "sync",
            "Root filesystem holds 64.0 MiB of files".into(),
        ),
        (
            grown(),
            "sync",
            "Root filesystem grown from 1.1 GiB to 2.0 GiB".into(),
        ),
        (
            BuildEvent::VmBooted(VmBooted {
                accelerator: "tcg".into(),
                boot_ms: 2150,
            }),
            "vm_create",
            "Machine booted in 2150 ms (tcg)".into(),
        ),
        (
            BuildEvent::StartCommandRan(StartCommandRan { exit_code: None }),
            "startup",
            "Start command is running".into(),
        ),
        (
            BuildEvent::StartCommandRan(StartCommandRan { exit_code: Some(0) }),
            "startup",
            "Start command exited with code 0".into(),
        ),
    ] {
        assert_eq!(text(event), message(Info, phase, &words));
    }
}

#[test]
fn readiness_is_told_with_what_was_asked() {
    let readiness = |probe| {
        BuildEvent::ReadinessPassed(ReadinessPassed {
            probe,
            tries: 3,
            duration_ms: 1520,
        })
    };
    let schedule = ProbeSchedule::default();
    for (event, words) in [
        (
            readiness(Readiness::Tcp {
                port: 8080,
                schedule,
            }),
            "Ready: port 8080 accepts connections (3 tries, 1520 ms)".to_owned(),
        ),
        (
            readiness(Readiness::Http {
                port: 80,
                path: "/up".into(),
                schedule,
            }),
            "Ready: http://127.0.0.1:80/up answers (3 tries, 1520 ms)".to_owned(),
        ),
        (
            readiness(Readiness::Command {
                command: "test -e x".into(),
                schedule,
            }),
            "Ready: `test -e x` exits with 0 (3 tries, 1520 ms)".to_owned(),
        ),
        (
            readiness(Readiness::Timeout { timeout_ms: 900 }),
            "Ready: 900 ms have passed (3 tries, 1520 ms)".to_owned(),
        ),
    ] {
        assert_eq!(text(event), message(Info, "readiness", &words));
    }
}

pub(super) fn step_started(index: u32, name: &str) -> BuildEvent {
    BuildEvent::StepStarted(StepStarted {
        index,
        total: 5,
        name: name.to_owned(),
    })
}

fn step_finished(index: u32, cached: bool) -> BuildEvent {
    BuildEvent::StepFinished(StepFinished {
        index,
        total: 5,
        duration_ms: 312,
        exit_code: None,
        cached,
    })
}

#[test]
fn steps_have_their_number_and_their_title() {
    let entries = after_start(vec![
        step_started(1, "RUN one"),
        step_started(2, "RUN two\n  && more"),
        step_finished(2, false),
        step_finished(1, true),
        step_finished(3, true),
    ]);
    let words: Vec<_> = entries.iter().map(|entry| &*entry.message).collect();
    assert_eq!(
        words,
        [
            "[1/5] RUN one",
            "[2/5] RUN two …",
            "[2/5] done in 312 ms",
            "CACHED [1/5] RUN one",
            "CACHED [3/5]",
        ]
    );
    assert_eq!(
        (entries[2].step_index, entries[2].total_steps),
        (Some(2), Some(5))
    );
}

#[test]
fn the_place_that_a_dockerfile_s_title_begins_with_is_not_said_twice() {
    let entries = after_start(vec![
        step_started(1, "[1/5] FROM debian"),
        step_started(2, "[build 2/3] RUN make"),
        step_finished(1, true),
        step_finished(2, true),
    ]);
    let words: Vec<_> = entries.iter().map(|entry| &*entry.message).collect();
    assert_eq!(
        words,
        [
            "[1/5] FROM debian",
            "[2/5] [build 2/3] RUN make",
            "CACHED [1/5] FROM debian",
            "CACHED [2/5] [build 2/3] RUN make",
        ]
    );
}

#[test]
fn lines_keep_their_time_and_their_step() {
    let line = |stream, text: &str| LogLine {
        at: at(5),
        stream,
        text: text.into(),
    };
    let event = BuildEvent::StepLogged(StepLogged {
        phase: Phase::Step,
        step: Some((2, 5)),
        first_offset: 2,
        lines: vec![
            line(LogStream::Stdout, "out \u{2028}"),
            line(LogStream::Stderr, "err"),
            line(LogStream::System, ""),
            line(LogStream::Warning, "careful"),
        ],
    });
    let entries = after_start(vec![event]);
    let shown: Vec<_> = entries
        .iter()
        .map(|entry| (entry.offset, entry.kind, entry.level, &*entry.message))
        .collect();
    assert_eq!(
        shown,
        [
            (2, LogKind::Message, Info, "out \u{2028}"),
            (3, LogKind::Message, Info, "err"),
            (4, LogKind::Message, Info, ""),
            (5, LogKind::Warning, Warn, "careful"),
        ]
    );
    for entry in entries {
        assert_eq!(entry.at, at(5));
        assert_eq!((entry.step_index, entry.total_steps), (Some(2), Some(5)));
        assert_eq!(entry.phase.as_deref(), Some("step"));
    }
}
