//! What holds of all views, for random histories that the rules of the domain allow.

pub(crate) mod histories;

use std::collections::BTreeMap;

use domain::Event;
use domain::build::Build;
use domain::recorded::{Recorded, StreamName};
use domain::webhook::Webhook;
use proptest::prelude::*;

use histories::{NAMES, TEMPLATES, play, play_all, tries};

use crate::builds::BuildStatus;
use crate::key::Key;
use crate::limits::EmbeddedLimits;
use crate::logs::LogKind;
use crate::projection::apply_batch;
use crate::store::embedded::Embedded;
use crate::store::memory::Memory;
use crate::store::{Row, Scan, ViewStore};
use crate::testing::{
    History, at, build_id, dump, name, owner, reference, template_id, webhook_id,
};
use crate::timeline::Timeline;
use crate::timeline::tests::adds_up;

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
    fn the_time_of_a_build_is_told_whole(tries in tries(), now in 0..500_i64) {
        let (history, states) = play(&tries);
        let views = history.views();
        for number in states.keys() {
            let id = build_id(*number);
            let Some(row) = views.build(&id).unwrap() else { continue };
            let outline = views.outline(&row).unwrap();
            let timeline = Timeline::of(&row, &outline, at(now * 1_000));
            adds_up(&timeline)?;
            let attempts: Vec<u32> = timeline.attempts.iter().map(|attempt| attempt.number).collect();
            prop_assert_eq!(attempts, (1..=row.attempt).collect::<Vec<_>>());
            if let Some(finished_at) = row.finished_at {
                let whole: u64 = timeline.segments.iter().map(|segment| segment.span.micros()).sum();
                prop_assert_eq!(whole, finished_at.micros_since(row.created_at));
            }
        }
    }

    #[test]
    fn a_name_means_the_template_that_goes_by_it(tries in tries()) {
        let played = play_all(&tries);
        let views = played.history.views();
        for text in NAMES.into_iter().chain(["app-2"]) {
            let goes_by = (1..=TEMPLATES).find_map(|number| {
                let first = name(&format!("app-{number}"));
                let template = played.templates.get(&number).cloned().unwrap_or_default();
                let version = template.version()?;
                template
                    .goes_by(&name(text), &first)
                    .then(|| (template_id(number), version))
            });
            let found = views.find(&owner("acme"), &reference(text)).unwrap();
            prop_assert_eq!(found.map(|row| (row.id, row.version)), goes_by, "{}", text);
        }
    }

    #[test]
    fn a_webhook_is_what_its_stream_says(tries in tries()) {
        let played = play_all(&tries);
        let views = played.history.views();
        for (number, state) in &played.webhooks {
            let row = views.webhook(&webhook_id(*number)).unwrap();
            let live = match state {
                Webhook::Live(live) => Some(live.as_ref()),
                Webhook::Absent | Webhook::Deleted => None,
            };
            prop_assert_eq!(row.as_ref().map(|row| &row.live), live);
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
