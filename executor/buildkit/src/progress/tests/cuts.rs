//! What a build tells does not depend on how BuildKit cut it into lines.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Recordings that name all steps before any begins, with their stages and exit codes.
const RECORDINGS: &[(&str, &[&str], i32)] = &[
    (PARALLEL_STAGES, &["one", "two", ""], 0),
    (CACHED, &["one", "two", ""], 0),
    (FAILING_RUN, &[""], 1),
    (CLIPPED_OUTPUT, &[""], 1),
    (HEREDOC, &[""], 0),
    (COPY_LINK, &["s"], 0),
    (ADD_URL, &[""], 0),
    (SECRET_MOUNT, &[""], 0),
    (CANCELLED, &[""], 1),
];

fn recording() -> impl Strategy<Value = (&'static str, &'static [&'static str], i32)> {
    proptest::sample::select(RECORDINGS)
}

/// What is told of each step, in order; the order of different steps is another matter.
fn by_step(story: &Story) -> Vec<Vec<&str>> {
    let number = |line: &str| line.split([' ', '/']).next()?.parse::<usize>().ok();
    let mut steps = Vec::new();
    for line in &story.lines {
        if let Some(number) = number(line) {
            steps.resize(steps.len().max(number), Vec::new());
            steps[number - 1].push(line.as_str());
        }
    }
    steps
}

fn parts(line: &str) -> Option<Vec<(&'static str, Value)>> {
    let object: serde_json::Map<String, Value> = serde_json::from_str(line).ok()?;
    let kinds = ["vertexes", "statuses", "logs", "warnings"];
    let parts = kinds.into_iter().flat_map(|kind| {
        let list = object.get(kind).and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .map(move |part| (kind, part.clone()))
    });
    Some(parts.collect())
}

/// Puts neighbouring lines together; text stays alone.
fn joined(recording: &str, lengths: &[usize]) -> String {
    let mut lengths = lengths.iter().copied().cycle();
    let mut lines = Vec::new();
    let mut open: Option<(Value, usize)> = None;
    for line in recording.lines() {
        let Some(parts) = parts(line) else {
            lines.extend(open.take().map(|(object, _)| object.to_string()));
            lines.push(line.to_owned());
            continue;
        };
        let (object, left) = open.get_or_insert_with(|| (json!({}), lengths.next().unwrap()));
        for (kind, part) in parts {
            let list = &mut object[kind];
            if list.is_null() {
                *list = json!([]);
            }
            list.as_array_mut().unwrap().push(part);
        }
        *left -= 1;
        if *left == 0 {
            lines.extend(open.take().map(|(object, _)| object.to_string()));
        }
    }
    lines.extend(open.take().map(|(object, _)| object.to_string()));
    lines.join("\n")
}

/// A line for each part, in the order in which it happened: announcements come from the base upwards.
fn split(recording: &str) -> String {
    let mut lines = Vec::new();
    for line in recording.lines() {
        let Some(mut parts) = parts(line) else {
            lines.push(line.to_owned());
            continue;
        };
        let time = |part: &Value, key: &str| part[key].as_str().unwrap_or_default().to_owned();
        let is_announcement =
            |part: &Value| part.get("digest").is_some() && part["started"].is_null();
        let first_step = parts.iter().position(|(_, part)| !is_announcement(part));
        parts[..first_step.unwrap_or(0)].reverse();
        if first_step.is_none() {
            parts.reverse();
        }
        parts.sort_by_key(|(_, part)| {
            ["completed", "started", "timestamp"]
                .map(|key| time(part, key))
                .into_iter()
                .find(|time| !time.is_empty())
        });
        lines.extend(
            parts
                .into_iter()
                .map(|(kind, part)| json!({ kind: [part] }).to_string()),
        );
    }
    lines.join("\n")
}

proptest! {
    #[test]
    fn lines_may_be_put_together(
        (recording, stages, exit) in recording(),
        lengths in proptest::collection::vec(1_usize..40, 1..8),
    ) {
        let whole = tell(recording, stages, Some(exit));
        let joined = tell(&joined(recording, &lengths), stages, Some(exit));
        prop_assert_eq!(by_step(&joined), by_step(&whole));
        prop_assert_eq!(joined.outcome, whole.outcome);
    }

    /// Whatever is lost, doubled or garbled: no panic, and no step starts or ends twice.
    #[test]
    fn whatever_comes_is_told_in_order(
        (recording, stages, exit) in recording(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), 0_u8..4), 0..20),
        noise in proptest::collection::vec(any::<u8>(), 0..100),
        knows_stages: bool,
    ) {
        let mut lines: Vec<Vec<u8>> = recording.lines().map(|line| line.as_bytes().to_vec()).collect();
        for (index, change) in changes {
            let index = index.index(lines.len());
            match change {
                0 => drop(lines.remove(index)),
                1 => lines.insert(index, lines[index].clone()),
                2 => lines.insert(index, noise.clone()),
                _ => {
                    let other = index / 2;
                    lines.swap(index, other);
                }
            }
            if lines.is_empty() {
                break;
            }
        }
        let stages = if knows_stages { names(stages) } else { Vec::new() };
        let mut tracker = Tracker::new(&stages, &limits());
        let mut events = Vec::new();
        for line in &lines {
            tracker.line(line, &mut events);
        }
        let is_failure = tracker.finish(Some(exit), &mut events).is_err();
        prop_assert_eq!(is_failure, exit != 0);
        check_order(&events, exit == 0);
    }

    #[test]
    fn any_bytes_are_taken(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..20)) {
        let mut tracker = Tracker::new(&[], &limits());
        let mut events = Vec::new();
        for line in &lines {
            tracker.line(line, &mut events);
        }
        prop_assert!(tracker.finish(Some(0), &mut events).is_ok());
    }
}

/// Each step starts once, under one name; it ends at most once, and always if the build succeeded.
#[track_caller]
fn check_order(events: &[Event], succeeded: bool) {
    let mut started: Vec<(u32, &str)> = Vec::new();
    let mut ended: Vec<u32> = Vec::new();
    for event in events {
        match event {
            Event::StepStarted(step) => {
                assert!(
                    started.iter().all(|(index, _)| *index != step.index),
                    "{step:?}"
                );
                assert!((1..=step.total).contains(&step.index), "{step:?}");
                started.push((step.index, &step.title));
            }
            Event::StepOutput { step, .. } => {
                assert!(started.iter().any(|(index, _)| index == step), "{step}");
            }
            Event::StepFinished { step, .. } => {
                assert!(started.contains(&(step.index, &step.title)), "{step:?}");
                assert!(!ended.contains(&step.index), "{step:?}");
                ended.push(step.index);
            }
            Event::Note(_) | Event::Warning(_) => {}
        }
    }
    if succeeded {
        assert_eq!(started.len(), ended.len());
    }
}

#[test]
fn lines_may_be_split() {
    for (recording, stages, exit) in RECORDINGS {
        let whole = tell(recording, stages, Some(*exit));
        let split = tell(&split(recording), stages, Some(*exit));
        assert_eq!(by_step(&split), by_step(&whole));
        assert_eq!(split.outcome, whole.outcome);
    }
}
