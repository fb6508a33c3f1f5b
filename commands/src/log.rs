//! The event log: one closed enum over its adapters, so that callers are not generic.

#[cfg(test)]
mod contract;
pub mod embedded;
pub mod export;
pub mod memory;
mod prepared;
pub mod survey;

use std::path::PathBuf;
use std::sync::Arc;

use domain::causes::chain;
use domain::event::Event;
use domain::ports::{Append, Appended, EventAppender, EventReader, LogError};
use domain::recorded::{Position, Recorded, StreamName, Version};
use domain::time::Timestamp;

pub use embedded::{EmbeddedLog, Verification};
pub use memory::MemoryLog;
pub use prepared::InvalidAppend;

use survey::Place;

use crate::codec::Envelope;
use crate::limits::LogLimits;

/// An event log.
#[derive(Clone, Debug)]
pub enum AnyLog {
    /// In memory: gone with the process.
    Memory(MemoryLog),
    /// In a folder of this machine.
    Embedded(EmbeddedLog),
}

impl AnyLog {
    /// An empty log in memory.
    pub fn memory(limits: LogLimits) -> Self {
        Self::Memory(MemoryLog::new(limits))
    }

    /// Opens the log in folder `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// As [`embedded::open`].
    pub async fn open(dir: impl Into<PathBuf>, limits: LogLimits) -> Result<Self, LogError> {
        embedded::open(dir, limits).await.map(Self::Embedded)
    }

    /// Looks at every event that is there now: checksums, numbers, links, and the anchor. Others
    /// read and write meanwhile.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if it cannot be read. Damage is no error.
    pub async fn verify(&self) -> Result<Verification, LogError> {
        match self {
            Self::Memory(log) => log.verify(),
            Self::Embedded(log) => log.verify().await,
        }
    }

    /// Events of a stream as they are stored, from version `from`, at most `count_max`; fewer as in
    /// [`EventReader::read_stream`].
    ///
    /// # Errors
    /// As [`EventReader::read_stream`].
    pub async fn read_stored(
        &self,
        stream: &StreamName,
        from: Version,
        count_max: usize,
    ) -> Result<Vec<Envelope>, LogError> {
        match self {
            Self::Memory(log) => log.read_stored(stream, from, count_max),
            Self::Embedded(log) => log.read_stored(stream, from, count_max).await,
        }
    }

    /// Stops it: what was appended is durable, nothing more is taken, who waits is told.
    ///
    /// # Errors
    /// As [`EmbeddedLog::close`].
    pub async fn close(&self) -> Result<(), LogError> {
        match self {
            Self::Memory(log) => {
                log.close();
                Ok(())
            }
            Self::Embedded(log) => log.close().await,
        }
    }
}

impl EventAppender for AnyLog {
    async fn append(&self, append: Append) -> Result<Appended, LogError> {
        match self {
            Self::Memory(log) => log.append(append).await,
            Self::Embedded(log) => log.append(append).await,
        }
    }
}

impl EventReader for AnyLog {
    async fn read_stream(
        &self,
        stream: &StreamName,
        from: Version,
        count_max: usize,
    ) -> Result<Vec<Recorded<Event>>, LogError> {
        match self {
            Self::Memory(log) => log.read_stream(stream, from, count_max).await,
            Self::Embedded(log) => log.read_stream(stream, from, count_max).await,
        }
    }

    async fn read_all(
        &self,
        after: Position,
        count_max: usize,
    ) -> Result<Vec<Recorded<Event>>, LogError> {
        match self {
            Self::Memory(log) => log.read_all(after, count_max).await,
            Self::Embedded(log) => log.read_all(after, count_max).await,
        }
    }

    async fn read_at(&self, positions: &[Position]) -> Result<Vec<Recorded<Event>>, LogError> {
        match self {
            Self::Memory(log) => log.read_at(positions).await,
            Self::Embedded(log) => log.read_at(positions).await,
        }
    }

    async fn position_at(&self, time: Timestamp) -> Result<Position, LogError> {
        match self {
            Self::Memory(log) => log.position_at(time).await,
            Self::Embedded(log) => log.position_at(time).await,
        }
    }

    fn head(&self) -> Position {
        match self {
            Self::Memory(log) => log.head(),
            Self::Embedded(log) => log.head(),
        }
    }

    async fn wait_behind(&self, after: Position) -> Result<(), LogError> {
        match self {
            Self::Memory(log) => log.wait_behind(after).await,
            Self::Embedded(log) => log.wait_behind(after).await,
        }
    }
}

/// The log was closed, or its writer has stopped after a failure.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the event log is closed")]
pub struct Closed;

fn closed() -> LogError {
    LogError::Unavailable(Arc::new(Closed))
}

/// An event in the domain's terms.
fn recorded(envelope: Envelope) -> Result<Recorded<Event>, LogError> {
    let place = Place::of(&envelope).to_string();
    envelope.into_recorded().map_err(|err| damaged(place, &err))
}

/// A damage, with the whole chain of its causes: [`LogError::Damaged`] carries no source.
fn damaged(place: String, what: &dyn std::error::Error) -> LogError {
    let what = chain(what);
    LogError::Damaged { place, what }
}
