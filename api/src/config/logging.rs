//! What the service writes about itself.

use serde::{Deserialize, Serialize};

/// What the service writes to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logging {
    /// For people or for machines.
    pub format: LoggingFormat,
    /// What is written, for example `info` or `info,executor=debug`. Also `NULLSPACED_LOG`.
    pub filter: String,
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            format: LoggingFormat::Text,
            // The HTTP server tells of each of its threads.
            filter: "info,actix_server=warn".to_owned(),
        }
    }
}

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoggingFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
