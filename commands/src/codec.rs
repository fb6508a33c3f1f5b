//! The stored form of events, frozen by the golden files under `tests/golden/events`.
//!
//! # Payload
//!
//! The JSON of the event as an enum of its category: `{"type":"StepStarted","data":{…}}`. It is
//! written once and hashed as it is stored; nothing ever hashes a second serialisation.
//!
//! # Envelope
//!
//! A binary frame around the payload: see [`Envelope`].
//!
//! # Hash chain
//!
//! `hash = sha256(hash of the stream's previous event ‖ canonical bytes)`. Before the first event
//! of a stream stand 32 zero bytes. The canonical bytes are these fields in this order, each one
//! preceded by its length in bytes as a little-endian `u64`:
//!
//! 1. the stream's name, for example `build-tb_01…`
//! 2. the version: `u64`, little-endian
//! 3. the time in microseconds since the Unix epoch: `i64`, little-endian
//! 4. the event's type, for example `StepStarted`
//! 5. the schema version: `u16`, little-endian
//! 6. the actor: `key:key_…`, `worker:wk_…` or `operator`
//! 7. the command's id, for example `cmd_01…`
//! 8. the payload as it is stored
//!
//! The position is not among them: it belongs to one log, and a copied stream keeps its chain.
//!
//! # Change
//!
//! A stored form never changes in place. A new one gets the next schema version and a step in
//! [`decode_event`] that brings the older form to it; the golden files of both stay.

mod frame;
#[cfg(test)]
mod golden;
mod vocabulary;

use std::borrow::Cow;

use domain::Digest;
use domain::event::{Category, Event};
use domain::ids::CommandId;
use domain::recorded::{Actor, Position, Recorded, StreamName, Version};
use domain::time::Timestamp;
use sha2::{Digest as _, Sha256};

pub(crate) use frame::parse_actor;
pub use vocabulary::types_of;

/// The schema version in which events are written.
pub const SCHEMA_VERSION: u16 = 1;

/// Why stored bytes are not an event.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes end before the frame does.
    #[error("the frame is cut off at its {field}")]
    Truncated {
        /// What should stand there.
        field: &'static str,
    },
    /// The frame's bytes are not those that were written.
    #[error("the frame's checksum is {computed:08x}, not {stored:08x}")]
    Checksum {
        /// The checksum as it is stored.
        stored: u32,
        /// The checksum of what is stored.
        computed: u32,
    },
    /// The frame is of a format that this version does not know.
    #[error("the frame has the unknown format {0}")]
    UnknownFormat(u8),
    /// A field holds something that it cannot hold.
    #[error("the frame's {field} cannot be read")]
    Field {
        /// The field.
        field: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing of this type is in the category's vocabulary.
    #[error("`{kind}` is no event of category {category:?}")]
    UnknownType {
        /// The category.
        category: Category,
        /// The type.
        kind: String,
    },
    /// The event was written in a form that this version does not know.
    #[error("`{kind}` is stored in schema version {schema_version}, known is {SCHEMA_VERSION}")]
    UnknownVersion {
        /// The type.
        kind: String,
        /// Its schema version.
        schema_version: u16,
    },
    /// The payload is not the JSON of such an event.
    #[error("the payload of `{kind}` cannot be read or written")]
    Payload {
        /// The type.
        kind: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The payload holds an event of another type than the envelope says.
    #[error("the envelope says `{envelope}`, the payload `{payload}`")]
    TypeDiffers {
        /// The envelope's type.
        envelope: String,
        /// The payload's type.
        payload: &'static str,
    },
}

/// An event as it is stored.
///
/// As bytes: length of the rest `u32`, CRC-32 of what follows `u32`, format `u8`, sequence number
/// `u64`, version `u64`, time `i64`, category `u8`, schema version `u16`, index in the command
/// `u32`, hash (32 bytes); then stream, type, actor, command id and payload, each preceded by its
/// length as `u32`. All numbers are little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The event's number in the whole log, from 1, without gaps.
    pub seq: u64,
    /// The stream.
    pub stream: StreamName,
    /// The event's number in its stream, from 0.
    pub version: Version,
    /// The event's type.
    pub kind: String,
    /// The stored form's version.
    pub schema_version: u16,
    /// The command that caused it.
    pub command_id: CommandId,
    /// Its place among the events of that command, from 0. With the command's id it identifies
    /// the event.
    pub index: u32,
    /// Who caused it.
    pub actor: Actor,
    /// When.
    pub time: Timestamp,
    /// Its link in the stream's chain.
    pub hash: Digest,
    /// The event as JSON.
    pub payload: Vec<u8>,
}

impl Envelope {
    /// What its hash must be if `previous` is the hash of the event before it in the stream.
    pub fn link(&self, previous: &Digest) -> Digest {
        let (stream, actor) = (self.stream.to_string(), actor_text(&self.actor));
        let fields: [&[u8]; 8] = [
            stream.as_bytes(),
            &self.version.0.to_le_bytes(),
            &self.time.unix_micros().to_le_bytes(),
            self.kind.as_bytes(),
            &self.schema_version.to_le_bytes(),
            actor.as_bytes(),
            self.command_id.as_str().as_bytes(),
            &self.payload,
        ];
        let start = Sha256::new().chain_update(previous.as_bytes());
        let hasher = fields.iter().fold(start, |hasher, field| {
            // A usize has at most 64 bits on every platform that Rust supports.
            let length = u64::try_from(field.len()).unwrap_or(u64::MAX);
            hasher
                .chain_update(length.to_le_bytes())
                .chain_update(field)
        });
        Digest::from_bytes(hasher.finalize().into())
    }

    /// The event in the domain's terms.
    ///
    /// # Errors
    /// [`CodecError`] if its type or schema version is unknown, or its payload is not of its type.
    pub fn into_recorded(self) -> Result<Recorded<Event>, CodecError> {
        let category = Category::from(&self.stream);
        let event = decode_event(category, &self.kind, self.schema_version, &self.payload)?;
        Ok(Recorded {
            stream: self.stream,
            version: self.version,
            position: Position::from_raw(self.seq),
            time: self.time,
            schema_version: self.schema_version,
            actor: self.actor,
            command_id: self.command_id,
            hash: self.hash,
            event,
        })
    }
}

/// The hash of a whole log up to an event: sha256(the hash up to the one before ‖ its own hash).
pub(crate) fn roll(log: &Digest, event: &Digest) -> Digest {
    let hasher = Sha256::new()
        .chain_update(log.as_bytes())
        .chain_update(event.as_bytes());
    Digest::from_bytes(hasher.finalize().into())
}

/// The payload of `event`.
///
/// # Errors
/// [`CodecError::Payload`] if it has no JSON form.
pub fn encode_event(event: &Event) -> Result<Vec<u8>, CodecError> {
    let json = match event {
        Event::Build(event) => serde_json::to_vec(event),
        Event::Template(event) => serde_json::to_vec(event),
        Event::Namespace(event) => serde_json::to_vec(event),
        Event::Keys(event) => serde_json::to_vec(event),
        Event::Webhook(event) => serde_json::to_vec(event),
    };
    json.map_err(|source| CodecError::Payload {
        kind: event.name().to_owned(),
        source,
    })
}

/// The event of a payload of any schema version.
///
/// # Errors
/// [`CodecError`] if its type or schema version is unknown, or the payload is not of that type.
pub fn decode_event(
    category: Category,
    kind: &str,
    schema_version: u16,
    payload: &[u8],
) -> Result<Event, CodecError> {
    if !types_of(category).contains(&kind) {
        let kind = kind.to_owned();
        return Err(CodecError::UnknownType { category, kind });
    }
    let payload = upcast(kind, schema_version, payload)?;
    let event = match category {
        Category::Build => serde_json::from_slice(&payload).map(Event::Build),
        Category::Template => serde_json::from_slice(&payload).map(Event::Template),
        Category::Namespace => serde_json::from_slice(&payload).map(Event::Namespace),
        Category::Keys => serde_json::from_slice(&payload).map(Event::Keys),
        Category::Webhook => serde_json::from_slice(&payload).map(Event::Webhook),
    };
    let event = event.map_err(|source| CodecError::Payload {
        kind: kind.to_owned(),
        source,
    })?;
    if event.name() == kind {
        Ok(event)
    } else {
        Err(CodecError::TypeDiffers {
            envelope: kind.to_owned(),
            payload: event.name(),
        })
    }
}

/// Brings a payload to the present schema version, one step a version.
fn upcast<'a>(
    kind: &str,
    schema_version: u16,
    payload: &'a [u8],
) -> Result<Cow<'a, [u8]>, CodecError> {
    match schema_version {
        SCHEMA_VERSION => Ok(Cow::Borrowed(payload)),
        unknown => Err(CodecError::UnknownVersion {
            kind: kind.to_owned(),
            schema_version: unknown,
        }),
    }
}

/// An actor as it is hashed: `key:key_…`, `worker:wk_…` or `operator`.
pub fn actor_text(actor: &Actor) -> String {
    match actor {
        Actor::Key { id } => format!("key:{id}"),
        Actor::Worker { id } => format!("worker:{id}"),
        Actor::Operator => "operator".to_owned(),
    }
}
