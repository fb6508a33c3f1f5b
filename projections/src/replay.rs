//! The proof that views follow from the log: they are folded once more, and compared byte by byte.
//!
//! The present views go on meanwhile. They are compared a few rows at a time, and while a few are
//! compared nothing is applied: each row is compared where both folds have applied the same events.

use std::path::Path;
use std::sync::Arc;

use domain::ports::{EventReader, LogError};
use domain::recorded::Position;

use crate::limits::Limits;
use crate::projection::apply_batch;
use crate::store::embedded::Embedded;
use crate::store::{Row, Scan, StoreError, ViewStore};
use crate::views::Views;

/// Before all rows: what is kept beside them begins with a zero byte.
const ALL_FROM: [u8; 1] = [1];
/// Behind all rows: names of tables are ASCII.
const ALL_TO: [u8; 1] = [u8::MAX];
/// How much of a row is shown, in bytes.
const SHOWN_BYTES_MAX: usize = 400;

/// What came of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// How far both folds were in the end.
    pub position: Position,
    /// How many events were applied.
    pub event_count: u64,
    /// How many rows were compared.
    pub row_count: u64,
    /// The first row that differs.
    pub difference: Option<Difference>,
}

/// A row that is not what the events make of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The row.
    pub key: String,
    /// What the views show; nothing if they have no such row.
    pub present: Option<String>,
    /// What the events make of it; nothing if they make no such row.
    pub replayed: Option<String>,
    /// The last event that both folds had applied.
    pub position: Position,
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log cannot be read.
    #[error("the events cannot be read")]
    Log(#[from] LogError),
    /// Rows cannot be read or written.
    #[error("the rows cannot be read or written")]
    Store(#[from] StoreError),
    /// The present views were found damaged meanwhile, and are folded anew.
    #[error("the views are being folded anew: try again once they are up to date")]
    Restarted,
    /// The process ends.
    #[error("the replay was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl Views {
    /// Folds `log` anew into `folder`, of which nothing is kept but what this leaves there, and
    /// compares what comes out with the present rows.
    ///
    /// # Errors
    /// [`ReplayError`]; with [`StoreError::InUse`] if another replay has the folder.
    pub async fn replay<R: EventReader>(
        &self,
        log: &R,
        folder: &Path,
        limits: &Limits,
    ) -> Result<Replay, ReplayError> {
        let (opened, embedded) = (folder.to_owned(), limits.embedded);
        let fresh = tokio::task::spawn_blocking(move || {
            let fresh = Embedded::open(&opened, embedded)?;
            fresh.reset()?;
            Ok::<_, StoreError>(Arc::new(fresh))
        });
        let mut fold = Fold {
            fresh: fresh.await??,
            position: Position::START,
            event_count: 0,
            batch_events_max: limits.runner.batch_events_max,
        };
        // By far the most of it holds nobody up.
        fold.follow(log, self.applied()).await?;
        let mut from = ALL_FROM.to_vec();
        let mut row_count = 0_u64;
        loop {
            let turn = self.turn.lock().await;
            fold.follow(log, self.applied()).await?;
            let compared = fold
                .compare(self.store(), from, limits.runner.compared_rows_max)
                .await?;
            drop(turn);
            row_count = row_count.saturating_add(compared.row_count);
            let done = |difference| Replay {
                position: fold.position,
                event_count: fold.event_count,
                row_count,
                difference,
            };
            match compared.end {
                End::Difference(difference) => return Ok(done(Some(difference))),
                End::All => return Ok(done(None)),
                End::Next(key) => from = key,
            }
        }
    }
}

/// The fold beside the present one.
struct Fold {
    fresh: Arc<Embedded>,
    position: Position,
    event_count: u64,
    batch_events_max: usize,
}

/// What came of the comparison of a few rows.
struct Compared {
    row_count: u64,
    end: End,
}

enum End {
    Difference(Difference),
    /// The least key that was not compared.
    Next(Vec<u8>),
    All,
}

impl Fold {
    /// Applies the events up to `until`.
    async fn follow<R: EventReader>(
        &mut self,
        log: &R,
        until: Position,
    ) -> Result<(), ReplayError> {
        if until < self.position {
            return Err(ReplayError::Restarted);
        }
        while self.position < until {
            let mut events = log.read_all(self.position, self.batch_events_max).await?;
            events.retain(|recorded| recorded.position <= until);
            let Some(last) = events.last().map(|last| last.position) else {
                // The present views were folded from another log.
                return Err(ReplayError::Restarted);
            };
            let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
            let fresh = Arc::clone(&self.fresh);
            let applying = tokio::task::spawn_blocking(move || apply_batch(&*fresh, &events));
            applying.await??;
            self.position = last;
            self.event_count = self.event_count.saturating_add(count);
        }
        Ok(())
    }

    /// Compares the rows from `from` on, at most `count_max`, on a thread that may block.
    async fn compare(
        &self,
        present: &Arc<dyn ViewStore>,
        from: Vec<u8>,
        count_max: usize,
    ) -> Result<Compared, ReplayError> {
        let (present, fresh) = (Arc::clone(present), Arc::clone(&self.fresh));
        let position = self.position;
        let comparing = tokio::task::spawn_blocking(move || {
            if present.checkpoint()? != fresh.checkpoint()? {
                return Err(ReplayError::Restarted);
            }
            Ok(compare(&*present, &*fresh, from, count_max, position)?)
        });
        comparing.await?
    }
}

fn compare(
    present: &dyn ViewStore,
    fresh: &dyn ViewStore,
    from: Vec<u8>,
    count_max: usize,
    position: Position,
) -> Result<Compared, StoreError> {
    let scan = Scan {
        from,
        to: ALL_TO.to_vec(),
        backwards: false,
        count_max,
    };
    let rows = present.scan(&scan)?;
    let next = match rows.last() {
        Some((last, _)) if rows.len() == count_max => Some([last.as_slice(), &[0]].concat()),
        Some(_) | None => None,
    };
    let folded = fresh.scan(&Scan {
        to: next.clone().unwrap_or_else(|| ALL_TO.to_vec()),
        // One more would be one too many.
        count_max: rows.len().saturating_add(1),
        ..scan
    })?;
    let end = match (difference(&rows, &folded, position), next) {
        (Some(difference), _) => End::Difference(difference),
        (None, Some(key)) => End::Next(key),
        (None, None) => End::All,
    };
    Ok(Compared {
        row_count: u64::try_from(rows.len()).unwrap_or(u64::MAX),
        end,
    })
}

/// The first of these rows that are not the same in both, by their keys.
fn difference(present: &[Row], replayed: &[Row], position: Position) -> Option<Difference> {
    let same = present
        .iter()
        .zip(replayed)
        .take_while(|(one, other)| one == other);
    let same = same.count();
    let (one, other) = (present.get(same), replayed.get(same));
    let key = one.into_iter().chain(other).map(|(key, _)| key).min()?;
    let shown = |row: Option<&Row>| {
        let (_, value) = row.filter(|(found, _)| found == key)?;
        Some(shown(value))
    };
    Some(Difference {
        key: key.escape_ascii().to_string(),
        present: shown(one),
        replayed: shown(other),
        position,
    })
}

/// The beginning of a row's value, printable.
fn shown(value: &[u8]) -> String {
    match value.split_at_checked(SHOWN_BYTES_MAX) {
        None => value.escape_ascii().to_string(),
        Some((beginning, _)) => format!(
            "{}… ({} bytes, {})",
            beginning.escape_ascii(),
            value.len(),
            domain::Digest::of(value)
        ),
    }
}

#[cfg(test)]
mod tests;
