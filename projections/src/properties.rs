//! What holds of all views, for random histories that the rules of the domain allow.

use std::collections::BTreeMap;

use domain::Event;
use domain::build::{
    Build, BypassReason, CacheBypassed, CacheMissed, CacheStored, Command, Event as BuildEvent,
    Fence, LogLine, LogStream, Phase, PhaseFinished, PhaseStarted, StepFinished, StepLogged,
    StepStarted, decide, evolve,
};
use domain::failure::{Failure, FailureReason};
use domain::recorded::{Recorded, StreamName};
use domain::template::{Event as TemplateEvent, Visibility};
use proptest::prelude::*;

use crate::builds::BuildStatus;
use crate::key::Key;
use crate::limits::EmbeddedLimits;
use crate::logs::LogKind;
use crate::projection::apply_batch;
use crate::store::embedded::Embedded;
use crate::store::memory::Memory;
use crate::store::{Row, Scan, ViewStore};
use crate::testing::{
    History, at, build_id, dump, grown, layer, name, request, slug, snapshot, step_failure, tag,
    worker,
};

/// One thing that somebody tries. What the rules refuse does not happen.
#[derive(Clone, Debug)]
enum Try {
    Build(u8, u8, u32),
    Template(u8, u8, u8),
}

const BUILDS: u8 = 4;
const TEMPLATES: u8 = 2;

fn tries() -> impl Strategy<Value = Vec<Try>> {
    let build = (1..=BUILDS, 0..24_u8, 0..5_u32)
        .prop_map(|(build, what, detail)| Try::Build(build, what, detail));
    let template = (1..=TEMPLATES, 0..7_u8, 1..=BUILDS)
        .prop_map(|(template, what, build)| Try::Template(template, what, build));
    prop::collection::vec(prop_oneof![9 => build, 1 => template], 0..120)
}

/// The command of a number; most make progress, so that histories get somewhere.
fn command(state: &Build, build: u8, what: u8, detail: u32) -> Command {
    let fence = match state {
        Build::Building(_, attempt) | Build::Cancelling(_, attempt) => attempt.fence,
        Build::Absent
        | Build::Waiting(_)
        | Build::Ready(..)
        | Build::Failed(..)
        | Build::Cancelled(_) => Fence(u64::from(detail)),
    };
    match what {
        0..=2 => Command::Request(Box::new(request(
            build % TEMPLATES + 1,
            [&["default"][..], &["v1", "v2"]][usize::from(build % 2)],
        ))),
        3..=5 => Command::Start { worker: worker() },
        6..=14 => Command::Report {
            fence,
            events: progress(what, detail),
        },
        15..=17 => Command::Complete {
            fence,
            snapshotted: snapshot(build),
        },
        18 => Command::Fail {
            fence,
            failure: step_failure(),
        },
        19..=20 => Command::Fail {
            fence,
            failure: Failure::new(FailureReason::BootFailed, "no answer"),
        },
        21 => Command::Abandon {
            failure: Failure::new(FailureReason::SecretsLost, "gone"),
        },
        22 => Command::Cancel {
            by: "key_1".into(),
            reason: None,
        },
        _ => Command::ConfirmCancelled {
            fence,
            killed: Vec::new(),
        },
    }
}

fn progress(what: u8, detail: u32) -> Vec<BuildEvent> {
    let index = detail + 1;
    let entry = layer(index, "RUN x");
    let line = |number: u32| LogLine {
        at: at(i64::from(number)),
        stream: [LogStream::Stderr, LogStream::Warning][usize::from(number.is_multiple_of(7))],
        text: "y".repeat(usize::try_from(number * number * 9).unwrap()),
    };
    match what {
        6 => vec![
            BuildEvent::PhaseStarted(PhaseStarted { phase: Phase::Step }),
            BuildEvent::StepStarted(StepStarted {
                index,
                total: 5,
                name: format!("RUN {index}"),
            }),
        ],
        7 => vec![
            BuildEvent::StepFinished(StepFinished {
                index,
                total: 5,
                duration_ms: 1,
                exit_code: Some(0),
                cached: detail.is_multiple_of(2),
            }),
            BuildEvent::PhaseFinished(PhaseFinished {
                phase: Phase::Step,
                duration_ms: 2,
            }),
        ],
        8 => vec![BuildEvent::CacheHit(entry)],
        9 => vec![BuildEvent::CacheMissed(CacheMissed {
            entry,
            difference: (detail > 2).then(|| "env".to_owned()),
        })],
        10 => vec![
            BuildEvent::CacheBypassed(CacheBypassed {
                entry: entry.clone(),
                reason: BypassReason::BuilderCacheBoundary,
            }),
            BuildEvent::CacheStored(CacheStored {
                entry,
                bytes: u64::from(detail),
            }),
        ],
        11..=12 => vec![grown()],
        _ => vec![BuildEvent::StepLogged(StepLogged {
            phase: Phase::Step,
            step: Some((index, 5)),
            first_offset: 0,
            lines: (0..detail * 6).map(line).collect(),
        })],
    }
}

fn template_event(what: u8, build: u8) -> TemplateEvent {
    match what {
        0 => TemplateEvent::VisibilityChanged {
            visibility: Visibility::Public,
        },
        1..=2 => TemplateEvent::TagsAssigned {
            tags: vec![tag("v1"), tag("x")],
            build: build_id(build),
        },
        3 => TemplateEvent::TagRemoved { tag: tag("v1") },
        4 => TemplateEvent::Renamed {
            namespace: slug("acme"),
            from: name("app-1"),
            to: name("new"),
        },
        5 => TemplateEvent::AliasRemoved {
            namespace: slug("acme"),
            alias: name("app-1"),
        },
        _ => TemplateEvent::Deleted {},
    }
}

/// What happened, and what the rules say has become of the builds.
fn play(tries: &[Try]) -> (History, BTreeMap<u8, Build>) {
    let mut history = History::default();
    let mut states = BTreeMap::new();
    for number in 1..=TEMPLATES {
        history.name_taken("acme", &format!("app-{number}"), number);
    }
    for attempt in tries {
        match *attempt {
            Try::Build(build, what, detail) => {
                let state = states.remove(&build).unwrap_or(Build::Absent);
                let events = decide(&state, command(&state, build, what, detail));
                let state = events
                    .unwrap_or_default()
                    .into_iter()
                    .fold(state, |state, event| {
                        let state = evolve(state, &event);
                        history.build(build, event);
                        state
                    });
                states.insert(build, state);
            }
            Try::Template(template, what, build) => {
                history.template(template, template_event(what, build));
            }
        }
    }
    (history, states)
}

/// Applies events in batches of these sizes, the last size for the rest.
fn apply(store: &dyn ViewStore, mut events: &[Recorded<Event>], sizes: &[usize]) {
    let mut sizes = sizes.iter().copied().chain(std::iter::repeat(7));
    while !events.is_empty() {
        let size = sizes.next().unwrap().min(events.len());
        apply_batch(store, &events[..size]).unwrap();
        events = &events[size..];
    }
}

fn replayed(history: &History) -> Vec<Row> {
    let store = Memory::default();
    apply_batch(&store, history.events()).unwrap();
    dump(&store)
}

fn wire_status(state: &Build) -> Option<BuildStatus> {
    match state {
        Build::Absent => None,
        Build::Waiting(_) => Some(BuildStatus::Waiting),
        Build::Building(..) | Build::Cancelling(..) => Some(BuildStatus::Building),
        Build::Ready(..) => Some(BuildStatus::Ready),
        Build::Failed(..) => Some(BuildStatus::Error),
        Build::Cancelled(_) => Some(BuildStatus::Cancelled),
    }
}

/// How many entries a build's log holds, by its rows.
fn lines(store: &dyn ViewStore, stream: &StreamName) -> u64 {
    let StreamName::Build(id) = stream else {
        return 0;
    };
    let log = Scan::below(&Key::table("logs/entries").text(id.as_str()), usize::MAX);
    let rows = store.scan(&log).unwrap();
    let ends = rows
        .iter()
        .flat_map(|(_, value)| value)
        .filter(|byte| **byte == b'\n');
    u64::try_from(ends.count()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn replaying_gives_the_same_bytes_as_following(
        tries in tries(),
        sizes in prop::collection::vec(1..9_usize, 0..40),
    ) {
        let (history, _) = play(&tries);
        let followed = Memory::default();
        apply(&followed, history.events(), &sizes);
        prop_assert_eq!(dump(&followed), replayed(&history));
    }

    #[test]
    fn applying_again_changes_nothing(tries in tries(), overlap in 0..40_usize) {
        let (history, _) = play(&tries);
        let store = Memory::default();
        let (first, _) = history.events().split_at(overlap.min(history.events().len()));
        apply_batch(&store, first).unwrap();
        apply_batch(&store, first).unwrap();
        apply_batch(&store, history.events()).unwrap();
        apply_batch(&store, history.events()).unwrap();
        prop_assert_eq!(dump(&store), replayed(&history));
    }

    #[test]
    fn logs_have_no_gaps_and_end_once(tries in tries()) {
        let (history, states) = play(&tries);
        let views = history.views();
        for (number, state) in &states {
            let id = build_id(*number);
            let row = views.build(&id).unwrap();
            prop_assert_eq!(row.as_ref().map(|row| row.status), wire_status(state));
            let entries = views.entries(&id, 0, usize::MAX).unwrap();
            let accepted = state.accepted().map_or(0, |accepted| accepted.next_offset);
            prop_assert_eq!(row.map_or(0, |row| row.next_offset), accepted);
            prop_assert_eq!(views.next_offset(&id).unwrap(), accepted);
            let offsets: Vec<u64> = entries.iter().map(|entry| entry.offset).collect();
            prop_assert_eq!(offsets, (0..accepted).collect::<Vec<_>>());
            for (entry, is_last) in entries.iter().rev().zip(std::iter::once(true).chain(std::iter::repeat(false))) {
                let ends = is_last && state.is_terminal();
                prop_assert_eq!(entry.kind.is_terminal(), ends, "{:?}", entry);
                prop_assert_eq!(entry.kind == LogKind::Start, entry.offset == 0);
            }
        }
    }

    #[test]
    fn each_event_has_as_many_entries_as_the_domain_counts(tries in tries()) {
        let (history, _) = play(&tries);
        let store = Memory::default();
        let mut counts: BTreeMap<StreamName, u64> = BTreeMap::new();
        for recorded in history.events() {
            apply_batch(&store, std::slice::from_ref(recorded)).unwrap();
            if let Event::Build(event) = &recorded.event {
                let count = counts.entry(recorded.stream.clone()).or_default();
                let before = *count;
                *count += event.log_entry_count();
                prop_assert_eq!(lines(&store, &recorded.stream), *count, "{} after {}", event.name(), before);
            }
        }
    }
}

proptest! {
    // Each case opens a store on disk twice.
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_restart_in_the_middle_leaves_no_trace(
        tries in tries(),
        sizes in prop::collection::vec(1..9_usize, 0..20),
        restart in 0..60_usize,
    ) {
        let (history, _) = play(&tries);
        let folder = tempfile::tempdir().unwrap();
        let restart = restart.min(history.events().len());
        let (before, _) = history.events().split_at(restart);
        {
            let store = Embedded::open(folder.path(), EmbeddedLimits::default()).unwrap();
            apply(&store, before, &sizes);
            store.flush().unwrap();
        }
        let store = Embedded::open(folder.path(), EmbeddedLimits::default()).unwrap();
        let survived = store.checkpoint().unwrap().map(|checkpoint| checkpoint.position());
        prop_assert_eq!(survived, before.last().map(|recorded| recorded.position));
        // The first events are given again: the checkpoint leaves them out.
        apply(&store, history.events(), &sizes);
        prop_assert_eq!(dump(&store), replayed(&history));
    }
}
