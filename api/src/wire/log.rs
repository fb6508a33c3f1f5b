//! Entries of a build's log.

use serde::Serialize;

use super::error::FailureDetail;
use super::template::{ResultMetadata, TemplateInfo};

/// An entry of a build's log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LogEntry {
    /// The build.
    pub build_id: String,
    /// Its template.
    pub template_id: String,
    /// The entry's number, from 0, without gaps.
    pub offset: u64,
    /// When.
    pub timestamp: String,
    /// `start`, `message`, `cache`, `retry`, `warning`, or the last: `end`, `error`, `cancelled`.
    pub kind: &'static str,
    /// `debug`, `info`, `warn` or `error`.
    pub level: &'static str,
    /// The text.
    pub message: String,
    /// What was under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The step, 1-based.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_index: Option<u32>,
    /// How many steps there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_steps: Option<u32>,
    /// The attempt, 1-based.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// How many attempts there may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// `file_blob`, `layer` or `final_artifact`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_kind: Option<&'static str>,
    /// `hit`, `miss`, `stored` or `bypass`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_status: Option<&'static str>,
    /// Why the cache gave nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_reason: Option<&'static str>,
    /// What was looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_subject: Option<String>,
    /// Why the build failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<FailureDetail>,
    /// The template; on `end` alone, and always there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<TemplateInfo>,
    /// More about the template; on `end` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_metadata: Option<ResultMetadata>,
}
