//! How long what nobody points to is kept.

use std::time::Duration;

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
    /// Seconds that the files of a build are kept after its end, so that it can be retried; 0: for
    /// ever.
    pub context_secs: u64,
    /// Seconds that an uploaded file is kept for a build that refers to it; 0: for ever.
    pub upload_secs: u64,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY_SECS: u64 = 24 * 60 * 60;
        Self {
            untagged_secs: 14 * DAY_SECS,
            context_secs: 14 * DAY_SECS,
            upload_secs: DAY_SECS,
        }
    }
}

impl Retention {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (setting, secs) in [
            ("retention.untagged_secs", self.untagged_secs),
            ("retention.context_secs", self.context_secs),
            ("retention.upload_secs", self.upload_secs),
        ] {
            if secs > KEPT_SECS_MAX {
                let problem = format!("must be at most {KEPT_SECS_MAX}; 0 is for ever");
                return Err(ConfigError::Range { setting, problem });
            }
        }
        Ok(())
    }

    /// When a build expires to which no tag has pointed `since` then; none if it does not.
    pub fn expires_at(&self, since: Timestamp) -> Option<Timestamp> {
        after(since, self.untagged_secs)
    }

    /// Until when the files of a build are kept that ended then; none: for ever.
    pub fn context_until(&self, ended: Timestamp) -> Option<Timestamp> {
        after(ended, self.context_secs)
    }

    /// How often it is looked which files nobody needs any more: often enough for what the settings
    /// say, and at least every hour, for what operators take away.
    pub fn files_interval(&self) -> Duration {
        const SECS_MAX: u64 = 60 * 60;
        let kept = [self.context_secs, self.upload_secs];
        let shortest = kept.into_iter().filter(|secs| *secs > 0).min();
        Duration::from_secs(shortest.map_or(SECS_MAX, |secs| secs.min(SECS_MAX)))
    }

    /// Until when an uploaded file is kept that came then; none: for ever.
    pub fn upload_until(&self, came: Timestamp) -> Option<Timestamp> {
        after(came, self.upload_secs)
    }
}

fn after(time: Timestamp, secs: u64) -> Option<Timestamp> {
    (secs > 0).then(|| time.plus_millis(secs.saturating_mul(1000)))
}
