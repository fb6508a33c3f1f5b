//! A line of `--progress=rawjson`: Go's `client.SolveStatus`, of which we read what we use.

use std::borrow::Cow;

use chrono::DateTime;
use serde::{Deserialize, Deserializer};

/// What happened since the line before.
#[derive(Debug, Deserialize)]
pub(super) struct Status<'a> {
    #[serde(borrow, default)]
    pub(super) vertexes: Vec<Vertex<'a>>,
    #[serde(borrow, default)]
    pub(super) statuses: Vec<VertexStatus<'a>>,
    #[serde(borrow, default)]
    pub(super) logs: Vec<VertexLog<'a>>,
    #[serde(borrow, default)]
    pub(super) warnings: Vec<VertexWarning<'a>>,
}

/// A vertex of the build's graph: it comes whole whenever it changed.
#[derive(Debug, Deserialize)]
pub(super) struct Vertex<'a> {
    #[serde(borrow)]
    pub(super) digest: Cow<'a, str>,
    /// Absent in what comes from within a vertex: then it has not changed.
    #[serde(borrow, default)]
    pub(super) inputs: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) name: Cow<'a, str>,
    #[serde(default, deserialize_with = "time")]
    pub(super) started: Option<Time>,
    #[serde(default, deserialize_with = "time")]
    pub(super) completed: Option<Time>,
    #[serde(default)]
    pub(super) cached: bool,
    #[serde(borrow, default)]
    pub(super) error: Cow<'a, str>,
}

/// How far a part of a vertex's work is.
#[derive(Debug, Deserialize)]
pub(super) struct VertexStatus<'a> {
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) vertex: Cow<'a, str>,
    #[serde(default)]
    pub(super) current: i64,
}

/// What a vertex wrote: the bytes of one `write`, wherever they were cut.
#[derive(Debug, Deserialize)]
pub(super) struct VertexLog<'a> {
    #[serde(borrow, default)]
    pub(super) vertex: Cow<'a, str>,
    /// 1 is standard output, 2 standard error.
    #[serde(default)]
    pub(super) stream: i64,
    /// Base64, which JSON never escapes; Go writes no bytes as null.
    #[serde(borrow, default)]
    pub(super) data: Option<&'a str>,
    #[serde(default, deserialize_with = "time")]
    pub(super) timestamp: Option<Time>,
}

/// What the frontend finds questionable.
#[derive(Debug, Deserialize)]
pub(super) struct VertexWarning<'a> {
    /// Base64.
    #[serde(borrow, default)]
    pub(super) short: Option<&'a str>,
    #[serde(borrow, default, rename = "sourceInfo")]
    pub(super) source_info: Option<SourceInfo<'a>>,
    #[serde(default)]
    pub(super) range: Vec<Range>,
}

/// Where a warning belongs. It also holds the whole file, which is not read.
#[derive(Debug, Deserialize)]
pub(super) struct SourceInfo<'a> {
    #[serde(borrow, default)]
    pub(super) filename: Cow<'a, str>,
}

/// Some lines of a file.
#[derive(Debug, Deserialize)]
pub(super) struct Range {
    #[serde(default)]
    pub(super) start: Position,
}

/// A place in a file.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Position {
    #[serde(default)]
    pub(super) line: i64,
}

/// A moment on the daemon's clock, in nanoseconds since 1970.
pub(super) type Time = i64;

/// A moment that cannot be read is the beginning of time: that something happened matters more than
/// when.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let text = Option::<Cow<'de, str>>::deserialize(deserializer)?;
    Ok(text.map(|text| {
        let time = DateTime::parse_from_rfc3339(&text).ok();
        time.and_then(|time| time.timestamp_nanos_opt())
            .unwrap_or_default()
    }))
}
