//! Who waits, and in which order.

use domain::build::{Cancelled, Event as BuildEvent, RetryScheduled};
use domain::failure::{Failure, FailureReason};

use super::*;
use crate::testing::{History, at, build_id, owner, request, requested, started};

fn waiting(history: &History, text: &str) -> Vec<BuildId> {
    let queue = history.views().queue(&owner(text), 100).unwrap();
    queue.into_iter().map(|queued| queued.build_id).collect()
}

fn retry() -> BuildEvent {
    BuildEvent::RetryScheduled(RetryScheduled {
        attempt: 1,
        max_attempts: 2,
        failure: Failure::new(FailureReason::ImagePull, "503"),
    })
}

#[test]
fn builds_wait_in_order_for_each_owner() {
    let mut history = History::default();
    let mut of_other = request(2, &["a"]);
    of_other.owner = owner("other");
    history
        .build(1, requested(1, &["a"]))
        .build(2, BuildEvent::Requested(Box::new(of_other)))
        .build(3, requested(1, &["a"]))
        .build(4, requested(1, &["a"]))
        .build(3, started(1));
    assert_eq!(waiting(&history, "acme"), [build_id(1), build_id(4)]);
    assert_eq!(waiting(&history, "other"), [build_id(2)]);
    let views = history.views();
    for (number, place) in [
        (1, Some(1)),
        (2, Some(1)),
        (3, None),
        (4, Some(2)),
        (9, None),
    ] {
        let found = views.queue_position(&build_id(number)).unwrap();
        assert_eq!(found, place, "{number}");
    }
    assert_eq!(views.queue(&owner("acme"), 1).unwrap().len(), 1);
}

#[test]
fn a_repeated_attempt_waits_at_the_end() {
    let mut history = History::default();
    history
        .build(1, requested(1, &["a"]))
        .build(1, started(1))
        .build(2, requested(1, &["a"]))
        .build(1, retry());
    assert_eq!(waiting(&history, "acme"), [build_id(2), build_id(1)]);
    let queue = history.views().queue(&owner("acme"), 10).unwrap();
    assert_eq!(queue[1].since, at(4_000));
    history.build(1, started(2));
    assert_eq!(waiting(&history, "acme"), [build_id(2)]);
}

#[test]
fn a_build_that_is_over_leaves_nothing_behind() {
    let mut history = History::default();
    let failure = Failure::new(FailureReason::SecretsLost, "gone");
    history
        .build(1, requested(1, &["a"]))
        .build(1, BuildEvent::Cancelled(Cancelled::default()))
        .build(2, requested(1, &["a"]))
        .build(2, BuildEvent::Failed(failure));
    assert_eq!(waiting(&history, "acme"), []);
    let views = history.views();
    assert_eq!(views.queue_position(&build_id(1)).unwrap(), None);
    let left = Scan::below(&Key::table("queue/place"), 10);
    assert_eq!(views.scan(&left).unwrap(), []);
}
