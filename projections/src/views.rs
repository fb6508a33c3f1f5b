//! Answers questions about the views.
//!
//! Questions are synchronous. They read the store, which is mostly a lookup in memory of a few
//! microseconds but may touch the disk: a handler that reads much does so on a blocking thread.

use std::sync::Arc;
use std::time::Duration;

use domain::recorded::Position;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, Notify, watch};

use crate::key::Key;
use crate::limits::QueryLimits;
use crate::rows;
use crate::store::{Row, Scan, StoreError, ViewStore};

/// The views, for reading. Clones are cheap and show the same.
#[derive(Clone, Debug)]
pub struct Views {
    store: Arc<dyn ViewStore>,
    applied: watch::Receiver<Position>,
    /// Tells the runner that a read failed, so that it folds the views anew.
    damage: Arc<Notify>,
    /// Whoever has it knows that nothing is applied meanwhile.
    pub(crate) turn: Arc<Mutex<()>>,
    pub(crate) limits: QueryLimits,
}

/// The views did not get as far as was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stalled {
    /// They are behind; they may get there later.
    #[error("the views are behind: position {wanted} was not applied within {waited_ms} ms", wanted = wanted.raw())]
    Behind {
        /// What was waited for.
        wanted: Position,
        /// How far the views are.
        applied: Position,
        /// How long it was waited, in milliseconds.
        waited_ms: u64,
    },
    /// Nothing keeps the views up to date any more.
    #[error("nothing keeps the views up to date any more")]
    Stopped,
}

impl Views {
    pub(crate) fn new(
        store: Arc<dyn ViewStore>,
        applied: watch::Receiver<Position>,
        damage: Arc<Notify>,
        turn: Arc<Mutex<()>>,
        limits: QueryLimits,
    ) -> Self {
        Self {
            store,
            applied,
            damage,
            turn,
            limits,
        }
    }

    /// The position of the last event that the views show.
    pub fn applied(&self) -> Position {
        *self.applied.borrow()
    }

    /// Waits until the views show the event at `position`: a client reads its own write.
    ///
    /// # Errors
    /// [`Stalled::Behind`] after `deadline`; [`Stalled::Stopped`] if the runner has ended.
    pub async fn wait_for(&self, position: Position, deadline: Duration) -> Result<(), Stalled> {
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|applied| *applied >= position);
        match tokio::time::timeout(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Stalled::Stopped),
            Err(_) => Err(Stalled::Behind {
                wanted: position,
                applied: self.applied(),
                waited_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }

    /// Waits until the views show more than `seen`, or something else than they did because they
    /// are folded anew; returns how far they are.
    ///
    /// # Errors
    /// [`Stalled::Stopped`] if the runner has ended.
    pub async fn changed(&self, seen: Position) -> Result<Position, Stalled> {
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|applied| *applied != seen).await;
        reached
            .map(|position| *position)
            .map_err(|_| Stalled::Stopped)
    }

    /// The rows themselves.
    pub(crate) fn store(&self) -> &Arc<dyn ViewStore> {
        &self.store
    }

    /// The value of a row.
    pub(crate) fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, StoreError> {
        self.noticing(|store| {
            store
                .get(key.as_bytes())?
                .map(|bytes| rows::parse(key.as_bytes(), &bytes))
                .transpose()
        })
    }

    /// Rows.
    pub(crate) fn scan(&self, scan: &Scan) -> Result<Vec<Row>, StoreError> {
        self.noticing(|store| store.scan(scan))
    }

    /// The values of rows.
    pub(crate) fn values<T: DeserializeOwned>(&self, scan: &Scan) -> Result<Vec<T>, StoreError> {
        self.noticing(|store| {
            store
                .scan(scan)?
                .iter()
                .map(|(key, value)| rows::parse(key, value))
                .collect()
        })
    }

    /// Reads; what fails makes the runner fold the views anew.
    pub(crate) fn noticing<T>(
        &self,
        read: impl FnOnce(&dyn ViewStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        read(self.store.as_ref()).inspect_err(|_| self.damage.notify_one())
    }
}
