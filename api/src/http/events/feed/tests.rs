//! A subscription over a log in memory, with a clock that goes on only when nothing else does.

mod world;

use futures_util::StreamExt as _;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use world::{Frame, Plan, Reader, World};

const KEEPALIVE_PAUSE: Duration = Duration::from_secs(5);

fn bounds(frame_count_max: usize) -> Bounds {
    Bounds {
        keepalive: KEEPALIVE_PAUSE,
        patience: Duration::from_secs(30),
        frame_count_max,
    }
}

/// How a reader reads: how many frames until the connection breaks, again and again.
fn breaks() -> impl Strategy<Value = Vec<usize>> {
    vec(0..12_usize, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever is subscribed to, wherever connections break, and whatever is appended meanwhile: a
    /// reader gets each event that is for it once and in order, and none of anybody else's.
    #[test]
    fn every_event_that_is_asked_for_comes_once_and_in_order(
        plan in Plan::any(),
        wanted in world::wanted(),
        breaks in breaks(),
        frame_count_max in 1..4_usize,
        form in prop_oneof![Just(Form::Record), Just(Form::Cloud)],
    ) {
        let runtime = world::paused_runtime();
        let (got, expected) = runtime.block_on(async {
            let world = World::start();
            let filter = World::filter(&wanted, &plan);
            let appending = world.append_all(plan.clone());
            let mut reader = Reader::new(&world, filter.clone(), form, bounds(frame_count_max));
            for count in breaks {
                reader.read(count).await;
            }
            appending.await.unwrap();
            reader.read_to(world.pages.head()).await;
            let (got, expected) = (reader.positions, world.expected(&filter).await);
            world.stop().await;
            (got, expected)
        });
        prop_assert_eq!(got, expected);
    }

    /// An answer that does not follow holds what the log held when it was asked for.
    #[test]
    fn an_answer_that_does_not_follow_ends_at_the_head_that_it_was_asked_at(
        plan in Plan::any(),
        later in Plan::any(),
        wanted in world::wanted(),
    ) {
        let runtime = world::paused_runtime();
        let (got, expected, ended_at, head) = runtime.block_on(async {
            let world = World::start();
            let filter = World::filter(&wanted, &plan);
            world.append_all(plan.clone()).await.unwrap();
            let head = world.pages.head();
            let expected = world.expected(&filter).await;
            let frames = open(world.subscription(filter, Position::START, Some(head), bounds(2)), ());
            let appending = world.append_all(later.after(&plan));
            let frames: Vec<Frame> = frames.map(|frame| Frame::parse(&frame.unwrap())).collect().await;
            appending.await.unwrap();
            world.stop().await;
            let ended_at = frames.last().and_then(|frame| frame.id);
            let got: Vec<Position> = frames.iter().filter_map(Frame::event).collect();
            (got, expected, ended_at, head)
        });
        prop_assert_eq!(got, expected);
        if head > Position::START {
            prop_assert_eq!(ended_at, Some(head));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_dropped_and_holds_nobody_up() {
    let world = World::start();
    let build = world.request("acme").await;
    let filter = || Filter::all_of("acme".parse().unwrap());
    let subscribe = || {
        Box::pin(open(
            world.subscription(filter(), world.pages.head(), None, bounds(4)),
            (),
        ))
    };
    let (mut fast, mut slow) = (subscribe(), subscribe());
    let since = Instant::now();
    let mut positions = Vec::new();
    for _ in 0..100 {
        world.step(&build).await;
        let frame = Frame::parse(&fast.next().await.unwrap().unwrap());
        positions.push(frame.event().unwrap());
    }
    assert_eq!(
        since.elapsed(),
        Duration::ZERO,
        "the fast reader has waited"
    );

    // The slow one has the frames that fitted into its queue, and then its last one.
    tokio::time::sleep(bounds(4).patience + Duration::from_millis(1)).await;
    let mut left = Vec::new();
    while let Some(frame) = slow.next().await {
        left.push(Frame::parse(&frame.unwrap()));
        assert!(left.len() <= 100, "it goes on");
    }
    let last = left.pop().unwrap();
    assert_eq!(last.name.as_deref(), Some("dropped"), "{last:?}");
    let got: Vec<Position> = left.iter().filter_map(Frame::event).collect();
    assert_eq!(got, positions[..4]);
    assert_eq!(last.id, Some(positions[3]));
    let data: Value = serde_json::from_str(last.data.as_deref().unwrap()).unwrap();
    assert_eq!(data["position"], WirePosition(positions[3]).to_string());
    assert_eq!(data["reason"], "slow_reader");

    // It goes on from there.
    let subscription = world.subscription(
        filter(),
        last.id.unwrap(),
        Some(world.pages.head()),
        bounds(4),
    );
    let rest: Vec<Position> = open(subscription, ())
        .filter_map(|frame| async move { Frame::parse(&frame.unwrap()).event() })
        .collect()
        .await;
    assert_eq!(rest, positions[4..]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_a_frame_in_time_is_not_dropped() {
    let world = World::start();
    let build = world.request("acme").await;
    let filter = Filter::all_of("acme".parse().unwrap());
    let subscription = world.subscription(filter, world.pages.head(), None, bounds(1));
    let mut frames = Box::pin(open(subscription, ()));
    for _ in 0..6 {
        world.step(&build).await;
    }
    for _ in 0..6 {
        tokio::time::sleep(bounds(1).patience * 9 / 10).await;
        let frame = Frame::parse(&frames.next().await.unwrap().unwrap());
        assert!(frame.event().is_some(), "{frame:?}");
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_lets_nothing_through_still_advances() {
    let world = World::start();
    let build = world.request("other").await;
    let filter = Filter::all_of("acme".parse().unwrap());
    let subscription = world.subscription(filter, Position::START, None, bounds(4));
    let mut frames = Box::pin(open(subscription, ()));
    let mut next = async || Frame::parse(&frames.next().await.unwrap().unwrap());
    for _ in 0..2 {
        let since = Instant::now();
        let heartbeat = next().await;
        assert_eq!(heartbeat.name.as_deref(), Some("heartbeat"));
        assert_eq!(heartbeat.id, Some(world.pages.head()));
        assert!(since.elapsed() <= KEEPALIVE_PAUSE, "{:?}", since.elapsed());
        // Where nothing was read, there is nothing to say.
        let comment = next().await;
        assert_eq!(comment, Frame::default());
        assert!(since.elapsed() >= KEEPALIVE_PAUSE);
        world.step(&build).await;
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_ends_with_the_service_also_where_its_reader_takes_nothing() {
    let world = World::start();
    let build = world.request("acme").await;
    let filter = Filter::all_of("acme".parse().unwrap());
    for count in [1, 100] {
        let mut subscription = world.subscription(filter.clone(), Position::START, None, bounds(1));
        subscription.stopping = CancellationToken::new();
        let stopping = subscription.stopping.clone();
        let frames = open(subscription, ());
        for _ in 0..count {
            world.step(&build).await;
        }
        tokio::task::yield_now().await;
        stopping.cancel();
        let since = Instant::now();
        let names: Vec<Frame> = frames
            .map(|frame| Frame::parse(&frame.unwrap()))
            .collect()
            .await;
        assert!(
            names.iter().all(|frame| frame.event().is_some()),
            "{names:?}"
        );
        assert_eq!(since.elapsed(), Duration::ZERO);
    }
    world.stop().await;
}
