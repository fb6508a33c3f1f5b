//! What the `events` commands say to a running service, and what they print as JSON.

use commands::log::export::Exported;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What a look at a log, or at an export, found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Whether nothing is wrong.
    pub is_whole: bool,
    /// How many events could be read.
    pub event_count: u64,
    /// In how many streams.
    pub stream_count: usize,
    /// The stream of an export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Up to which of its events the log's anchor vouches for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchored: Option<u64>,
    /// The hash of the whole log, or of the last event of an export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// How many things are wrong.
    pub damage_count: u64,
    /// The first of them.
    pub damages: Vec<DamageLine>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageLine {
    /// Where, in words.
    pub place: String,
    /// The event's position, as `events tail` shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// The event's stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The event's number in its stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// What.
    pub what: String,
}

/// Events, in the order of the log.
#[derive(Debug, Serialize, Deserialize)]
pub struct TailPage {
    /// Those that were asked for.
    pub events: Vec<Box<RawValue>>,
    /// How far the log was read: where the next page begins.
    pub next: String,
    /// Whether that is the end of the log for now.
    pub is_last: bool,
    /// Whether the service is about to end.
    pub is_stopping: bool,
}

/// Stored events of a build, from some version on.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExportPage {
    /// The events; none if there are no more.
    pub events: Vec<Exported>,
}

/// What came of folding the views once more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Whether every row is what the events make of it.
    pub is_equal: bool,
    /// How far both were in the end.
    pub position: String,
    /// How many events were applied.
    pub event_count: u64,
    /// How many rows were compared.
    pub row_count: u64,
    /// The first row that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<RowDifference>,
}

/// A row that is not what the events make of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowDifference {
    /// The row.
    pub key: String,
    /// What the views show; absent if they have no such row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<String>,
    /// What the events make of it; absent if they make no such row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<String>,
    /// The last event that both had applied.
    pub position: String,
}
