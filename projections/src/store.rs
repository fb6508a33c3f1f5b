//! Where rows are kept: the port, and what is kept beside the rows.

#[cfg(test)]
mod contract;
pub mod embedded;
pub mod memory;
mod seal;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use domain::Digest;
use domain::recorded::{Position, StreamName, Version};
use serde::{Deserialize, Serialize};

use crate::key::Key;

/// How far the views are, and which code wrote them. Committed together with the rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The names and revisions of all projections.
    pub revisions: String,
    /// The last event that was applied.
    pub last: Option<LastEvent>,
}

impl Checkpoint {
    /// The position of the last event that was applied.
    pub fn position(&self) -> Position {
        self.last
            .as_ref()
            .map_or(Position::START, |last| last.position)
    }
}

/// The last event that was applied, so that another log is told from this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEvent {
    /// Its place in the log.
    pub position: Position,
    /// Its stream.
    pub stream: StreamName,
    /// Its number there.
    pub version: Version,
    /// Its link in the stream's hash chain.
    pub hash: Digest,
}

/// Rows that are put (`Some`) or deleted (`None`).
pub type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A row: its key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Which rows are read, and in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The least key.
    pub from: Vec<u8>,
    /// The key before which the rows end.
    pub to: Vec<u8>,
    /// From the greatest key to the least.
    pub backwards: bool,
    /// How many rows at most.
    pub count_max: usize,
}

impl Scan {
    /// The rows whose keys begin with `prefix`.
    pub fn below(prefix: &Key, count_max: usize) -> Self {
        Self {
            from: prefix.as_bytes().to_vec(),
            to: prefix.end(),
            backwards: false,
            count_max,
        }
    }

    /// The same rows from `key` on.
    #[must_use]
    pub fn starting_at(mut self, key: &Key) -> Self {
        self.from = key.as_bytes().to_vec();
        self
    }

    /// The same rows up to the one before `key`.
    #[must_use]
    pub fn ending_before(mut self, key: &Key) -> Self {
        self.to = key.as_bytes().to_vec();
        self
    }

    /// The same rows in the opposite order.
    #[must_use]
    pub fn backwards(mut self) -> Self {
        self.backwards = true;
        self
    }
}

/// Why a store did not do what it was asked to.
///
/// Except for [`StoreError::InUse`], the answer to all of them is the same: throw the views away
/// and fold them anew.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the folder.
    #[error("another process has the views in {0}")]
    InUse(PathBuf),
    /// The folder cannot be used.
    #[error("cannot {action} {path}")]
    Folder {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The engine failed.
    #[error("the view store cannot {action}")]
    Engine {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine panicked, which it does on damage.
    #[error("the view store panicked while it should {action}: {message}")]
    Panicked {
        /// What was tried.
        action: &'static str,
        /// What the panic said.
        message: String,
    },
    /// Rows are missing or changed.
    #[error("the view store is damaged: {0}")]
    Damaged(String),
    /// A row is not what its projection writes.
    #[error("row {key} of the views cannot be read")]
    Row {
        /// Its key, printable.
        key: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The store could not be opened anew after damage.
    #[error("the view store is closed")]
    Closed,
}

impl StoreError {
    pub(crate) fn row(key: &[u8], source: serde_json::Error) -> Self {
        Self::Row {
            key: key.escape_ascii().to_string(),
            source,
        }
    }
}

/// Keeps rows. All methods may touch the disk and block.
pub trait ViewStore: fmt::Debug + Send + Sync {
    /// The row with this key.
    ///
    /// # Errors
    /// [`StoreError`]: the views have to be folded anew.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The rows that `scan` describes. A commit may fall between two of them.
    ///
    /// # Errors
    /// [`StoreError`]: the views have to be folded anew.
    fn scan(&self, scan: &Scan) -> Result<Vec<Row>, StoreError>;

    /// What the last commit said; nothing if there was none.
    ///
    /// # Errors
    /// [`StoreError`]: the views have to be folded anew.
    fn checkpoint(&self) -> Result<Option<Checkpoint>, StoreError>;

    /// Writes all changes and the checkpoint, or nothing. A reader sees all of it or nothing.
    ///
    /// # Errors
    /// [`StoreError`]: the views have to be folded anew.
    fn commit(&self, changes: &Changes, checkpoint: &Checkpoint) -> Result<(), StoreError>;

    /// Throws everything away.
    ///
    /// # Errors
    /// [`StoreError`]: the store cannot be used any more.
    fn reset(&self) -> Result<(), StoreError>;

    /// Writes out what is still in memory only.
    ///
    /// # Errors
    /// [`StoreError`]: the views have to be folded anew.
    fn flush(&self) -> Result<(), StoreError>;
}
