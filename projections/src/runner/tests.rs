//! The runner over a log that grows, fails, or is another one.

use std::time::Duration;

use domain::Digest;
use domain::recorded::StreamName;
use tokio::task::JoinHandle;

use super::*;
use crate::builds::BuildStatus;
use crate::limits::EmbeddedLimits;
use crate::logs::{FollowError, LogKind};
use crate::store::embedded::Embedded;
use crate::store::memory::Memory;
use crate::store::{Changes, Row, Scan};
use crate::testing::{History, VecLog, build_id, dump, grown, requested, snapshotted, started};
use crate::views::Stalled;

/// Long enough that only a defect reaches it.
const DEADLINE: Duration = Duration::from_secs(30);

fn limits() -> Limits {
    Limits {
        runner: RunnerLimits {
            batch_events_max: 3,
            retry_pause_ms_min: 1,
            retry_pause_ms_max: 2,
            read_failures_max: 5,
            ..RunnerLimits::default()
        },
        ..Limits::default()
    }
}

struct Running {
    views: Views,
    store: Arc<dyn ViewStore>,
    log: Arc<VecLog>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    fn start(store: Arc<dyn ViewStore>, log: VecLog) -> Self {
        let (views, runner) = over(Arc::clone(&store), &limits()).unwrap();
        let (stop, stopped) = watch::channel(false);
        let log = Arc::new(log);
        let followed = Arc::clone(&log);
        let task = tokio::spawn(async move { runner.run(followed.as_ref(), stopped).await });
        Self {
            views,
            store,
            log,
            stop,
            task,
        }
    }

    async fn reached(&self, position: Position) {
        self.views.wait_for(position, DEADLINE).await.unwrap();
    }

    /// Waits until the views are elsewhere than at `position`.
    async fn moved(&self, position: Position) {
        let moved = tokio::time::timeout(DEADLINE, self.views.changed(position));
        moved.await.unwrap().unwrap();
    }

    async fn stop(self) -> Result<(), RunError> {
        self.stop.send_replace(true);
        self.ended().await
    }

    async fn ended(self) -> Result<(), RunError> {
        let ended = tokio::time::timeout(DEADLINE, self.task);
        ended.await.unwrap().unwrap()
    }
}

fn memory() -> Arc<Memory> {
    Arc::new(Memory::default())
}

fn history() -> History {
    let mut history = History::default();
    history.name_taken("acme", "my-app", 1);
    for number in 1..6 {
        history.ready_build(number, 1, &["default"]);
    }
    history
}

fn replayed(history: &History) -> Vec<Row> {
    let store = Memory::default();
    apply_batch(&store, history.events()).unwrap();
    dump(&store)
}

#[tokio::test]
async fn the_views_follow_the_log_and_stop_when_asked() {
    let history = history();
    let (old, new) = history.events().split_at(10);
    let running = Running::start(memory(), VecLog::new(old));
    running.reached(old.last().unwrap().position).await;
    running.log.append(new);
    running.reached(history.last().position).await;
    assert_eq!(running.views.applied(), history.last().position);
    assert_eq!(dump(running.store.as_ref()), replayed(&history));
    let views = running.views.clone();
    running.stop().await.unwrap();
    let later = Position::from_raw(u64::MAX);
    let stalled = views.wait_for(later, DEADLINE).await;
    assert_eq!(stalled, Err(Stalled::Stopped));
    // What was reached stays reached.
    let reached = views.wait_for(history.last().position, DEADLINE).await;
    assert_eq!(reached, Ok(()));
}

#[tokio::test]
async fn a_wait_for_what_does_not_come_ends_at_its_deadline() {
    let history = history();
    let running = Running::start(memory(), VecLog::new(history.events()));
    running.reached(history.last().position).await;
    let wanted = Position::from_raw(u64::MAX);
    let stalled = running
        .views
        .wait_for(wanted, Duration::from_millis(1))
        .await;
    let behind = Stalled::Behind {
        wanted,
        applied: history.last().position,
        waited_ms: 1,
    };
    assert_eq!(stalled, Err(behind));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_log_that_fails_for_a_while_is_asked_again() {
    let history = history();
    let away = || LogError::Unavailable(Arc::new(std::io::Error::other("away")));
    let log = VecLog::new(history.events()).failing(4, away);
    let running = Running::start(memory(), log);
    running.reached(history.last().position).await;
    assert_eq!(running.log.failures_left(), 0);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_log_that_keeps_failing_ends_the_runner() {
    let away = || LogError::Unavailable(Arc::new(std::io::Error::other("away")));
    let log = VecLog::new(history().events()).failing(100, away);
    let running = Running::start(memory(), log);
    let log = Arc::clone(&running.log);
    let ended = running.ended().await;
    assert!(
        matches!(ended, Err(RunError::Log(LogError::Unavailable(_)))),
        "{ended:?}"
    );
    assert_eq!(log.failures_left(), 95);
}

#[tokio::test]
async fn a_damaged_log_is_not_asked_again() {
    let damaged = || LogError::Damaged {
        place: "event 7".into(),
        what: "the hash differs".into(),
    };
    let log = VecLog::new(history().events()).failing(100, damaged);
    let running = Running::start(memory(), log);
    let log = Arc::clone(&running.log);
    let ended = running.ended().await;
    assert!(
        matches!(ended, Err(RunError::Log(LogError::Damaged { .. }))),
        "{ended:?}"
    );
    assert_eq!(log.failures_left(), 99);
}

#[tokio::test]
async fn views_on_disk_go_on_where_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let history = history();
    let (old, _) = history.events().split_at(10);
    let open = || Arc::new(Embedded::open(folder.path(), EmbeddedLimits::default()).unwrap());
    let running = Running::start(open(), VecLog::new(old));
    running.reached(old.last().unwrap().position).await;
    running.stop().await.unwrap();

    let running = Running::start(open(), VecLog::new(history.events()));
    assert!(running.views.applied() >= old.last().unwrap().position);
    running.reached(history.last().position).await;
    assert_eq!(dump(running.store.as_ref()), replayed(&history));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn rows_of_another_revision_are_thrown_away() {
    let store = memory();
    let history = history();
    let garbage: Changes = [(b"builds/row\0x".to_vec(), Some(b"old".to_vec()))].into();
    apply_batch(store.as_ref(), history.events()).unwrap();
    let mut checkpoint = store.checkpoint().unwrap().unwrap();
    checkpoint.revisions = checkpoint.revisions.replace("logs=", "logs=0");
    assert_ne!(checkpoint.revisions, revisions());
    store.commit(&garbage, &checkpoint).unwrap();

    let (views, _runner) = over(Arc::<Memory>::clone(&store), &limits()).unwrap();
    assert_eq!(views.applied(), Position::START);
    assert_eq!(dump(store.as_ref()), Vec::<Row>::new());
    let running = Running::start(store, VecLog::new(history.events()));
    running.reached(history.last().position).await;
    assert_eq!(dump(running.store.as_ref()), replayed(&history));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn views_of_another_log_are_thrown_away() {
    let store = memory();
    let mut other = History::default();
    other.build(7, requested(1, &["a"])).build(7, started(1));
    apply_batch(store.as_ref(), other.events()).unwrap();
    let history = history();
    let running = Running::start(store, VecLog::new(history.events()));
    running.reached(history.last().position).await;
    assert_eq!(dump(running.store.as_ref()), replayed(&history));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn views_of_a_log_that_was_rewritten_are_thrown_away() {
    let store = memory();
    let history = history();
    apply_batch(store.as_ref(), history.events()).unwrap();
    let mut rewritten = history.events().to_vec();
    rewritten.last_mut().unwrap().hash = Digest::ZERO;
    rewritten.last_mut().unwrap().time = crate::testing::at(999_000);
    let running = Running::start(store, VecLog::new(&rewritten));
    running.moved(history.last().position).await;
    running.reached(history.last().position).await;
    let row = running.views.build(&build_id(5)).unwrap().unwrap();
    assert_eq!(row.updated_at, crate::testing::at(999_000));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_row_that_cannot_be_read_makes_the_views_anew() {
    let history = history();
    let running = Running::start(memory(), VecLog::new(history.events()));
    let last = history.last().position;
    running.reached(last).await;
    let (key, _) = first_row(running.store.as_ref(), "builds/row");
    let checkpoint = running.store.checkpoint().unwrap().unwrap();
    let garbage: Changes = [(key, Some(b"{".to_vec()))].into();
    running.store.commit(&garbage, &checkpoint).unwrap();

    let read = running.views.build(&build_id(1));
    assert!(matches!(read, Err(StoreError::Row { .. })), "{read:?}");
    running.moved(last).await;
    running.reached(last).await;
    assert_eq!(dump(running.store.as_ref()), replayed(&history));
    running.stop().await.unwrap();
}

fn first_row(store: &dyn ViewStore, table: &'static str) -> Row {
    let scan = Scan::below(&crate::Key::table(table), 1);
    store.scan(&scan).unwrap().remove(0)
}

#[tokio::test]
async fn a_follower_sees_each_entry_once_up_to_the_end() {
    let mut history = History::default();
    history.build(1, requested(1, &["a"]));
    let running = Running::start(memory(), VecLog::new(history.events()));
    let views = running.views.clone();
    let follower = tokio::spawn(async move {
        let mut entries = Vec::new();
        loop {
            let next = u64::try_from(entries.len()).unwrap();
            entries.extend(views.wait_entries(&build_id(1), next, 2).await.unwrap());
            if entries.last().unwrap().kind.is_terminal() {
                return entries;
            }
        }
    });
    for event in [started(1), grown(), snapshotted(1)] {
        let count = history.events().len();
        history.build(1, event);
        running.log.append(&history.events()[count..]);
        running.reached(history.last().position).await;
    }
    let entries = tokio::time::timeout(DEADLINE, follower)
        .await
        .unwrap()
        .unwrap();
    let offsets: Vec<_> = entries.iter().map(|entry| entry.offset).collect();
    assert_eq!(offsets, [0, 1, 2, 3]);
    assert_eq!(entries[3].kind, LogKind::End);
    let row = running.views.build(&build_id(1)).unwrap().unwrap();
    assert_eq!(row.status, BuildStatus::Ready);

    let views = running.views.clone();
    running.stop().await.unwrap();
    let none = views.wait_entries(&build_id(1), 4, 2).await;
    assert!(
        matches!(none, Err(FollowError::Stalled(Stalled::Stopped))),
        "{none:?}"
    );
}

#[tokio::test]
async fn events_of_other_streams_move_the_position_on() {
    let mut history = History::default();
    let id = crate::testing::key_id();
    history.record(
        StreamName::Keys,
        Event::Keys(domain::keys::Event::KeyRevoked { id }),
    );
    let running = Running::start(memory(), VecLog::new(history.events()));
    running.reached(history.last().position).await;
    assert_eq!(dump(running.store.as_ref()), Vec::<Row>::new());
    running.stop().await.unwrap();
}
