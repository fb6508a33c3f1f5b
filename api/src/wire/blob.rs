//! Announcing and sending the files of a context.

use serde::Serialize;

/// What is known about announced files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PreflightResponse {
    /// One answer for each announced entry, in the same order.
    pub files: Vec<PreflightResult>,
}

/// What is known about one announced entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PreflightResult {
    /// The entry's path, as it was announced.
    pub path: String,
    /// `file` or `dir`.
    pub entry_type: &'static str,
    /// Whether the content has to be sent.
    pub missing: bool,
    /// Permission bits, as they were announced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Under which name the content is sent and referred to; not for folders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob_id: Option<String>,
}
