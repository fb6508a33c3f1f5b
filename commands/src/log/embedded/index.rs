//! Which events each stream holds: kept in memory, rebuilt while the log is checked at its opening.
//!
//! A stream is a list of runs of consecutive sequence numbers, 16 bytes each. A build that runs
//! alone is a few runs; when n builds write at the same time, nearly every append is a run of its
//! own. So the bound is 16 bytes an append and about 200 bytes a stream: 10 million events in
//! appends of one are 160 MB. That is the price of an index that costs no write at all; when it
//! becomes too high, the runs belong into a second sled folder with a checkpoint of its own.
//!
//! Beside the streams it knows the earliest time in each span of events, so that a moment is found
//! without reading the log: 8 bytes a span.

use std::collections::HashMap;
use std::ops::Range;

use domain::recorded::{StreamName, Version};
use domain::time::Timestamp;

use crate::codec::Envelope;
use crate::log::prepared::Head;

/// How many events a span has.
const SPAN_EVENTS: u64 = 1_024;

/// All streams.
#[derive(Debug, Default)]
pub(super) struct Index {
    streams: HashMap<StreamName, Stream>,
    /// The earliest time in each span of [`SPAN_EVENTS`] events. Clocks jump, so it is not that of
    /// its first event.
    earliest: Vec<Timestamp>,
}

#[derive(Debug)]
struct Stream {
    head: Head,
    runs: Vec<Run>,
}

/// Events of one stream that follow one another in the log, too. It ends where the next one
/// begins, or with the stream.
#[derive(Clone, Copy, Debug)]
struct Run {
    version: u64,
    seq: u64,
}

/// What the index keeps of an event.
#[derive(Debug)]
pub(super) struct Entry {
    stream: StreamName,
    version: u64,
    seq: u64,
    time: Timestamp,
    head: Head,
}

impl From<&Envelope> for Entry {
    fn from(envelope: &Envelope) -> Self {
        Self {
            stream: envelope.stream.clone(),
            version: envelope.version.0,
            seq: envelope.seq,
            time: envelope.time,
            head: Head::after(envelope),
        }
    }
}

impl Index {
    /// The end of a stream.
    pub(super) fn head(&self, stream: &StreamName) -> Head {
        self.streams
            .get(stream)
            .map_or(Head::EMPTY, |stream| stream.head)
    }

    /// How many streams hold an event.
    pub(super) fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Adds an event to the end of its stream.
    pub(super) fn add(&mut self, entry: Entry) {
        match self.earliest.last_mut() {
            Some(earliest) if !(entry.seq - 1).is_multiple_of(SPAN_EVENTS) => {
                *earliest = entry.time.min(*earliest);
            }
            Some(_) | None => self.earliest.push(entry.time),
        }
        let run = Run {
            version: entry.version,
            seq: entry.seq,
        };
        let stream = self.streams.entry(entry.stream).or_insert(Stream {
            head: Head::EMPTY,
            runs: Vec::new(),
        });
        stream.head = entry.head;
        let continues = stream
            .runs
            .last()
            .is_some_and(|last| run.seq - last.seq == run.version - last.version);
        if !continues {
            stream.runs.push(run);
        }
    }

    /// The spans of events with one that is not later than `time`, the last first.
    pub(super) fn spans_until(&self, time: Timestamp) -> Vec<Range<u64>> {
        let spans = (0_u64..).zip(&self.earliest);
        let mut spans: Vec<Range<u64>> = spans
            .filter(|(_, earliest)| **earliest <= time)
            .map(|(number, _)| {
                let start = number * SPAN_EVENTS + 1;
                start..start + SPAN_EVENTS
            })
            .collect();
        spans.reverse();
        spans
    }

    /// The sequence numbers of a stream's events from version `from`, ascending.
    pub(super) fn seqs(&self, stream: &StreamName, from: Version, count_max: usize) -> Vec<u64> {
        let Some(stream) = self.streams.get(stream) else {
            return Vec::new();
        };
        let end = stream.head.version.0;
        let first = stream.runs.partition_point(|run| run.version <= from.0);
        let runs = stream.runs.iter().skip(first.saturating_sub(1));
        let ends = runs.clone().skip(1).map(|run| run.version).chain([end]);
        runs.zip(ends)
            .flat_map(|(run, end)| {
                let start = run.version.max(from.0);
                (start..end).map(move |version| run.seq + (version - run.version))
            })
            .take(count_max)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use domain::Digest;

    use super::*;

    #[test]
    fn ranges_across_runs_are_found() {
        let stream = StreamName::Keys;
        let seqs = [3_u64, 4, 5, 9, 11, 12];
        let mut index = Index::default();
        for (seq, version) in seqs.into_iter().zip(0..) {
            index.add(Entry {
                stream: stream.clone(),
                version,
                seq,
                time: Timestamp::from_unix_micros(0).unwrap(),
                head: Head {
                    version: Version(version + 1),
                    hash: Digest::ZERO,
                },
            });
        }
        assert_eq!(index.streams[&stream].runs.len(), 3);
        for from in 0..=seqs.len() + 1 {
            for count in 0..=seqs.len() + 1 {
                let found = index.seqs(&stream, Version(from.try_into().unwrap()), count);
                let wanted: Vec<_> = seqs.iter().copied().skip(from).take(count).collect();
                assert_eq!(found, wanted, "from {from}, {count} events");
            }
        }
    }
}
