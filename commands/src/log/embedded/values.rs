//! Everything that is in sled's values, in the order of the log, whatever of it is damaged.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::path::Path;

use domain::causes::chain;
use domain::ports::LogError;

use super::chunks::{A_PART_IS_MISSING, join};
use super::files::storage;
use super::pack::{FRAMES, PART, parse_key};
use crate::codec::Envelope;
use crate::log::survey::{Damage, Place};

/// What stands where an event belongs.
#[derive(Debug)]
pub(super) enum Slot {
    /// The event.
    Event(Box<Envelope>),
    /// Another event.
    Other {
        /// Which belongs there.
        seq: u64,
        /// Which stands there.
        other: Box<Envelope>,
    },
    /// Nothing that can be read.
    Unreadable {
        /// Which belongs there.
        seq: u64,
        /// What is wrong.
        what: String,
    },
    /// Something of which it cannot be told what belongs there.
    Odd(Damage),
}

/// The slots of a log.
pub(super) struct Slots<'a> {
    db: &'a sled::Db,
    dir: &'a Path,
    /// None once sled has given up.
    values: Option<Peekable<sled::Iter>>,
    read: VecDeque<Slot>,
    /// The event whose parts were joined last.
    joined: u64,
}

impl<'a> Slots<'a> {
    pub(super) fn new(db: &'a sled::Db, dir: &'a Path) -> Self {
        Self {
            db,
            dir,
            values: Some(db.iter().peekable()),
            read: VecDeque::new(),
            joined: 0,
        }
    }

    fn value(&mut self, key: &[u8], value: &[u8]) {
        let Some((first, part)) = parse_key(key) else {
            let what = format!("the log does not write such keys as {key:?}");
            self.odd(what);
            return;
        };
        match value.split_first() {
            // It was joined to the first of them.
            Some((&PART, _)) if part != 0 && first == self.joined => {}
            Some((&PART, rest)) if part == 0 => {
                self.joined = first;
                match join(self.db, self.dir, first, rest) {
                    Ok(frame) => self.frames(first, &frame),
                    Err(LogError::Damaged { what, .. }) => self.unreadable(first, what),
                    Err(err) => self.odd(chain(&err)),
                }
            }
            Some((&FRAMES, frames)) if part == 0 => self.frames(first, frames),
            Some((&PART, _)) => {
                self.joined = first;
                self.unreadable(first, A_PART_IS_MISSING.to_owned());
            }
            Some(_) | None => self.unreadable(first, "its value has no known form".to_owned()),
        }
    }

    /// The slots of a value that begins with event `first`.
    fn frames(&mut self, first: u64, frames: &[u8]) {
        let frames = read_frames(frames);
        let seqs = frames.iter().flatten().map(|envelope| envelope.seq);
        // Where the order is right, what is missing is no more than missing.
        let end = self.next_first();
        let is_ascending = seqs.clone().is_sorted_by(|one, other| one < other)
            && seqs.clone().all(|seq| seq >= first && seq < end);
        let mut slot = first;
        for frame in frames {
            match frame {
                Ok(envelope) if is_ascending || envelope.seq == slot => {
                    slot = envelope.seq;
                    self.read.push_back(Slot::Event(envelope));
                }
                Ok(other) => self.read.push_back(Slot::Other { seq: slot, other }),
                Err(what) => self.unreadable(slot, what),
            }
            slot = slot.saturating_add(1);
        }
    }

    /// The first event of the next value.
    fn next_first(&mut self) -> u64 {
        let next = self.values.as_mut().and_then(Peekable::peek);
        let next = next.and_then(|next| next.as_ref().ok());
        next.and_then(|(key, _)| parse_key(key))
            .map_or(u64::MAX, |(first, _)| first)
    }

    fn unreadable(&mut self, seq: u64, what: String) {
        self.read.push_back(Slot::Unreadable { seq, what });
    }

    fn odd(&mut self, what: String) {
        let place = Place::File(self.dir.to_owned());
        self.read.push_back(Slot::Odd(Damage::new(place, what)));
    }
}

impl Iterator for Slots<'_> {
    type Item = Slot;

    fn next(&mut self) -> Option<Slot> {
        loop {
            if let Some(slot) = self.read.pop_front() {
                return Some(slot);
            }
            match self.values.as_mut()?.next()? {
                Ok((key, value)) => self.value(&key, &value),
                Err(err) => {
                    self.values = None;
                    self.odd(chain(&storage(self.dir, err)));
                }
            }
        }
    }
}

/// The events in the frames of a value. One that cannot be read is passed over by its length; at a
/// second one in a row its length was no length, and the rest is given up.
fn read_frames(mut bytes: &[u8]) -> Vec<Result<Box<Envelope>, String>> {
    let mut frames = Vec::new();
    let mut is_lost = false;
    while !bytes.is_empty() {
        let frame = Envelope::read_from(&mut bytes);
        let was_lost = std::mem::replace(&mut is_lost, frame.is_err());
        frames.push(frame.map(Box::new).map_err(|err| chain(&err)));
        if was_lost && is_lost {
            break;
        }
    }
    frames
}
