//! What is to be sent next: a lane for each stream that has something to send. Pure.
//!
//! The events of a stream are sent in their order, one at a time; streams do not wait for each other.
//! A lane holds no events, only from where to where they are to be read: a receiver that is away for
//! long costs no memory but a lane for each stream that goes on meanwhile.
//!
//! **Invariant: a lane is gone only when every event that was put into it was sent or given up.**

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::str::FromStr;

use domain::ids::InvalidId;
use domain::recorded::{Position, StreamName, Version};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// Whose events a lane holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LaneKey {
    /// A stream's, in their order.
    Stream(StreamName),
    /// One event that is sent again by itself.
    Again(Position),
}

/// What the text of a lane of one event begins with. No stream's name does.
const AGAIN: &str = "again/";

impl fmt::Display for LaneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(stream) => stream.fmt(f),
            Self::Again(position) => write!(f, "{AGAIN}{}", position.raw()),
        }
    }
}

impl FromStr for LaneKey {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let again = text.strip_prefix(AGAIN).and_then(|raw| raw.parse().ok());
        match again {
            Some(raw) => Ok(Self::Again(Position::from_raw(raw))),
            None => text.parse().map(Self::Stream),
        }
    }
}

/// Where a lane is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// The stream that its events are in.
    pub stream: StreamName,
    /// The first version that may be to be sent.
    pub next: Version,
    /// The version behind the last one that is.
    pub end: Version,
    /// How often the first one was sent.
    pub attempts: u32,
    /// When it is sent again; none: at once.
    pub due: Option<Timestamp>,
}

/// What is to be sent.
#[derive(Debug, Default)]
pub struct Lanes {
    by_key: BTreeMap<LaneKey, Lane>,
    /// Those that can be sent from, in the order of their turns.
    ready: VecDeque<LaneKey>,
    waiting: BTreeSet<(Timestamp, LaneKey)>,
}

impl Lanes {
    /// As they were kept.
    pub fn restored(kept: impl IntoIterator<Item = (LaneKey, Lane)>) -> Self {
        let mut lanes = Self::default();
        for (key, lane) in kept {
            lanes.queue(key.clone(), lane.due);
            lanes.by_key.insert(key, lane);
        }
        lanes
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.by_key.len()
    }

    /// Where a lane is; none if it has nothing to send.
    pub fn get(&self, key: &LaneKey) -> Option<&Lane> {
        self.by_key.get(key)
    }

    /// An event is to be sent, behind what its lane has, or again if it was sent already. Says whether
    /// that is new.
    pub fn put(&mut self, key: &LaneKey, stream: &StreamName, version: Version) -> bool {
        let end = version.plus(1);
        let Some(lane) = self.by_key.get_mut(key) else {
            let lane = Lane {
                stream: stream.clone(),
                next: version,
                end,
                attempts: 0,
                due: None,
            };
            self.by_key.insert(key.clone(), lane);
            self.ready.push_back(key.clone());
            return true;
        };
        let is_new = version < lane.next || end > lane.end;
        lane.end = lane.end.max(end);
        if version < lane.next {
            lane.next = version;
            lane.attempts = 0;
            // Whoever asks for it again does not want to wait for another one's next try.
            if let Some(due) = lane.due.take()
                && self.waiting.remove(&(due, key.clone()))
            {
                self.ready.push_back(key.clone());
            }
        }
        is_new
    }

    /// A lane to send from now, which is then under way.
    pub fn start(&mut self, now: Timestamp) -> Option<(LaneKey, Lane)> {
        while let Some((due, _)) = self.waiting.first()
            && *due <= now
            && let Some((_, key)) = self.waiting.pop_first()
        {
            self.ready.push_back(key);
        }
        let key = self.ready.pop_front()?;
        let lane = self.by_key.get(&key)?.clone();
        Some((key, lane))
    }

    /// When the next lane can be sent from; none if that does not depend on time.
    pub fn due(&self) -> Option<Timestamp> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// What was under way from `began` on is done with, up to before `next`.
    pub fn passed(&mut self, key: &LaneKey, began: Version, next: Version) {
        let Some(lane) = self.by_key.get_mut(key) else {
            return;
        };
        // Otherwise somebody has asked for earlier ones meanwhile.
        if lane.next == began {
            lane.next = next;
            lane.attempts = 0;
        }
        lane.due = None;
        if lane.next >= lane.end {
            self.by_key.remove(key);
        } else {
            self.ready.push_back(key.clone());
        }
    }

    /// The event `version`, which was under way in a lane that began with `began`, is to be sent again
    /// at `due`, after so many attempts.
    pub fn failed(
        &mut self,
        key: &LaneKey,
        began: Version,
        version: Version,
        attempts: u32,
        due: Timestamp,
    ) {
        let Some(lane) = self.by_key.get_mut(key) else {
            return;
        };
        if lane.next == began {
            lane.next = version;
            lane.attempts = attempts;
            lane.due = Some(due);
        }
        let due = lane.due;
        self.queue(key.clone(), due);
    }

    fn queue(&mut self, key: LaneKey, due: Option<Timestamp>) {
        match due {
            None => self.ready.push_back(key),
            Some(due) => {
                self.waiting.insert((due, key));
            }
        }
    }
}

/// How long to wait after so many attempts, in milliseconds: twice as long each time, up to a bound,
/// and somewhere in the upper half of that, so that those who failed together do not come back
/// together.
pub fn backoff_ms(limits: &Limits, attempts: u32, random: u32) -> u64 {
    let doubled = 2_u64.saturating_pow(attempts.saturating_sub(1));
    let whole = limits
        .webhook_backoff_ms_min
        .saturating_mul(doubled)
        .min(limits.webhook_backoff_ms_max);
    let half = whole / 2;
    let share = u128::from(half) * u128::from(random) / u128::from(u32::MAX);
    // At most a half.
    half + u64::try_from(share).unwrap_or(half)
}
