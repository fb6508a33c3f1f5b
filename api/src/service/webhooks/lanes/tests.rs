use domain::ids::BuildId;
use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_unix_micros(1_700_000_000_000_000)
        .unwrap()
        .plus_millis(millis)
}

fn stream(number: u8) -> StreamName {
    StreamName::Build(BuildId::generate(at(0), [number; 10]))
}

fn key(number: u8) -> LaneKey {
    LaneKey::Stream(stream(number))
}

fn put(lanes: &mut Lanes, number: u8, version: u64) -> bool {
    lanes.put(&key(number), &stream(number), Version(version))
}

/// The numbers of the lanes that can be started now, with their next versions.
fn start_all(lanes: &mut Lanes, now: Timestamp) -> Vec<(LaneKey, u64)> {
    std::iter::from_fn(|| lanes.start(now))
        .map(|(key, lane)| (key, lane.next.0))
        .collect()
}

#[test]
fn one_event_of_a_stream_at_a_time_and_streams_side_by_side() {
    let mut lanes = Lanes::default();
    put(&mut lanes, 1, 0);
    put(&mut lanes, 1, 1);
    put(&mut lanes, 2, 4);
    assert_eq!(start_all(&mut lanes, at(0)), [(key(1), 0), (key(2), 4)]);
    lanes.passed(&key(2), Version(4), Version(5));
    assert_eq!(lanes.get(&key(2)), None);
    lanes.passed(&key(1), Version(0), Version(1));
    assert_eq!(start_all(&mut lanes, at(0)), [(key(1), 1)]);
    lanes.passed(&key(1), Version(1), Version(2));
    assert_eq!(lanes.count(), 0);
}

#[test]
fn a_failing_event_holds_back_its_own_stream_until_it_is_due() {
    let mut lanes = Lanes::default();
    put(&mut lanes, 1, 0);
    put(&mut lanes, 2, 0);
    start_all(&mut lanes, at(0));
    lanes.failed(&key(1), Version(0), Version(0), 1, at(50));
    lanes.passed(&key(2), Version(0), Version(1));
    put(&mut lanes, 1, 1);
    put(&mut lanes, 2, 1);
    assert_eq!(lanes.due(), Some(at(50)));
    assert_eq!(start_all(&mut lanes, at(49)), [(key(2), 1)]);
    assert_eq!(start_all(&mut lanes, at(50)), [(key(1), 0)]);
    assert_eq!(lanes.get(&key(1)).unwrap().attempts, 1);
}

#[test]
fn what_is_asked_for_again_while_a_later_event_is_under_way_is_not_passed_over() {
    let mut lanes = Lanes::default();
    put(&mut lanes, 1, 5);
    start_all(&mut lanes, at(0));
    assert!(put(&mut lanes, 1, 2));
    lanes.passed(&key(1), Version(5), Version(6));
    assert_eq!(start_all(&mut lanes, at(0)), [(key(1), 2)]);

    // The same if it failed: the try that follows is the first of another event.
    assert!(put(&mut lanes, 1, 1));
    lanes.failed(&key(1), Version(2), Version(2), 3, at(90));
    assert_eq!(start_all(&mut lanes, at(0)), [(key(1), 1)]);
    assert_eq!(lanes.get(&key(1)).unwrap().attempts, 0);
}

#[test]
fn what_is_asked_for_again_does_not_wait_for_the_next_try_of_another_event() {
    let mut lanes = Lanes::default();
    put(&mut lanes, 1, 5);
    start_all(&mut lanes, at(0));
    lanes.failed(&key(1), Version(5), Version(5), 1, at(1_000));
    assert!(put(&mut lanes, 1, 4));
    assert_eq!(start_all(&mut lanes, at(0)), [(key(1), 4)]);
    assert_eq!(lanes.due(), None);
}

#[test]
fn lanes_take_turns() {
    let mut lanes = Lanes::default();
    for version in 0..3 {
        put(&mut lanes, 1, version);
        put(&mut lanes, 2, version);
    }
    let mut turns = Vec::new();
    for _ in 0..6 {
        let (key, lane) = lanes.start(at(0)).unwrap();
        turns.push(key.clone());
        lanes.passed(&key, lane.next, lane.next.plus(1));
    }
    assert_eq!(turns, [1, 2, 1, 2, 1, 2].map(key));
}

#[test]
fn lanes_that_were_kept_go_on_where_they_were() {
    let mut lanes = Lanes::default();
    put(&mut lanes, 1, 0);
    put(&mut lanes, 2, 0);
    start_all(&mut lanes, at(0));
    lanes.failed(&key(1), Version(0), Version(0), 2, at(50));
    // The other one was under way when the service ended: nobody knows whether it was taken.
    let kept = [1, 2].map(|number| (key(number), lanes.get(&key(number)).unwrap().clone()));
    let mut lanes = Lanes::restored(kept);
    assert_eq!(start_all(&mut lanes, at(0)), [(key(2), 0)]);
    assert_eq!(start_all(&mut lanes, at(50)), [(key(1), 0)]);
    assert_eq!(lanes.get(&key(1)).unwrap().attempts, 2);
}

#[test]
fn the_text_of_a_lane_is_read_back() {
    let again = LaneKey::Again(Position::from_raw(42));
    for lane in [key(3), again, LaneKey::Stream("keys".parse().unwrap())] {
        assert_eq!(lane.to_string().parse(), Ok(lane));
    }
}

#[test]
fn waits_double_up_to_a_bound_and_vary_by_half() {
    let limits = Limits {
        webhook_backoff_ms_min: 100,
        webhook_backoff_ms_max: 1_000,
        ..Limits::default()
    };
    let waits = |random| {
        (1..6)
            .map(|n| backoff_ms(&limits, n, random))
            .collect::<Vec<_>>()
    };
    assert_eq!(waits(0), [50, 100, 200, 400, 500]);
    assert_eq!(waits(u32::MAX), [100, 200, 400, 800, 1_000]);
    assert_eq!(backoff_ms(&limits, u32::MAX, u32::MAX), 1_000);
}

/// Something that happens to a receiver of the events of three streams.
#[derive(Clone, Debug)]
enum Happening {
    Append(u8),
    Start,
    Answer(usize, bool),
    Replay(u8, u64),
    Restart,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let happening = prop_oneof![
        4 => (0..3_u8).prop_map(Happening::Append),
        4 => Just(Happening::Start),
        4 => (0..4_usize, any::<bool>()).prop_map(|(which, taken)| Happening::Answer(which, taken)),
        1 => (0..3_u8, 0..4_u64).prop_map(|(stream, back)| Happening::Replay(stream, back)),
        1 => Just(Happening::Restart),
    ];
    prop::collection::vec(happening, 0..120)
}

proptest! {
    #[test]
    fn every_event_is_taken_and_within_a_stream_none_before_an_earlier_one(
        happenings in happenings(),
    ) {
        let mut lanes = Lanes::default();
        let mut appended = [0_u64; 3];
        // Up to which version each stream's events were taken at least once.
        let mut taken = [0_u64; 3];
        let mut under_way: Vec<(LaneKey, Version)> = Vec::new();
        let mut now = at(0);
        let number = |key: &LaneKey| (0..3_u8).find(|n| self::key(*n) == *key).unwrap();
        let mut answer = |lanes: &mut Lanes, taken: &mut [u64; 3], key: LaneKey, began: Version, is_taken| {
            if is_taken {
                let until = &mut taken[usize::from(number(&key))];
                // At least once: again is right, ahead is not.
                assert!(began.0 <= *until, "{began:?} was sent before {until}");
                *until = (*until).max(began.0 + 1);
                lanes.passed(&key, began, began.plus(1));
            } else {
                lanes.failed(&key, began, began, 1, now.plus_millis(5));
            }
            now = now.plus_millis(5);
            now
        };
        let mut time = at(0);
        for happening in happenings {
            match happening {
                Happening::Append(stream) => {
                    let version = &mut appended[usize::from(stream)];
                    put(&mut lanes, stream, *version);
                    *version += 1;
                }
                Happening::Start => {
                    let started = lanes.start(time);
                    under_way.extend(started.map(|(key, lane)| (key, lane.next)));
                }
                Happening::Answer(which, is_taken) if which < under_way.len() => {
                    let (key, began) = under_way.swap_remove(which);
                    time = answer(&mut lanes, &mut taken, key, began, is_taken);
                }
                Happening::Answer(..) => {}
                Happening::Replay(stream, back) => {
                    let end = appended[usize::from(stream)];
                    for version in end.saturating_sub(back)..end {
                        put(&mut lanes, stream, version);
                    }
                }
                Happening::Restart => {
                    under_way.clear();
                    let kept = (0..3).filter_map(|n| Some((key(n), lanes.get(&key(n))?.clone())));
                    lanes = Lanes::restored(kept.collect::<Vec<_>>());
                }
            }
        }
        // The receiver recovers.
        for _ in 0..1_000 {
            while let Some((key, began)) = under_way.pop() {
                time = answer(&mut lanes, &mut taken, key, began, true);
            }
            time = time.plus_millis(5);
            under_way.extend(lanes.start(time).map(|(key, lane)| (key, lane.next)));
        }
        prop_assert_eq!(lanes.count(), 0);
        prop_assert_eq!(taken, appended);
    }
}
