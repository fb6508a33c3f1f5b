//! The check of a whole log: every checksum, every number, every link, and the anchor.

use std::io;
use std::path::Path;

use domain::Digest;
use domain::ports::LogError;

use super::anchor::{self, Anchor};
use super::chunks::{Chunks, odd};
use super::files::{Copy, DB_FILE, DirLock, Store, check_present, unavailable};
use super::index::{Entry, Index};
use crate::codec::{Envelope, roll};
use crate::limits::LogLimits;
use crate::log::place;

/// A log that was found whole.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) index: Index,
    /// The last event; 0 if there is none.
    pub(super) seq: u64,
    /// The hash of the whole log.
    pub(super) hash: Digest,
}

/// What [`super::verify`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// How many events there are; all of them are whole and linked.
    pub event_count: u64,
    /// In how many streams.
    pub stream_count: usize,
    /// Up to which event the anchor vouches for the log.
    pub anchored: u64,
    /// The hash of the whole log.
    pub hash: Digest,
}

/// Checks the log in `store`, which lies in `dir`, against its anchor.
pub(super) fn check(
    store: &Store,
    dir: &Path,
    anchor: Option<&Anchor>,
) -> Result<Checked, LogError> {
    let mut chunks = Chunks::new(&store.db, dir);
    let mut checked = Checked {
        index: Index::default(),
        seq: 0,
        hash: Digest::ZERO,
    };
    while let Some(envelope) = chunks.get(checked.seq + 1)? {
        checked.add(&envelope)?;
        if let Some(anchor) = anchor
            && anchor.seq == checked.seq
            && anchor.hash != checked.hash
        {
            let what = "the events up to here are not those that the anchor vouches for";
            let place = place(envelope.seq, &envelope.stream, envelope.version);
            return Err(odd(place, what));
        }
    }
    if let Some(next) = chunks.begins_behind(checked.seq)? {
        let what = format!("events {} to {} are missing", checked.seq + 1, next - 1);
        return Err(odd(format!("event {}", checked.seq + 1), &what));
    }
    match anchor {
        Some(anchor) if anchor.seq > checked.seq => {
            let what = format!(
                "the log ends with event {}, but events up to {} were written: {} are missing",
                checked.seq,
                anchor.seq,
                anchor.seq - checked.seq
            );
            Err(odd(format!("event {}", checked.seq + 1), &what))
        }
        None if checked.seq > 0 => {
            let place = dir.join(anchor::FILE).display().to_string();
            let what = "the file is missing, so nothing says whether the log has its end";
            Err(odd(place, what))
        }
        Some(_) | None => Ok(checked),
    }
}

impl Checked {
    fn add(&mut self, envelope: &Envelope) -> Result<(), LogError> {
        let head = self.index.head(&envelope.stream);
        let place = || place(envelope.seq, &envelope.stream, envelope.version);
        if envelope.version != head.version {
            let what = format!("the stream goes on with version {}", head.version.0);
            return Err(odd(place(), &what));
        }
        if envelope.hash != envelope.link(&head.hash) {
            let what = "its hash does not follow from it and the event before it in its stream";
            return Err(odd(place(), what));
        }
        self.seq = envelope.seq;
        self.hash = roll(&self.hash, &envelope.hash);
        self.index.add(Entry::from(envelope));
        Ok(())
    }
}

/// See [`super::verify`]; panics where sled does.
pub(super) fn verify_copy(dir: &Path, limits: &LogLimits) -> Result<VerifyReport, LogError> {
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
    let checked = check(&store, &copy.dir, anchor.as_ref())?;
    Ok(VerifyReport {
        event_count: checked.seq,
        stream_count: checked.index.stream_count(),
        anchored: anchor.map_or(0, |anchor| anchor.seq),
        hash: checked.hash,
    })
}

fn absent(dir: &Path) -> LogError {
    let what = format!("there is no event log in `{}`", dir.display());
    unavailable(io::Error::new(io::ErrorKind::NotFound, what))
}
