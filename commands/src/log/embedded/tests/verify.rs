//! Whatever was done to a log, `verify` names each event that it was done to.

use std::path::Path;

use domain::Digest;
use domain::ports::EventAppender;

use super::damage::forge;
use super::{copy, open_in, open_sled, write};
use crate::codec::Envelope;
use crate::log::contract::{append, limits, stream};
use crate::log::embedded::pack::key;
use crate::log::embedded::salvage;
use crate::log::embedded::verify;
use crate::log::survey::{Damage, Damages, Place};

/// What is wrong with a closed log: one line each.
async fn damages(dir: &Path) -> Vec<String> {
    let found = verify(dir, limits()).await.unwrap();
    let line = |damage: &Damage| format!("{}: {}", damage.place, damage.what);
    let lines: Vec<String> = found.damages.kept.iter().map(line).collect();
    assert_eq!(u64::try_from(lines.len()).unwrap(), found.damages.count);
    lines
}

const UNLINKED: &str = "its hash does not follow from it and the event before it in its stream";

fn event(number: u64) -> String {
    // As `write` numbers them.
    let (stream, version) = (stream((number - 1) % 7), (number - 1) / 7);
    format!("event {number} ({stream}, version {version})")
}

/// The damages after `change` was done to the events of a log of 30, which are written anew.
async fn after(change: impl FnOnce(&mut Vec<Envelope>)) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0, 30).await;
    forge(folder.path(), change);
    damages(folder.path()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_wrong_with_what_was_written() {
    assert_eq!(after(|_| {}).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_changed_event_is_named_and_not_those_that_link_to_it() {
    let changed = after(|all| {
        all[9].payload[40] ^= 1;
        all[11].time = all[8].time;
        all[20].hash = Digest::of(b"another");
    });
    let wanted = [10, 12, 21].map(|number| format!("{}: {UNLINKED}", event(number)));
    assert_eq!(changed.await, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_event_is_named_with_its_stream() {
    let goes_on = "the stream goes on with version 1, which is missing";
    let wanted = [
        "event 10: it is missing".to_owned(),
        format!("{}: {goes_on}", event(17)),
    ];
    // In the middle of a value.
    assert_eq!(after(|all| drop(all.remove(9))).await, wanted);
    // One at a time, each event has its own value.
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0, 30).await;
    {
        let db = open_sled(folder.path());
        assert!(db.remove(key(10, 0)).unwrap().is_some());
        db.flush().unwrap();
    }
    assert_eq!(damages(folder.path()).await, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_of_a_swapped_pair_is_named_and_nothing_else() {
    let swapped = after(|all| all.swap(9, 16)).await;
    let there = |one, other| format!("{}: event {other} stands there", event(one));
    assert_eq!(swapped, [there(10, 17), there(17, 10)]);

    // Whole values of sled.
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0, 30).await;
    {
        let db = open_sled(folder.path());
        let (one, other) = (key(10, 0), key(24, 0));
        let value = db.get(&one).unwrap().unwrap();
        let replaced = db.insert(&other, value).unwrap().unwrap();
        db.insert(&one, replaced).unwrap();
        db.flush().unwrap();
    }
    assert_eq!(damages(folder.path()).await, [there(10, 24), there(24, 10)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_that_was_swapped_with_its_numbers_is_named() {
    // Of one stream: versions are out of order.
    let of_one = after(|all| {
        all.swap(9, 16);
        (all[9].seq, all[16].seq) = (10, 17);
    });
    let named = of_one.await;
    assert_eq!(named.len(), 2, "{named:#?}");
    assert!(named[0].starts_with("event 10 (build-"), "{named:#?}");
    assert!(named[1].starts_with("event 17 (build-"), "{named:#?}");
    // Of two streams: every chain holds, and the anchor knows better.
    let of_two = after(|all| {
        all.swap(9, 10);
        (all[9].seq, all[10].seq) = (10, 11);
    });
    let named = of_two.await;
    assert_eq!(named.len(), 1, "{named:#?}");
    assert!(named[0].contains("stand in another order"), "{named:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_tail_is_named_by_its_first_and_last_event() {
    let cut = after(|all| all.truncate(24)).await;
    let wanted = "event 25: the log ends with event 24, but events up to 30 were written: \
                  6 are missing";
    assert_eq!(cut, [wanted]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_within_a_value_names_its_event_and_leaves_the_others_readable() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0, 30).await;
    forge(folder.path(), |_| {});
    let frames = {
        let db = open_sled(folder.path());
        let (first, value) = db.iter().next().unwrap().unwrap();
        let mut value = value.to_vec();
        // The second event's payload: behind the first frame and the head of its own.
        let length = u32::from_le_bytes(value[1..5].try_into().unwrap());
        let at = 1 + 4 + usize::try_from(length).unwrap() + 300;
        value[at] ^= 1;
        db.insert(first, value.clone()).unwrap();
        db.flush().unwrap();
        value
    };
    assert!(frames.len() > 1_000);
    let named = damages(folder.path()).await;
    assert!(
        named[0].starts_with("event 2: the frame's checksum is"),
        "{named:#?}"
    );
    let goes_on = "the stream goes on with version 0, which is missing";
    assert_eq!(named[1..], [format!("{}: {goes_on}", event(9))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_in_use_is_verified_as_far_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0, 30).await;
    let log = open_in(folder.path()).await;
    let appended = append(&stream(0), 5, 30, &["one more"]);
    EventAppender::append(&log, appended).await.unwrap();
    let found = log.verify().await.unwrap();
    assert!(found.damages.is_empty(), "{found:?}");
    assert_eq!((found.event_count, found.stream_count), (31, 7));
    log.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_damages_are_told_than_are_wanted_and_all_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0, 30).await;
    forge(folder.path(), |all| {
        for envelope in all {
            envelope.payload[40] ^= 1;
        }
    });
    let few = crate::limits::LogLimits {
        damages_max: 3,
        ..limits()
    };
    let found = verify(folder.path(), few).await.unwrap();
    assert_eq!((found.damages.kept.len(), found.damages.count), (3, 30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_was_changed_in_the_file_is_named_whatever_the_engine_makes_of_it() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 0, 1_500).await;
    let whole = std::fs::read(folder.path().join("db")).unwrap();
    for number in [3_u64, 400, 701, 1_100, 1_499] {
        let copied = copy(folder.path());
        // Wherever the engine keeps it.
        let needle = format!("\"text\":\"{number} some text");
        let mut flipped = whole.clone();
        let places = whole.windows(needle.len()).enumerate();
        for (at, _) in places.filter(|(_, window)| *window == needle.as_bytes()) {
            flipped[at] ^= 1;
        }
        assert_ne!(flipped, whole, "{needle}");
        std::fs::write(copied.path().join("db"), flipped).unwrap();
        let found = verify(copied.path(), limits()).await.unwrap().damages;
        let seq = number + 1;
        let mut lost = Damages::up_to(100);
        salvage::missing(copied.path(), 1_500, &mut lost).unwrap();
        let nowhere = "it stands nowhere in the file as it was written";
        assert_eq!(lost.kept, [Damage::new(Place::seq(seq), nowhere)]);
        match &found.kept[0].place {
            // Only that one is lost, though the engine gave up on all of them.
            Place::File(_) => {
                assert_eq!(found.kept[1..], lost.kept, "{found:#?}");
            }
            // The engine left out what it could not read, and perhaps what follows.
            Place::Event { seq: first, .. } => {
                assert!(first.is_some_and(|first| first <= seq), "{seq}: {found:#?}");
            }
            Place::Export => panic!("{found:#?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_every_size_are_found_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_in(folder.path()).await;
    for (size, number) in [1, 3_000, 4_100, 9_000, 250_000, 1].into_iter().zip(0..) {
        let text = "x".repeat(size);
        let appended = append(&stream(number), 0, number, &[&text]);
        EventAppender::append(&log, appended).await.unwrap();
    }
    log.close().await.unwrap();
    let mut lost = Damages::up_to(100);
    salvage::missing(folder.path(), 7, &mut lost).unwrap();
    let nowhere = "it stands nowhere in the file as it was written";
    assert_eq!(lost.kept, [Damage::new(Place::seq(7), nowhere)]);
}
