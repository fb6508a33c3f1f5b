//! Events as readers get them: as this service has them, or as CloudEvents 1.0.
//!
//! # The hash chain
//!
//! An [`EventRecord`] holds all that its hash is made of, so that whoever has a stream's events can
//! check them: `hash` is the SHA-256 of the previous event's hash (32 zero bytes before the first)
//! and these fields in this order, each one preceded by its length in bytes as a little-endian
//! `u64`:
//!
//! 1. `stream`
//! 2. `version`: `u64`, little-endian
//! 3. `time` in microseconds since the Unix epoch: `i64`, little-endian
//! 4. `type`
//! 5. `schema_version`: `u16`, little-endian
//! 6. `actor`
//! 7. `command_id`
//! 8. `{"type":…,"data":…}` as JSON in UTF-8 without spaces, with the keys of `data` in the order in
//!    which they come, and no escapes but those that JSON demands
//!
//! `position` is not among them: it belongs to one log.

use commands::codec::actor_text;
use domain::digest::Digest;
use domain::event::{Category, Event};
use domain::ids::CommandId;
use domain::recorded::{Recorded, StreamName};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::ascii;
use super::position::WirePosition;

/// What the types of CloudEvents begin with; the category and the event's own type follow.
pub const CLOUD_TYPE_PREFIX: &str = "nullspace";

/// What the types of CloudEvents are found by: all of them are of this one list.
const CLOUD_SOURCE: &str = "/v1/events";

/// An event, with its place and its link in the hash chain of its stream.
#[derive(Clone, Debug, Serialize)]
pub struct EventRecord<'a> {
    /// `build-tb_…`, `template-tmpl_…` or `namespace-…`.
    pub stream: &'a StreamName,
    /// Its number in the stream, from 0, without gaps.
    pub version: u64,
    /// Its place in the whole log; it says how far a reader is.
    pub position: WirePosition,
    /// When the command that caused it was given.
    pub time: Timestamp,
    /// What happened, for example `StepStarted`.
    pub r#type: &'static str,
    /// The version of the form in which it was stored.
    pub schema_version: u16,
    /// Who caused it: `key:key_…`, `worker:wk_…` or `operator`.
    pub actor: String,
    /// The command that caused it; the events of one command were appended together.
    pub command_id: &'a CommandId,
    /// Its link in the chain.
    pub hash: Digest,
    /// The rest, by type.
    pub data: Box<RawValue>,
}

/// The stored form of an event, as far as its envelope does not say the same.
#[derive(Deserialize)]
struct Payload {
    data: Box<RawValue>,
}

impl<'a> EventRecord<'a> {
    /// `recorded` as readers get it.
    ///
    /// # Errors
    /// If the event has no JSON form, which is a defect.
    pub fn of(recorded: &'a Recorded<Event>) -> serde_json::Result<Self> {
        // A raw value is written as it is, so it is ASCII from the start.
        let payload = match &recorded.event {
            Event::Build(event) => ascii::to_vec(event),
            Event::Template(event) => ascii::to_vec(event),
            Event::Namespace(event) => ascii::to_vec(event),
            Event::Keys(event) => ascii::to_vec(event),
            Event::Webhook(event) => ascii::to_vec(event),
        };
        let payload: Payload = serde_json::from_slice(&payload?)?;
        Ok(Self {
            stream: &recorded.stream,
            version: recorded.version.0,
            position: WirePosition(recorded.position),
            time: recorded.time,
            r#type: recorded.event.name(),
            schema_version: recorded.schema_version,
            actor: actor_text(&recorded.actor),
            command_id: &recorded.command_id,
            hash: recorded.hash,
            data: payload.data,
        })
    }
}

/// An event in the envelope of [CloudEvents 1.0](https://cloudevents.io).
///
/// `source` and `id` together are unique among all events of all services; `sequence` is the
/// extension of that name, and says how far a reader is.
#[derive(Clone, Debug, Serialize)]
pub struct CloudEvent<'a> {
    /// `1.0`
    pub specversion: &'static str,
    /// The stream and the event's number in it.
    pub id: String,
    /// Where events are to be had.
    pub source: &'static str,
    /// `nullspace.build.…`, `nullspace.template.…` or `nullspace.namespace.…`
    pub r#type: String,
    /// What it happened to: `tb_…`, `tmpl_…` or a namespace.
    pub subject: &'a str,
    /// As in [`EventRecord`].
    pub time: Timestamp,
    /// `application/json`
    pub datacontenttype: &'static str,
    /// The event's position.
    pub sequence: WirePosition,
    /// As `schema_version` in [`EventRecord`].
    pub schemaversion: u16,
    /// As in [`EventRecord`].
    pub actor: &'a str,
    /// As in [`EventRecord`].
    pub commandid: &'a CommandId,
    /// As in [`EventRecord`].
    pub hash: Digest,
    /// As in [`EventRecord`].
    pub data: &'a RawValue,
}

impl<'a> CloudEvent<'a> {
    /// `record` in its envelope.
    pub fn of(record: &'a EventRecord<'a>) -> Self {
        let category = match Category::from(record.stream) {
            Category::Build => "build",
            Category::Template => "template",
            Category::Namespace => "namespace",
            Category::Keys => "keys",
            Category::Webhook => "webhook",
        };
        Self {
            specversion: "1.0",
            id: event_id(record.stream, record.version),
            source: CLOUD_SOURCE,
            r#type: format!("{CLOUD_TYPE_PREFIX}.{category}.{}", record.r#type),
            subject: match record.stream {
                StreamName::Build(id) => id.as_str(),
                StreamName::Template(id) => id.as_str(),
                StreamName::Namespace(slug) => slug.as_str(),
                StreamName::Keys => "keys",
                StreamName::Webhook(id) => id.as_str(),
            },
            time: record.time,
            datacontenttype: "application/json",
            sequence: record.position,
            schemaversion: record.schema_version,
            actor: &record.actor,
            commandid: record.command_id,
            hash: record.hash,
            data: &record.data,
        }
    }
}

/// What an event is known by.
pub fn event_id(stream: &StreamName, version: u64) -> String {
    format!("{stream}/{version}")
}

#[cfg(test)]
mod tests;
