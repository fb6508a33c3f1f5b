//! What is wrong with a sequence of events: numbers that are missing, links that do not hold.
//!
//! After a damage the rest is checked all the same, and what only follows from the damage is not
//! told again: a changed event is named, not the one that links to it.

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;

use domain::Digest;
use domain::ports::LogError;
use domain::recorded::{StreamName, Version};

use super::prepared::Head;
use crate::codec::Envelope;

/// Where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// With an event, as far as it can be read.
    Event {
        /// Its number in the whole log; an export has none.
        seq: Option<u64>,
        /// Its stream, and its number there.
        within: Option<(StreamName, Version)>,
    },
    /// With a file or a folder as a whole.
    File(PathBuf),
    /// With an export as a whole.
    Export,
}

impl Place {
    pub(super) fn of(envelope: &Envelope) -> Self {
        Self::Event {
            seq: Some(envelope.seq),
            within: Some((envelope.stream.clone(), envelope.version)),
        }
    }

    pub(super) const fn seq(seq: u64) -> Self {
        Self::Event {
            seq: Some(seq),
            within: None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Export => f.write_str("the export"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Event { seq, within } => match (seq, within) {
                (Some(seq), Some((stream, version))) => {
                    write!(f, "event {seq} ({stream}, version {})", version.0)
                }
                (Some(seq), None) => write!(f, "event {seq}"),
                (None, Some((stream, version))) => write!(f, "{stream}, version {}", version.0),
                (None, None) => f.write_str("an event"),
            },
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where.
    pub place: Place,
    /// What.
    pub what: String,
}

impl Damage {
    pub(super) fn new(place: Place, what: impl Into<String>) -> Self {
        Self {
            place,
            what: what.into(),
        }
    }
}

impl From<Damage> for LogError {
    fn from(damage: Damage) -> Self {
        Self::Damaged {
            place: damage.place.to_string(),
            what: damage.what,
        }
    }
}

/// Takes what is found; says whether to look on.
pub(super) trait Finds {
    fn found(&mut self, damage: Damage) -> ControlFlow<Damage>;
}

/// The first thing that is wrong is enough.
#[derive(Debug)]
pub(super) struct First;

impl Finds for First {
    fn found(&mut self, damage: Damage) -> ControlFlow<Damage> {
        ControlFlow::Break(damage)
    }
}

/// Everything that is wrong, as far as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damages {
    /// The first ones.
    pub kept: Vec<Damage>,
    /// How many there are.
    pub count: u64,
    kept_max: usize,
}

impl Damages {
    /// None yet; `kept_max` are kept of those to come.
    pub fn up_to(kept_max: usize) -> Self {
        Self {
            kept: Vec::new(),
            count: 0,
            kept_max,
        }
    }

    /// Whether nothing is wrong.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn add(&mut self, damage: Damage) {
        self.count = self.count.saturating_add(1);
        if self.kept.len() < self.kept_max {
            self.kept.push(damage);
        }
    }
}

impl Finds for Damages {
    fn found(&mut self, damage: Damage) -> ControlFlow<Damage> {
        self.add(damage);
        ControlFlow::Continue(())
    }
}

/// The streams' chains, as far as they were followed.
#[derive(Debug, Default)]
pub(super) struct Chains {
    /// Streams whose last event was damaged, and what its hash should have been: one that follows
    /// may link to either.
    computed: HashMap<StreamName, Digest>,
}

impl Chains {
    /// What is wrong with `envelope` if `head` is the end of its stream before it.
    pub(super) fn follow(&mut self, envelope: &Envelope, head: Head) -> Option<String> {
        let computed = self.computed.remove(&envelope.stream);
        if envelope.version != head.version {
            // What it links to is not there, so its own hash says nothing.
            return Some(out_of_line(envelope.version, head.version));
        }
        let link = envelope.link(&head.hash);
        let holds = |link: &Digest| envelope.hash == *link;
        if holds(&link) || computed.is_some_and(|hash| holds(&envelope.link(&hash))) {
            return None;
        }
        self.computed.insert(envelope.stream.clone(), link);
        Some("its hash does not follow from it and the event before it in its stream".to_owned())
    }
}

fn out_of_line(found: Version, wanted: Version) -> String {
    let goes_on = format!("the stream goes on with version {}", wanted.0);
    match found.0.checked_sub(wanted.0) {
        None | Some(0) => goes_on,
        Some(1) => format!("{goes_on}, which is missing"),
        Some(_) => format!(
            "{goes_on}; versions {} to {} are missing",
            wanted.0,
            found.0.saturating_sub(1)
        ),
    }
}
