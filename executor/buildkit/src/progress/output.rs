//! What a process wrote to one of its streams, without what comes twice.
//!
//! BuildKit lets only so much through: what a `write` has beyond that is dropped, and where it begins to
//! drop it puts [`CLIPPED`]. From that write on the daemon also remembers the last [`REPEATED_BYTES`],
//! and tells them again, as one chunk, if the process fails:
//!
//! ```text
//! written      aaaaaaaaaabbbbbbbbbb░░░░░░░░░░░░cccccccc░░░░░░░░░░░░░░░░
//! got through  aaaaaaaaaabbbbbbbbbb[clipped]   cccccccc
//! told again             ^ from the write that was clipped first, or the last 256 KiB
//! new                                                  ░░░░░░░░░░░░░░░░
//! ```
//!
//! Of what is told again only that is new which follows the last byte that got through. What was lost
//! before stays lost: it would come out of order. Where the last byte is has to be found by what stands
//! before it, for nothing says how much was dropped.

use std::collections::VecDeque;

/// How much the daemon tells again at most.
const REPEATED_BYTES: usize = 256 * 1024;

/// What the daemon puts where it begins to drop; between the two stands the bound.
const CLIPPED: (&[u8], &[u8]) = (b"\n[output clipped, log limit ", b" reached]\n");

/// How long the bound may be, in bytes: `200KiB/s`.
const CLIPPED_BOUND_BYTES_MAX: usize = 32;

/// Fewer bytes than these may be alike by chance.
const EVIDENCE_BYTES_MIN: usize = 16;

/// How much of what got through last is remembered at least, in bytes.
const RECENT_BYTES_MIN: usize = 64;

/// One stream of a process.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Something was dropped.
    clipped: Option<Box<Clipped>>,
}

/// A stream of which something was dropped.
#[derive(Debug, Default)]
struct Clipped {
    /// What got through of the write that was clipped first.
    head: Vec<u8>,
    /// How much got through since the beginning of that write, in bytes.
    through: usize,
    /// What got through last, beginning with the head. After each, something may have been dropped.
    recent: VecDeque<Vec<u8>>,
    recent_bytes: usize,
    /// The last chunk, if it may be what is told again.
    held: Option<Vec<u8>>,
}

impl Output {
    /// Takes a chunk, and appends to `news` what is new by now.
    pub(super) fn push(&mut self, chunk: Vec<u8>, news: &mut Vec<Vec<u8>>) {
        let through = before_mark(&chunk);
        let Some(clipped) = &mut self.clipped else {
            if let Some(through) = through {
                let mut clipped = Box::new(Clipped {
                    head: through.to_vec(),
                    ..Clipped::default()
                });
                clipped.keep(through);
                self.clipped = Some(clipped);
            }
            news.push(chunk);
            return;
        };
        // Another chunk came, so the last one was no repetition.
        clipped.release(news);
        if through.is_none() && clipped.may_repeat(&chunk) {
            clipped.held = Some(chunk);
        } else {
            clipped.keep(through.unwrap_or(&chunk));
            news.push(chunk);
        }
    }

    /// The process ended: what was held back, if it is new.
    pub(super) fn end(&mut self, failed: bool, news: &mut Vec<Vec<u8>>) {
        let Some(clipped) = &mut self.clipped else {
            return;
        };
        if !failed {
            clipped.release(news);
        } else if let Some(mut chunk) = clipped.held.take() {
            chunk.drain(..clipped.known(&chunk));
            if !chunk.is_empty() {
                news.push(chunk);
            }
        }
    }
}

impl Clipped {
    fn keep(&mut self, bytes: &[u8]) {
        self.through = self.through.saturating_add(bytes.len());
        if bytes.is_empty() {
            return;
        }
        self.recent_bytes = self.recent_bytes.saturating_add(bytes.len());
        self.recent.push_back(bytes.to_vec());
        while let Some(oldest) = self.recent.front().map(Vec::len)
            && self.recent_bytes - oldest >= RECENT_BYTES_MIN
        {
            self.recent_bytes -= oldest;
            self.recent.pop_front();
        }
    }

    fn release(&mut self, news: &mut Vec<Vec<u8>>) {
        if let Some(chunk) = self.held.take() {
            self.keep(&chunk);
            news.push(chunk);
        }
    }

    /// Whether `chunk` agrees with all that is known of what would be told again. No write is as long as
    /// the daemon's memory.
    fn may_repeat(&self, chunk: &[u8]) -> bool {
        chunk.len() >= REPEATED_BYTES
            || (chunk.len() >= self.through
                && chunk.starts_with(&self.head)
                && self.after_recent(chunk).is_some())
    }

    /// How many bytes at the beginning of what is told again got through before.
    fn known(&self, repeated: &[u8]) -> usize {
        let whole = repeated.len() < REPEATED_BYTES;
        if whole && self.through == self.head.len() {
            return self.head.len();
        }
        self.after_recent(repeated).unwrap_or_else(|| {
            let last = self.recent.back().map_or(&[][..], Vec::as_slice);
            let overlap = overlap(last, repeated);
            if overlap < EVIDENCE_BYTES_MIN {
                0
            } else {
                overlap
            }
        })
    }

    /// Where in `repeated` that ends which got through last. Of a long last piece the last place counts,
    /// so that nothing is told twice where the output repeats itself; of a short one the first, so that
    /// nothing is lost.
    fn after_recent(&self, repeated: &[u8]) -> Option<usize> {
        let mut at = 0;
        for (index, piece) in self.recent.iter().enumerate() {
            let (_, rest) = repeated.split_at(at);
            let is_last = index + 1 == self.recent.len();
            let mut ends = ends(piece, rest);
            at += if is_last && piece.len() >= EVIDENCE_BYTES_MIN {
                ends.last()?
            } else {
                ends.next()?
            };
        }
        Some(at)
    }
}

/// What stands before the daemon's mark, if the chunk ends in one.
fn before_mark(chunk: &[u8]) -> Option<&[u8]> {
    let (begin, end) = CLIPPED;
    let rest = chunk.strip_suffix(end)?;
    let longest = begin.len() + CLIPPED_BOUND_BYTES_MAX;
    let from = rest.len().saturating_sub(longest);
    let (_, tail) = rest.split_at(from);
    let mark = tail
        .windows(begin.len())
        .rposition(|window| window == begin)?;
    rest.get(..from + mark)
}

/// The length of the longest end of `first` with which `second` begins.
fn overlap(first: &[u8], second: &[u8]) -> usize {
    let longest = first.len().min(second.len());
    let (_, end) = first.split_at(first.len() - longest);
    let (pattern, _) = second.split_at(longest);
    let borders = borders(pattern);
    end.iter()
        .fold(0, |matched, byte| step(pattern, &borders, matched, *byte))
}

/// Where `needle` ends in `haystack`, each time.
fn ends(needle: &[u8], haystack: &[u8]) -> impl Iterator<Item = usize> {
    // Knuth, Morris, Pratt: what a step writes must not make looking for it slow.
    let borders = borders(needle);
    let mut matched = 0;
    haystack
        .iter()
        .enumerate()
        .filter_map(move |(index, byte)| {
            matched = step(needle, &borders, matched, *byte);
            (matched == needle.len()).then_some(index + 1)
        })
}

/// For each beginning of `pattern`, the length of the longest shorter beginning that it ends in.
fn borders(pattern: &[u8]) -> Vec<usize> {
    let mut borders = Vec::with_capacity(pattern.len());
    let mut matched = 0;
    for (index, byte) in pattern.iter().enumerate() {
        if index > 0 {
            matched = step(pattern, &borders, matched, *byte);
        }
        borders.push(matched);
    }
    borders
}

/// How much of `pattern` is matched once `byte` follows `matched` of its bytes.
fn step(pattern: &[u8], borders: &[usize], mut matched: usize, byte: u8) -> usize {
    loop {
        if pattern.get(matched) == Some(&byte) {
            return matched + 1;
        }
        match matched.checked_sub(1).and_then(|last| borders.get(last)) {
            Some(&shorter) => matched = shorter,
            None => return 0,
        }
    }
}

#[cfg(test)]
mod tests;
