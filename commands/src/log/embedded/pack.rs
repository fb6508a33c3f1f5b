//! How frames are packed into sled's values.
//!
//! A value is at most [`VALUE_BYTES_MAX`] bytes: sled moves larger pages into files that it never
//! syncs (a leaf holds up to 16 values and 10 pending changes, and may have 128 KiB).
//!
//! ```text
//!  e|first seq|0   0 frame frame …          consecutive events
//!  e|seq|0         1 part count, bytes      one event that needs more than a value
//!  e|seq|1         1 part count, bytes
//! ```
//!
//! Sequence numbers and part numbers are big-endian, so that keys sort as events do.

use crate::codec::Envelope;

/// The largest value, in bytes.
pub(super) const VALUE_BYTES_MAX: usize = 4096;

const PREFIX: &[u8; 2] = b"e|";
/// The first byte of a value that holds whole frames.
pub(super) const FRAMES: u8 = 0;
/// The first byte of a value that holds a part of a frame.
pub(super) const PART: u8 = 1;
/// What precedes a part's bytes: the mark and the number of parts.
const PART_HEADER_BYTES: usize = 5;
/// What precedes a frame: its length.
const LENGTH_BYTES: usize = 4;

/// The key of the value that begins with event `seq`, or of a part of that event.
pub(super) fn key(seq: u64, part: u32) -> Vec<u8> {
    [&PREFIX[..], &seq.to_be_bytes(), &part.to_be_bytes()].concat()
}

/// The sequence and part numbers of a key.
pub(super) fn parse_key(key: &[u8]) -> Option<(u64, u32)> {
    let (seq, part) = key.strip_prefix(PREFIX)?.split_first_chunk()?;
    let part: [u8; 4] = part.try_into().ok()?;
    Some((u64::from_be_bytes(*seq), u32::from_be_bytes(part)))
}

/// The number of parts and the bytes of a part, from what follows its mark.
pub(super) fn parse_part(rest: &[u8]) -> Option<(u32, &[u8])> {
    let (count, bytes) = rest.split_first_chunk()?;
    Some((u32::from_le_bytes(*count), bytes))
}

/// Whether `frame` is the beginning of one that needs several values, by what stands `before` it.
pub(super) fn is_first_part(before: &[u8], frame: &[u8]) -> bool {
    let Some((header, length)) = before.last_chunk().zip(frame.first_chunk()) else {
        return false;
    };
    let [mark, count @ ..]: [u8; PART_HEADER_BYTES] = *header;
    let parts = usize::try_from(u32::from_le_bytes(*length)).map(|length| {
        let bytes = length.saturating_add(LENGTH_BYTES);
        bytes.div_ceil(VALUE_BYTES_MAX - PART_HEADER_BYTES)
    });
    let count = usize::try_from(u32::from_le_bytes(count));
    mark == PART && parts.is_ok_and(|parts| parts > 1 && count == Ok(parts))
}

/// Packs the frames of one commit.
#[derive(Debug, Default)]
pub(super) struct Packer {
    batch: sled::Batch,
    /// The value that still takes frames, and its first event.
    open: Option<(u64, Vec<u8>)>,
}

impl Packer {
    /// Adds the frame of `envelope`, which follows the one added before.
    pub(super) fn push(&mut self, envelope: &Envelope) {
        let mut frame = Vec::new();
        envelope.write_to(&mut frame);
        if frame.len() >= VALUE_BYTES_MAX {
            self.seal();
            self.split(envelope.seq, &frame);
            return;
        }
        let fits = |value: &Vec<u8>| value.len() + frame.len() <= VALUE_BYTES_MAX;
        if !self.open.as_ref().is_some_and(|(_, value)| fits(value)) {
            self.seal();
        }
        let (_, value) = self
            .open
            .get_or_insert_with(|| (envelope.seq, vec![FRAMES]));
        value.append(&mut frame);
    }

    fn seal(&mut self) {
        if let Some((first, value)) = self.open.take() {
            self.batch.insert(key(first, 0), value);
        }
    }

    fn split(&mut self, seq: u64, frame: &[u8]) {
        let parts = frame.chunks(VALUE_BYTES_MAX - PART_HEADER_BYTES);
        let count = u32::try_from(parts.len()).expect("a frame is shorter than 4 GiB");
        for (part, number) in parts.zip(0_u32..) {
            let value = [&[PART], &count.to_le_bytes()[..], part].concat();
            self.batch.insert(key(seq, number), value);
        }
    }

    /// The batch that writes everything added, at once or not at all.
    pub(super) fn finish(mut self) -> sled::Batch {
        self.seal();
        self.batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_events_do_and_read_back() {
        let keys = [
            key(1, 0),
            key(255, 0),
            key(256, 0),
            key(256, 1),
            key(257, 0),
        ];
        assert!(keys.is_sorted());
        assert_eq!(parse_key(&keys[3]), Some((256, 1)));
        for foreign in [
            &b"x|"[..],
            b"e|",
            &keys[0][1..],
            &[&keys[0][..], b"0"].concat(),
        ] {
            assert_eq!(parse_key(foreign), None);
        }
    }
}
