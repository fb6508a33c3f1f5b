//! The builds that no tag points to any more, by since when: their artifacts expire in that order.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{BuildId, TemplateId};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::TemplateRow;
use crate::key::Key;
use crate::rows::Rows;
use crate::store::{Scan, StoreError};
use crate::views::Views;

/// A build that is ready and that no tag points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untagged {
    /// Its template.
    pub template_id: TemplateId,
    /// The build.
    pub build_id: BuildId,
    /// Since when.
    pub since: Timestamp,
}

fn untagged_key() -> Key {
    Key::table("templates/untagged")
}

fn key_of(build: &BuildId, since: Timestamp) -> Key {
    // No event is older than the epoch.
    let micros = u64::try_from(since.unix_micros()).unwrap_or_default();
    untagged_key().number(micros).text(build.as_str())
}

/// Where the tags of a template pointed before an event.
pub(super) struct Pointed {
    tagged: BTreeSet<BuildId>,
    untagged: BTreeMap<BuildId, Timestamp>,
}

fn tagged(row: &TemplateRow) -> BTreeSet<BuildId> {
    row.tags.values().map(|tag| tag.build_id.clone()).collect()
}

impl Pointed {
    pub(super) fn of(row: &TemplateRow) -> Self {
        Self {
            tagged: tagged(row),
            untagged: row.untagged.clone(),
        }
    }

    /// Brings up to date which builds have no tag, after an event at `time` has changed `row`.
    pub(super) fn follow(
        self,
        rows: &mut Rows<'_>,
        row: &mut TemplateRow,
        time: Timestamp,
    ) -> Result<(), StoreError> {
        if row.deleted_at.is_none() {
            let tagged = tagged(row);
            row.untagged.retain(|build, _| !tagged.contains(build));
            let left = self.tagged.difference(&tagged);
            row.untagged.extend(left.map(|build| (build.clone(), time)));
        }
        for (build, since) in &self.untagged {
            if row.untagged.get(build) != Some(since) {
                rows.delete(key_of(build, *since));
            }
        }
        for (build, since) in &row.untagged {
            if self.untagged.get(build) != Some(since) {
                let untagged = Untagged {
                    template_id: row.id.clone(),
                    build_id: build.clone(),
                    since: *since,
                };
                rows.put(key_of(build, *since), &untagged)?;
            }
        }
        Ok(())
    }
}

impl Views {
    /// Of all builds whose artifacts have not expired, the one that no tag has pointed to for the
    /// longest time.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn longest_untagged(&self) -> Result<Option<Untagged>, StoreError> {
        let mut first = self.values(&Scan::below(&untagged_key(), 1))?;
        Ok(first.pop())
    }
}
