//! Which events stand in sled's file, whatever sled makes of it: it gives up on some damages, and then
//! only the file itself can say what is lost.
//!
//! Frames are stored as they are, each with its checksum, so they are found by looking for them. One
//! that needs several values is not in one piece: of it only the beginning is looked for.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::files::DB_FILE;
use super::pack::{VALUE_BYTES_MAX, is_first_part};
use crate::codec::Envelope;
use crate::log::survey::{Damage, Damages, Place};

/// How much of the file is looked at at once.
const WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// Where a frame has its format, and its number behind it.
const FORMAT_AT: usize = 8;
const FORMAT: u8 = 1;

/// Adds the events up to `last` that do not stand whole in the file of the log in `dir`.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn missing(dir: &Path, last: u64, damages: &mut Damages) -> io::Result<()> {
    let count = usize::try_from(last).map_err(io::Error::other)?;
    let mut there = vec![false; count];
    let mut file = File::open(dir.join(DB_FILE))?;
    let mut window = Vec::new();
    loop {
        let wanted = u64::try_from(WINDOW_BYTES).unwrap_or(u64::MAX);
        let read = file.by_ref().take(wanted).read_to_end(&mut window)?;
        mark(&window, &mut there);
        if read == 0 {
            break;
        }
        // A frame may begin in this window and end in the next.
        window.drain(..window.len().saturating_sub(2 * VALUE_BYTES_MAX));
    }
    let mut next = 0;
    while let Some(first) = position(&there, next, false) {
        next = position(&there, first, true).unwrap_or(count);
        damages.add(lost(first, next));
    }
    Ok(())
}

fn position(there: &[bool], from: usize, wanted: bool) -> Option<usize> {
    let found = there.iter().skip(from).position(|is| *is == wanted);
    found.map(|behind| from.saturating_add(behind))
}

/// The events from index `first` up to the one before `end`: event n has index n - 1.
fn lost(first: usize, end: usize) -> Damage {
    let seq = |index: usize| u64::try_from(index).unwrap_or(u64::MAX);
    let (first, last) = (seq(first).saturating_add(1), seq(end));
    let what = if first == last {
        "it stands nowhere in the file as it was written".to_owned()
    } else {
        format!("events {first} to {last} stand nowhere in the file as they were written")
    };
    Damage::new(Place::seq(first), what)
}

/// Marks the events whose frames stand in `window`.
fn mark(window: &[u8], there: &mut [bool]) {
    for at in 0..window.len() {
        let Some(bytes) = window.get(at..) else {
            return;
        };
        if bytes.get(FORMAT_AT) != Some(&FORMAT) {
            continue;
        }
        let Some(place) = seq(bytes).and_then(|seq| there.get_mut(seq)) else {
            continue;
        };
        if *place {
            continue;
        }
        let before = window.get(..at).unwrap_or_default();
        *place = Envelope::read_from(&mut &*bytes).is_ok() || is_first_part(before, bytes);
    }
}

/// The index of the event whose frame may begin here.
fn seq(bytes: &[u8]) -> Option<usize> {
    let seq = bytes.get(FORMAT_AT + 1..)?.first_chunk()?;
    usize::try_from(u64::from_le_bytes(*seq))
        .ok()?
        .checked_sub(1)
}
