//! A replay finds every row that the events do not make.

use std::path::Path;

use proptest::prelude::*;
use tokio::sync::watch;

use super::*;
use crate::properties::histories::{play, tries};
use crate::runner::over;
use crate::store::Changes;
use crate::store::memory::Memory;
use crate::testing::{History, VecLog, dump, logged, requested, started};

/// Small enough that a few rows are several comparisons.
fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.runner.compared_rows_max = 3;
    limits
}

fn views_of(history: &History) -> (Arc<Memory>, Views) {
    let store = Arc::new(Memory::default());
    apply_batch(store.as_ref(), history.events()).unwrap();
    let (views, _runner) = over(store.clone(), &limits()).unwrap();
    (store, views)
}

fn replay(history: &History, views: &Views, folder: &Path) -> Replay {
    let log = VecLog::new(history.events());
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let limits = limits();
    let replaying = views.replay(&log, folder, &limits);
    runtime.unwrap().block_on(replaying).unwrap()
}

proptest! {
    // Each case opens a store on disk.
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_view_is_what_the_events_make_of_it(tries in tries()) {
        let (history, _) = play(&tries);
        let (store, views) = views_of(&history);
        let folder = tempfile::tempdir().unwrap();
        let found = replay(&history, &views, folder.path());
        prop_assert_eq!(found.difference, None);
        prop_assert_eq!(found.row_count, u64::try_from(dump(store.as_ref()).len()).unwrap());
        prop_assert_eq!(found.position, history.last().position);
        prop_assert_eq!(found.event_count, u64::try_from(history.events().len()).unwrap());
    }
}

#[test]
fn a_row_that_was_changed_removed_or_added_is_named() {
    let mut history = History::default();
    history
        .name_taken("acme", "my-app", 1)
        .ready_build(1, 1, &["v1"]);
    let folder = tempfile::tempdir().unwrap();
    let rows = dump(views_of(&history).0.as_ref());
    let checks = |change: (Vec<u8>, Option<Vec<u8>>)| {
        let (store, views) = views_of(&history);
        let checkpoint = store.checkpoint().unwrap().unwrap();
        store
            .commit(&Changes::from_iter([change]), &checkpoint)
            .unwrap();
        replay(&history, &views, folder.path()).difference.unwrap()
    };
    for (key, value) in &rows {
        let mut other = value.clone();
        other.push(b' ');
        let changed = checks((key.clone(), Some(other)));
        assert_eq!(changed.key, key.escape_ascii().to_string());
        assert!(changed.present.is_some() && changed.replayed.is_some());
        assert_ne!(changed.present, changed.replayed);

        let removed = checks((key.clone(), None));
        assert_eq!((removed.key, removed.present), (changed.key, None));
        assert_eq!(removed.replayed, changed.replayed);

        let added = checks(([key.as_slice(), b"x"].concat(), Some(b"7".to_vec())));
        assert_eq!(added.present.as_deref(), Some("7"));
        assert_eq!(added.replayed, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_that_go_on_meanwhile_are_compared_all_the_same() {
    let mut history = History::default();
    history.name_taken("acme", "my-app", 1);
    history.build(1, requested(1, &["v1"]));
    history.build(1, started(1));
    let first = history.events().len();
    for line in 0..600 {
        let text = "x".repeat(200);
        history.build(1, logged(3 + line, &[&text]));
    }
    let log = Arc::new(VecLog::new(&history.events()[..first]));
    let (views, runner) = over(Arc::new(Memory::default()), &limits()).unwrap();
    let (stop, stopped) = watch::channel(false);
    let followed = Arc::clone(&log);
    let following = tokio::spawn(async move { runner.run(&*followed, stopped).await });
    let appended = Arc::clone(&log);
    let rest = history.events()[first..].to_vec();
    let appending = tokio::spawn(async move {
        for events in rest.chunks(3) {
            appended.append(events);
            tokio::task::yield_now().await;
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let mut positions = Vec::new();
    for _ in 0..5 {
        let found = views.replay(&*log, folder.path(), &limits()).await.unwrap();
        assert_eq!(found.difference, None);
        positions.push(found.position);
    }
    appending.await.unwrap();
    let head = history.last().position;
    let patience = std::time::Duration::from_mins(1);
    views.wait_for(head, patience).await.unwrap();
    let found = views.replay(&*log, folder.path(), &limits()).await.unwrap();
    assert_eq!((found.position, found.difference), (head, None));
    assert!(positions.is_sorted());
    stop.send_replace(true);
    following.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_applied_while_rows_are_compared() {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);
    let mut history = History::default();
    history.name_taken("acme", "my-app", 1);
    let log = Arc::new(VecLog::new(history.events()));
    let (views, runner) = over(Arc::new(Memory::default()), &limits()).unwrap();
    let (stop, stopped) = watch::channel(false);
    let followed = Arc::clone(&log);
    let following = tokio::spawn(async move { runner.run(&*followed, stopped).await });
    let first = history.last().position;
    views.wait_for(first, PATIENCE).await.unwrap();

    let turn = views.turn.lock().await;
    history.build(1, requested(1, &["v1"]));
    log.append(&history.events()[1..]);
    let second = history.last().position;
    // The clock goes on only when nobody has anything to do.
    views.wait_for(second, PATIENCE).await.unwrap_err();
    assert_eq!(views.applied(), first);
    drop(turn);
    views.wait_for(second, PATIENCE).await.unwrap();
    stop.send_replace(true);
    following.await.unwrap().unwrap();
}
