//! The log as its readers get it: in pages, which they share.
//!
//! ```text
//!  log ──read, decode──► whose is it? ──encode once──► Page ──► every reader at that position
//! ```
//!
//! Readers that are as far as each other ask for the same page, and it is read once and written once
//! for all of them; what each may see of it, its [`Filter`] says. Nothing is queued for a reader: one
//! that is slow asks later.

mod filter;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use commands::AnyLog;
use domain::event::Event;
use domain::ports::{EventReader as _, LogError};
use domain::recorded::{Position, Recorded, StreamName};
use tokio::sync::OnceCell;

pub use filter::Filter;

use super::owners::{Origin, Owners};
use crate::http::error::ApiError;
use crate::limits::Limits;
use crate::wire::ascii;
use crate::wire::event::{CloudEvent, EventRecord};
use crate::wire::position::WirePosition;

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As this service has them: [`EventRecord`].
    Record,
    /// As [`CloudEvent`].
    Cloud,
}

/// Events that follow each other in the log; at least one.
#[derive(Debug)]
pub struct Page {
    entries: Vec<Entry>,
}

/// An event, written.
#[derive(Debug)]
pub struct Entry {
    /// Where it stands.
    pub position: Position,
    stream: StreamName,
    kind: &'static str,
    origin: Option<Origin>,
    frame: Bytes,
    json: Range<usize>,
}

/// Reads pages. Clones share them.
#[derive(Clone, Debug)]
pub struct Pages {
    log: AnyLog,
    owners: Owners,
    event_count_max: usize,
    bytes_max: usize,
    kept_count_max: usize,
    kept: Arc<Mutex<VecDeque<Slot>>>,
}

/// A page that somebody reads, or has read.
#[derive(Debug)]
struct Slot {
    after: Position,
    form: Form,
    page: Arc<OnceCell<Arc<Page>>>,
}

impl Page {
    /// The events, in the order of the log.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

impl Entry {
    /// The event as a frame of a stream of server-sent events.
    pub fn frame(&self) -> Bytes {
        self.frame.clone()
    }

    /// The event as JSON.
    pub fn json(&self) -> Bytes {
        self.frame.slice(self.json.clone())
    }

    fn new(
        recorded: &Recorded<Event>,
        origin: Option<Origin>,
        form: Form,
    ) -> serde_json::Result<Self> {
        let record = EventRecord::of(recorded)?;
        let head = format!(
            "id: {}\nevent: {}\ndata: ",
            WirePosition(recorded.position),
            record.r#type
        );
        let mut frame = head.into_bytes();
        let start = frame.len();
        match form {
            Form::Record => ascii::write(&mut frame, &record)?,
            Form::Cloud => ascii::write(&mut frame, &CloudEvent::of(&record))?,
        }
        let json = start..frame.len();
        frame.extend_from_slice(b"\n\n");
        Ok(Self {
            position: recorded.position,
            stream: recorded.stream.clone(),
            kind: record.r#type,
            origin,
            frame: Bytes::from(frame),
            json,
        })
    }
}

impl Pages {
    /// Pages of `log`, bounded by `limits`.
    pub fn new(log: AnyLog, owners: Owners, limits: &Limits) -> Self {
        Self {
            log,
            owners,
            event_count_max: limits.event_page_count_max,
            bytes_max: limits.event_page_bytes_max,
            kept_count_max: limits.kept_event_page_count_max,
            kept: Arc::default(),
        }
    }

    /// The position of the log's last event.
    pub fn head(&self) -> Position {
        self.log.head()
    }

    /// The events behind `after`, a bounded number of them; waits until there is one.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] if the log cannot be read, or ends.
    pub async fn behind(&self, after: Position, form: Form) -> Result<Arc<Page>, ApiError> {
        self.log.wait_behind(after).await.map_err(unreadable)?;
        let slot = self.slot(after, form);
        let page = slot.get_or_try_init(|| self.read(after, form)).await?;
        Ok(Arc::clone(page))
    }

    /// Where the page behind `after` is, or will be. Readers at the end of the log ask for the last
    /// few; those that are further behind get by without.
    fn slot(&self, after: Position, form: Form) -> Arc<OnceCell<Arc<Page>>> {
        // Losing or keeping a page is right either way.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_wanted = |slot: &&Slot| slot.after == after && slot.form == form;
        if let Some(slot) = kept.iter().rev().find(is_wanted) {
            return Arc::clone(&slot.page);
        }
        if kept.len() >= self.kept_count_max {
            kept.pop_front();
        }
        let page = Arc::default();
        kept.push_back(Slot {
            after,
            form,
            page: Arc::clone(&page),
        });
        page
    }

    async fn read(&self, after: Position, form: Form) -> Result<Arc<Page>, ApiError> {
        let events = self.log.read_all(after, self.event_count_max).await;
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0_usize;
        for recorded in events.map_err(unreadable)? {
            let origin = self.owners.of(&recorded).await?;
            let entry = Entry::new(&recorded, origin, form).map_err(ApiError::internal)?;
            bytes = bytes.saturating_add(entry.frame.len());
            if bytes > self.bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        if entries.is_empty() {
            return Err(ApiError::internal(
                "nothing is behind a position that the log's head is behind",
            ));
        }
        Ok(Arc::new(Page { entries }))
    }
}

fn unreadable(err: LogError) -> ApiError {
    ApiError::unavailable("the event log cannot be read", err)
}
