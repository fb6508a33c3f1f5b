//! What the operator's commands say to a running service, over its socket in the data folder.

use serde::{Deserialize, Serialize};

/// A key to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// Whom it is for.
    pub owner: String,
    /// What its maker calls it.
    pub label: String,
}

/// A key, without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLine {
    /// Its id.
    pub id: String,
    /// Whom it belongs to.
    pub owner: String,
    /// What its maker called it.
    pub label: String,
}

/// A key that was just made: the only time its text is shown.
#[derive(Clone, Serialize, Deserialize)]
pub struct CreatedKey {
    /// The key's record.
    #[serde(flatten)]
    pub line: KeyLine,
    /// The text that callers send.
    pub key: String,
}

impl std::fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedKey")
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

/// What a reference means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedTemplate {
    /// The template.
    pub template_id: String,
    /// Its build.
    pub build_id: String,
    /// `namespace/name`
    pub canonical_ref: String,
    /// What was built.
    pub artifact_id: String,
}

/// An error of the service, as the operator's commands read it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ErrorAnswer {
    /// What is wrong.
    pub error: String,
}
