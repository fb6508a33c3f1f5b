//! What caches did for a build.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// What a cache entry holds, in the wire's vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheKind {
    /// A file's content.
    FileBlob,
    /// What a step changed.
    Layer,
    /// A whole artifact.
    FinalArtifact,
}

/// Which cache entry is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheSubject {
    /// What it holds.
    pub kind: CacheKind,
    /// What it is called in the log, for example the step's title.
    pub subject: String,
    /// The step, 1-based.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_index: Option<u32>,
    /// The key it was looked up by.
    pub key: Digest,
}

/// Something was not in the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheMissed {
    /// What was looked up.
    #[serde(flatten)]
    pub entry: CacheSubject,
    /// The first input that differs from the nearest earlier entry, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<String>,
}

/// Why the cache was not asked, in the wire's vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BypassReason {
    /// The request wants everything built anew.
    WholeBuildSkipCache,
    /// A `skip_cache` step stands before.
    BuilderCacheBoundary,
    /// The files were uploaded anew.
    ForceUpload,
}

/// The cache was not asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheBypassed {
    /// What would have been looked up.
    #[serde(flatten)]
    pub entry: CacheSubject,
    /// Why it was not.
    pub reason: BypassReason,
}

/// Something was put into the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStored {
    /// What was stored.
    #[serde(flatten)]
    pub entry: CacheSubject,
    /// How large it is.
    pub bytes: u64,
}

/// What the cache of files did for the files of a build that are not told one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesCounted {
    /// Files whose content was there.
    pub hits: u64,
    /// Files whose content was not.
    pub misses: u64,
    /// Files that were sent anew because a step wants it so.
    pub bypasses: u64,
    /// Files whose content was stored for this build.
    pub stores: u64,
}
