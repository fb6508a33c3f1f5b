//! What the service writes about itself to standard error: never secrets, keys or bodies.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{Logging, LoggingFormat};

/// Why nothing can be written.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is none.
    #[error("logging.filter: `{filter}` is not a filter, for example `info,executor=debug`")]
    Filter {
        /// As it was given.
        filter: String,
        /// Why.
        source: ParseError,
    },
    /// Something else in this process writes already.
    #[error("logging was set up before")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Begins to write.
///
/// # Errors
/// [`TelemetryError`].
pub fn start(logging: &Logging) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&logging.filter).map_err(|source| TelemetryError::Filter {
        filter: logging.filter.clone(),
        source,
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match logging.format {
        LoggingFormat::Json => builder.json().try_init(),
        LoggingFormat::Text => builder.with_ansi(false).try_init(),
    }
    .map_err(TelemetryError::Twice)
}
