//! Whatever is done to a file, it is refused, and the event that it was done to is named.

use domain::ports::EventAppender as _;
use serde_json::Value;

use super::*;
use crate::log::AnyLog;
use crate::log::contract::{append, limits, stream};

/// The file of a stream of nine events.
async fn file() -> Vec<u8> {
    let log = AnyLog::memory(limits());
    for number in 0..3 {
        let texts = ["plain", "with \"quotes\" and \\", "wörter\u{1b}"];
        log.append(append(&stream(1), number * 3, number, &texts))
            .await
            .unwrap();
        // Of another stream.
        log.append(append(&stream(2), number, 100 + number, &["x"]))
            .await
            .unwrap();
    }
    let stored = log.read_stored(&stream(1), Version::EMPTY, 100).await;
    let events = stored.unwrap().into_iter().map(Exported::of);
    let export = Export::new(stream(1), events.collect::<Option<_>>().unwrap());
    assert_eq!(export.event_count, 9);
    export.to_bytes().unwrap()
}

fn damages(bytes: &[u8]) -> Vec<String> {
    let (_, damages) = verify(bytes, 100);
    let line = |damage: &Damage| format!("{}: {}", damage.place, damage.what);
    damages.kept.iter().map(line).collect()
}

/// The damages after `change` was done to the file, which is written anew as an export is.
async fn after(change: impl FnOnce(&mut Vec<Value>)) -> Vec<String> {
    let mut json: Value = serde_json::from_slice(&file().await).unwrap();
    change(json["events"].as_array_mut().unwrap());
    let export: Export = serde_json::from_value(json).unwrap();
    damages(&export.to_bytes().unwrap())
}

fn names(damages: &[String], version: u64, what: &str) {
    let place = format!("{}, version {version}: ", stream(1));
    let named = damages
        .iter()
        .any(|line| line.starts_with(&place) && line.contains(what));
    assert!(named, "version {version}, {what}: {damages:#?}");
}

#[tokio::test]
async fn a_file_as_it_was_written_is_accepted() {
    let bytes = file().await;
    let (export, damages) = verify(&bytes, 100);
    assert!(damages.is_empty(), "{damages:?}");
    assert_eq!(export.unwrap().stream, stream(1));
}

#[tokio::test]
async fn every_changed_byte_is_refused() {
    let bytes = file().await;
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert_ne!(damages(&changed), [""; 0], "byte {at}");
        assert_ne!(damages(&bytes[..at]), [""; 0], "cut at {at}");
    }
    for added in [&b" "[..], b"\n", b"{}"] {
        assert_ne!(damages(&[&bytes[..], added].concat()), [""; 0]);
    }
}

#[tokio::test]
async fn a_changed_event_is_named_by_each_of_its_fields() {
    const UNLINKED: &str = "its hash does not follow";
    for (field, value) in [
        ("time", "2023-11-14T22:13:20.000777Z".into()),
        ("type", "StepStarted".into()),
        ("schema_version", 2.into()),
        ("actor", "operator".into()),
        ("command_id", "cmd_01arz3ndektsv4rrffq69g5fav".into()),
        ("payload", "{}".into()),
        ("hash", Digest::ZERO.to_string().into()),
    ] {
        let changed = after(|events| events[4][field] = value).await;
        names(&changed, 4, UNLINKED);
        let of_events = changed.iter().filter(|line| line.starts_with("build-"));
        assert_eq!(of_events.count(), 1, "{field}: {changed:#?}");
    }
    // What the chain does not hold, the digest does.
    let index = after(|events| events[4]["index"] = 7.into()).await;
    assert_eq!(
        index,
        ["the export: its digest is not that of what it holds"]
    );
    let actor = after(|events| events[4]["actor"] = "nobody".into()).await;
    names(&actor, 4, "actor");
}

#[tokio::test]
async fn removed_swapped_and_cut_off_events_are_named() {
    let removed = after(|events| drop(events.remove(4))).await;
    names(&removed, 5, "goes on with version 4, which is missing");
    let swapped = after(|events| events.swap(3, 6)).await;
    names(&swapped, 6, "goes on with version 3");
    names(&swapped, 3, "goes on with version 7");
    let cut = after(|events| events.truncate(6)).await;
    let says = "the export: it says that it has 9 events, and has 6".to_owned();
    assert!(cut.contains(&says), "{cut:#?}");
    let doubled = after(|events| events.push(events[8].clone())).await;
    names(&doubled, 8, "goes on with version 9");
}

#[test]
fn what_is_no_export_is_refused() {
    for text in ["", "{}", "[]", "null", "x"] {
        let (export, damages) = verify(text.as_bytes(), 100);
        assert_eq!((export, damages.count), (None, 1), "{text}");
    }
}
