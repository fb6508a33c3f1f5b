//! What only a store on disk can get wrong.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::testing::{History, dump, started};

fn open(folder: &Path) -> Embedded {
    Embedded::open(folder, EmbeddedLimits::default()).unwrap()
}

/// A folder with views of a few builds, closed.
fn filled(folder: &Path) -> Vec<Row> {
    let mut history = History::default();
    history.name_taken("acme", "my-app", 1);
    for number in 1..40 {
        history.ready_build(number, 1, &["default"]);
    }
    let store = open(folder);
    crate::projection::apply_batch(&store, history.events()).unwrap();
    store.flush().unwrap();
    dump(&store)
}

/// The engine's file of rows.
fn rows_file(folder: &Path) -> PathBuf {
    folder.join("rows").join("db")
}

#[test]
fn rows_and_checkpoint_survive_a_close() {
    let folder = tempfile::tempdir().unwrap();
    let rows = filled(folder.path());
    let store = open(folder.path());
    assert_eq!(dump(&store), rows);
    assert!(store.checkpoint().unwrap().is_some());
}

#[test]
fn a_store_is_reopened_at_once_after_it_was_written_and_closed() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = History::default();
    history.name_taken("acme", "my-app", 1);
    let mut rows = Vec::new();
    for number in 1..60 {
        history.ready_build(number, 1, &["default"]);
        let store = open(folder.path());
        assert_eq!(dump(&store), rows, "before build {number}");
        for recorded in history.events() {
            crate::projection::apply_batch(&store, std::slice::from_ref(recorded)).unwrap();
        }
        store.flush().unwrap();
        rows = dump(&store);
    }
}

#[test]
fn a_folder_in_use_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let rows = filled(folder.path());
    let store = open(folder.path());
    let second = Embedded::open(folder.path(), EmbeddedLimits::default());
    assert!(matches!(second, Err(StoreError::InUse(_))), "{second:?}");
    assert_eq!(dump(&store), rows);
}

#[test]
fn a_row_that_is_missing_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    {
        let store = open(folder.path());
        // Behind the seal's back, as a lost page would.
        store
            .with("test", |engine| {
                let (key, _) = engine.scan_prefix("builds").next().unwrap().unwrap();
                engine.remove(key).unwrap();
                Ok(())
            })
            .unwrap();
        store.flush().unwrap();
    }
    let err = open_engine(&folder.path().join("rows"), EmbeddedLimits::default()).unwrap_err();
    assert!(matches!(err, StoreError::Damaged(_)), "{err:?}");
    let store = open(folder.path());
    assert_eq!(store.checkpoint().unwrap(), None);
    assert_eq!(dump(&store), Vec::<Row>::new());
}

/// Either the damage did not touch what is read, or the views are empty: never something between.
fn assert_whole_or_empty(folder: &Path, rows: &[Row], what: &str) -> bool {
    let store = open(folder);
    let found = dump(&store);
    if store.checkpoint().unwrap().is_none() {
        assert_eq!(found, Vec::<Row>::new(), "{what}");
        return true;
    }
    assert_eq!(found, rows, "{what}");
    false
}

/// How many places of the file are damaged, one at a time.
const TRIES: usize = 24;

#[test]
fn flipped_bits_never_show_in_rows() {
    let folder = tempfile::tempdir().unwrap();
    let rows = filled(folder.path());
    let good = fs::read(rows_file(folder.path())).unwrap();
    let used = good.iter().rposition(|byte| *byte != 0).unwrap();
    let mut emptied_count = 0;
    for nth in 0..TRIES {
        let mut bad = good.clone();
        let place = used * nth / TRIES;
        bad[place] ^= 0x10;
        fs::remove_dir_all(folder.path().join("rows")).unwrap();
        let again = filled(folder.path());
        assert_eq!(again, rows);
        fs::write(rows_file(folder.path()), &bad).unwrap();
        let what = format!("byte {place} of {used}");
        emptied_count += usize::from(assert_whole_or_empty(folder.path(), &rows, &what));
    }
    assert!(emptied_count > 0, "no flip hit anything");
}

#[test]
fn a_file_that_was_cut_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let rows = filled(folder.path());
    let length = fs::metadata(rows_file(folder.path())).unwrap().len();
    for kept in [0, 1, length / 4, length / 2] {
        filled(folder.path());
        let file = File::options()
            .write(true)
            .open(rows_file(folder.path()))
            .unwrap();
        file.set_len(kept).unwrap();
        drop(file);
        assert_whole_or_empty(folder.path(), &rows, &format!("{kept} of {length} bytes"));
    }
}

#[test]
fn what_is_no_store_at_all_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rows"), "not a folder").unwrap();
    let store = open(folder.path());
    assert_eq!(store.checkpoint().unwrap(), None);
}

#[test]
fn a_batch_is_applied_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = History::default();
    history.name_taken("acme", "my-app", 1);
    history.ready_build(1, 1, &["default"]);
    history.build(2, crate::testing::requested(1, &["a"]));
    history.build(2, started(1));
    let store = open(folder.path());
    let once = crate::projection::apply_batch(&store, history.events()).unwrap();
    let rows = dump(&store);
    let twice = crate::projection::apply_batch(&store, history.events()).unwrap();
    assert_eq!(once, twice);
    assert_eq!(dump(&store), rows);
}
