use std::fs;
use std::path::PathBuf;

use commands::codec::{Envelope, decode_event, encode_event};
use commands::limits::LogLimits;
use commands::log::MemoryLog;
use domain::build::{self, Phase};
use domain::ids::{BuildId, KeyId};
use domain::ports::{Append, EventAppender as _, EventReader as _};
use domain::recorded::{Actor, Position, Version};
use serde_json::{Value, json};

use super::*;

fn time() -> Timestamp {
    Timestamp::from_unix_micros(1_700_000_000_000_120).unwrap()
}

fn build() -> BuildId {
    BuildId::generate(time(), [7; 10])
}

fn logged(text: &str) -> Event {
    build::Event::StepLogged(build::StepLogged {
        phase: Phase::Step,
        step: Some((1, 2)),
        first_offset: 3,
        lines: vec![build::LogLine {
            at: time(),
            stream: build::LogStream::Stdout,
            text: text.to_owned(),
        }],
    })
    .into()
}

/// `events` as a log gives them back.
async fn recorded(events: Vec<Event>) -> Vec<Recorded<Event>> {
    let log = MemoryLog::new(LogLimits::default());
    let append = Append {
        stream: StreamName::Build(build()),
        expected: Version::EMPTY,
        command_id: CommandId::generate(time(), [1; 10]),
        actor: Actor::Key {
            id: KeyId::generate(time(), [2; 10]),
        },
        time: time(),
        events,
    };
    log.append(append).await.unwrap();
    log.read_all(Position::START, 100).await.unwrap()
}

/// The link of an event in the chain behind `previous`, from nothing but what a reader got.
fn link(previous: &[u8; 32], wire: &str) -> Digest {
    /// The members of an object as texts: JSON values that are not looked into keep their order.
    #[derive(Deserialize)]
    struct Wire {
        stream: String,
        version: u64,
        time: Timestamp,
        r#type: String,
        schema_version: u16,
        actor: String,
        command_id: String,
        data: Box<RawValue>,
    }
    let wire: Wire = serde_json::from_str(wire).unwrap();
    let data = unescaped(wire.data.get());
    let payload = format!(r#"{{"type":"{}","data":{data}}}"#, wire.r#type);
    let mut bytes = previous.to_vec();
    for field in [
        wire.stream.as_bytes(),
        &wire.version.to_le_bytes(),
        &wire.time.unix_micros().to_le_bytes(),
        wire.r#type.as_bytes(),
        &wire.schema_version.to_le_bytes(),
        wire.actor.as_bytes(),
        wire.command_id.as_bytes(),
        payload.as_bytes(),
    ] {
        bytes.extend(u64::try_from(field.len()).unwrap().to_le_bytes());
        bytes.extend(field);
    }
    Digest::of(&bytes)
}

/// JSON with no escapes but those that it demands: every text is read and written again.
fn unescaped(json: &str) -> String {
    let mut out = String::new();
    let mut rest = json;
    while let Some(start) = rest.find('"') {
        let text = &rest[start..];
        let mut end = 1;
        while text.as_bytes()[end] != b'"' {
            end += if text.as_bytes()[end] == b'\\' { 2 } else { 1 };
        }
        let read: String = serde_json::from_str(&text[..=end]).unwrap();
        out.push_str(&rest[..start]);
        out.push_str(&serde_json::to_string(&read).unwrap());
        rest = &text[end + 1..];
    }
    out + rest
}

#[tokio::test]
async fn a_reader_can_check_the_chain_with_what_it_gets() {
    let strange = "a\u{2028}é\u{85}\u{7f}\u{1}\"\\/\t😀\u{1b}[0m\r";
    let events = recorded(vec![logged("plain"), logged(strange), logged("")]).await;
    let mut previous = *Digest::ZERO.as_bytes();
    for event in &events {
        let wire = ascii::to_vec(&EventRecord::of(event).unwrap()).unwrap();
        assert!(wire.iter().all(|byte| (b' '..=b'~').contains(byte)));
        let wire = String::from_utf8(wire).unwrap();
        assert_eq!(link(&previous, &wire), event.hash, "{wire}");
        previous = *event.hash.as_bytes();
    }
}

/// What the chain is made of is derived from `data`: for every form that was ever stored.
#[test]
fn the_stored_form_of_every_event_is_derived_from_its_data() {
    let folder = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/golden/events/v1"
    ));
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let (category, kind) = name.split_once('-').unwrap();
        let kind = kind.split_once('.').unwrap().0;
        let (category, stream) = match category {
            "build" => (Category::Build, StreamName::Build(build())),
            "template" => {
                let id = domain::ids::TemplateId::generate(time(), [3; 10]);
                (Category::Template, StreamName::Template(id))
            }
            "namespace" => {
                let slug = "acme".parse().unwrap();
                (Category::Namespace, StreamName::Namespace(slug))
            }
            "webhook" => {
                let id = domain::ids::WebhookId::generate(time(), [3; 10]);
                (Category::Webhook, StreamName::Webhook(id))
            }
            _ => (Category::Keys, StreamName::Keys),
        };
        let event = decode_event(category, kind, 1, &fs::read(&path).unwrap()).unwrap();
        let envelope = Envelope {
            seq: 1,
            stream,
            version: Version(4),
            kind: kind.to_owned(),
            schema_version: 1,
            command_id: CommandId::generate(time(), [1; 10]),
            index: 0,
            actor: Actor::Operator,
            time: time(),
            hash: Digest::ZERO,
            payload: encode_event(&event).unwrap(),
        };
        let previous = Digest::of(b"previous");
        let hash = envelope.link(&previous);
        let recorded = envelope.into_recorded().unwrap();
        let wire = ascii::to_vec(&EventRecord::of(&recorded).unwrap()).unwrap();
        let wire = String::from_utf8(wire).unwrap();
        assert_eq!(link(previous.as_bytes(), &wire), hash, "{name}: {wire}");
        count += 1;
    }
    assert!(count > 30, "{count}");
}

#[tokio::test]
async fn both_forms_say_the_same_in_their_own_words() {
    let events = recorded(vec![logged("x")]).await;
    let record = EventRecord::of(&events[0]).unwrap();
    let data = json!({
        "phase": "step", "step": [1, 2], "first_offset": 3,
        "lines": [{"at": "2023-11-14T22:13:20.000120Z", "stream": "stdout", "text": "x"}],
    });
    let hash = events[0].hash.to_string();
    let command = events[0].command_id.as_str();
    let actor = actor_text(&events[0].actor);
    let written: Value = serde_json::from_slice(&ascii::to_vec(&record).unwrap()).unwrap();
    assert_eq!(
        written,
        json!({
            "stream": format!("build-{}", build()), "version": 0, "position": "0000000000000001",
            "time": "2023-11-14T22:13:20.000120Z", "type": "StepLogged", "schema_version": 1,
            "actor": actor, "command_id": command, "hash": hash, "data": data,
        })
    );
    let cloud = CloudEvent::of(&record);
    let written: Value = serde_json::from_slice(&ascii::to_vec(&cloud).unwrap()).unwrap();
    assert_eq!(
        written,
        json!({
            "specversion": "1.0", "id": format!("build-{}/0", build()), "source": "/v1/events",
            "type": "nullspace.build.StepLogged", "subject": build().as_str(),
            "time": "2023-11-14T22:13:20.000120Z", "datacontenttype": "application/json",
            "sequence": "0000000000000001", "schemaversion": 1, "actor": actor,
            "commandid": command, "hash": hash, "data": data,
        })
    );
}

/// Names of attributes: lower-case letters and digits, and not longer than 20.
#[tokio::test]
async fn the_attributes_have_names_that_every_receiver_takes() {
    let events = recorded(vec![logged("x")]).await;
    let record = EventRecord::of(&events[0]).unwrap();
    let cloud = ascii::to_vec(&CloudEvent::of(&record)).unwrap();
    let Value::Object(cloud) = serde_json::from_slice(&cloud).unwrap() else {
        panic!("an object is written")
    };
    for name in cloud.keys() {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        assert!(name.bytes().all(plain) && name.len() <= 20, "{name}");
    }
}
