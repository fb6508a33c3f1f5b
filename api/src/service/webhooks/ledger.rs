//! What was delivered: how far each webhook is, what it has to send, and what became of the last
//! deliveries.
//!
//! It is in a store of its own, of the kind that views are in, and for the same reason: it can be lost.
//! Then everything since a webhook was registered is sent again, which receivers must expect anyway.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use domain::ids::WebhookId;
use domain::recorded::{Position, StreamName, Version};
use domain::time::Timestamp;
use domain::webhook::DeliveryFailure;
use projections::Key;
use projections::rows::{Rows, parse};
use projections::store::{Checkpoint, Scan, StoreError, ViewStore};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::lanes::{Lane, LaneKey};

/// The form of the rows. A store of another form is emptied.
const REVISION: &str = "webhooks=1";

/// How far a webhook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Up to where the log was read: what is to be sent of that was sent, or is in a lane.
    pub read: Position,
    /// Up to where the webhook's own stream was heeded.
    pub heeded: Version,
}

/// Where a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    /// It was given up, and is to be sent again.
    Requeued,
    /// It was sent and not taken, and will be sent again.
    Retrying,
    /// It was taken.
    Delivered,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its place in the log.
    pub position: Position,
    /// Its stream.
    pub stream: StreamName,
    /// Its number there.
    pub version: Version,
    /// Its type.
    pub kind: String,
    /// Where its delivery is.
    pub status: DeliveryStatus,
    /// How often it was sent.
    pub attempts: u32,
    /// What became of the last time, if it was not taken.
    pub failure: Option<DeliveryFailure>,
    /// When it was sent last.
    pub last_at: Option<Timestamp>,
    /// When it is sent again.
    pub next_at: Option<Timestamp>,
}

/// What is kept of a webhook.
#[derive(Debug)]
pub struct Kept {
    /// How far it is; none if nothing is known.
    pub progress: Option<Progress>,
    /// What it has to send.
    pub lanes: Vec<(LaneKey, Lane)>,
    /// The deliveries that were taken, as far as they are kept.
    pub delivered: Vec<Position>,
}

/// What was delivered. Clones are the same.
#[derive(Clone, Debug)]
pub struct Ledger {
    store: Arc<dyn ViewStore>,
    /// One writer at a time: the store keeps a sum over all its rows.
    writing: Arc<Mutex<()>>,
}

fn progress_key(id: &WebhookId) -> Key {
    Key::table("webhook/progress").text(id.as_str())
}

fn lanes_key(id: &WebhookId) -> Key {
    Key::table("webhook/lane").text(id.as_str())
}

fn records_key(id: &WebhookId) -> Key {
    Key::table("webhook/record").text(id.as_str())
}

/// A lane with its name.
#[derive(Serialize, Deserialize)]
struct LaneRow {
    key: String,
    lane: Lane,
}

/// What is to be kept of one webhook from now on. It is written as a whole or not at all.
#[derive(Clone, Debug)]
pub struct Changes {
    id: WebhookId,
    progress: Option<Progress>,
    lanes: Vec<(LaneKey, Option<Lane>)>,
    records: Vec<(Position, Option<Record>)>,
}

impl Changes {
    /// Nothing changes.
    pub fn of(id: &WebhookId) -> Self {
        Self {
            id: id.clone(),
            progress: None,
            lanes: Vec::new(),
            records: Vec::new(),
        }
    }

    /// How far it is.
    pub fn progress(&mut self, progress: Progress) {
        self.progress = Some(progress);
    }

    /// Where a lane is; none: it is gone.
    pub fn lane(&mut self, key: &LaneKey, lane: Option<&Lane>) {
        self.lanes.push((key.clone(), lane.cloned()));
    }

    /// What became of an event.
    pub fn record(&mut self, record: Record) {
        self.records.push((record.position, Some(record)));
    }

    /// What became of the event at `position` is no longer kept here.
    pub fn forget(&mut self, position: Position) {
        self.records.push((position, None));
    }

    fn write(self, rows: &mut Rows<'_>) -> Result<(), StoreError> {
        if let Some(progress) = self.progress {
            rows.put(progress_key(&self.id), &progress)?;
        }
        for (key, lane) in self.lanes {
            let key = key.to_string();
            let row_key = lanes_key(&self.id).text(&key);
            match lane {
                Some(lane) => rows.put(row_key, &LaneRow { key, lane })?,
                None => rows.delete(row_key),
            }
        }
        for (position, record) in self.records {
            let row_key = records_key(&self.id).number(position.raw());
            match record {
                Some(record) => rows.put(row_key, &record)?,
                None => rows.delete(row_key),
            }
        }
        Ok(())
    }
}

impl Ledger {
    /// What `store` holds. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn over(store: Arc<dyn ViewStore>) -> Result<Self, StoreError> {
        let revision = store.checkpoint()?.map(|checkpoint| checkpoint.revisions);
        if revision.is_some_and(|revision| revision != REVISION) {
            store.reset()?;
        }
        Ok(Self {
            store,
            writing: Arc::default(),
        })
    }

    /// What is kept of a webhook. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn kept(&self, id: &WebhookId) -> Result<Kept, StoreError> {
        let progress = Rows::new(self.store.as_ref()).get(&progress_key(id))?;
        let lanes: Vec<LaneRow> = self.all(&Scan::below(&lanes_key(id), usize::MAX))?;
        let records: Vec<Record> = self.all(&Scan::below(&records_key(id), usize::MAX))?;
        let delivered = records
            .into_iter()
            .filter(|record| record.status == DeliveryStatus::Delivered)
            .map(|record| record.position);
        let lanes = lanes.into_iter().map(|row| {
            let key = row.key.parse().map_err(|_| {
                StoreError::Damaged(format!("`{}` is the name of no lane", row.key))
            })?;
            Ok((key, row.lane))
        });
        Ok(Kept {
            progress,
            lanes: lanes.collect::<Result<_, StoreError>>()?,
            delivered: delivered.collect(),
        })
    }

    /// How far a webhook is, and how many streams it has something to send of. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn progress(&self, id: &WebhookId) -> Result<(Option<Progress>, usize), StoreError> {
        let progress = Rows::new(self.store.as_ref()).get(&progress_key(id))?;
        let lanes = self.store.scan(&Scan::below(&lanes_key(id), usize::MAX))?;
        Ok((progress, lanes.len()))
    }

    /// What became of events, the latest event first; of those before `before`, if that is said.
    /// Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn records(
        &self,
        id: &WebhookId,
        before: Option<Position>,
        count_max: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let all = records_key(id);
        let scan = Scan::below(&all, count_max).backwards();
        self.all(&match before {
            None => scan,
            Some(position) => scan.ending_before(&all.number(position.raw())),
        })
    }

    fn all<T: DeserializeOwned>(&self, scan: &Scan) -> Result<Vec<T>, StoreError> {
        let rows = self.store.scan(scan)?;
        rows.iter().map(|(key, value)| parse(key, value)).collect()
    }

    /// Writes changes. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed then.
    pub fn commit(&self, changes: Changes) -> Result<(), StoreError> {
        self.write(|rows| changes.write(rows))
    }

    /// Forgets a webhook. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed then.
    pub fn forget(&self, id: &WebhookId) -> Result<(), StoreError> {
        self.write(|rows| {
            let mut keys = vec![progress_key(id).into_bytes()];
            for table in [lanes_key(id), records_key(id)] {
                let found = self.store.scan(&Scan::below(&table, usize::MAX))?;
                keys.extend(found.into_iter().map(|(key, _)| key));
            }
            for key in keys {
                rows.delete(Key::from_bytes(key));
            }
            Ok(())
        })
    }

    fn write(
        &self,
        change: impl FnOnce(&mut Rows<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // A panic leaves no half-made change: the store takes all of one or nothing.
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = Rows::new(self.store.as_ref());
        change(&mut rows)?;
        let checkpoint = Checkpoint {
            revisions: REVISION.to_owned(),
            last: None,
        };
        self.store.commit(&rows.into_changes(), &checkpoint)
    }

    /// Forgets everything, after damage. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]: the store cannot be used any more.
    pub fn reset(&self) -> Result<(), StoreError> {
        self.store.reset()
    }

    /// Writes out what is in memory only. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn flush(&self) -> Result<(), StoreError> {
        self.store.flush()
    }
}
