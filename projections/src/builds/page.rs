//! Lists of builds, page by page.

use std::collections::BTreeSet;
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use domain::definition::{Backend, SourceType};
use domain::ids::{BuildId, TemplateId};
use domain::name::Owner;
use domain::recorded::Position;

use super::{BuildRow, BuildStatus, row_key, template_key};
use crate::key::{self, Key};
use crate::store::{Scan, StoreError};
use crate::views::Views;

/// Which builds of a list are wanted; a field that is not given does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildFilter {
    /// Whose.
    pub owner: Option<Owner>,
    /// In which state.
    pub status: Option<BuildStatus>,
    /// By which engine.
    pub backend: Option<Backend>,
    /// From what.
    pub source_type: Option<SourceType>,
}

impl BuildFilter {
    fn wants(&self, row: &BuildRow) -> bool {
        self.owner.as_ref().is_none_or(|owner| *owner == row.owner)
            && self.status.is_none_or(|status| status == row.status)
            && self.backend.is_none_or(|backend| backend == row.backend)
            && self
                .source_type
                .is_none_or(|source_type| source_type == row.source_type)
    }
}

/// Where a page ends. Its text is opaque to callers, who give it back as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(u64);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The text is not a cursor that was handed out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one that was handed out")]
pub struct InvalidCursor(#[source] ParseIntError);

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        text.parse().map(Self).map_err(InvalidCursor)
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next page begins; nothing on the last page. A page that has one may be shorter
    /// than was asked for.
    pub next: Option<Cursor>,
}

impl Views {
    /// Where the first and, if they are over, the last events of a template's builds stand, up to
    /// `until`; of at most `count_max` builds, without `except`.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub(crate) fn ends_of_builds(
        &self,
        template: &TemplateId,
        except: Option<&BuildId>,
        until: Position,
        count_max: usize,
    ) -> Result<BTreeSet<Position>, StoreError> {
        let mut ends = BTreeSet::new();
        let all = template_key(template);
        let wanted = Scan {
            to: all.clone().number(until.raw()).end(),
            ..Scan::below(&all, count_max)
        };
        for id in self.values::<BuildId>(&wanted)? {
            if except == Some(&id) {
                continue;
            }
            if let Some(row) = self.build(&id)? {
                ends.insert(row.requested);
                if row.status.is_terminal() && row.updated <= until {
                    ends.insert(row.updated);
                }
            }
        }
        Ok(ends)
    }

    /// The builds that an index lists, the newest first.
    pub(super) fn build_page(
        &self,
        index: &Key,
        filter: &BuildFilter,
        cursor: Option<Cursor>,
        count_max: usize,
    ) -> Result<Page<BuildRow>, StoreError> {
        let mut items = Vec::new();
        let mut next = cursor;
        let mut scanned = 0;
        loop {
            let mut scan = Scan::below(index, self.limits.scan_rows_max).backwards();
            if let Some(Cursor(position)) = next {
                scan = scan.ending_before(&index.clone().number(position));
            }
            let found = self.scan(&scan)?;
            let is_last = found.len() < scan.count_max;
            for (key, value) in found {
                // One more than asked for shows that there is another page.
                if items.len() == count_max || scanned == self.limits.page_rows_scanned_max {
                    return Ok(Page { items, next });
                }
                scanned += 1;
                next = key::last_number(&key).map(Cursor);
                let id: BuildId = crate::rows::parse(&key, &value)?;
                if let Some(row) = self.get::<BuildRow>(&row_key(&id))?
                    && filter.wants(&row)
                {
                    items.push(row);
                }
            }
            if is_last {
                return Ok(Page { items, next: None });
            }
        }
    }
}
