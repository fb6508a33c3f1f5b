use std::mem;

use proptest::prelude::*;

use super::*;

/// What a daemon does to the writes of a process: our own small model of BuildKit's `logs.go`.
struct Daemon {
    /// For each write, how many of its bytes get through.
    allowance: Box<dyn FnMut(usize) -> usize>,
    remembered: Option<Vec<u8>>,
    clipping: bool,
    chunks: Vec<Vec<u8>>,
}

const MARK: &[u8] = b"\n[output clipped, log limit 200KiB/s reached]\n";

impl Daemon {
    fn new(allowance: impl FnMut(usize) -> usize + 'static) -> Self {
        Self {
            allowance: Box::new(allowance),
            remembered: None,
            clipping: false,
            chunks: Vec::new(),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let through = (self.allowance)(bytes.len()).min(bytes.len());
        if through < bytes.len() {
            self.remembered.get_or_insert_default();
        }
        if let Some(remembered) = &mut self.remembered {
            remembered.extend_from_slice(bytes);
        }
        let mut chunk = bytes[..through].to_vec();
        if through == bytes.len() {
            self.clipping = false;
        } else if !mem::replace(&mut self.clipping, true) {
            chunk.extend_from_slice(MARK);
        }
        if !chunk.is_empty() {
            self.chunks.push(chunk);
        }
    }

    fn end(mut self, failed: bool) -> Vec<Vec<u8>> {
        if let Some(remembered) = self.remembered.filter(|_| failed) {
            let surplus = remembered.len().saturating_sub(REPEATED_BYTES);
            self.chunks.push(remembered[surplus..].to_vec());
        }
        self.chunks
    }
}

/// All that is told of `chunks`, put together, without the daemon's marks.
fn told(chunks: Vec<Vec<u8>>, failed: bool) -> Vec<u8> {
    let mut output = Output::default();
    let mut news = Vec::new();
    for chunk in chunks {
        output.push(chunk, &mut news);
    }
    output.end(failed, &mut news);
    assert!(news.iter().all(|chunk| !chunk.is_empty()));
    let mut text = news.concat();
    while let Some(at) = text.windows(MARK.len()).position(|window| window == MARK) {
        text.drain(at..at + MARK.len());
    }
    text
}

/// Compares without printing all of it.
#[track_caller]
fn check(told: &[u8], expected: &[u8]) {
    let alike = told
        .iter()
        .zip(expected)
        .take_while(|(a, b)| a == b)
        .count();
    let lengths = (told.len(), expected.len());
    assert!(told == expected, "{lengths:?} bytes, alike up to {alike}");
}

/// Lines that are all different, so that no overlap is chance.
fn lines(range: std::ops::Range<u32>) -> Vec<u8> {
    range
        .flat_map(|index| format!("line {index} of a long output\n").into_bytes())
        .collect()
}

fn first(mut total: usize) -> impl FnMut(usize) -> usize {
    move |length| {
        let through = length.min(total);
        total -= through;
        through
    }
}

#[test]
fn what_was_not_clipped_is_told_as_it_came() {
    let chunks = vec![b"a".to_vec(), b"a".to_vec(), lines(0..20_000)];
    check(&told(chunks.clone(), true), &chunks.concat());
}

#[test]
fn a_failure_gives_what_had_been_clipped_at_the_end_and_nothing_twice() {
    let text = lines(0..6_000);
    let mut daemon = Daemon::new(first(100_000));
    text.chunks(4_096).for_each(|chunk| daemon.write(chunk));
    check(&told(daemon.end(true), true), &text);
}

#[test]
fn a_success_tells_only_what_got_through() {
    let text = lines(0..6_000);
    let mut daemon = Daemon::new(first(100_000));
    text.chunks(4_096).for_each(|chunk| daemon.write(chunk));
    check(&told(daemon.end(false), false), &text[..100_000]);
}

#[test]
fn more_than_the_daemon_remembers_is_lost_in_the_middle() {
    let text = lines(0..60_000);
    let mut daemon = Daemon::new(first(200_000));
    text.chunks(4_096).for_each(|chunk| daemon.write(chunk));
    let end = &text[text.len() - REPEATED_BYTES..];
    check(
        &told(daemon.end(true), true),
        &[&text[..200_000], end].concat(),
    );
}

#[test]
fn an_overlap_with_the_first_clipped_write_is_found_when_the_memory_is_full() {
    // The daemon remembers from the middle of what got through of that write.
    let text = lines(0..20_000);
    let (before, write) = text.split_at(1_000);
    let write = &write[..REPEATED_BYTES + 10_000];
    let mut daemon = Daemon::new(first(31_000));
    daemon.write(before);
    daemon.write(write);
    check(&told(daemon.end(true), true), &[before, write].concat());
}

#[test]
fn what_followed_a_gap_is_not_told_again_and_the_gap_stays() {
    let text = lines(0..3_000);
    let (before, rest) = text.split_at(10_000);
    let (lost, after) = rest.split_at(20_000);
    let mut allowed = [before.len(), 0].into_iter();
    let mut daemon = Daemon::new(move |length| allowed.next().unwrap_or(length));
    daemon.write(before);
    daemon.write(lost);
    daemon.write(after);
    check(&told(daemon.end(true), true), &[before, after].concat());
}

#[test]
fn the_end_is_found_behind_several_gaps() {
    let text = lines(0..3_000);
    let parts: Vec<&[u8]> = text.chunks(20_000).collect();
    let mut allowed = [20_000, 500, 20_000, 100].into_iter();
    let mut daemon = Daemon::new(move |_| allowed.next().unwrap());
    parts[..4].iter().for_each(|part| daemon.write(part));
    let expected = [parts[0], &parts[1][..500], parts[2], parts[3]];
    check(&told(daemon.end(true), true), &expected.concat());
}

#[test]
fn a_chunk_that_looks_told_again_is_told_if_another_one_follows() {
    let again = [lines(0..10), lines(10..20)].concat();
    let chunks = vec![
        [lines(0..10).as_slice(), MARK].concat(),
        again.clone(),
        b"more".to_vec(),
    ];
    let expected = [lines(0..10), again, b"more".to_vec()].concat();
    assert_eq!(told(chunks.clone(), true), expected);
    assert_eq!(told(chunks, false), expected);
}

#[test]
fn a_process_that_writes_the_mark_itself_loses_nothing() {
    let chunks = vec![
        MARK.to_vec(),
        b"one\n".to_vec(),
        [b"two", MARK].concat(),
        b"three\n".to_vec(),
    ];
    assert_eq!(told(chunks, true), b"one\ntwothree\n");
}

#[test]
fn output_that_repeats_itself_is_not_told_twice() {
    let mut daemon = Daemon::new(first(200_500));
    (0..300).for_each(|_| daemon.write(&b"y\n".repeat(1_000)));
    daemon.write(b"FATAL\n");
    let expected = [b"y\n".repeat(100_250), b"FATAL\n".to_vec()].concat();
    check(&told(daemon.end(true), true), &expected);
}

#[test]
fn a_beginning_that_comes_again_and_again_hides_nothing() {
    let text = b"the same line of output\n".repeat(1_000);
    let mut daemon = Daemon::new(first(2_000));
    text.chunks(1_000).for_each(|chunk| daemon.write(chunk));
    check(&told(daemon.end(true), true), &text);
}

#[test]
fn short_writes_are_found_by_what_stands_before_them() {
    let writes: [(&[u8], usize); 6] = [
        (b"the write that is clipped first\n", 10),
        (b"lost: ok\n", 0),
        (b"the fourth part of it is built\n", usize::MAX),
        (b"ok\n", usize::MAX),
        (b"the fifth part is lost: ok\n", 0),
        (b"fatal\n", 0),
    ];
    let mut allowances: Vec<usize> = writes.iter().rev().map(|(_, through)| *through).collect();
    let mut daemon = Daemon::new(move |_| allowances.pop().unwrap());
    for (write, _) in writes {
        daemon.write(write);
    }
    let expected =
        b"the write the fourth part of it is built\nok\nthe fifth part is lost: ok\nfatal\n";
    check(&told(daemon.end(true), true), expected);
}

#[test]
fn an_overlap_is_the_longest_end_of_one_that_begins_the_other() {
    assert_eq!(overlap(b"", b"abc"), 0);
    assert_eq!(overlap(b"xxab", b"abc"), 2);
    assert_eq!(overlap(b"abab", b"ababab"), 4);
    assert_eq!(overlap(b"aab", b"aaab"), 0);
    assert_eq!(overlap(b"xyz", b"yz"), 2);
    assert_eq!(ends(b"aa", b"aaaba").collect::<Vec<_>>(), [2, 3]);
    assert_eq!(ends(b"ab", b"aabab").collect::<Vec<_>>(), [3, 5]);
    assert_eq!(ends(b"ab", b"a").next(), None);
}

#[test]
fn hostile_repetition_costs_no_more_than_its_length() {
    // Quadratic, this would be 10^10 comparisons.
    let mut text = vec![b'a'; REPEATED_BYTES];
    text.push(b'b');
    assert_eq!(overlap(&text, &vec![b'a'; REPEATED_BYTES]), 0);
    assert_eq!(ends(&text, &vec![b'a'; 2 * REPEATED_BYTES]).next(), None);
}

/// Bytes of which no eight in a row come again.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// How much of a write gets through: all, nothing, or enough to be found again.
fn allowance() -> impl Strategy<Value = usize> {
    prop_oneof![Just(usize::MAX), Just(0), 16_usize..33_000]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_told_is_what_got_through_and_the_end_that_did_not(
        writes in proptest::collection::vec((16_usize..33_000, allowance()), 1..40),
        failed: bool,
    ) {
        let text = noise(writes.iter().map(|(length, _)| length).sum());
        let mut allowances: Vec<usize> = writes.iter().rev().map(|(_, through)| *through).collect();
        let mut daemon = Daemon::new(move |_| allowances.pop().unwrap());
        let mut expected = Vec::new();
        let (mut at, mut after_through, mut clipped) = (0, 0, false);
        for (length, through) in writes {
            daemon.write(&text[at..at + length]);
            let through = through.min(length);
            expected.extend_from_slice(&text[at..at + through]);
            if through > 0 {
                after_through = at + through;
            }
            clipped |= through < length;
            at += length;
        }
        if failed & clipped {
            expected.extend_from_slice(&text[after_through.max(at.saturating_sub(REPEATED_BYTES))..]);
        }
        prop_assert!(told(daemon.end(failed), failed) == expected);
    }
    #[test]
    fn what_was_never_clipped_is_whole_whatever_its_chunks(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..50),
        failed: bool,
    ) {
        prop_assume!(chunks.iter().all(|chunk| before_mark(chunk).is_none()));
        prop_assert_eq!(told(chunks.clone(), failed), chunks.concat());
    }
}
