//! What the write side and the read side need of the outside: the log and the clock.

use std::future::Future;
use std::sync::Arc;

use crate::event::Event;
use crate::ids::CommandId;
use crate::recorded::{Actor, Position, Recorded, StreamName, Version};
use crate::time::Timestamp;

/// The present moment.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Events that one command makes happen to one stream. Event ids derive from the command's id and
/// the event's place, so that an append that is repeated is recognised.
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    /// The stream.
    pub stream: StreamName,
    /// The stream's version when the command was decided.
    pub expected: Version,
    /// The command.
    pub command_id: CommandId,
    /// Who gave it.
    pub actor: Actor,
    /// When.
    pub time: Timestamp,
    /// What it makes happen; not empty.
    pub events: Vec<Event>,
}

/// Where appended events stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The stream's version afterwards.
    pub version: Version,
    /// The position of the last event.
    pub position: Position,
}

/// Why the log did not do what it was asked to. Callers act differently on each.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// Somebody else appended first: read again and decide again.
    #[error("the stream is at version {actual}, not {expected}", actual = actual.0, expected = expected.0)]
    Conflict {
        /// What the caller thought.
        expected: Version,
        /// What is so.
        actual: Version,
    },
    /// Nothing was written: try again later.
    #[error("the event log cannot be reached or has stopped")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The events may or may not be there: append the same command again.
    #[error("it is unknown whether the events were written")]
    OutcomeUnknown(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// An event is larger than the log takes.
    #[error("an event of {bytes} bytes is larger than the log takes ({bytes_max} bytes)")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// What is stored cannot be what was written.
    #[error("the event log is damaged at {place}: {what}")]
    Damaged {
        /// Where.
        place: String,
        /// What is wrong.
        what: String,
    },
}

/// Appends events.
pub trait EventAppender: Send + Sync {
    /// Appends all events of `append` or none, durably.
    ///
    /// The same append given again answers like the first one and writes nothing.
    fn append(&self, append: Append) -> impl Future<Output = Result<Appended, LogError>> + Send;
}

/// Reads events.
pub trait EventReader: Send + Sync {
    /// The events of a stream from version `from`, at most `count_max`.
    ///
    /// The log has bounds of its own, so there may be fewer: only an empty answer means that there
    /// are no more.
    fn read_stream(
        &self,
        stream: &StreamName,
        from: Version,
        count_max: usize,
    ) -> impl Future<Output = Result<Vec<Recorded<Event>>, LogError>> + Send;

    /// The events behind position `after`, in the order of the log, at most `count_max`; there may
    /// be fewer, as in [`EventReader::read_stream`].
    fn read_all(
        &self,
        after: Position,
        count_max: usize,
    ) -> impl Future<Output = Result<Vec<Recorded<Event>>, LogError>> + Send;

    /// The events at `positions`, each of which is an event's, in that order; there may be fewer,
    /// as in [`EventReader::read_stream`].
    fn read_at(
        &self,
        positions: &[Position],
    ) -> impl Future<Output = Result<Vec<Recorded<Event>>, LogError>> + Send;

    /// The position of the last event that is not later than `time`; [`Position::START`] if there
    /// is none. Clocks jump: events before it may be later, none behind it is earlier.
    fn position_at(
        &self,
        time: Timestamp,
    ) -> impl Future<Output = Result<Position, LogError>> + Send;

    /// The position of the last event; [`Position::START`] if there is none.
    fn head(&self) -> Position;

    /// Waits until there is an event behind `after`, or the log stops.
    ///
    /// A subscription is a loop of this and [`EventReader::read_all`]: no gap, no repeat, and a
    /// slow reader holds nobody up, because nothing is queued for it.
    fn wait_behind(&self, after: Position) -> impl Future<Output = Result<(), LogError>> + Send;
}
