//! What is shown of the past is what was shown then.

use domain::name::{Owner, TemplateRef};
use domain::ports::EventReader as _;
use domain::recorded::{Position, Recorded};
use domain::{Event, template};
use proptest::prelude::*;

use super::PastError;
use crate::builds::{BuildRow, BuildStatus};
use crate::limits::{Limits, QueryLimits};
use crate::projection::apply_batch;
use crate::properties::histories::{BUILDS, NAMES, TEMPLATES, play, tries};
use crate::runner::over;
use crate::store::memory::Memory;
use crate::templates::{Resolved, TemplateRow};
use crate::testing::{
    History, VecLog, build_id, logged, name, owner, reference, slug, tag, template_id,
};
use crate::views::Views;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

/// The views of the first events, folded as they always are.
fn views_of(events: &[Recorded<Event>]) -> Views {
    let store = std::sync::Arc::new(Memory::default());
    apply_batch(store.as_ref(), events).unwrap();
    over(store, &Limits::default()).unwrap().0
}

/// Every kind of reference, to each name and template that there is.
fn references() -> Vec<TemplateRef> {
    let names = NAMES.iter().chain(&["app-2"]);
    let mut texts: Vec<String> = names
        .flat_map(|name| {
            let suffixes = ["", ":default", ":v1", ":latest", ":x"];
            let plain = suffixes.map(|suffix| format!("{name}{suffix}"));
            plain.into_iter().chain([format!("acme/{name}:v2")])
        })
        .collect();
    texts.extend((1..=BUILDS).map(|build| format!("app-1:{}", build_id(build))));
    texts.extend((1..=TEMPLATES).map(|template| template_id(template).to_string()));
    texts.iter().map(|text| reference(text)).collect()
}

/// What a reference means, as far as it is told.
fn told(resolved: Option<Resolved>) -> Option<(TemplateRow, impl PartialEq + std::fmt::Debug)> {
    let Resolved { template, build } = resolved?;
    let BuildRow {
        build_id,
        tags,
        status,
        artifact,
        expired_at,
        runtime,
        oci,
        ..
    } = build;
    let build = (build_id, tags, status, artifact, expired_at, runtime, oci);
    Some((template, build))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_build_is_shown_as_a_view_of_the_prefix_shows_it(tries in tries(), cut in any::<prop::sample::Index>()) {
        let (history, _) = play(&tries);
        let events = history.events();
        let (prefix, _) = events.split_at(cut.index(events.len()) + 1);
        let until = prefix.last().unwrap().position;
        let (then, present, log) = (views_of(prefix), history.views(), VecLog::new(events));
        for number in 1..=BUILDS {
            let id = build_id(number);
            let Some(row) = present.build(&id).unwrap() else { continue };
            let past = block_on(present.build_at(&log, &row, until)).unwrap();
            prop_assert_eq!(past.status_snapshot(&id, 0).unwrap(), then.status_snapshot(&id, 0).unwrap());
            let template = &row.template_id;
            prop_assert_eq!(past.template(template).unwrap(), then.template(template).unwrap());
        }
    }

    #[test]
    fn a_reference_means_what_it_means_in_a_view_of_the_prefix(tries in tries(), cut in any::<prop::sample::Index>()) {
        let (history, _) = play(&tries);
        let events = history.events();
        let (prefix, _) = events.split_at(cut.index(events.len()) + 1);
        let until = prefix.last().unwrap().position;
        let (then, present, log) = (views_of(prefix), history.views(), VecLog::new(events));
        for (caller, reference) in [owner("acme"), owner("other")].iter().flat_map(|caller| {
            references().into_iter().map(move |reference| (caller, reference))
        }) {
            let past = block_on(present.reference_at(&log, caller, &reference, until)).unwrap();
            prop_assert_eq!(
                past.find(caller, &reference).unwrap(),
                then.find(caller, &reference).unwrap(),
                "{}", reference
            );
            prop_assert_eq!(
                told(past.resolve(caller, &reference).unwrap()),
                told(then.resolve(caller, &reference).unwrap()),
                "{}", reference
            );
        }
    }
}

/// A template whose name another one takes over after it was deleted.
fn taken_over() -> History {
    let mut history = History::default();
    history
        .name_taken("acme", "my-app", 1)
        .ready_build(1, 1, &["default"])
        .ready_build(2, 1, &["default"])
        .template(1, template::Event::Deleted {})
        .namespace(
            "acme",
            domain::namespace::Event::NameReleased {
                name: name("my-app"),
            },
        )
        .name_taken("acme", "my-app", 2)
        .ready_build(3, 2, &["default"]);
    history
}

fn meant(history: &History, caller: &Owner, text: &str, until: Position) -> Option<Resolved> {
    let log = VecLog::new(history.events());
    let (present, reference) = (history.views(), reference(text));
    let past = block_on(present.reference_at(&log, caller, &reference, until)).unwrap();
    past.resolve(caller, &reference).unwrap()
}

#[test]
fn a_name_that_was_taken_over_means_each_of_its_templates_in_its_time() {
    let history = taken_over();
    let acme = owner("acme");
    let mut changes: Vec<Option<u8>> = history
        .events()
        .iter()
        .map(|recorded| {
            let resolved = meant(&history, &acme, "my-app", recorded.position)?;
            (1..=3).find(|number| resolved.build.build_id == build_id(*number))
        })
        .collect();
    changes.dedup();
    assert_eq!(changes, [None, Some(1), Some(2), None, Some(3)]);
}

#[test]
fn before_the_first_event_there_is_nothing() {
    let history = taken_over();
    assert_eq!(
        meant(&history, &owner("acme"), "my-app", Position::START),
        None
    );
    let log = VecLog::new(history.events());
    let present = history.views();
    let row = present.build(&build_id(1)).unwrap().unwrap();
    let past = block_on(present.build_at(&log, &row, Position::START)).unwrap();
    assert_eq!(past.build(&build_id(1)).unwrap(), None);
}

#[test]
fn the_log_of_another_build_costs_nothing_and_a_bound_is_kept() {
    let mut history = History::default();
    history.name_taken("acme", "my-app", 1);
    history.build(1, crate::testing::requested(1, &["v1"]));
    history.build(1, crate::testing::started(1));
    for line in 0..100 {
        history.build(1, logged(3 + line, &["x"]));
    }
    history.ready_build(2, 1, &["v1"]);
    let (log, until) = (VecLog::new(history.events()), history.last().position);
    assert_eq!(until, log.head());
    let store = std::sync::Arc::new(Memory::default());
    apply_batch(store.as_ref(), history.events()).unwrap();
    let limits = Limits {
        query: QueryLimits {
            past_events_max: 20,
            ..QueryLimits::default()
        },
        ..Limits::default()
    };
    let (present, _runner) = over(store, &limits).unwrap();
    let row = |number| present.build(&build_id(number)).unwrap().unwrap();
    let past = block_on(present.build_at(&log, &row(2), until)).unwrap();
    assert_eq!(
        past.build(&build_id(2)).unwrap().unwrap().status,
        BuildStatus::Ready
    );
    let pointed = past.template(&template_id(1)).unwrap().unwrap();
    assert_eq!(pointed.namespace, slug("acme"));
    assert_eq!(pointed.tags[&tag("v1")].build_id, build_id(2));
    let refused = block_on(present.build_at(&log, &row(1), until));
    assert!(
        matches!(refused, Err(PastError::TooLong { events_max: 20 })),
        "{refused:?}"
    );
}
