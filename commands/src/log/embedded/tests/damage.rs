//! Whatever is done to the files of a log: it is refused with a place, or it was harmless.

use std::fs;
use std::path::Path;

use domain::ports::LogError;
use domain::recorded::Version;
use tempfile::TempDir;

use super::{History, anchor_of, copy, open_sled, write};
use crate::codec::Envelope;
use crate::log::AnyLog;
use crate::log::contract::{everything, limits};
use crate::log::embedded::anchor::Anchor;
use crate::log::embedded::chunks::Chunks;
use crate::log::embedded::pack::{Packer, key};

/// Opens a log that something was done to: it is refused with a place, or holds what it held.
async fn refused(dir: &Path, history: &History, done: &str) -> Option<(String, String)> {
    match AnyLog::open(dir, limits()).await {
        Err(LogError::Damaged { place, what }) => {
            assert!(!place.is_empty() && !what.is_empty(), "{done}");
            Some((place, what))
        }
        Err(other) => panic!("{done}: {other:?}"),
        Ok(log) => {
            assert!(
                everything(&log).await == *history,
                "{done}: something else is there"
            );
            log.close().await.unwrap();
            None
        }
    }
}

async fn damage(dir: &Path, history: &History, done: &str) -> (String, String) {
    let found = refused(dir, history, done).await;
    found.unwrap_or_else(|| panic!("{done}: it opens"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_is_refused_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let history = write(folder.path(), 0, 1_500).await;
    let length = fs::metadata(folder.path().join("db")).unwrap().len();
    let mut refusals = 0;
    for (step, bit) in (0..24).zip((0..8).cycle()) {
        let copied = copy(folder.path());
        let path = copied.path().join("db");
        let mut bytes = fs::read(&path).unwrap();
        let at = usize::try_from(length * (2 * step + 1) / 48).unwrap();
        bytes[at] ^= 1 << bit;
        fs::write(&path, bytes).unwrap();
        let done = format!("bit {bit} of byte {at} of {length} flipped");
        refusals += usize::from(refused(copied.path(), &history, &done).await.is_some());
    }
    // The file is mostly events: a check that never finds anything would be no check.
    assert!(refusals >= 4, "{refusals} of 24 flips were noticed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_file_is_refused_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let history = write(folder.path(), 0, 1_500).await;
    let length = fs::metadata(folder.path().join("db")).unwrap().len();
    let cuts = [
        1,
        100,
        4_096,
        100_000,
        length / 4,
        length / 2,
        length - 1,
        length,
    ];
    let mut found = Vec::new();
    for cut in cuts {
        let copied = copy(folder.path());
        let db = fs::File::options()
            .write(true)
            .open(copied.path().join("db"));
        db.unwrap().set_len(length - cut).unwrap();
        let done = format!("{cut} of {length} bytes cut off");
        found.extend(refused(copied.path(), &history, &done).await);
    }
    assert!(
        found
            .iter()
            .any(|(_, what)| what.contains("but events up to 1500 were written")),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_file_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let history = write(folder.path(), 0, 30).await;
    for file in ["db", "conf", "anchor"] {
        let copied = copy(folder.path());
        fs::remove_file(copied.path().join(file)).unwrap();
        let (place, what) = damage(copied.path(), &history, file).await;
        assert_eq!(place, copied.path().join(file).display().to_string());
        assert!(what.starts_with("the file is missing"), "{what}");
        // Refusing must not heal it: the second try sees the same.
        assert_eq!(damage(copied.path(), &history, file).await, (place, what));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_anchor_is_fine_and_a_newer_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let half = write(folder.path(), 0, 40).await;
    let old = copy(folder.path());
    let history = write(folder.path(), 40, 40).await;
    let new = copy(folder.path());

    let swap = |from: &TempDir, to: &TempDir| {
        let to = copy(to.path());
        fs::copy(from.path().join("anchor"), to.path().join("anchor")).unwrap();
        to
    };
    let older = swap(&old, &new);
    assert_eq!(refused(older.path(), &history, "older anchor").await, None);
    assert_eq!(anchor_of(older.path()), anchor_of(new.path()));

    let newer = swap(&new, &old);
    let (place, what) = damage(newer.path(), &half, "newer anchor").await;
    assert_eq!(place, "event 41");
    assert_eq!(
        what,
        "the log ends with event 40, but events up to 80 were written: 40 are missing"
    );

    let other = copy(new.path());
    Anchor::new(80, domain::Digest::of(b"another log"))
        .write(other.path())
        .unwrap();
    let (place, _) = damage(other.path(), &history, "another log's anchor").await;
    assert!(place.starts_with("event 80 (build-"), "{place}");

    for text in ["", "{}", "x"] {
        let torn = copy(new.path());
        fs::write(torn.path().join("anchor"), text).unwrap();
        let (place, _) = damage(torn.path(), &history, "torn anchor").await;
        assert!(place.ends_with("/anchor"), "{place}");
    }
}

type Change = fn(&mut Vec<Envelope>);

/// Writes the events of a closed log anew, after `change`; checksums are right, links are not.
pub(super) fn forge(dir: &Path, change: impl FnOnce(&mut Vec<Envelope>)) {
    let db = open_sled(dir);
    let mut envelopes = Vec::new();
    let mut chunks = Chunks::new(&db, dir);
    for seq in 1.. {
        let Some(envelope) = chunks.get(seq).unwrap() else {
            break;
        };
        envelopes.push(envelope);
    }
    change(&mut envelopes);
    db.clear().unwrap();
    let mut packer = Packer::default();
    for envelope in &envelopes {
        packer.push(envelope);
    }
    db.apply_batch(packer.finish()).unwrap();
    db.flush().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_events_are_refused_at_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let history = write(folder.path(), 0, 30).await;
    let forged = |change: Change| {
        let copied = copy(folder.path());
        forge(copied.path(), change);
        copied
    };
    let same = forged(|_| {});
    assert_eq!(refused(same.path(), &history, "nothing").await, None);

    let cases: [(&str, Change, &str, &str); 4] = [
        (
            "other payload",
            |all| all[9].payload[40] ^= 1,
            "event 10 (build-",
            "its hash",
        ),
        (
            "other time",
            |all| all[9].time = all[8].time,
            "event 10 (build-",
            "its hash",
        ),
        (
            "other version",
            |all| all[9].version = Version(7),
            "event 10 (build-",
            "the stream goes on with version 1",
        ),
        (
            // Linked as it should be: only the anchor knows better.
            "other end",
            |all| {
                let previous = all[22].hash;
                all[29].payload[40] ^= 1;
                all[29].hash = all[29].link(&previous);
            },
            "event 30 (build-",
            "the anchor vouches for",
        ),
    ];
    for (done, change, place_wanted, what_wanted) in cases {
        let copied = forged(change);
        let (place, what) = damage(copied.path(), &history, done).await;
        assert!(place.starts_with(place_wanted), "{done}: {place}");
        assert!(what.contains(what_wanted), "{done}: {what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_is_refused_with_its_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let history = write(folder.path(), 0, 30).await;
    let copied = copy(folder.path());
    {
        // One at a time, each event has its own value.
        let db = open_sled(copied.path());
        for seq in 11..=13 {
            assert!(db.remove(key(seq, 0)).unwrap().is_some());
        }
        db.flush().unwrap();
    }
    let (place, what) = damage(copied.path(), &history, "hole").await;
    assert_eq!(
        (&*place, &*what),
        ("event 11", "events 11 to 13 are missing")
    );
}
