//! How long what nobody points to is kept.

use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// A hundred years, in seconds: what is kept for longer is kept for ever.
const KEPT_SECS_MAX: u64 = 100 * 365 * 24 * 60 * 60;

/// How long what nobody points to is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Seconds that a finished build is kept to which no tag points any more; 0: for ever. A build
    /// with a tag is kept whatever its age.
    pub untagged_secs: u64,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY_SECS: u64 = 24 * 60 * 60;
        Self {
            untagged_secs: 14 * DAY_SECS,
        }
    }
}

impl Retention {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.untagged_secs > KEPT_SECS_MAX {
            return Err(ConfigError::Range {
                setting: "retention.untagged_secs",
                problem: format!("must be at most {KEPT_SECS_MAX}; 0 keeps builds for ever"),
            });
        }
        Ok(())
    }

    /// When a build expires to which no tag has pointed `since` then; none if it does not.
    pub fn expires_at(&self, since: Timestamp) -> Option<Timestamp> {
        (self.untagged_secs > 0).then(|| since.plus_millis(self.untagged_secs.saturating_mul(1000)))
    }
}
