//! What a log promises to those who read and wait.

use std::collections::BTreeMap;

use domain::Digest;
use domain::event::Event;
use domain::ports::{EventAppender, EventReader, LogError};
use domain::recorded::{Position, Recorded, StreamName, Version};
use tokio::time::timeout;

use super::{DEADLINE, append, everything, limits, logged, moment, stream, texts};
use crate::codec::{Envelope, encode_event};
use crate::log::{AnyLog, Closed};

/// Two streams, written in turns by appends of 1, 2, 3, … events.
async fn write_in_turns(log: &AnyLog, appends: u64) -> [Vec<String>; 2] {
    let mut written = [Vec::new(), Vec::new()];
    let mut number = 0;
    for turn in 0..appends {
        let side = usize::try_from(turn % 2).unwrap();
        let batch: Vec<String> = (0..=turn % 5)
            .map(|_| {
                number += 1;
                format!("line {number}")
            })
            .collect();
        let expected = written[side].len().try_into().unwrap();
        let lines: Vec<&str> = batch.iter().map(String::as_str).collect();
        let append = append(&stream(turn % 2), expected, turn, &lines);
        log.append(append).await.unwrap();
        written[side].extend(batch);
    }
    written
}

pub(super) async fn any_range_of_a_stream_can_be_read(log: AnyLog) {
    let written = write_in_turns(&log, 20).await;
    for (texts_of, number) in written.iter().zip(0..) {
        let length = texts_of.len();
        for from in (0..=length + 1).step_by(3) {
            for count in [0, 1, 2, 7, length, usize::MAX] {
                let version = Version(from.try_into().unwrap());
                let read = log
                    .read_stream(&stream(number), version, count)
                    .await
                    .unwrap();
                let wanted: Vec<_> = texts_of.iter().skip(from).take(count).cloned().collect();
                assert_eq!(texts(&read), wanted, "from {from}, {count} events");
            }
        }
    }
    let absent = log
        .read_stream(&stream(99), Version::EMPTY, 10)
        .await
        .unwrap();
    assert_eq!(absent, []);
    let beyond = Version(u64::MAX);
    assert_eq!(log.read_stream(&stream(0), beyond, 10).await.unwrap(), []);
}

pub(super) async fn all_events_are_read_in_order_by_pages_of_any_size(log: AnyLog) {
    write_in_turns(&log, 30).await;
    let whole = everything(&log).await;
    assert!(whole.is_sorted_by_key(|recorded| recorded.position));
    assert_eq!(whole.last().unwrap().position, log.head());
    let wanted: Vec<_> = (1..=whole.len())
        .map(|number| format!("line {number}"))
        .collect();
    assert_eq!(texts(&whole), wanted);
    for size in [1, 3, 7, 1_000] {
        let mut pages = Vec::new();
        let mut after = Position::START;
        loop {
            let page = log.read_all(after, size).await.unwrap();
            assert!(page.len() <= size);
            let Some(last) = page.last() else { break };
            after = last.position;
            pages.extend(page);
        }
        assert_eq!(pages, whole, "pages of {size}");
    }
    for after in [log.head(), Position::from_raw(u64::MAX)] {
        assert_eq!(log.read_all(after, 10).await.unwrap(), []);
    }
}

pub(super) async fn a_subscription_sees_every_event_once(log: AnyLog) {
    const WRITERS: u64 = 6;
    const APPENDS: u64 = 60;
    let subscriber = {
        let log = log.clone();
        tokio::spawn(async move {
            let mut seen = Vec::new();
            let mut after = Position::START;
            while seen.len() < usize::try_from(WRITERS * APPENDS).unwrap() {
                log.wait_behind(after).await.unwrap();
                let page = log.read_all(after, 16).await.unwrap();
                assert!(!page.is_empty(), "woken for nothing behind {after:?}");
                after = page.last().unwrap().position;
                seen.extend(page);
            }
            seen
        })
    };
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let log = log.clone();
            tokio::spawn(async move {
                for version in 0..APPENDS {
                    let command = writer * APPENDS + version;
                    let append = append(&stream(writer), version, command, &["x"]);
                    let appended = log.append(append).await.unwrap();
                    // What is answered is seen at once.
                    assert!(log.head() >= appended.position);
                    log.wait_behind(Position::START).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        timeout(DEADLINE, writer).await.unwrap().unwrap();
    }
    let seen = timeout(DEADLINE, subscriber).await.unwrap().unwrap();
    assert_eq!(seen, everything(&log).await);
    let mut versions: BTreeMap<StreamName, u64> = BTreeMap::new();
    for recorded in seen {
        let next = versions.entry(recorded.stream).or_default();
        assert_eq!(recorded.version, Version(*next));
        *next += 1;
    }
}

pub(super) async fn waiting_ends_with_the_log(log: AnyLog) {
    let waiting = {
        let log = log.clone();
        tokio::spawn(async move { log.wait_behind(Position::START).await })
    };
    log.close().await.unwrap();
    let is_closed = |outcome: Result<(), LogError>| match outcome {
        Err(LogError::Unavailable(err)) => err.is::<Closed>(),
        _ => false,
    };
    let ended = timeout(DEADLINE, waiting).await.unwrap().unwrap();
    assert!(is_closed(ended));
    let refused = log.append(append(&stream(1), 0, 1, &["x"])).await;
    assert!(is_closed(refused.map(drop)));
    log.close().await.unwrap();
}

pub(super) async fn events_of_every_size_survive(log: AnyLog) {
    let overhead = encode_event(&logged("")).unwrap().len();
    let largest = usize::try_from(limits().event_bytes_max).unwrap() - overhead;
    let sizes = [
        0, 1, 100, 3_000, 3_600, 3_700, 3_800, 3_900, 4_000, 4_090, 4_100, 8_192,
    ];
    let sizes = sizes
        .into_iter()
        .chain([100_000, 1, largest, 2, largest, 3]);
    let mut wanted = Vec::new();
    for (size, number) in sizes.zip(0..) {
        let text = char::from(b'a' + u8::try_from(number % 26).unwrap()).to_string();
        let text = text.repeat(size);
        let small = format!("small {number}");
        let append = append(
            &stream(number % 3),
            number / 3 * 2,
            number,
            &[&text, &small],
        );
        log.append(append).await.unwrap();
        wanted.extend([text, small]);
    }
    let whole = everything(&log).await;
    assert!(texts(&whole) == wanted);
    for number in 0..3 {
        let mut read = Vec::new();
        loop {
            let from = Version(read.len().try_into().unwrap());
            let page = log
                .read_stream(&stream(number), from, usize::MAX)
                .await
                .unwrap();
            if page.is_empty() {
                break;
            }
            read.extend(page);
        }
        let of_stream = |recorded: &&Recorded<Event>| recorded.stream == stream(number);
        let wanted: Vec<_> = whole.iter().filter(of_stream).cloned().collect();
        assert!(read == wanted);
    }
    // A page ends before it gets too many bytes, but holds something.
    let page = log.read_all(Position::START, usize::MAX).await.unwrap();
    assert!(page.len() < whole.len());
}

pub(super) async fn each_stream_is_a_hash_chain(log: AnyLog) {
    write_in_turns(&log, 12).await;
    let mut heads: BTreeMap<StreamName, Digest> = BTreeMap::new();
    for recorded in everything(&log).await {
        let envelope = Envelope {
            seq: 0,
            stream: recorded.stream.clone(),
            version: recorded.version,
            kind: recorded.event.name().to_owned(),
            schema_version: recorded.schema_version,
            command_id: recorded.command_id,
            index: 0,
            actor: recorded.actor,
            time: recorded.time,
            hash: Digest::ZERO,
            payload: encode_event(&recorded.event).unwrap(),
        };
        let head = heads.entry(recorded.stream).or_insert(Digest::ZERO);
        assert_eq!(recorded.hash, envelope.link(head));
        *head = recorded.hash;
    }
    assert_eq!(heads.len(), 2);
}

pub(super) async fn events_are_read_at_their_positions(log: AnyLog) {
    write_in_turns(&log, 30).await;
    let whole = everything(&log).await;
    let wanted: Vec<_> = whole.iter().step_by(3).cloned().collect();
    let positions: Vec<Position> = wanted.iter().map(|recorded| recorded.position).collect();
    assert_eq!(log.read_at(&positions).await.unwrap(), wanted);
    assert_eq!(log.read_at(&[]).await.unwrap(), []);
}

pub(super) async fn a_moment_is_found_though_clocks_jump(log: AnyLog) {
    // More than a span of the embedded log's index, with every fifth append in the past.
    const APPENDS: u64 = 50;
    let texts = ["x"; 60];
    let time = |turn: u64| 100 + turn * 10 - if turn % 5 == 4 { 95 } else { 0 };
    for turn in 0..APPENDS {
        log.append(append(&stream(turn), 0, time(turn), &texts))
            .await
            .unwrap();
    }
    let whole = everything(&log).await;
    assert_eq!(whole.len(), 3_000);
    for micros in (0..=time(APPENDS) + 1).step_by(3) {
        let wanted = whole
            .iter()
            .rev()
            .find(|recorded| recorded.time <= moment(micros));
        let wanted = wanted.map_or(Position::START, |recorded| recorded.position);
        assert_eq!(
            log.position_at(moment(micros)).await.unwrap(),
            wanted,
            "{micros}"
        );
    }
}
