//! Reads events out of sled's values.

use std::collections::VecDeque;
use std::path::Path;

use domain::ports::LogError;

use super::files::storage;
use super::pack::{FRAMES, PART, key, parse_key, parse_part};
use crate::codec::Envelope;
use crate::log::damaged;

pub(super) const A_PART_IS_MISSING: &str = "a part of it is missing";

/// A reader that remembers the rest of the value it read last: it is quick for ascending numbers.
#[derive(Debug)]
pub(super) struct Chunks<'a> {
    db: &'a sled::Db,
    dir: &'a Path,
    rest: VecDeque<Envelope>,
}

impl<'a> Chunks<'a> {
    pub(super) fn new(db: &'a sled::Db, dir: &'a Path) -> Self {
        Self {
            db,
            dir,
            rest: VecDeque::new(),
        }
    }

    /// Event `seq`; none if no value holds it.
    pub(super) fn get(&mut self, seq: u64) -> Result<Option<Envelope>, LogError> {
        if let Some(envelope) = self.take(seq) {
            return Ok(Some(envelope));
        }
        self.load(seq)?;
        Ok(self.take(seq))
    }

    fn take(&mut self, seq: u64) -> Option<Envelope> {
        while self.rest.front()?.seq < seq {
            self.rest.pop_front();
        }
        self.rest.pop_front_if(|front| front.seq == seq)
    }

    /// Reads the value that holds event `seq`, if there is one.
    fn load(&mut self, seq: u64) -> Result<(), LogError> {
        self.rest.clear();
        let found = self.db.range(..=key(seq, 0)).next_back();
        let found = found.transpose().map_err(|err| storage(self.dir, err))?;
        let Some((found, value)) = found else {
            return Ok(());
        };
        let Some((first, part)) = parse_key(&found) else {
            return Err(odd(
                format!("key {found:?}"),
                "the log does not write such keys",
            ));
        };
        match value.split_first() {
            // The last part of the event before: no value begins with `seq`.
            Some((&PART, _)) if part != 0 => Ok(()),
            Some((&PART, rest)) => {
                let frame = join(self.db, self.dir, first, rest)?;
                self.unpack(first, &frame)
            }
            Some((&FRAMES, frames)) if part == 0 => self.unpack(first, frames),
            Some(_) | None => Err(odd(format!("event {first}"), "its value has no known form")),
        }
    }

    fn unpack(&mut self, first: u64, mut frames: &[u8]) -> Result<(), LogError> {
        let mut seq = first;
        while !frames.is_empty() {
            let envelope = Envelope::read_from(&mut frames)
                .map_err(|err| damaged(format!("event {seq}"), &err))?;
            if envelope.seq != seq {
                let what = format!("event {} stands there", envelope.seq);
                return Err(odd(format!("event {seq}"), &what));
            }
            seq += 1;
            self.rest.push_back(envelope);
        }
        Ok(())
    }
}

/// Joins the parts of event `seq`, of which `first` is the first.
pub(super) fn join(db: &sled::Db, dir: &Path, seq: u64, first: &[u8]) -> Result<Vec<u8>, LogError> {
    let missing = || odd(format!("event {seq}"), A_PART_IS_MISSING);
    let (count, bytes) = parse_part(first).ok_or_else(missing)?;
    let mut frame = bytes.to_vec();
    for number in 1..count {
        let value = db.get(key(seq, number));
        let value = value.map_err(|err| storage(dir, err))?;
        let value = value.ok_or_else(missing)?;
        let part = value.strip_prefix(&[PART]).and_then(parse_part);
        let (_, bytes) = part.filter(|part| part.0 == count).ok_or_else(missing)?;
        frame.extend(bytes);
    }
    Ok(frame)
}

pub(super) fn odd(place: String, what: &str) -> LogError {
    LogError::Damaged {
        place,
        what: what.to_owned(),
    }
}
