//! A stream as a file that explains itself: whoever has it can check every link of its chain, with
//! nothing else at hand.
//!
//! The file is JSON, written in one way only, so that no byte of it can be changed without notice.
//! `payload` is the stored text itself, and the other fields are those that its hash is made of
//! ([`crate::codec`]). `digest` is over all of the file's fields. Whoever changes a file can make its
//! digest and its hashes anew: what cannot be made anew is the last hash, where somebody has kept it
//! elsewhere.

use domain::Digest;
use domain::digest::Hasher;
use domain::event::Category;
use domain::ids::CommandId;
use domain::recorded::{StreamName, Version};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::prepared::Head;
use super::survey::{Chains, Damage, Damages, Place};
use crate::codec::{Envelope, actor_text, decode_event, parse_actor};

/// What a file says it is.
const FORMAT: &str = "nullspace-event-export/1";

/// A stream from its first event on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    format: String,
    /// The stream.
    pub stream: StreamName,
    /// What the first event links to.
    start: Digest,
    /// How many events there are.
    pub event_count: u64,
    /// The hash of the last event.
    pub end: Digest,
    digest: Digest,
    events: Vec<Exported>,
}

/// An event in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exported {
    version: u64,
    time: Timestamp,
    r#type: String,
    schema_version: u16,
    actor: String,
    command_id: CommandId,
    index: u32,
    hash: Digest,
    payload: String,
}

impl Exported {
    /// `envelope` without its stream and position; none if its payload is no text, which is damage.
    pub fn of(envelope: Envelope) -> Option<Self> {
        Some(Self {
            version: envelope.version.0,
            time: envelope.time,
            r#type: envelope.kind,
            schema_version: envelope.schema_version,
            actor: actor_text(&envelope.actor),
            command_id: envelope.command_id,
            index: envelope.index,
            hash: envelope.hash,
            payload: String::from_utf8(envelope.payload).ok()?,
        })
    }

    fn envelope(&self, stream: &StreamName) -> Result<Envelope, String> {
        let actor = parse_actor(self.actor.as_bytes());
        Ok(Envelope {
            seq: 0,
            stream: stream.clone(),
            version: Version(self.version),
            kind: self.r#type.clone(),
            schema_version: self.schema_version,
            command_id: self.command_id.clone(),
            index: self.index,
            actor: actor.map_err(|err| domain::causes::chain(&err))?,
            time: self.time,
            hash: self.hash,
            payload: self.payload.clone().into_bytes(),
        })
    }
}

impl Export {
    /// The file of a stream with these events.
    pub fn new(stream: StreamName, events: Vec<Exported>) -> Self {
        let mut export = Self {
            format: FORMAT.to_owned(),
            stream,
            start: Digest::ZERO,
            event_count: count(&events),
            end: end(&events),
            digest: Digest::ZERO,
            events,
        };
        export.digest = export.computed_digest();
        export
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// Never in practice: everything in it has a JSON form.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    fn computed_digest(&self) -> Digest {
        let hasher = Hasher::new(FORMAT)
            .field(self.stream.to_string().as_bytes())
            .field(self.start.as_bytes())
            .field(self.event_count.to_le_bytes())
            .field(self.end.as_bytes());
        let events = self.events.iter();
        let hasher = events.fold(hasher, |hasher, event| {
            hasher
                .field(event.version.to_le_bytes())
                .field(event.time.unix_micros().to_le_bytes())
                .field(event.r#type.as_bytes())
                .field(event.schema_version.to_le_bytes())
                .field(event.actor.as_bytes())
                .field(event.command_id.as_str().as_bytes())
                .field(event.index.to_le_bytes())
                .field(event.hash.as_bytes())
                .field(event.payload.as_bytes())
        });
        hasher.finish()
    }

    /// What is wrong with each event.
    fn follow(&self, damages: &mut Damages) {
        let mut chains = Chains::default();
        let mut head = Head {
            hash: self.start,
            ..Head::EMPTY
        };
        for event in &self.events {
            let version = Version(event.version);
            let mut wrong = |what| damages.add(self.damage(Some(version), what));
            let envelope = match event.envelope(&self.stream) {
                Ok(envelope) => envelope,
                Err(what) => {
                    wrong(what);
                    continue;
                }
            };
            if let Some(what) = chains.follow(&envelope, head) {
                wrong(what);
            } else if let Err(err) = decode_event(
                Category::from(&self.stream),
                &event.r#type,
                event.schema_version,
                event.payload.as_bytes(),
            ) {
                wrong(domain::causes::chain(&err));
            }
            if envelope.version >= head.version {
                head = Head::after(&envelope);
            }
        }
    }

    /// What is wrong with the file as a whole.
    fn whole(&self, bytes: &[u8], damages: &mut Damages) {
        let mut wrong = |what: &str| damages.add(self.damage(None, what.to_owned()));
        if self.start != Digest::ZERO {
            wrong("its first event should link to nothing");
        }
        let (there, end_there) = (count(&self.events), end(&self.events));
        if self.event_count != there {
            let said = self.event_count;
            wrong(&format!(
                "it says that it has {said} events, and has {there}"
            ));
        }
        if self.end != end_there {
            wrong("its last event has another hash than it says");
        }
        if self.digest != self.computed_digest() {
            wrong("its digest is not that of what it holds");
        }
        if !self.to_bytes().is_ok_and(|written| written == bytes) {
            wrong("it is not written as an export is");
        }
    }

    fn damage(&self, version: Option<Version>, what: String) -> Damage {
        let place = version.map_or(Place::Export, |version| Place::Event {
            seq: None,
            within: Some((self.stream.clone(), version)),
        });
        Damage::new(place, what)
    }
}

/// What is wrong with a file, and what it holds; none if it cannot be read at all.
pub fn verify(bytes: &[u8], damages_max: usize) -> (Option<Export>, Damages) {
    let mut damages = Damages::up_to(damages_max);
    let export: Export = match serde_json::from_slice(bytes) {
        Ok(export) => export,
        Err(err) => {
            let what = format!("it cannot be read as an export: {err}");
            damages.add(Damage::new(Place::Export, what));
            return (None, damages);
        }
    };
    if export.format != FORMAT {
        let what = format!("its format is not `{FORMAT}`");
        damages.add(Damage::new(Place::Export, what));
    }
    export.follow(&mut damages);
    export.whole(bytes, &mut damages);
    (Some(export), damages)
}

fn count(events: &[Exported]) -> u64 {
    u64::try_from(events.len()).unwrap_or(u64::MAX)
}

/// The hash of the last event.
fn end(events: &[Exported]) -> Digest {
    events.last().map_or(Digest::ZERO, |event| event.hash)
}

#[cfg(test)]
mod tests;
