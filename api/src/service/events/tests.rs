use commands::limits::LogLimits;
use domain::ids::CommandId;
use domain::namespace;
use domain::ports::{Append, EventAppender as _};
use domain::recorded::{Actor, Version};
use domain::time::Timestamp;
use projections::limits::Limits as ViewLimits;

use super::*;

struct World {
    log: AnyLog,
    pages: Pages,
}

fn world(limits: &Limits) -> World {
    let log = AnyLog::memory(LogLimits::default());
    let (views, _) = projections::in_memory(&ViewLimits::default()).unwrap();
    let owners = Owners::new(log.clone(), views, 10);
    World {
        pages: Pages::new(log.clone(), owners, limits),
        log,
    }
}

impl World {
    /// Appends `count` events.
    async fn append(&self, count: u64) {
        let time = Timestamp::from_unix_micros(0).unwrap();
        for _ in 0..count {
            let released = namespace::Event::NameReleased {
                name: "app".parse().unwrap(),
            };
            let append = Append {
                stream: StreamName::Namespace("acme".parse().unwrap()),
                expected: Version(self.log.head().raw()),
                command_id: CommandId::generate(time, [0; 10]),
                actor: Actor::Operator,
                time,
                events: vec![released.into()],
            };
            self.log.append(append).await.unwrap();
        }
    }

    async fn page(&self, after: u64) -> Arc<Page> {
        let page = self.pages.behind(Position::from_raw(after), Form::Record);
        page.await.unwrap()
    }
}

fn positions(page: &Page) -> Vec<u64> {
    let entries = page.entries().iter();
    entries.map(|entry| entry.position.raw()).collect()
}

#[tokio::test]
async fn readers_at_one_position_share_a_page_and_others_do_not() {
    let world = world(&Limits::default());
    world.append(3).await;
    let (one, other) = tokio::join!(world.page(1), world.page(1));
    assert!(Arc::ptr_eq(&one, &other));
    assert_eq!(positions(&one), [2, 3]);
    assert_eq!(positions(&*world.page(0).await), [1, 2, 3]);
    let cloud = world
        .pages
        .behind(Position::from_raw(1), Form::Cloud)
        .await
        .unwrap();
    assert_ne!(cloud.entries()[0].json(), one.entries()[0].json());
}

#[tokio::test]
async fn a_page_that_was_read_before_the_log_went_on_is_still_right() {
    let world = world(&Limits::default());
    world.append(1).await;
    assert_eq!(positions(&*world.page(0).await), [1]);
    world.append(2).await;
    assert_eq!(positions(&*world.page(0).await), [1]);
    assert_eq!(positions(&*world.page(1).await), [2, 3]);
}

#[tokio::test]
async fn pages_are_bounded_in_events_and_bytes_and_few_are_kept() {
    let few = Limits {
        event_page_count_max: 2,
        kept_event_page_count_max: 3,
        ..Limits::default()
    };
    let by_count = world(&few);
    by_count.append(10).await;
    let first = by_count.page(0).await;
    assert_eq!(positions(&first), [1, 2]);
    for after in 0..9 {
        by_count.page(after).await;
        assert!(by_count.pages.kept.lock().unwrap().len() <= 3);
    }
    assert!(!Arc::ptr_eq(&first, &by_count.page(0).await));

    let small = Limits {
        event_page_bytes_max: 1,
        ..Limits::default()
    };
    let by_bytes = world(&small);
    by_bytes.append(2).await;
    assert_eq!(
        positions(&*by_bytes.page(0).await),
        [1],
        "one event always fits"
    );
}

#[tokio::test]
async fn a_frame_holds_position_type_and_event() {
    let world = world(&Limits::default());
    world.append(1).await;
    let page = world.page(0).await;
    let entry = &page.entries()[0];
    let frame = String::from_utf8(entry.frame().to_vec()).unwrap();
    let json = String::from_utf8(entry.json().to_vec()).unwrap();
    let expected = format!("id: 0000000000000001\nevent: NameReleased\ndata: {json}\n\n");
    assert_eq!(frame, expected);
    let read: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(read["data"], serde_json::json!({"name": "app"}));
}

#[tokio::test]
async fn a_reader_waits_for_what_is_not_there_yet_and_is_told_when_the_log_ends() {
    use futures_util::FutureExt as _;
    let world = world(&Limits::default());
    let mut waiting = Box::pin(world.page(0));
    assert!(waiting.as_mut().now_or_never().is_none());
    world.append(1).await;
    assert_eq!(positions(&*waiting.await), [1]);
    world.log.close().await.unwrap();
    let ended = world
        .pages
        .behind(Position::from_raw(1), Form::Record)
        .await;
    assert!(matches!(ended, Err(ApiError::Unavailable { .. })));
}
