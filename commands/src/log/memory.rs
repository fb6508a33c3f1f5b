//! The log in memory: for tests and simulation. It stores the same frames as the embedded one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::Digest;
use domain::event::Event;
use domain::ports::{Append, Appended, EventAppender, EventReader, LogError};
use domain::recorded::{Position, Recorded, StreamName, Version};
use domain::time::Timestamp;
use tokio::sync::watch;

use super::prepared::{Head, Prepared};
use super::survey::{Chains, Damage, Damages, Place};
use super::{Verification, closed, damaged, recorded};
use crate::codec::{Envelope, roll};
use crate::limits::LogLimits;

/// A log that lives as long as the process. Clones are the same log.
#[derive(Clone, Debug)]
pub struct MemoryLog {
    limits: LogLimits,
    state: Arc<Mutex<State>>,
    head: watch::Receiver<u64>,
}

#[derive(Debug)]
struct State {
    /// The frame of event n is at n - 1.
    frames: Vec<Vec<u8>>,
    streams: HashMap<StreamName, Stream>,
    /// None: closed.
    head: Option<watch::Sender<u64>>,
}

#[derive(Debug)]
struct Stream {
    head: Head,
    seqs: Vec<u64>,
}

impl MemoryLog {
    /// An empty log.
    pub fn new(limits: LogLimits) -> Self {
        let (sender, head) = watch::channel(0);
        let state = State {
            frames: Vec::new(),
            streams: HashMap::new(),
            head: Some(sender),
        };
        Self {
            limits,
            state: Arc::new(Mutex::new(state)),
            head,
        }
    }

    /// Takes nothing more; who waits is told. What is there can still be read.
    pub fn close(&self) {
        self.state().head = None;
    }

    /// See [`super::AnyLog::verify`]; there is nothing outside of it that vouches for it.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if a frame cannot be read, which nobody can have changed.
    pub fn verify(&self) -> Result<Verification, LogError> {
        let state = self.state();
        let mut streams: HashMap<StreamName, Head> = HashMap::new();
        let mut chains = Chains::default();
        let mut damages = Damages::up_to(self.limits.damages_max);
        let mut hash = Digest::ZERO;
        for seq in 1..=state.last_seq() {
            let (envelope, _) = state.envelope(seq)?;
            let head = streams
                .get(&envelope.stream)
                .copied()
                .unwrap_or(Head::EMPTY);
            if let Some(what) = chains.follow(&envelope, head) {
                damages.add(Damage::new(Place::of(&envelope), what));
            }
            hash = roll(&hash, &envelope.hash);
            streams.insert(envelope.stream.clone(), Head::after(&envelope));
        }
        Ok(Verification {
            event_count: state.last_seq(),
            stream_count: streams.len(),
            anchored: state.last_seq(),
            hash,
            damages,
        })
    }

    /// See [`super::AnyLog::read_stored`].
    ///
    /// # Errors
    /// [`LogError::Damaged`] as [`MemoryLog::verify`].
    pub fn read_stored(
        &self,
        stream: &StreamName,
        from: Version,
        count_max: usize,
    ) -> Result<Vec<Envelope>, LogError> {
        let state = self.state();
        self.stored(&state, state.seqs(stream, from), count_max)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is made at once, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(
        &self,
        state: &State,
        seqs: impl Iterator<Item = u64>,
        count_max: usize,
    ) -> Result<Vec<Recorded<Event>>, LogError> {
        let stored = self.stored(state, seqs, count_max)?;
        stored.into_iter().map(recorded).collect()
    }

    fn stored(
        &self,
        state: &State,
        seqs: impl Iterator<Item = u64>,
        count_max: usize,
    ) -> Result<Vec<Envelope>, LogError> {
        let mut events = Vec::new();
        let mut bytes = 0;
        for seq in seqs.take(count_max.min(self.limits.read_events_max)) {
            let (envelope, length) = state.envelope(seq)?;
            bytes += length;
            if bytes > self.limits.read_bytes_max && !events.is_empty() {
                break;
            }
            events.push(envelope);
        }
        Ok(events)
    }
}

impl State {
    fn envelope(&self, seq: u64) -> Result<(Envelope, usize), LogError> {
        let at = usize::try_from(seq - 1).unwrap_or(usize::MAX);
        let frame = self.frames.get(at).map(Vec::as_slice).unwrap_or_default();
        let envelope = Envelope::read_from(&mut &*frame)
            .map_err(|err| damaged(format!("event {seq}"), &err))?;
        Ok((envelope, frame.len()))
    }

    fn seqs(&self, stream: &StreamName, from: Version) -> impl Iterator<Item = u64> {
        let from = usize::try_from(from.0).unwrap_or(usize::MAX);
        let seqs = self.streams.get(stream).map(|stream| stream.seqs.iter());
        seqs.into_iter().flatten().skip(from).copied()
    }

    fn last_seq(&self) -> u64 {
        u64::try_from(self.frames.len()).unwrap_or(u64::MAX)
    }

    /// The answer to an append that does not fit the end of its stream.
    fn resolve(&self, append: &Prepared, head: Head) -> Result<Appended, LogError> {
        let from = usize::try_from(append.expected.0).unwrap_or(usize::MAX);
        let stream = self.streams.get(&append.stream);
        let seqs = stream.into_iter().flat_map(|stream| &stream.seqs);
        let stored = seqs
            .skip(from)
            .take(append.compared_count())
            .map(|seq| self.envelope(*seq).map(|(envelope, _)| envelope))
            .collect::<Result<Vec<_>, _>>()?;
        append.resolve(&stored, head)
    }
}

impl EventAppender for MemoryLog {
    async fn append(&self, append: Append) -> Result<Appended, LogError> {
        let append = Prepared::new(append, &self.limits)?;
        let mut state = self.state();
        if state.head.is_none() {
            return Err(closed());
        }
        let stream = append.stream.clone();
        let head = state
            .streams
            .get(&stream)
            .map_or(Head::EMPTY, |stream| stream.head);
        if append.expected != head.version {
            return state.resolve(&append, head);
        }
        let envelopes = append.link(state.last_seq() + 1, head);
        let entry = state.streams.entry(stream).or_insert(Stream {
            head,
            seqs: Vec::new(),
        });
        let mut frames = Vec::with_capacity(envelopes.len());
        for envelope in &envelopes {
            let mut frame = Vec::new();
            envelope.write_to(&mut frame);
            frames.push(frame);
            entry.head = Head::after(envelope);
            entry.seqs.push(envelope.seq);
        }
        let version = entry.head.version;
        state.frames.append(&mut frames);
        let last = state.last_seq();
        if let Some(sender) = &state.head {
            sender.send_replace(last);
        }
        Ok(Appended {
            version,
            position: Position::from_raw(last),
        })
    }
}

impl EventReader for MemoryLog {
    async fn read_stream(
        &self,
        stream: &StreamName,
        from: Version,
        count_max: usize,
    ) -> Result<Vec<Recorded<Event>>, LogError> {
        let state = self.state();
        self.read(&state, state.seqs(stream, from), count_max)
    }

    async fn read_all(
        &self,
        after: Position,
        count_max: usize,
    ) -> Result<Vec<Recorded<Event>>, LogError> {
        let state = self.state();
        let seqs = after.raw().saturating_add(1)..=state.last_seq();
        self.read(&state, seqs, count_max)
    }

    async fn read_at(&self, positions: &[Position]) -> Result<Vec<Recorded<Event>>, LogError> {
        let seqs = positions.iter().map(|position| position.raw());
        self.read(&self.state(), seqs, positions.len())
    }

    async fn position_at(&self, time: Timestamp) -> Result<Position, LogError> {
        let state = self.state();
        for seq in (1..=state.last_seq()).rev() {
            if state.envelope(seq)?.0.time <= time {
                return Ok(Position::from_raw(seq));
            }
        }
        Ok(Position::START)
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
