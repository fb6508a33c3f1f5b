//! What differs between two builds.

use serde::Serialize;
use serde_json::Value;

use super::build::CacheSummary;
use super::lineage::BuildOutcome;
use super::timeline::CacheLookup;

/// Two builds, side by side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BuildDiff {
    /// The one in the path.
    pub before: BuildOutcome,
    /// The one that it is compared with.
    pub after: BuildOutcome,
    /// Whether what decides the results is the same: the digests of the definitions are.
    pub same_definition: bool,
    /// What differs between the requests but for their steps.
    pub definition: Vec<Change>,
    /// What they are built on.
    pub base: Compared<Base>,
    /// Their steps, in order.
    pub steps: Vec<StepDiff>,
    /// What the caches gave, over all attempts.
    pub cache: Compared<CacheSummary>,
    /// What looking for a finished artifact gave.
    pub artifact_cache: Compared<CacheLookup>,
    /// How long they waited, how long their phases took, and everything together as `total`.
    pub timings: Vec<TimingDiff>,
    /// What they made.
    pub artifact: Compared<Artifact>,
    /// Whether so much happened in one of them that the last of it is left out.
    pub truncated: bool,
}

/// The same of both builds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared<T> {
    /// Whether it is the same; absent as long as one of the two is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same: Option<bool>,
    /// Of the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<T>,
    /// Of the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<T>,
}

impl<T: PartialEq> Compared<T> {
    /// Both, if they are known.
    pub fn new(before: Option<T>, after: Option<T>) -> Self {
        let same = before.as_ref().zip(after.as_ref());
        Self {
            same: same.map(|(before, after)| before == after),
            before,
            after,
        }
    }
}

/// Something in a definition that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Where it is: a JSON pointer (RFC 6901).
    pub path: String,
    /// `added`, `removed` or `changed`.
    pub change: &'static str,
    /// What it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// Of a text of several lines that changed: a unified diff, in the place of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// Whether the values are not told: those of variables never are.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub redacted: bool,
}

/// What a build is built on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Base {
    /// What was asked for, if it was not asked for in a Dockerfile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// What that turned out to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Its digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The build of the base, if that is a template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
}

/// A step of one build or of both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepDiff {
    /// `same`, `changed`, `added` or `removed`: whether both were asked for the same.
    pub change: &'static str,
    /// Whether both have the same key, and so the same of everything that they are made of and stand
    /// on; absent if one has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_key: Option<bool>,
    /// How the first did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<StepOutcome>,
    /// How the second did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<StepOutcome>,
    /// What was asked for differently.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Change>,
}

/// How a build did a step, in the last attempt that came to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepOutcome {
    /// Which, from 1.
    pub step_index: u32,
    /// Its title.
    pub name: String,
    /// `done`, `failed`, `cancelled`, `under_way` or `not_run`.
    pub outcome: &'static str,
    /// Whether it came from the cache.
    pub cached: bool,
    /// What looking it up gave; its key is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheLookup>,
    /// How long it took, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    /// The exit code of its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How much of it was stored, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
}

/// How long something took in both builds, in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TimingDiff {
    /// `waiting`, a phase, `stopping`, `other` or `total`.
    pub what: &'static str,
    /// In the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_us: Option<u64>,
    /// In the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_us: Option<u64>,
    /// How much longer in the second; absent if one did not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta_us: Option<i64>,
}

/// What a build made, with sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Artifact {
    /// `art_…`
    pub artifact_id: String,
    /// The root filesystem, as it is stored.
    pub rootfs_bytes: u64,
    /// The machine's memory, as it is stored.
    pub memory_bytes: u64,
    /// The machine's devices.
    pub device_state_bytes: u64,
    /// The disk, as the machine sees it.
    pub disk_bytes: u64,
    /// Whether an earlier build made it.
    pub reused: bool,
}
