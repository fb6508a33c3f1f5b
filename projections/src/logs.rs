//! The builds' logs: each event rendered as entries that a person reads, by offset.
//!
//! Entries are stored as lines of JSON, packed into rows of a few kilobytes. An entry is added to
//! the last row of its build until that is full, so what is stored depends on the events alone.

mod context;
mod entry;
mod render;
mod units;

use domain::Event;
use domain::ids::BuildId;
use domain::recorded::{Recorded, StreamName};
use serde::{Deserialize, Serialize};

pub use entry::{CacheReason, CacheStatus, LogEntry, LogKind, LogLevel};

use crate::builds::BuildRow;
use crate::key::Key;
use crate::projection::{ApplyError, Projection};
use crate::rows::{self, Rows};
use crate::store::{Scan, StoreError};
use crate::views::{Stalled, Views};
use context::Context;

/// How large a row of packed entries gets, in bytes; a longer entry has a row of its own. The
/// engine stores rows of this size best. Part of the format: a change raises the revision.
const ROW_BYTES_MAX: usize = 4096;

/// What is known of a build's log besides its entries.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Head {
    /// The offset of the next entry.
    next_offset: u64,
    /// The first offset of the row that entries are added to.
    row_offset: u64,
    /// What later entries need of earlier events.
    context: Context,
}

/// The projection.
#[derive(Clone, Copy, Debug)]
pub struct Logs;

fn head_key(id: &BuildId) -> Key {
    Key::table("logs/head").text(id.as_str())
}

fn entries_key(id: &BuildId) -> Key {
    Key::table("logs/entries").text(id.as_str())
}

impl Projection for Logs {
    const NAME: &'static str = "logs";
    const REVISION: u32 = 3;

    fn apply(rows: &mut Rows<'_>, recorded: &Recorded<Event>) -> Result<(), ApplyError> {
        let (StreamName::Build(id), Event::Build(event)) = (&recorded.stream, &recorded.event)
        else {
            return Ok(());
        };
        let mut head: Head = rows.get(&head_key(id))?.unwrap_or_default();
        let entries = render::entries(id, recorded.time, event, &head.context);
        let mut key = entries_key(id).number(head.row_offset);
        let mut packed = rows.bytes(&key)?.unwrap_or_default();
        for mut entry in entries {
            entry.offset = head.next_offset;
            head.next_offset = head.next_offset.saturating_add(1);
            let mut line = serde_json::to_vec(&entry)
                .map_err(|source| StoreError::row(key.as_bytes(), source))?;
            line.push(b'\n');
            if !packed.is_empty() && packed.len().saturating_add(line.len()) > ROW_BYTES_MAX {
                rows.put_bytes(key, std::mem::take(&mut packed));
                head.row_offset = entry.offset;
                key = entries_key(id).number(head.row_offset);
            }
            packed.append(&mut line);
        }
        rows.put_bytes(key, packed);
        head.context.observe(event);
        rows.put(head_key(id), &head)?;
        Ok(())
    }
}

/// A build and the entries of its log from some offset on.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusSnapshot {
    /// The build.
    pub build: BuildRow,
    /// All entries from the offset on that the build had then.
    pub entries: Vec<LogEntry>,
    /// The offset to ask for next: behind the last entry, and never less than was asked for.
    pub next_offset: u64,
}

impl Views {
    /// Entries of a build's log from offset `from` on, at most `count_max`. Empty if there are
    /// none, or no such build.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn entries(
        &self,
        id: &BuildId,
        from: u64,
        count_max: usize,
    ) -> Result<Vec<LogEntry>, StoreError> {
        let all = entries_key(id);
        let wanted = Scan::below(&all, self.limits.scan_rows_max);
        // The entry stands in the last row that begins at or before it.
        let holding = Scan {
            to: all.number(from).end(),
            count_max: 1,
            ..wanted.clone().backwards()
        };
        let mut rows = self.scan(&holding)?;
        let mut entries = Vec::new();
        loop {
            let mut last_key = None;
            for (key, value) in rows {
                if first_offset(&key) > from.saturating_add(count(&entries)) {
                    // Since the row before was read, entries were added to it. They are not
                    // here, so neither may be what follows them.
                    return Ok(entries);
                }
                self.noticing(|_| read_row(&key, &value, from, count_max, &mut entries))?;
                last_key = Some(key);
            }
            let Some(mut next_key) = last_key else {
                return Ok(entries);
            };
            if entries.len() >= count_max {
                return Ok(entries);
            }
            // The least key behind it.
            next_key.push(0);
            rows = self.scan(&Scan {
                from: next_key,
                ..wanted.clone()
            })?;
        }
    }

    /// A build with all entries of its log from offset `from` on. A build that has ended comes
    /// with its last entry.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn status_snapshot(
        &self,
        id: &BuildId,
        from: u64,
    ) -> Result<Option<StatusSnapshot>, StoreError> {
        // The row first: entries only ever get more, so all that it speaks of are there.
        let Some(build) = self.build(id)? else {
            return Ok(None);
        };
        let count = build.next_offset.saturating_sub(from);
        let entries = self.entries(id, from, usize::try_from(count).unwrap_or(usize::MAX))?;
        Ok(Some(StatusSnapshot {
            next_offset: build.next_offset.max(from),
            build,
            entries,
        }))
    }

    /// How many entries a build's log has: the offset of the next one. 0 if there is no such build.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn next_offset(&self, id: &BuildId) -> Result<u64, StoreError> {
        let head: Option<Head> = self.get(&head_key(id))?;
        Ok(head.map_or(0, |head| head.next_offset))
    }

    /// Waits until a build's log has an entry at offset `from`, and returns the entries from there
    /// on, at most `count_max` and at least one. Wakes when something is committed; there is no
    /// deadline and no polling. Ask for 0 of a build that does not exist, and it waits for it.
    ///
    /// # Errors
    /// [`FollowError`].
    pub async fn wait_entries(
        &self,
        id: &BuildId,
        from: u64,
        count_max: usize,
    ) -> Result<Vec<LogEntry>, FollowError> {
        loop {
            // Before the look: what is committed meanwhile ends the wait at once.
            let seen = self.applied();
            let views = self.clone();
            let build = id.clone();
            let entries =
                tokio::task::spawn_blocking(move || views.entries(&build, from, count_max))
                    .await
                    .map_err(FollowError::Interrupted)??;
            if !entries.is_empty() {
                return Ok(entries);
            }
            self.changed(seen).await?;
        }
    }
}

/// Why no further entries come.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Nothing keeps the views up to date any more.
    #[error(transparent)]
    Stalled(#[from] Stalled),
    /// The views cannot be read; they are about to be folded anew.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process ends.
    #[error("reading the log was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

/// The offset of a row's first entry.
fn first_offset(key: &[u8]) -> u64 {
    crate::key::last_number(key).unwrap_or(0)
}

fn count(entries: &[LogEntry]) -> u64 {
    u64::try_from(entries.len()).unwrap_or(u64::MAX)
}

/// Adds the entries of a row from offset `from` on, until there are `count_max`.
fn read_row(
    key: &[u8],
    value: &[u8],
    from: u64,
    count_max: usize,
    entries: &mut Vec<LogEntry>,
) -> Result<(), StoreError> {
    let before = from.saturating_sub(first_offset(key));
    let skipped = usize::try_from(before).unwrap_or(usize::MAX);
    // Entries have no gaps: those before `from` need not be parsed.
    for line in value.split_inclusive(|byte| *byte == b'\n').skip(skipped) {
        if entries.len() >= count_max {
            break;
        }
        entries.push(rows::parse(key, line)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
