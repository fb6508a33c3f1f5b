//! Events of builds, and the rows and lists that follow.

use domain::build::{BypassReason, Cancelled, Event as BuildEvent, RetryOf};
use domain::build::{CacheBypassed, CacheMissed, CacheStored, CancelRequested, RetryScheduled};
use domain::failure::FailureReason;

use super::*;
use crate::testing::{
    History, artifact, at, build_id, grown, key_id, layer, owner, request, requested, snapshot,
    started, step_failure, template_id,
};

fn row(history: &History, number: u8) -> BuildRow {
    history.views().build(&build_id(number)).unwrap().unwrap()
}

#[test]
fn a_request_waits_with_all_that_it_says() {
    let mut history = History::default();
    let mut request = request(1, &["v1"]);
    request.definition.source = Source::Dockerfile {
        text: "FROM x\n".into(),
        path: None,
        build_args: std::collections::BTreeMap::new(),
        target: None,
    };
    request.retry_of = Some(RetryOf {
        build: build_id(8),
        original: build_id(7),
    });
    history.build(1, BuildEvent::Requested(Box::new(request.clone())));
    let expected = BuildRow {
        build_id: build_id(1),
        template_id: template_id(1),
        owner: request.owner.clone(),
        namespace: request.namespace.clone(),
        name: request.name.clone(),
        tags: request.tags.clone(),
        status: BuildStatus::Waiting,
        backend: Backend::Native,
        source_type: SourceType::Declarative,
        source_digest: request.definition_digest,
        context_digest: None,
        dockerfile_digest: Some(Digest::of(b"FROM x\n")),
        triggered_by: Actor::Key { id: key_id() },
        config: request.definition.config,
        created_at: at(1_000),
        started_at: None,
        finished_at: None,
        updated_at: at(1_000),
        attempt: 0,
        max_attempts: 2,
        failure: None,
        cancel: None,
        cache: CacheSummary::default(),
        expired_at: None,
        purged_at: None,
        artifact: None,
        runtime: None,
        oci: None,
        retry_of: request.retry_of,
        next_offset: 1,
        requested: Position::from_raw(3),
        updated: Position::from_raw(3),
    };
    assert_eq!(row(&history, 1), expected);
}

#[test]
fn a_ready_build_has_what_it_made_and_how_long_it_took() {
    let mut history = History::default();
    history.ready_build(1, 1, &["default"]);
    let row = row(&history, 1);
    assert_eq!(row.status, BuildStatus::Ready);
    assert_eq!(row.artifact, Some(artifact(1)));
    assert_eq!(row.runtime, Some(snapshot(1).runtime));
    assert_eq!(row.oci, Some(OciMetadata::default()));
    assert_eq!(
        (row.started_at, row.finished_at),
        (Some(at(2_000)), Some(at(4_000)))
    );
    assert_eq!(row.duration_ms(), Some(2));
    assert_eq!(row.next_offset, 4);
    assert_eq!(row.updated, history.last().position);
}

#[test]
fn a_failed_attempt_waits_again_and_keeps_the_first_start() {
    let mut history = History::default();
    let failure = Failure::new(FailureReason::ImagePull, "503");
    history
        .build(1, requested(1, &["a"]))
        .build(1, started(1))
        .build(
            1,
            BuildEvent::RetryScheduled(RetryScheduled {
                attempt: 1,
                max_attempts: 2,
                failure,
            }),
        );
    let waiting = row(&history, 1);
    assert_eq!(
        (waiting.status, waiting.failure),
        (BuildStatus::Waiting, None)
    );
    history.build(1, started(2));
    let building = row(&history, 1);
    assert_eq!(
        (building.status, building.attempt),
        (BuildStatus::Building, 2)
    );
    assert_eq!(building.started_at, Some(at(2_000)));
    history.build(1, BuildEvent::Failed(step_failure()));
    let failed = row(&history, 1);
    assert_eq!(failed.status, BuildStatus::Error);
    assert_eq!(failed.failure, Some(step_failure()));
}

#[test]
fn a_build_that_is_being_cancelled_shows_as_building() {
    let mut history = History::default();
    history
        .build(1, requested(1, &["a"]))
        .build(1, started(1))
        .build(
            1,
            BuildEvent::CancelRequested(CancelRequested {
                by: "key_1".into(),
                reason: Some("why not".into()),
            }),
        );
    let cancelling = row(&history, 1);
    assert_eq!(cancelling.status, BuildStatus::Building);
    assert_eq!(
        cancelling.cancel,
        Some(Cancellation {
            at: at(3_000),
            by: "key_1".into(),
            reason: Some("why not".into())
        })
    );
    history.build(1, BuildEvent::Cancelled(Cancelled::default()));
    let cancelled = row(&history, 1);
    assert_eq!(cancelled.status, BuildStatus::Cancelled);
    assert_eq!(cancelled.finished_at, Some(at(4_000)));
}

#[test]
fn each_cache_is_counted_by_itself() {
    let mut history = History::default();
    let artifact = || build::CacheSubject {
        kind: CacheKind::FinalArtifact,
        ..layer(1, "x")
    };
    history
        .build(1, requested(1, &["a"]))
        .build(1, started(1))
        .build(
            1,
            BuildEvent::CacheMissed(CacheMissed {
                entry: artifact(),
                difference: None,
            }),
        )
        .build(1, BuildEvent::CacheHit(layer(1, "a")))
        .build(1, BuildEvent::CacheHit(layer(2, "b")))
        .build(
            1,
            BuildEvent::CacheBypassed(CacheBypassed {
                entry: layer(3, "c"),
                reason: BypassReason::ForceUpload,
            }),
        )
        .build(
            1,
            BuildEvent::CacheStored(CacheStored {
                entry: artifact(),
                bytes: 1,
            }),
        );
    let cache = row(&history, 1).cache;
    assert_eq!(
        cache.final_artifact,
        CacheCounts {
            misses: 1,
            stores: 1,
            ..CacheCounts::default()
        }
    );
    assert_eq!(
        cache.layer,
        CacheCounts {
            hits: 2,
            bypasses: 1,
            ..CacheCounts::default()
        }
    );
    assert_eq!(cache.file_blob, CacheCounts::default());
}

#[test]
fn files_that_are_told_in_one_sum_count_like_the_others() {
    let mut history = History::default();
    let file = build::CacheSubject {
        kind: CacheKind::FileBlob,
        ..layer(1, "a.txt")
    };
    let counted = build::FilesCounted {
        hits: 40,
        misses: 3,
        bypasses: 2,
        stores: 5,
    };
    history
        .build(1, requested(1, &["a"]))
        .build(1, started(1))
        .build(1, BuildEvent::CacheHit(file))
        .build(1, BuildEvent::FilesCounted(counted));
    let cache = row(&history, 1).cache;
    let expected = CacheCounts {
        hits: 41,
        misses: 3,
        bypasses: 2,
        stores: 5,
    };
    assert_eq!(cache.file_blob, expected);
    assert_eq!(cache.layer, CacheCounts::default());
}

fn ids(page: &Page<BuildRow>) -> Vec<BuildId> {
    page.items.iter().map(|row| row.build_id.clone()).collect()
}

#[test]
fn builds_of_a_template_come_newest_first_page_by_page() {
    let mut history = History::default();
    for number in 1..=5 {
        history.build(number, requested(1, &["a"]));
    }
    history.build(6, requested(2, &["a"]));
    let views = history.views();
    let list = |cursor, count_max| {
        views
            .builds_of_template(&template_id(1), &BuildFilter::default(), cursor, count_max)
            .unwrap()
    };
    let first = list(None, 2);
    assert_eq!(ids(&first), [build_id(5), build_id(4)]);
    let cursor: Cursor = first.next.unwrap().to_string().parse().unwrap();
    let second = list(Some(cursor), 2);
    assert_eq!(ids(&second), [build_id(3), build_id(2)]);
    let third = list(second.next, 2);
    assert_eq!((ids(&third), third.next), (vec![build_id(1)], None));
    let all = list(None, 5);
    assert_eq!((all.items.len(), all.next), (5, None));
    assert!("x".parse::<Cursor>().is_err());
}

#[test]
fn a_list_shows_only_what_its_filter_wants() {
    let mut history = History::default();
    history
        .ready_build(1, 1, &["a"])
        .build(2, requested(1, &["a"]))
        .ready_build(3, 1, &["a"]);
    let views = history.views();
    let list = |filter: BuildFilter| {
        let page = views.builds_of_template(&template_id(1), &filter, None, 10);
        ids(&page.unwrap())
    };
    let status = |status| BuildFilter {
        status: Some(status),
        ..BuildFilter::default()
    };
    assert_eq!(list(status(BuildStatus::Ready)), [build_id(3), build_id(1)]);
    assert_eq!(list(status(BuildStatus::Waiting)), [build_id(2)]);
    let mine = |text| BuildFilter {
        owner: Some(owner(text)),
        ..BuildFilter::default()
    };
    assert_eq!(list(mine("acme")).len(), 3);
    assert_eq!(list(mine("other")).len(), 0);
    let buildkit = BuildFilter {
        backend: Some(Backend::Buildkit),
        ..BuildFilter::default()
    };
    assert_eq!(list(buildkit).len(), 0);
    let imported = BuildFilter {
        source_type: Some(SourceType::OciImport),
        ..BuildFilter::default()
    };
    assert_eq!(list(imported).len(), 0);
}

#[test]
fn a_page_that_looks_at_too_many_rows_ends_early_and_goes_on() {
    let mut history = History::default();
    history.ready_build(1, 1, &["a"]);
    for number in 2..=9 {
        history.build(number, requested(1, &["a"]));
    }
    let mut views = history.views();
    views.limits.page_rows_scanned_max = 3;
    views.limits.scan_rows_max = 2;
    let filter = BuildFilter {
        status: Some(BuildStatus::Ready),
        ..BuildFilter::default()
    };
    let mut found = Vec::new();
    let mut cursor = None;
    for pages in 1.. {
        let page = views
            .builds_of_template(&template_id(1), &filter, cursor, 10)
            .unwrap();
        found.extend(ids(&page));
        cursor = page.next;
        if cursor.is_none() {
            assert_eq!(pages, 3);
            break;
        }
    }
    assert_eq!(found, [build_id(1)]);
}

#[test]
fn a_build_is_listed_under_its_present_status_only() {
    let mut history = History::default();
    history
        .build(1, requested(1, &["a"]))
        .build(2, requested(1, &["a"]))
        .build(2, started(1))
        .build(2, grown());
    let views = history.views();
    let list = |status| ids(&views.builds_by_status(status, None, 10).unwrap());
    assert_eq!(list(BuildStatus::Waiting), [build_id(1)]);
    assert_eq!(list(BuildStatus::Building), [build_id(2)]);
    assert_eq!(list(BuildStatus::Ready), []);
}

#[test]
fn an_event_without_a_request_is_left_out() {
    let mut history = History::default();
    history.build(1, started(1)).build(2, requested(1, &["a"]));
    let views = history.views();
    assert_eq!(views.build(&build_id(1)).unwrap(), None);
    assert!(views.build(&build_id(2)).unwrap().is_some());
    assert_eq!(views.applied(), history.last().position);
}
