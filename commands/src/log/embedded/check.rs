//! The check of a whole log: every checksum, every number, every link, and the anchor.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use domain::Digest;
use domain::ports::LogError;

use super::anchor::{self, Anchor};
use super::files::{Copy, DB_FILE, DirLock, Store, check_present, unavailable};
use super::index::{Entry, Index};
use super::values::{Slot, Slots};
use crate::codec::{Envelope, roll};
use crate::limits::LogLimits;
use crate::log::survey::{Chains, Damage, Damages, Finds, First, Place};

/// How many events that stand where others belong are remembered.
const STRAYS_MAX: usize = 1_024;

/// A log that was found whole.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) index: Index,
    /// The last event; 0 if there is none.
    pub(super) seq: u64,
    /// The hash of the whole log.
    pub(super) hash: Digest,
}

/// What a look at a whole log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// How many events there are.
    pub event_count: u64,
    /// In how many streams.
    pub stream_count: usize,
    /// Up to which event the anchor vouches for the log.
    pub anchored: u64,
    /// The hash of the whole log.
    pub hash: Digest,
    /// What is wrong.
    pub damages: Damages,
}

impl Verification {
    /// Of a log whose events cannot be looked at.
    pub(super) fn unreadable(path: PathBuf, what: String, limits: &LogLimits) -> Self {
        let mut damages = Damages::up_to(limits.damages_max);
        damages.add(Damage::new(Place::File(path), what));
        Self {
            event_count: 0,
            stream_count: 0,
            anchored: 0,
            hash: Digest::ZERO,
            damages,
        }
    }
}

/// Checks the log in `store`, which lies in `dir`, against its anchor.
///
/// # Errors
/// [`LogError::Damaged`] with the first thing that is wrong.
pub(super) fn check(
    store: &Store,
    dir: &Path,
    anchor: Option<&Anchor>,
) -> Result<Checked, LogError> {
    let mut survey = Survey::new(dir, anchor, First);
    match survey.whole(&store.db, u64::MAX) {
        ControlFlow::Continue(()) => Ok(survey.checked),
        ControlFlow::Break(damage) => Err(damage.into()),
    }
}

/// Looks for everything that is wrong with the events up to `last`, as long as that `is_wanted`.
pub(super) fn survey(
    db: &sled::Db,
    dir: &Path,
    anchor: Option<&Anchor>,
    last: u64,
    damages_max: usize,
    is_wanted: &dyn Fn() -> bool,
) -> Verification {
    let look = |strays| {
        let mut survey = Survey::new(dir, anchor, Damages::up_to(damages_max));
        survey.strays = strays;
        survey.is_wanted = is_wanted;
        if let ControlFlow::Break(damage) = survey.whole(db, last) {
            survey.finds.add(damage);
        }
        survey
    };
    let mut survey = look(BTreeMap::new());
    if !survey.strays.is_empty() {
        // Events stand in each other's places: once it is known which, their streams can be
        // followed through them.
        survey = look(survey.strays);
    }
    Verification {
        event_count: survey.event_count,
        stream_count: survey.checked.index.stream_count(),
        anchored: anchor.map_or(0, |anchor| anchor.seq),
        hash: survey.checked.hash,
        damages: survey.finds,
    }
}

/// A look at all events, in their order.
struct Survey<'a, F> {
    dir: &'a Path,
    anchor: Option<&'a Anchor>,
    finds: F,
    checked: Checked,
    chains: Chains,
    /// Events that stand where others belong, as far as they were met.
    strays: BTreeMap<u64, Box<Envelope>>,
    event_count: u64,
    /// Whether anything is wrong so far: then the hash of the whole says no more.
    is_damaged: bool,
    is_wanted: &'a dyn Fn() -> bool,
}

impl<'a, F: Finds> Survey<'a, F> {
    fn new(dir: &'a Path, anchor: Option<&'a Anchor>, finds: F) -> Self {
        Self {
            dir,
            anchor,
            finds,
            checked: Checked {
                index: Index::default(),
                seq: 0,
                hash: Digest::ZERO,
            },
            chains: Chains::default(),
            strays: BTreeMap::new(),
            event_count: 0,
            is_damaged: false,
            is_wanted: &|| true,
        }
    }

    fn found(&mut self, place: Place, what: impl Into<String>) -> ControlFlow<Damage> {
        self.is_damaged = true;
        self.finds.found(Damage::new(place, what))
    }

    fn whole(&mut self, db: &sled::Db, last: u64) -> ControlFlow<Damage> {
        for slot in Slots::new(db, self.dir) {
            if !(self.is_wanted)() {
                return ControlFlow::Continue(());
            }
            match slot {
                Slot::Event(envelope) if envelope.seq > last => break,
                Slot::Other { seq, .. } | Slot::Unreadable { seq, .. } if seq > last => break,
                Slot::Event(envelope) => self.event(&envelope)?,
                Slot::Other { seq, other } => {
                    self.not_there(seq, format!("event {} stands there", other.seq))?;
                    if self.strays.len() < STRAYS_MAX {
                        self.strays.insert(other.seq, other);
                    }
                }
                Slot::Unreadable { seq, what } => self.not_there(seq, what)?,
                Slot::Odd(damage) => {
                    self.is_damaged = true;
                    self.finds.found(damage)?;
                }
            }
        }
        self.end()
    }

    /// Event `seq` is not where it belongs.
    fn not_there(&mut self, seq: u64, what: String) -> ControlFlow<Damage> {
        self.up_to(seq)?;
        self.checked.seq = seq.max(self.checked.seq);
        let Some(stray) = self.strays.remove(&seq) else {
            return self.found(Place::seq(seq), what);
        };
        self.found(Place::of(&stray), what)?;
        self.event(&stray)
    }

    /// The next event is `seq`: those before it must have come.
    fn up_to(&mut self, seq: u64) -> ControlFlow<Damage> {
        let wanted = self.checked.seq.saturating_add(1);
        if seq <= wanted {
            return ControlFlow::Continue(());
        }
        let last = seq.saturating_sub(1);
        let what = if last == wanted {
            "it is missing".to_owned()
        } else {
            format!("events {wanted} to {last} are missing")
        };
        self.found(Place::seq(wanted), what)
    }

    fn event(&mut self, envelope: &Envelope) -> ControlFlow<Damage> {
        self.up_to(envelope.seq)?;
        let head = self.checked.index.head(&envelope.stream);
        if let Some(what) = self.chains.follow(envelope, head) {
            self.found(Place::of(envelope), what)?;
        }
        self.event_count = self.event_count.saturating_add(1);
        self.checked.seq = envelope.seq.max(self.checked.seq);
        self.checked.hash = roll(&self.checked.hash, &envelope.hash);
        // One that came too late is no end of its stream.
        if envelope.version >= head.version {
            self.checked.index.add(Entry::from(envelope));
        }
        match self.anchor {
            Some(anchor)
                if anchor.seq == envelope.seq
                    && anchor.hash != self.checked.hash
                    && !self.is_damaged =>
            {
                let what = "the events up to here are not those that the anchor vouches for, \
                            or stand in another order";
                self.found(Place::of(envelope), what)
            }
            Some(_) | None => ControlFlow::Continue(()),
        }
    }

    fn end(&mut self) -> ControlFlow<Damage> {
        let seq = self.checked.seq;
        match self.anchor {
            Some(anchor) if anchor.seq > seq => {
                let (written, missing) = (anchor.seq, anchor.seq.saturating_sub(seq));
                let what = format!(
                    "the log ends with event {seq}, but events up to {written} were written: \
                     {missing} are missing"
                );
                self.found(Place::seq(seq.saturating_add(1)), what)
            }
            None if seq > 0 => {
                let what = "the file is missing, so nothing says whether the log has its end";
                self.found(Place::File(self.dir.join(anchor::FILE)), what)
            }
            Some(_) | None => ControlFlow::Continue(()),
        }
    }
}

/// See [`super::verify`]; panics where sled does.
pub(super) fn verify_copy(dir: &Path, limits: &LogLimits) -> Result<Verification, LogError> {
    if !dir.try_exists().map_err(unavailable)? {
        return Err(absent(dir));
    }
    let _lock = DirLock::take(dir)?;
    let anchor = Anchor::read(dir)?;
    check_present(dir, anchor.is_some())?;
    if anchor.is_none() && !dir.join(DB_FILE).exists() {
        return Err(absent(dir));
    }
    let copy = Copy::of(dir).map_err(unavailable)?;
    let store = Store::open(&copy.dir, limits)?;
    Ok(survey(
        &store.db,
        dir,
        anchor.as_ref(),
        u64::MAX,
        limits.damages_max,
        &|| true,
    ))
}

fn absent(dir: &Path) -> LogError {
    let what = format!("there is no event log in `{}`", dir.display());
    unavailable(io::Error::new(io::ErrorKind::NotFound, what))
}
