//! Lines of retries, and what else tells who did something and how it went.

use serde::Serialize;

use super::error::FailureDetail;

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Actor {
    /// `key`, `worker` or `operator`.
    pub kind: &'static str,
    /// `key_…` or `wk_…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What the maker of the key calls it, as long as the key is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// How a build went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BuildOutcome {
    /// `tb_…`
    pub build_id: String,
    /// `waiting`, `building`, `ready`, `error` or `cancelled`.
    pub status: &'static str,
    /// The tags that it gets, or got.
    pub tags: Vec<String>,
    /// Who asked for it.
    pub triggered_by: Actor,
    /// When it was accepted.
    pub queued_at: String,
    /// When a worker first took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// From its first start to its end, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// How many attempts were started.
    pub attempt: u32,
    /// How many there may be.
    pub max_attempts: u32,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<FailureDetail>,
}

/// A line of retries, as it is seen from one of its builds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lineage {
    /// The build that was asked for.
    pub build_id: String,
    /// The first build of the line.
    pub original_build_id: String,
    /// How many builds the line has.
    pub build_count: u64,
    /// Whether some of them are left out here.
    pub truncated: bool,
    /// The builds, each behind the one that it repeats.
    pub builds: Vec<LineageBuild>,
}

/// A build of a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LineageBuild {
    /// How it went.
    #[serde(flatten)]
    pub outcome: BuildOutcome,
    /// What it is to the build that was asked for: `asked`, `ancestor`, `descendant` or `other`.
    pub relation: &'static str,
    /// The build that it repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_of_build_id: Option<String>,
    /// Those that repeat it, of the ones that are here.
    pub retries: Vec<String>,
}
