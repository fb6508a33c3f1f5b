//! The one thread that writes: it numbers, links, packs and commits, and only then answers.
//!
//! Nobody else writes, so the expected version is checked here, in memory, and there is no
//! transaction to repeat. What waits while one group is being made durable is the next group.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use domain::Digest;
use domain::ports::{Appended, LogError};
use domain::recorded::{Position, StreamName};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::anchor::Anchor;
use super::chunks::Chunks;
use super::files::{DirLock, Store, unavailable};
use super::index::{Entry, Index};
use super::pack::Packer;
use crate::codec::{Envelope, roll};
use crate::limits::LogLimits;
use crate::log::closed;
use crate::log::prepared::{Head, Prepared};

/// Where the outcome of an append goes.
pub(super) type Answer = oneshot::Sender<Result<Appended, LogError>>;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Message {
    /// Append.
    Append(Box<Request>),
    /// Move the anchor to the last event.
    Anchor,
    /// Write what waits, then end.
    Close,
}

/// An append that waits for its answer.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) append: Prepared,
    pub(super) answer: Answer,
    /// Its share of the bytes that may wait; given back with the answer.
    pub(super) room: OwnedSemaphorePermit,
}

/// The writer's world.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) dir: PathBuf,
    pub(super) limits: LogLimits,
    pub(super) queue: mpsc::Receiver<Message>,
    pub(super) store: Store,
    pub(super) index: Arc<RwLock<Index>>,
    /// The last durable event. Dropping it tells all who wait that the log has stopped.
    pub(super) head: watch::Sender<u64>,
    /// The hash of the whole log up to there.
    pub(super) hash: Digest,
    /// The event up to which the anchor vouches.
    pub(super) anchored: u64,
    /// Stands behind `store`: the folder is free once sled has let go of it.
    pub(super) _lock: Arc<DirLock>,
}

/// Appends that become durable together.
#[derive(Debug)]
struct Group {
    next_seq: u64,
    hash: Digest,
    heads: HashMap<StreamName, Head>,
    entries: Vec<Entry>,
    packer: Packer,
    bytes: usize,
    answers: Vec<(Answer, Appended, OwnedSemaphorePermit)>,
    anchor_due: bool,
}

impl Group {
    fn new(next_seq: u64, hash: Digest) -> Self {
        Self {
            next_seq,
            hash,
            heads: HashMap::new(),
            entries: Vec::new(),
            packer: Packer::default(),
            bytes: 0,
            answers: Vec::new(),
            anchor_due: false,
        }
    }

    fn add(&mut self, request: Request, head: Head) {
        let stream = request.append.stream.clone();
        let mut head = head;
        for envelope in request.append.link(self.next_seq, head) {
            head = Head::after(&envelope);
            self.next_seq += 1;
            self.hash = roll(&self.hash, &envelope.hash);
            self.bytes = self.bytes.saturating_add(envelope.payload.len());
            self.packer.push(&envelope);
            self.entries.push(Entry::from(&envelope));
        }
        self.heads.insert(stream, head);
        let appended = Appended {
            version: head.version,
            position: Position::from_raw(self.next_seq - 1),
        };
        self.answers.push((request.answer, appended, request.room));
    }

    fn is_full(&self, limits: &LogLimits) -> bool {
        self.answers.len() >= limits.group_appends_max || self.bytes >= limits.group_bytes_max
    }
}

impl Writer {
    /// Writes until it is told to close, nobody can ask any more, or a write fails.
    ///
    /// # Errors
    /// What failed. Then the appends of that moment were answered with
    /// [`LogError::OutcomeUnknown`], later ones with [`LogError::Unavailable`]: sled's memory and
    /// the disk may differ, so that only opening the log anew can tell what is there.
    pub(super) fn run(mut self) -> Result<(), LogError> {
        let mut waiting = None;
        while let Some(first) = self.next(&mut waiting) {
            let group = self.collect(first, &mut waiting);
            let anchor_due = group.anchor_due;
            if let Err(err) = self.commit(group) {
                tracing::error!(error = %err, "the event log cannot be written and stops");
                self.refuse_rest(waiting);
                return Err(err);
            }
            if anchor_due && let Err(err) = self.move_anchor() {
                // The older anchor still holds; the next commit meets the same disk.
                tracing::warn!(error = %err, "the event log's anchor cannot be written");
            }
        }
        self.move_anchor().map_err(unavailable)
    }

    fn next(&mut self, waiting: &mut Option<Box<Request>>) -> Option<Message> {
        match waiting.take() {
            Some(request) => Some(Message::Append(request)),
            None => self.queue.blocking_recv(),
        }
    }

    fn collect(&mut self, first: Message, waiting: &mut Option<Box<Request>>) -> Group {
        let mut group = Group::new(*self.head.borrow() + 1, self.hash);
        let mut next = Some(first);
        while let Some(message) = next.take() {
            match message {
                Message::Append(request) => *waiting = self.place(request, &mut group),
                Message::Anchor => group.anchor_due = true,
                Message::Close => self.queue.close(),
            }
            if waiting.is_some() || group.is_full(&self.limits) {
                break;
            }
            next = self.queue.try_recv().ok();
        }
        group
    }

    /// Places an append, or answers it. Gives it back if its answer depends on events that are
    /// not durable yet: what is answered is durable, a conflict too.
    fn place(&self, request: Box<Request>, group: &mut Group) -> Option<Box<Request>> {
        let stream = &request.append.stream;
        let placed = group.heads.get(stream).copied();
        let head = placed.unwrap_or_else(|| self.head_of(stream));
        if request.append.expected == head.version {
            group.add(*request, head);
        } else if placed.is_some() {
            return Some(request);
        } else {
            let stored = self.stored(&request.append);
            let answer = stored.and_then(|stored| request.append.resolve(&stored, head));
            // Nobody listens any more: then nobody minds.
            request.answer.send(answer).ok();
        }
        None
    }

    fn head_of(&self, stream: &StreamName) -> Head {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.head(stream)
    }

    /// The events that stand where `append` wants to stand.
    fn stored(&self, append: &Prepared) -> Result<Vec<Envelope>, LogError> {
        let seqs = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            index.seqs(&append.stream, append.expected, append.compared_count())
        };
        let mut chunks = Chunks::new(&self.store.db, &self.dir);
        let events = seqs.into_iter().map(|seq| chunks.get(seq));
        // An event that is gone is no equal one; reading it says what is wrong.
        events.filter_map(Result::transpose).collect()
    }

    fn commit(&mut self, group: Group) -> Result<(), LogError> {
        if group.answers.is_empty() {
            return Ok(());
        }
        if let Err(err) = self.store.commit(group.packer.finish()) {
            let unknown = LogError::OutcomeUnknown(Arc::new(err));
            for (answer, _, _) in group.answers {
                answer.send(Err(unknown.clone())).ok();
            }
            return Err(unknown);
        }
        {
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            for entry in group.entries {
                index.add(entry);
            }
        }
        self.hash = group.hash;
        self.head.send_replace(group.next_seq - 1);
        for (answer, appended, _) in group.answers {
            answer.send(Ok(appended)).ok();
        }
        Ok(())
    }

    fn move_anchor(&mut self) -> std::io::Result<()> {
        let seq = *self.head.borrow();
        if seq > self.anchored {
            Anchor::new(seq, self.hash).write(&self.dir)?;
            self.anchored = seq;
        }
        Ok(())
    }

    /// Answers all that wait after a failure: nothing of them was written.
    fn refuse_rest(&mut self, waiting: Option<Box<Request>>) {
        self.queue.close();
        let mut waiting = waiting;
        while let Some(message) = self.next(&mut waiting) {
            match message {
                Message::Append(request) => drop(request.answer.send(Err(closed()))),
                Message::Anchor | Message::Close => {}
            }
        }
    }
}
