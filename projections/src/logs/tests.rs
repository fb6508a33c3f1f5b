//! Logs as they are stored and read.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::builds::BuildStatus;
use crate::limits::Limits;
use crate::projection::apply_batch;
use crate::runner::over;
use crate::store::memory::Memory;
use crate::store::{Changes, Checkpoint, Row, ViewStore};
use crate::testing::{History, build_id, logged, requested, started};

/// A build with many lines of very different lengths, in batches.
fn long_history(lengths: &[Vec<usize>]) -> History {
    let mut history = History::default();
    history.build(1, requested(1, &["a"])).build(1, started(1));
    let mut offset = 2;
    for batch in lengths {
        let lines: Vec<String> = batch.iter().map(|length| "x".repeat(*length)).collect();
        let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
        history.build(1, logged(offset, &lines));
        offset += u64::try_from(lines.len()).unwrap();
    }
    history
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_part_of_a_log_can_be_read(
        lengths in prop::collection::vec(
            prop::collection::vec(prop_oneof![8 => 0..300_usize, 1 => 3_000..9_000_usize], 1..30),
            0..12,
        ),
        from in 0..150_u64,
        count_max in 0..200_usize,
        scan_rows_max in 1..5_usize,
    ) {
        let history = long_history(&lengths);
        let mut views = history.views();
        let all = views.entries(&build_id(1), 0, usize::MAX).unwrap();
        let expected_count = 2 + lengths.iter().map(Vec::len).sum::<usize>();
        prop_assert_eq!(all.len(), expected_count);
        for (offset, entry) in (0..).zip(&all) {
            prop_assert_eq!(entry.offset, offset);
        }
        views.limits.scan_rows_max = scan_rows_max;
        let part = views.entries(&build_id(1), from, count_max).unwrap();
        let skipped = usize::try_from(from).unwrap();
        let expected: Vec<_> = all.into_iter().skip(skipped).take(count_max).collect();
        prop_assert_eq!(part, expected);
    }
}

#[test]
fn entries_are_packed_into_rows_of_bounded_size() {
    let history = long_history(&[vec![100; 200], vec![6_000], vec![10; 3]]);
    let store = Memory::default();
    apply_batch(&store, history.events()).unwrap();
    let scan = Scan::below(&entries_key(&build_id(1)), usize::MAX);
    let rows = store.scan(&scan).unwrap();
    let sizes: Vec<usize> = rows.iter().map(|(_, value)| value.len()).collect();
    let large = sizes.iter().filter(|size| **size > ROW_BYTES_MAX).count();
    assert_eq!(large, 1, "{sizes:?}");
    assert!((8..20).contains(&sizes.len()), "{sizes:?}");
}

#[test]
fn a_snapshot_ends_where_the_build_ends() {
    let mut history = History::default();
    history.ready_build(1, 1, &["a"]);
    let views = history.views();
    let snapshot = views.status_snapshot(&build_id(1), 2).unwrap().unwrap();
    assert_eq!(snapshot.build.status, BuildStatus::Ready);
    let offsets: Vec<_> = snapshot.entries.iter().map(|entry| entry.offset).collect();
    assert_eq!((offsets, snapshot.next_offset), (vec![2, 3], 4));
    assert!(snapshot.entries[1].kind.is_terminal());
    let behind = views.status_snapshot(&build_id(1), 9).unwrap().unwrap();
    assert_eq!((behind.entries.len(), behind.next_offset), (0, 9));
    assert_eq!(views.status_snapshot(&build_id(2), 0).unwrap(), None);
}

#[test]
fn a_build_that_does_not_exist_has_no_entries() {
    let mut history = History::default();
    history.build(1, requested(1, &["a"]));
    let views = history.views();
    assert_eq!(views.entries(&build_id(2), 0, 10).unwrap(), []);
    assert_eq!(views.next_offset(&build_id(2)).unwrap(), 0);
}

/// A store to which more events come after each scan.
#[derive(Debug)]
struct Racing {
    store: Memory,
    later: Mutex<VecDeque<Recorded<Event>>>,
}

impl ViewStore for Racing {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(key)
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<Row>, StoreError> {
        let rows = self.store.scan(scan)?;
        let next = self.later.lock().unwrap().pop_front();
        apply_batch(&self.store, next.as_slice())?;
        Ok(rows)
    }

    fn checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        self.store.checkpoint()
    }

    fn commit(&self, changes: &Changes, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        self.store.commit(changes, checkpoint)
    }

    fn reset(&self) -> Result<(), StoreError> {
        self.store.reset()
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.store.flush()
    }
}

#[test]
fn entries_that_come_while_a_log_is_read_leave_no_gap() {
    // Each batch fills up a row and begins another one.
    let history = long_history(&vec![vec![700; 9]; 12]);
    let starts = 3..history.events().len();
    for (applied_count, scan_rows_max) in starts.flat_map(|start| [(start, 2), (start, 256)]) {
        let (before, later) = history.events().split_at(applied_count);
        let store = Memory::default();
        apply_batch(&store, before).unwrap();
        let racing = Racing {
            store,
            later: Mutex::new(later.iter().cloned().collect()),
        };
        let (mut views, _runner) = over(Arc::new(racing), &Limits::default()).unwrap();
        views.limits.scan_rows_max = scan_rows_max;
        let mut offset = 0;
        while offset < 2 + 9 * 12 {
            let entries = views.entries(&build_id(1), offset, 1_000).unwrap();
            for entry in entries {
                assert_eq!(entry.offset, offset);
                offset += 1;
            }
        }
    }
}
