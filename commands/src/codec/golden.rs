//! The golden files: one for each type of event that was ever stored, and all of them for ever.

use std::collections::BTreeSet;
use std::path::PathBuf;

use domain::event::{Category, Event};

use super::{CodecError, SCHEMA_VERSION, decode_event, encode_event, vocabulary};

const CATEGORIES: [(Category, &str); 5] = [
    (Category::Build, "build"),
    (Category::Template, "template"),
    (Category::Namespace, "namespace"),
    (Category::Keys, "keys"),
    (Category::Webhook, "webhook"),
];

fn folder() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/golden/events/v1"
    ))
}

/// The files in the folder as (category, type, text); `build-Requested.dockerfile.json` is a
/// further one of `build-Requested.json`.
fn files() -> Vec<(Category, String, String)> {
    let entries = std::fs::read_dir(folder()).unwrap();
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let stem = name.strip_suffix(".json").expect(name);
            let (prefix, kind) = stem.split_once('-').expect(name);
            let kind = kind.split_once('.').map_or(kind, |(kind, _)| kind);
            let category = CATEGORIES
                .iter()
                .find_map(|(category, text)| (*text == prefix).then_some(*category));
            let text = std::fs::read_to_string(&path).unwrap();
            (category.expect(name), kind.to_owned(), text)
        })
        .collect()
}

fn pretty(event: &Event) -> String {
    let json = match event {
        Event::Build(event) => serde_json::to_string_pretty(event),
        Event::Template(event) => serde_json::to_string_pretty(event),
        Event::Namespace(event) => serde_json::to_string_pretty(event),
        Event::Keys(event) => serde_json::to_string_pretty(event),
        Event::Webhook(event) => serde_json::to_string_pretty(event),
    };
    json.unwrap() + "\n"
}

#[test]
fn every_type_of_event_has_a_golden_file() {
    let present: BTreeSet<_> = files()
        .into_iter()
        .map(|(category, kind, _)| format!("{category:?}-{kind}"))
        .collect();
    let wanted: BTreeSet<_> = CATEGORIES
        .iter()
        .flat_map(|(category, _)| {
            let types = vocabulary::types_of(*category).iter();
            types.map(move |kind| format!("{category:?}-{kind}"))
        })
        .collect();
    assert_eq!(present, wanted);
}

#[test]
fn every_golden_file_decodes_to_what_encodes_to_it() {
    for (category, kind, text) in files() {
        let event = decode_event(category, &kind, 1, text.as_bytes())
            .unwrap_or_else(|err| panic!("{category:?} {kind}: {err:?}"));
        assert_eq!(event.name(), kind);
        assert_eq!(pretty(&event), text, "{category:?} {kind}");
        let stored = encode_event(&event).unwrap();
        let again = decode_event(category, &kind, SCHEMA_VERSION, &stored).unwrap();
        assert_eq!(again, event);
    }
}

#[test]
fn what_is_not_known_is_refused_by_its_name() {
    let stored = br#"{"type":"KeyRevoked","data":{"id":"key_01arz3ndektsv4rrffq69g5fav"}}"#;
    let decode = |kind: &str, version| decode_event(Category::Keys, kind, version, stored);
    decode("KeyRevoked", 1).unwrap();
    assert!(matches!(
        decode("KeyMelted", 1),
        Err(CodecError::UnknownType { kind, .. }) if kind == "KeyMelted"
    ));
    assert!(matches!(
        decode("KeyRevoked", 2),
        Err(CodecError::UnknownVersion {
            schema_version: 2,
            ..
        })
    ));
    assert!(matches!(
        decode("KeyCreated", 1),
        Err(CodecError::TypeDiffers {
            payload: "KeyRevoked",
            ..
        })
    ));
    assert!(matches!(
        decode_event(
            Category::Keys,
            "KeyRevoked",
            1,
            b"{\"type\":\"KeyRevoked\"}"
        ),
        Err(CodecError::Payload { .. })
    ));
}
