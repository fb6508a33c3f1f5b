//! Recordings of a real daemon, told as stories.

use super::*;

/// What a recording tells, one line an event, and how the build ended.
struct Story {
    lines: Vec<String>,
    outcome: Result<(), Failure>,
}

fn limits() -> BuildkitLimits {
    BuildkitLimits::default()
}

fn names(stages: &[&str]) -> Vec<Option<String>> {
    let name = |stage: &&str| (!stage.is_empty()).then(|| (*stage).to_owned());
    stages.iter().map(name).collect()
}

fn tell(recording: &str, stages: &[&str], exit: Option<i32>) -> Story {
    let mut tracker = Tracker::new(&names(stages), &limits());
    let mut events = Vec::new();
    for line in recording.lines() {
        tracker.line(line.as_bytes(), &mut events);
    }
    let outcome = tracker.finish(exit, &mut events);
    Story {
        lines: events.iter().map(line).collect(),
        outcome,
    }
}

fn line(event: &Event) -> String {
    match event {
        Event::StepStarted(step) => format!("{}/{} {}", step.index, step.total, step.title),
        Event::StepOutput {
            step,
            stream,
            bytes,
        } => format!("{step} {stream:?}: {}", bytes.escape_ascii()),
        Event::StepFinished { step, cached, .. } if *cached => format!("{} cached", step.index),
        Event::StepFinished { step, duration, .. } => {
            format!("{} done in {} ms", step.index, duration.as_millis())
        }
        Event::Note(note) => format!("note: {note}"),
        Event::Warning(warning) => format!("warning: {warning}"),
    }
}

#[track_caller]
fn check(story: &Story, expected: &str) {
    let expected: Vec<&str> = expected.lines().map(str::trim_start).collect();
    let told: Vec<&str> = story.lines.iter().map(String::as_str).collect();
    assert_eq!(told, expected[1..expected.len() - 1]);
}

#[track_caller]
fn succeeds(recording: &str, stages: &[&str], expected: &str) {
    let story = tell(recording, stages, Some(0));
    check(&story, expected);
    assert_eq!(story.outcome, Ok(()));
}

const PARALLEL_STAGES: &str = include_str!("fixtures/parallel_stages.jsonl");
const CACHED: &str = include_str!("fixtures/cached.jsonl");
const FAILING_RUN: &str = include_str!("fixtures/failing_run.jsonl");
const CLIPPED_OUTPUT: &str = include_str!("fixtures/clipped_output.jsonl");
const HEREDOC: &str = include_str!("fixtures/heredoc.jsonl");
const COPY_LINK: &str = include_str!("fixtures/copy_link.jsonl");
const ADD_URL: &str = include_str!("fixtures/add_url.jsonl");
const SECRET_MOUNT: &str = include_str!("fixtures/secret_mount.jsonl");
const SHARED: &str = include_str!("fixtures/shared_with_another_build.jsonl");
const NAMED_BY_ANOTHER: &str = include_str!("fixtures/base_named_by_another_build.jsonl");
const CANCELLED: &str = include_str!("fixtures/cancelled.jsonl");

mod cuts;
mod failing;
mod made;
mod recorded;
