//! The log in a folder of this machine: sled, driven so that an acknowledged event is there.
//!
//! ```text
//!  append ──► queue ──► writer thread: number, link, pack ──► one batch ──► flush ──► sync_data
//!                                                                              │
//!  answer, head ◄──────────────────────── index ◄─────────────────────────────┘
//!                                          anchor about once a second, and when it closes
//! ```
//!
//! **What is acknowledged is durable**: a group of appends becomes one batch of sled, is flushed,
//! synced through our own handle of sled's file, and only then answered.
//! **What is damaged is refused**: opening reads every event, checks checksums, numbers without
//! gaps, the hash chain of every stream, and that the log reaches at least as far as the anchor
//! says, with the same events. Events that were acknowledged after the last anchor (about a second)
//! and lie at the very end can still be lost to a damaged disk without notice.
//! **One process at a time**: a lock file keeps others out.
//!
//! sled cuts off what it cannot read when it opens a damaged file. Whoever wants to save such a log
//! copies the folder first; [`verify`] works on a copy, and tells everything that is wrong.

mod anchor;
mod check;
mod chunks;
mod files;
mod index;
mod pack;
mod salvage;
#[cfg(test)]
mod tests;
mod values;
mod writer;

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use domain::event::Event;
use domain::ports::{Append, Appended, EventAppender, EventReader, LogError};
use domain::recorded::{Position, Recorded, StreamName, Version};
use domain::time::Timestamp;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

pub use check::Verification;
pub use files::Locked;

use super::prepared::Prepared;
use super::{Closed, closed, recorded};
use crate::codec::Envelope;
use crate::limits::LogLimits;
use anchor::Anchor;
use check::Checked;
use chunks::{Chunks, odd};
use files::{DirLock, Store, unavailable};
use index::Index;
use writer::{Message, Request, Writer};

/// A log that sled keeps. Clones are the same log.
#[derive(Clone, Debug)]
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Message>,
    head: watch::Receiver<u64>,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    limits: LogLimits,
    index: Arc<RwLock<Index>>,
    /// None: closed.
    open: RwLock<Option<Open>>,
    writer: Mutex<Option<JoinHandle<Result<(), LogError>>>>,
}

/// What has to be given back; in this order.
#[derive(Debug)]
struct Open {
    db: sled::Db,
    _lock: Arc<DirLock>,
}

/// Opens the log in folder `dir`, which is made if it is not there, and checks all of it.
///
/// # Errors
/// [`LogError::Unavailable`] if the folder cannot be used; with [`Locked`] as its source if another
/// process has it, after [`LogLimits::lock_wait_ms_max`]. [`LogError::Damaged`] if the log is not
/// what was written; it says where.
pub async fn open(dir: impl Into<PathBuf>, limits: LogLimits) -> Result<EmbeddedLog, LogError> {
    let dir = dir.into();
    let mut tries = limits.lock_wait_ms_max / limits.lock_retry_ms.max(1);
    loop {
        let opened = dir.clone();
        match blocking(&dir, move || open_checked(&opened, &limits)).await {
            Ok(checked) => return start(dir, limits, checked),
            Err(LogError::Unavailable(err)) if tries > 0 && err.is::<Locked>() => tries -= 1,
            Err(err) => return Err(err),
        }
        tokio::time::sleep(Duration::from_millis(limits.lock_retry_ms)).await;
    }
}

/// Looks at the log in folder `dir` without changing it: at a copy, which needs as much space.
/// Damage is no error.
///
/// # Errors
/// [`LogError::Unavailable`] as [`open`], and if there is no log.
pub async fn verify(dir: impl Into<PathBuf>, limits: LogLimits) -> Result<Verification, LogError> {
    let dir = dir.into();
    let copied = dir.clone();
    match blocking(&dir, move || check::verify_copy(&copied, &limits)).await {
        // So much is wrong that the events cannot be looked at one after the other.
        Err(LogError::Damaged { what, .. }) => {
            let path = dir.clone();
            blocking(&dir, move || search(path, what, &limits)).await
        }
        answer => answer,
    }
}

/// What can be told of a log that cannot be opened.
fn search(dir: PathBuf, what: String, limits: &LogLimits) -> Result<Verification, LogError> {
    let mut found = Verification::unreadable(dir.clone(), what, limits);
    let present = dir.join(files::DB_FILE).exists();
    if present && let Ok(Some(anchor)) = Anchor::read(&dir) {
        found.anchored = anchor.seq;
        salvage::missing(&dir, anchor.seq, &mut found.damages).map_err(unavailable)?;
    }
    Ok(found)
}

/// Runs `work` where it may block. sled panics on some damages: that is an answer, too.
async fn blocking<T: Send + 'static>(
    dir: &Path,
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(err) if err.is_panic() => Err(panicked(dir, &*err.into_panic())),
        Err(_) => Err(closed()),
    }
}

fn panicked(dir: &Path, panic: &(dyn Any + Send)) -> LogError {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    let what = format!(
        "the storage engine gave up: {}",
        text.unwrap_or("no reason given")
    );
    odd(dir.display().to_string(), &what)
}

/// A log that was found whole, and what has to be held as long as it is used.
#[derive(Debug)]
struct Found {
    checked: Checked,
    store: Store,
    lock: DirLock,
}

fn open_checked(dir: &Path, limits: &LogLimits) -> Result<Found, LogError> {
    let lock = DirLock::take(dir)?;
    let anchor = Anchor::read(dir)?;
    files::check_present(dir, anchor.is_some())?;
    let store = Store::open(dir, limits)?;
    let checked = check::check(&store, dir, anchor.as_ref())?;
    // Also after a crash that left the anchor behind: from here on the whole log is vouched for.
    Anchor::new(checked.seq, checked.hash)
        .write(dir)
        .map_err(unavailable)?;
    Ok(Found {
        checked,
        store,
        lock,
    })
}

fn start(dir: PathBuf, limits: LogLimits, found: Found) -> Result<EmbeddedLog, LogError> {
    let Found {
        checked,
        store,
        lock,
    } = found;
    let lock = Arc::new(lock);
    let (queue, received) = mpsc::channel(limits.queued_appends_max);
    let (sender, head) = watch::channel(checked.seq);
    let index = Arc::new(RwLock::new(checked.index));
    let open = Open {
        db: store.db.clone(),
        _lock: lock.clone(),
    };
    let writer = Writer {
        dir: dir.clone(),
        limits,
        queue: received,
        store,
        index: index.clone(),
        head: sender,
        hash: checked.hash,
        anchored: checked.seq,
        _lock: lock,
    };
    let thread = std::thread::Builder::new().name("event-log".to_owned());
    let writer = thread.spawn(|| writer.run()).map_err(unavailable)?;
    let pause = Duration::from_millis(limits.anchor_every_ms.max(1));
    tokio::spawn(remind(queue.downgrade(), head.clone(), pause));
    let room = usize::try_from(limits.queued_bytes_max).unwrap_or(Semaphore::MAX_PERMITS);
    Ok(EmbeddedLog {
        shared: Arc::new(Shared {
            dir,
            limits,
            index,
            open: RwLock::new(Some(open)),
            writer: Mutex::new(Some(writer)),
        }),
        queue,
        head,
        room: Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS))),
    })
}

/// Reminds the writer of the anchor as long as events come and the log is in use.
async fn remind(queue: mpsc::WeakSender<Message>, mut head: watch::Receiver<u64>, pause: Duration) {
    while head.changed().await.is_ok() {
        tokio::time::sleep(pause).await;
        head.mark_unchanged();
        let Some(queue) = queue.upgrade() else { return };
        if queue.send(Message::Anchor).await.is_err() {
            return;
        }
    }
}

impl EmbeddedLog {
    /// Stops it: what was taken is written, the anchor is moved to the end, the folder is free for
    /// the next one. Reading and appending fail from then on.
    ///
    /// # Errors
    /// What stopped the writer earlier, or kept it from moving the anchor. The log is closed all
    /// the same. A second call has nothing to do.
    pub async fn close(&self) -> Result<(), LogError> {
        // It is closed already if this cannot be sent.
        self.queue.send(Message::Close).await.ok();
        let shared = self.shared.clone();
        blocking(&self.shared.dir, move || {
            let mut writer = shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let ended = match writer.take().map(JoinHandle::join) {
                None => Ok(()),
                Some(Ok(ended)) => ended,
                Some(Err(panic)) => Err(panicked(&shared.dir, &*panic)),
            };
            // Waits for those who read.
            let mut open = shared.open.write().unwrap_or_else(PoisonError::into_inner);
            drop(open.take());
            ended
        })
        .await
    }

    /// See [`super::AnyLog::verify`].
    ///
    /// # Errors
    /// [`LogError::Unavailable`]
    pub async fn verify(&self) -> Result<Verification, LogError> {
        let (shared, head) = (self.shared.clone(), self.head.clone());
        blocking(&self.shared.dir, move || shared.verify(&head)).await
    }

    /// See [`super::AnyLog::read_stored`].
    ///
    /// # Errors
    /// As [`EventReader::read_stream`].
    pub async fn read_stored(
        &self,
        stream: &StreamName,
        from: Version,
        count_max: usize,
    ) -> Result<Vec<Envelope>, LogError> {
        let seqs = self.seqs(stream, from, count_max);
        let shared = self.shared.clone();
        blocking(&self.shared.dir, move || shared.stored(seqs)).await
    }

    /// The numbers of a stream's events.
    fn seqs(&self, stream: &StreamName, from: Version, count_max: usize) -> Vec<u64> {
        let index = self.shared.index.read();
        let index = index.unwrap_or_else(PoisonError::into_inner);
        index.seqs(stream, from, self.count_max(count_max))
    }

    async fn read(&self, seqs: Vec<u64>) -> Result<Vec<Recorded<Event>>, LogError> {
        if seqs.is_empty() {
            return Ok(Vec::new());
        }
        let shared = self.shared.clone();
        blocking(&self.shared.dir, move || shared.read(seqs)).await
    }

    fn count_max(&self, wanted: usize) -> usize {
        wanted.min(self.shared.limits.read_events_max)
    }
}

impl Shared {
    fn read(&self, seqs: Vec<u64>) -> Result<Vec<Recorded<Event>>, LogError> {
        self.stored(seqs)?.into_iter().map(recorded).collect()
    }

    fn stored(&self, seqs: Vec<u64>) -> Result<Vec<Envelope>, LogError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let db = &open.as_ref().ok_or_else(closed)?.db;
        let mut chunks = Chunks::new(db, &self.dir);
        let mut events = Vec::with_capacity(seqs.len());
        let mut bytes = 0_usize;
        for seq in seqs {
            let missing = || odd(format!("event {seq}"), "it is missing");
            let envelope = chunks.get(seq)?.ok_or_else(missing)?;
            bytes = bytes.saturating_add(envelope.payload.len());
            if bytes > self.limits.read_bytes_max && !events.is_empty() {
                break;
            }
            events.push(envelope);
        }
        Ok(events)
    }

    fn verify(&self, head: &watch::Receiver<u64>) -> Result<Verification, LogError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let db = &open.as_ref().ok_or_else(closed)?.db;
        let anchor = match Anchor::read(&self.dir) {
            Ok(anchor) => anchor,
            Err(LogError::Damaged { what, .. }) => {
                let file = self.dir.join(anchor::FILE);
                return Ok(Verification::unreadable(file, what, &self.limits));
            }
            Err(err) => return Err(err),
        };
        // Behind the anchor, which never gets ahead of it.
        let last = *head.borrow();
        let damages_max = self.limits.damages_max;
        // The log waits for its readers when it is closed.
        let is_open = || head.has_changed().is_ok();
        let anchor = anchor.as_ref();
        let found = check::survey(db, &self.dir, anchor, last, damages_max, &is_open);
        if is_open() { Ok(found) } else { Err(closed()) }
    }

    /// The last event up to `head` that is not later than `time`; 0 if there is none.
    fn seq_at(&self, time: Timestamp, head: u64) -> Result<u64, LogError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let db = &open.as_ref().ok_or_else(closed)?.db;
        let spans = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            index.spans_until(time)
        };
        for span in spans {
            let mut chunks = Chunks::new(db, &self.dir);
            let mut found = None;
            for seq in span.start..span.end.min(head.saturating_add(1)) {
                if chunks.get(seq)?.is_some_and(|event| event.time <= time) {
                    found = Some(seq);
                }
            }
            if let Some(seq) = found {
                return Ok(seq);
            }
        }
        Ok(0)
    }
}

impl EventAppender for EmbeddedLog {
    /// Appends all events or none, durably. It happens also if the caller stops waiting for it.
    async fn append(&self, append: Append) -> Result<Appended, LogError> {
        let append = Prepared::new(append, &self.shared.limits)?;
        let wanted = append.bytes.min(self.shared.limits.queued_bytes_max);
        let room = self.room.clone().acquire_many_owned(wanted).await;
        let (answer, answered) = oneshot::channel();
        let request = Request {
            append,
            answer,
            room: room.map_err(|_| closed())?,
        };
        let message = Message::Append(Box::new(request));
        self.queue.send(message).await.map_err(|_| closed())?;
        match answered.await {
            Ok(answer) => answer,
            // The writer died over it.
            Err(_) => Err(LogError::OutcomeUnknown(Arc::new(Closed))),
        }
    }
}

impl EventReader for EmbeddedLog {
    async fn read_stream(
        &self,
        stream: &StreamName,
        from: Version,
        count_max: usize,
    ) -> Result<Vec<Recorded<Event>>, LogError> {
        self.read(self.seqs(stream, from, count_max)).await
    }

    async fn read_all(
        &self,
        after: Position,
        count_max: usize,
    ) -> Result<Vec<Recorded<Event>>, LogError> {
        // Never further than what is durable.
        let seqs = after.raw().saturating_add(1)..=self.head().raw();
        self.read(seqs.take(self.count_max(count_max)).collect())
            .await
    }

    async fn read_at(&self, positions: &[Position]) -> Result<Vec<Recorded<Event>>, LogError> {
        let seqs = positions.iter().map(|position| position.raw());
        self.read(seqs.take(self.count_max(positions.len())).collect())
            .await
    }

    async fn position_at(&self, time: Timestamp) -> Result<Position, LogError> {
        let head = self.head().raw();
        let shared = self.shared.clone();
        blocking(&self.shared.dir, move || shared.seq_at(time, head))
            .await
            .map(Position::from_raw)
    }

    fn head(&self) -> Position {
        Position::from_raw(*self.head.borrow())
    }

    async fn wait_behind(&self, after: Position) -> Result<(), LogError> {
        let mut head = self.head.clone();
        let reached = head.wait_for(|head| *head > after.raw()).await;
        reached.map(drop).map_err(|_| closed())
    }
}
