//! Builds that failed on a real daemon.

use super::*;
use crate::event::{Excerpt, FailureKind, Step};

#[track_caller]
fn fails(recording: &str, expected: &str) -> Failure {
    let story = tell(recording, &[""], Some(1));
    check(&story, expected);
    story.outcome.unwrap_err()
}

#[test]
fn a_failing_step_is_named_with_its_code_its_lines_and_its_output() {
    let failure = fails(
        FAILING_RUN,
        r"
        note: resolving docker.io/library/debian:bookworm
        1/4 [1/4] FROM docker.io/library/debian:bookworm@sha256:08
        1 cached
        2/4 [2/4] RUN true
        2 done in 115 ms
        3/4 [3/4] RUN echo boom >&2; exit 42
        3 Stderr: boom\n
        ",
    );
    let excerpt = "   1 |     FROM debian:bookworm\n   2 |     RUN true\n   3 | >>> RUN echo boom >&2; \
                   exit 42\n   4 |     RUN echo never\n   5 |     ";
    let expected = Failure {
        kind: FailureKind::Step,
        message:
            "process \"/bin/sh -c echo boom >&2; exit 42\" did not complete successfully: exit \
                  code: 42"
                .to_owned(),
        step: Some(Step {
            index: 3,
            total: 4,
            title: "[3/4] RUN echo boom >&2; exit 42".to_owned(),
        }),
        exit_code: Some(42),
        excerpt: Some(Excerpt {
            file: "Dockerfile".to_owned(),
            line: 3,
            text: excerpt.to_owned(),
        }),
        output_tail: vec!["boom".to_owned()],
    };
    assert_eq!(failure, expected);
}

#[test]
fn a_failing_step_s_clipped_output_is_made_whole() {
    let mut tracker = Tracker::new(&[], &limits());
    let mut events = Vec::new();
    for line in CLIPPED_OUTPUT.lines() {
        tracker.line(line.as_bytes(), &mut events);
    }
    let failure = tracker.finish(Some(1), &mut events).unwrap_err();
    let output = events.into_iter().filter_map(|event| match event {
        Event::StepOutput { bytes, .. } => Some(bytes),
        Event::StepStarted(_) | Event::StepFinished { .. } | Event::Note(_) | Event::Warning(_) => {
            None
        }
    });
    let output = String::from_utf8(output.collect::<Vec<_>>().concat()).unwrap();
    let lines = (1..=60).map(|index| format!("line {index} of a long output\n"));
    let expected = [lines.collect(), vec!["fatal: all is lost\n".to_owned()]].concat();
    let expected = expected.concat();
    let mark = "\n[output clipped, log limit 600B reached]\n";
    assert_eq!(output.replace(mark, ""), expected);
    let tail: Vec<&str> = expected.lines().skip(61 - 20).collect();
    assert_eq!(failure.output_tail, tail);
    assert_eq!(failure.exit_code, Some(3));
}

#[test]
fn a_dockerfile_that_cannot_be_read_fails_with_its_line() {
    let failure = fails(include_str!("../fixtures/syntax_error.jsonl"), "\n\n");
    assert_eq!(failure.kind, FailureKind::Dockerfile);
    assert_eq!(failure.excerpt.map(|excerpt| excerpt.line), Some(2));
}

#[test]
fn a_base_that_is_missing_fails_with_its_line() {
    let failure = fails(
        include_str!("../fixtures/missing_base.jsonl"),
        "
        note: resolving docker.io/nosuch/image:1.0
        ",
    );
    assert_eq!(failure.kind, FailureKind::ImageNotFound);
    assert_eq!(failure.step, None);
    assert_eq!(failure.excerpt.map(|excerpt| excerpt.line), Some(1));
}

#[test]
fn credentials_are_told_by_their_host() {
    let failure = fails(
        include_str!("../fixtures/refused_credentials.jsonl"),
        "
        note: resolving 127.0.0.1:5999/e401/img:1
        note: using the credentials for 127.0.0.1:5999
        ",
    );
    assert_eq!(failure.kind, FailureKind::ImageUnauthorized);
}

#[test]
fn a_step_that_was_stopped_is_at_no_fault_and_has_not_ended() {
    let failure = fails(
        CANCELLED,
        r"
        note: resolving docker.io/library/debian:bookworm
        1/3 [1/3] FROM docker.io/library/debian:bookworm@sha256:07
        1 cached
        2/3 [2/3] RUN echo begun K2; sleep 60
        2 Stdout: begun K2\n
        ",
    );
    assert_eq!(failure.kind, FailureKind::Cancelled);
    assert_eq!((failure.step, failure.exit_code), (None, None));
}

#[test]
fn a_daemon_that_is_lost_is_told_as_such() {
    let failure = fails(
        include_str!("../fixtures/daemon_killed.jsonl"),
        r"
        note: resolving docker.io/library/debian:bookworm
        1/3 [1/3] FROM docker.io/library/debian:bookworm@sha256:07
        1 cached
        2/3 [2/3] RUN echo begun K3; sleep 60
        2 Stdout: begun K3\n
        ",
    );
    assert_eq!(failure.kind, FailureKind::DaemonUnavailable);
    assert_eq!(failure.step, None);
}
