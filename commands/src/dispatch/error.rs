//! Why nothing came of a command, or of reading a stream.

use std::convert::Infallible;

use domain::build;
use domain::ports::LogError;
use domain::recorded::StreamName;

/// Why nothing came of a command.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError<R> {
    /// The rules stand against it.
    #[error("the command was refused")]
    Rejected(#[source] R),
    /// Others appended first each time; try again later.
    #[error("others changed `{stream}` first, {attempts} times in a row")]
    Contended {
        /// The stream.
        stream: StreamName,
        /// How often it was decided.
        attempts: u32,
    },
    /// The stored stream makes no sense: an operator has to look.
    #[error("stream `{stream}` cannot be replayed")]
    Corrupt {
        /// The stream.
        stream: StreamName,
        /// Where it stops making sense.
        #[source]
        source: build::CorruptStream,
    },
    /// The log did not do its part. After [`LogError::OutcomeUnknown`] it may have happened.
    #[error("the event log failed")]
    Log(#[from] LogError),
}

impl DispatchError<Infallible> {
    /// The same failure of loading, as one of a command that could have been refused.
    pub fn widen<R>(self) -> DispatchError<R> {
        match self {
            Self::Rejected(never) => match never {},
            Self::Contended { stream, attempts } => DispatchError::Contended { stream, attempts },
            Self::Corrupt { stream, source } => DispatchError::Corrupt { stream, source },
            Self::Log(err) => DispatchError::Log(err),
        }
    }
}

/// Why a stream could not be read: a part of [`DispatchError`], whatever its rejections are.
#[derive(Debug)]
pub(super) enum ReadError {
    Corrupt {
        stream: StreamName,
        source: build::CorruptStream,
    },
    Log(LogError),
}

impl From<LogError> for ReadError {
    fn from(err: LogError) -> Self {
        Self::Log(err)
    }
}

impl<R> From<ReadError> for DispatchError<R> {
    fn from(err: ReadError) -> Self {
        match err {
            ReadError::Corrupt { stream, source } => Self::Corrupt { stream, source },
            ReadError::Log(err) => Self::Log(err),
        }
    }
}
