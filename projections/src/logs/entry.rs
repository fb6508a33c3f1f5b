//! An entry of a build's log.

use domain::build::{BypassReason, CacheKind};
use domain::failure::Failure;
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What an entry is, in the wire's vocabulary. The first entry of a log is `start`; the last one,
/// and only that, is `end`, `error` or `cancelled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// The build was accepted.
    Start,
    /// Something happened, or a line was written.
    Message,
    /// A cache was looked into, or given something.
    Cache,
    /// An attempt failed and another will follow.
    Retry,
    /// Something deserves attention.
    Warning,
    /// The build failed for good.
    Error,
    /// The build was stopped.
    Cancelled,
    /// The template is there.
    End,
}

impl LogKind {
    /// The wire's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Message => "message",
            Self::Cache => "cache",
            Self::Retry => "retry",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
            Self::End => "end",
        }
    }

    /// Whether no entry follows one of this kind.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Error | Self::Cancelled | Self::End => true,
            Self::Start | Self::Message | Self::Cache | Self::Retry | Self::Warning => false,
        }
    }
}

/// How much an entry matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Hidden from whoever watches a build, shown in its log.
    Debug,
    /// The usual.
    Info,
    /// Deserves attention.
    Warn,
    /// Something failed.
    Error,
}

impl LogLevel {
    /// The wire's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// What a cache did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheStatus {
    /// It had what was asked for.
    Hit,
    /// It had not.
    Miss,
    /// It was given something.
    Stored,
    /// It was not asked.
    Bypass,
}

impl CacheStatus {
    /// The wire's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stored => "stored",
            Self::Bypass => "bypass",
        }
    }
}

/// Why a cache gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheReason {
    /// The request wants everything built anew.
    WholeBuildSkipCache,
    /// A `skip_cache` step stands before.
    BuilderCacheBoundary,
    /// The files were uploaded anew.
    ForceUpload,
    /// There is nothing that could be used.
    MissingOrIncompatible,
}

impl CacheReason {
    /// The wire's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WholeBuildSkipCache => "whole_build_skip_cache",
            Self::BuilderCacheBoundary => "builder_cache_boundary",
            Self::ForceUpload => "force_upload",
            Self::MissingOrIncompatible => "missing_or_incompatible",
        }
    }
}

impl From<BypassReason> for CacheReason {
    fn from(reason: BypassReason) -> Self {
        match reason {
            BypassReason::WholeBuildSkipCache => Self::WholeBuildSkipCache,
            BypassReason::BuilderCacheBoundary => Self::BuilderCacheBoundary,
            BypassReason::ForceUpload => Self::ForceUpload,
        }
    }
}

/// An entry of a build's log. What does not apply is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its place in the build's log, from 0, without gaps.
    pub offset: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What it is.
    pub kind: LogKind,
    /// How much it matters.
    pub level: LogLevel,
    /// What a person reads.
    pub message: String,
    /// The part of the pipeline; the wire takes any text here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The step, 1-based.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_index: Option<u32>,
    /// Of how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_steps: Option<u32>,
    /// The attempt, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Of how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Which cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_kind: Option<CacheKind>,
    /// What it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_status: Option<CacheStatus>,
    /// Why it gave nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_reason: Option<CacheReason>,
    /// What was looked up, bypassed or stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_subject: Option<String>,
    /// What failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl LogEntry {
    /// An entry with nothing but a message; its offset is given to it when it is stored.
    pub(super) fn new(at: Timestamp, kind: LogKind, level: LogLevel, message: String) -> Self {
        Self {
            offset: 0,
            at,
            kind,
            level,
            message,
            phase: None,
            step_index: None,
            total_steps: None,
            attempt: None,
            max_attempts: None,
            cache_kind: None,
            cache_status: None,
            cache_reason: None,
            cache_subject: None,
            failure: None,
        }
    }
}
