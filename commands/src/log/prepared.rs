//! An append whose events are serialised and whose bounds are checked: what both adapters take.

use std::sync::Arc;

use domain::Digest;
use domain::event::Category;
use domain::ids::CommandId;
use domain::ports::{Append, Appended, LogError};
use domain::recorded::{Actor, Position, StreamName, Version};
use domain::time::Timestamp;

use crate::codec::{self, CodecError, Envelope, SCHEMA_VERSION};
use crate::limits::LogLimits;

/// An append that no log takes, now or later: the caller has a defect. Nothing was written, so it
/// travels as the source of [`LogError::Unavailable`].
#[derive(Debug, thiserror::Error)]
pub enum InvalidAppend {
    /// It holds no event.
    #[error("an append holds at least one event")]
    Empty,
    /// It holds too many events.
    #[error("an append of {events} events is larger than the log takes ({events_max})")]
    TooManyEvents {
        /// How many.
        events: usize,
        /// The bound.
        events_max: usize,
    },
    /// The event belongs into another stream.
    #[error("`{event}` does not belong into stream `{stream}`")]
    ForeignEvent {
        /// The event's type.
        event: &'static str,
        /// The stream.
        stream: StreamName,
    },
    /// An event has no stored form.
    #[error("an event cannot be stored")]
    Codec(#[source] CodecError),
}

/// The end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The version that the next event gets.
    pub(super) version: Version,
    /// The hash of the last event.
    pub(super) hash: Digest,
}

impl Head {
    /// That of a stream without events.
    pub(super) const EMPTY: Self = Self {
        version: Version::EMPTY,
        hash: Digest::ZERO,
    };

    /// The end of the stream once `envelope` stands at its end.
    pub(super) fn after(envelope: &Envelope) -> Self {
        Self {
            version: envelope.version.plus(1),
            hash: envelope.hash,
        }
    }
}

/// An append, ready to be placed.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) stream: StreamName,
    pub(super) expected: Version,
    command_id: CommandId,
    actor: Actor,
    time: Timestamp,
    events: Vec<(&'static str, Vec<u8>)>,
    /// Of all payloads.
    pub(super) bytes: u32,
}

impl Prepared {
    /// Serialises the events of `append`.
    ///
    /// # Errors
    /// [`LogError::TooLarge`], or [`LogError::Unavailable`] with an [`InvalidAppend`].
    pub(super) fn new(append: Append, limits: &LogLimits) -> Result<Self, LogError> {
        let mut events = Vec::with_capacity(append.events.len());
        let mut sum = 0_usize;
        for event in &append.events {
            if event.category() != Category::from(&append.stream) {
                return Err(invalid(InvalidAppend::ForeignEvent {
                    event: event.name(),
                    stream: append.stream,
                }));
            }
            let payload =
                codec::encode_event(event).map_err(|err| invalid(InvalidAppend::Codec(err)))?;
            within(payload.len(), limits.event_bytes_max)?;
            sum = sum.saturating_add(payload.len());
            events.push((event.name(), payload));
        }
        if events.is_empty() {
            return Err(invalid(InvalidAppend::Empty));
        }
        if events.len() > limits.append_events_max {
            return Err(invalid(InvalidAppend::TooManyEvents {
                events: events.len(),
                events_max: limits.append_events_max,
            }));
        }
        Ok(Self {
            stream: append.stream,
            expected: append.expected,
            command_id: append.command_id,
            actor: append.actor,
            time: append.time,
            events,
            bytes: within(sum, limits.append_bytes_max)?,
        })
    }

    /// Its events, placed behind `head` and numbered from `seq`.
    pub(super) fn link(self, seq: u64, head: Head) -> Vec<Envelope> {
        let mut head = head;
        let mut envelopes = Vec::with_capacity(self.events.len());
        for ((kind, payload), offset) in self.events.into_iter().zip(0_u32..) {
            let mut envelope = Envelope {
                seq: seq + u64::from(offset),
                stream: self.stream.clone(),
                version: head.version,
                kind: kind.to_owned(),
                schema_version: SCHEMA_VERSION,
                command_id: self.command_id.clone(),
                index: offset,
                actor: self.actor.clone(),
                time: self.time,
                hash: Digest::ZERO,
                payload,
            };
            envelope.hash = envelope.link(&head.hash);
            head = Head::after(&envelope);
            envelopes.push(envelope);
        }
        envelopes
    }

    /// How many events to look at to tell whether this append is there already.
    pub(super) fn compared_count(&self) -> usize {
        self.events.len().saturating_add(1)
    }

    /// The answer to this append, which does not fit the end of its stream. `stored` is what
    /// stands where it wants to stand, [`Prepared::compared_count`] events of it: if that is this
    /// very append, it is a repeat. That is exact, and needs no memory of earlier commands.
    pub(super) fn resolve(&self, stored: &[Envelope], head: Head) -> Result<Appended, LogError> {
        let same = |(stored, ((kind, payload), index)): (&Envelope, (&(_, Vec<u8>), u32))| {
            stored.command_id == self.command_id
                && stored.index == index
                && stored.kind == *kind
                && stored.payload == *payload
        };
        let goes_on = |next: &Envelope| next.command_id == self.command_id && next.index > 0;
        let split = stored.split_at_checked(self.events.len());
        match split.and_then(|(own, next)| Some((own, own.last()?, next))) {
            Some((own, last, next))
                if own.iter().zip(self.events.iter().zip(0_u32..)).all(same)
                    && !next.first().is_some_and(goes_on) =>
            {
                Ok(Appended {
                    version: last.version.plus(1),
                    position: Position::from_raw(last.seq),
                })
            }
            Some(_) | None => Err(LogError::Conflict {
                expected: self.expected,
                actual: head.version,
            }),
        }
    }
}

fn within(bytes: usize, bytes_max: u32) -> Result<u32, LogError> {
    match u32::try_from(bytes) {
        Ok(fitting) if fitting <= bytes_max => Ok(fitting),
        Ok(_) | Err(_) => Err(LogError::TooLarge {
            bytes,
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
        }),
    }
}

fn invalid(err: InvalidAppend) -> LogError {
    LogError::Unavailable(Arc::new(err))
}
