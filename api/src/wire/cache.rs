//! What the `cache` commands say to a running service, and what they print as JSON.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What an entry holds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// What a step, or a layer of an image, changed.
    Layer,
    /// A finished template: disk, memory, devices.
    Artifact,
    /// The content of a file that was sent.
    Blob,
}

impl Kind {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Artifact => "artifact",
            Self::Blob => "blob",
        }
    }
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What it holds.
    pub kind: Kind,
    /// What it is called.
    pub key: String,
    /// What it takes on the disk.
    pub bytes: u64,
    /// When it was used last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<String>,
    /// Whether a build or a machine uses it now.
    pub in_use: bool,
    /// What it must stay for.
    pub needed_by: Vec<Need>,
}

impl Line {
    /// Whether it must stay.
    pub fn is_needed(&self) -> bool {
        self.in_use || !self.needed_by.is_empty()
    }
}

/// What an entry must stay for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// A template, by a reference that means it.
    Template(String),
    /// An artifact that was made of it.
    Artifact(String),
    /// A build that has not ended.
    Build(String),
}

/// All entries of one kind together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Of which.
    pub kind: Kind,
    /// How many there are.
    pub count: u64,
    /// What they take on the disk.
    pub bytes: u64,
    /// What those of them take that must stay.
    pub needed_bytes: u64,
}

/// What `cache list` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The entries: by kind, the longest unused first.
    pub entries: Vec<Line>,
    /// Sums, by kind.
    pub totals: Vec<Total>,
    /// The bound on layers.
    pub layer_bytes_max: u64,
}

/// Something that is known of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What.
    pub name: String,
    /// The text.
    pub value: String,
}

/// What `cache explain` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The whole key, or what was asked for if nothing is known of it.
    pub key: String,
    /// Where it is.
    pub state: State,
    /// The entry, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Line>,
    /// What it was made of.
    pub recipe: Vec<Fact>,
    /// What the event log says of it.
    pub history: Vec<Fact>,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is there.
    Present,
    /// Builds have used it, and it is gone: evicted, or removed with its template.
    Gone,
    /// No entry and no event has this key.
    Unknown,
}

/// Something that went, or would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// What it held.
    pub kind: Kind,
    /// What it was called.
    pub key: String,
    /// What it took on the disk.
    pub bytes: u64,
}

/// What `cache evict` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eviction {
    /// What became of it.
    pub outcome: Outcome,
    /// The whole key, or what was asked for.
    pub key: String,
    /// What went: the entry, and what makes no sense without it.
    pub removed: Vec<Removed>,
    /// What they took on the disk.
    pub freed_bytes: u64,
    /// Why it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of an entry that was to be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is gone.
    Removed,
    /// It is needed, and stays.
    Needed,
    /// There is no such entry.
    Unknown,
}

/// What `cache gc` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Collect {
    /// Only say what would go.
    pub dry_run: bool,
    /// What layers may take; the setting if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<u64>,
}

/// What `cache gc` did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// What went, in order.
    pub removed: Vec<Removed>,
    /// What they took on the disk.
    pub freed_bytes: u64,
    /// What layers may take.
    pub layer_bytes_max: u64,
    /// What they take now, or would take.
    pub layer_bytes: u64,
    /// Whether the bound is met; if not, everything that is left is needed.
    pub within_bound: bool,
    /// The layers and artifacts that must stay.
    pub kept: Vec<Line>,
}
