//! What every store must do, checked on each of them.

use domain::Digest;
use domain::recorded::{Position, StreamName, Version};

use super::embedded::Embedded;
use super::memory::Memory;
use super::{Changes, Checkpoint, LastEvent, Scan, ViewStore};
use crate::key::Key;
use crate::limits::EmbeddedLimits;

fn checkpoint(position: u64) -> Checkpoint {
    Checkpoint {
        revisions: "test=1".into(),
        last: Some(LastEvent {
            position: Position::from_raw(position),
            stream: StreamName::Keys,
            version: Version(position),
            hash: Digest::ZERO,
        }),
    }
}

fn key(number: u64) -> Key {
    Key::table("t").number(number)
}

fn changes(puts: &[(u64, &str)], deletes: &[u64]) -> Changes {
    let puts = puts
        .iter()
        .map(|(number, value)| (key(*number).into_bytes(), Some(value.as_bytes().to_vec())));
    let deletes = deletes
        .iter()
        .map(|number| (key(*number).into_bytes(), None));
    puts.chain(deletes).collect()
}

fn numbers(store: &dyn ViewStore, scan: &Scan) -> Vec<u64> {
    let rows = store.scan(scan).unwrap();
    rows.iter()
        .map(|(key, _)| crate::key::last_number(key).unwrap())
        .collect()
}

fn check_store(store: &dyn ViewStore) {
    assert_eq!(store.checkpoint().unwrap(), None);
    assert_eq!(store.get(key(1).as_bytes()).unwrap(), None);

    let first = changes(&[(1, "a"), (2, "b"), (256, "c")], &[]);
    store.commit(&first, &checkpoint(7)).unwrap();
    assert_eq!(store.checkpoint().unwrap(), Some(checkpoint(7)));
    assert_eq!(store.get(key(2).as_bytes()).unwrap(), Some(b"b".to_vec()));

    let second = changes(&[(2, "B"), (3, "d")], &[1, 99]);
    store.commit(&second, &checkpoint(9)).unwrap();
    assert_eq!(store.checkpoint().unwrap(), Some(checkpoint(9)));
    assert_eq!(store.get(key(1).as_bytes()).unwrap(), None);
    assert_eq!(store.get(key(2).as_bytes()).unwrap(), Some(b"B".to_vec()));

    let all = Scan::below(&Key::table("t"), 10);
    assert_eq!(numbers(store, &all), [2, 3, 256]);
    assert_eq!(numbers(store, &all.clone().backwards()), [256, 3, 2]);
    assert_eq!(numbers(store, &all.clone().starting_at(&key(3))), [3, 256]);
    let before = all.clone().ending_before(&key(256)).backwards();
    assert_eq!(numbers(store, &before), [3, 2]);
    assert_eq!(
        numbers(
            store,
            &Scan {
                count_max: 1,
                ..before
            }
        ),
        [3]
    );
    assert_eq!(
        numbers(
            store,
            &Scan {
                count_max: 2,
                ..all.clone()
            }
        ),
        [2, 3]
    );
    let empty = all.clone().starting_at(&key(9)).ending_before(&key(4));
    assert_eq!(numbers(store, &empty), [0_u64; 0]);
    assert_eq!(
        numbers(store, &Scan::below(&Key::table("u"), 10)),
        [0_u64; 0]
    );

    store.flush().unwrap();
    store.reset().unwrap();
    assert_eq!(store.checkpoint().unwrap(), None);
    assert_eq!(numbers(store, &all), [0_u64; 0]);
    store.commit(&first, &checkpoint(1)).unwrap();
    assert_eq!(numbers(store, &all), [1, 2, 256]);
}

#[test]
fn the_store_in_memory_keeps_the_contract() {
    check_store(&Memory::default());
}

#[test]
fn the_store_on_disk_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path(), EmbeddedLimits::default()).unwrap();
    check_store(&store);
}
