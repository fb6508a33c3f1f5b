//! What every log promises: one suite, run on each adapter.

mod appending;
mod reading;

use std::time::Duration;

use domain::build::{self, LogLine, LogStream, Phase, StepLogged};
use domain::event::Event;
use domain::ids::{BuildId, CommandId, KeyId};
use domain::ports::{Append, EventReader};
use domain::recorded::{Actor, Position, Recorded, StreamName, Version};
use domain::time::Timestamp;

use super::AnyLog;
use crate::limits::LogLimits;
use appending::{
    a_repeated_append_is_answered_as_before, an_append_is_answered_with_its_place,
    another_expected_version_is_a_conflict, of_those_who_append_at_one_version_one_wins,
    what_is_too_large_or_makes_no_sense_is_refused,
};
use reading::{
    a_moment_is_found_though_clocks_jump, a_subscription_sees_every_event_once,
    all_events_are_read_in_order_by_pages_of_any_size, any_range_of_a_stream_can_be_read,
    each_stream_is_a_hash_chain, events_are_read_at_their_positions, events_of_every_size_survive,
    waiting_ends_with_the_log,
};

/// Everything here ends long before, unless it never does.
pub(super) const DEADLINE: Duration = Duration::from_mins(2);

macro_rules! on_every_adapter {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(super::AnyLog::memory(super::limits())).await;
                }
            )*
        }
        mod embedded {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let folder = tempfile::tempdir().unwrap();
                    let log = super::AnyLog::open(folder.path(), super::limits()).await.unwrap();
                    super::$name(log.clone()).await;
                    log.close().await.unwrap();
                    // Whatever was done to it, it opens again.
                    let log = super::AnyLog::open(folder.path(), super::limits()).await.unwrap();
                    log.close().await.unwrap();
                }
            )*
        }
    };
}

on_every_adapter!(
    an_append_is_answered_with_its_place,
    another_expected_version_is_a_conflict,
    a_repeated_append_is_answered_as_before,
    of_those_who_append_at_one_version_one_wins,
    any_range_of_a_stream_can_be_read,
    all_events_are_read_in_order_by_pages_of_any_size,
    a_subscription_sees_every_event_once,
    waiting_ends_with_the_log,
    events_of_every_size_survive,
    what_is_too_large_or_makes_no_sense_is_refused,
    each_stream_is_a_hash_chain,
    events_are_read_at_their_positions,
    a_moment_is_found_though_clocks_jump,
);

/// Small enough for the tests to meet the bounds.
pub(super) fn limits() -> LogLimits {
    LogLimits {
        append_bytes_max: 1024 * 1024,
        append_events_max: 100,
        read_bytes_max: 600 * 1024,
        anchor_every_ms: 50,
        ..LogLimits::default()
    }
}

fn moment(micros: u64) -> Timestamp {
    Timestamp::from_unix_micros(1_700_000_000_000_000 + i64::try_from(micros).unwrap()).unwrap()
}

fn entropy(number: u64) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&number.to_be_bytes());
    bytes
}

pub(super) fn stream(number: u64) -> StreamName {
    StreamName::Build(BuildId::generate(moment(0), entropy(number)))
}

fn logged(text: &str) -> Event {
    Event::Build(build::Event::StepLogged(StepLogged {
        phase: Phase::Step,
        step: Some((1, 2)),
        first_offset: 0,
        lines: vec![LogLine {
            at: moment(7),
            stream: LogStream::Stdout,
            text: text.to_owned(),
        }],
    }))
}

/// An append of log lines.
pub(super) fn append(stream: &StreamName, expected: u64, command: u64, texts: &[&str]) -> Append {
    Append {
        stream: stream.clone(),
        expected: Version(expected),
        command_id: CommandId::generate(moment(1), entropy(command)),
        actor: Actor::Key {
            id: KeyId::generate(moment(2), [9; 10]),
        },
        time: moment(command),
        events: texts.iter().map(|text| logged(text)).collect(),
    }
}

/// The whole log.
pub(super) async fn everything(log: &AnyLog) -> Vec<Recorded<Event>> {
    let mut events = Vec::new();
    let mut after = Position::START;
    loop {
        let page = log.read_all(after, 1_000).await.unwrap();
        let Some(last) = page.last() else {
            return events;
        };
        after = last.position;
        events.extend(page);
    }
}

fn texts(events: &[Recorded<Event>]) -> Vec<String> {
    let text = |recorded: &Recorded<Event>| {
        let Event::Build(build::Event::StepLogged(logged)) = &recorded.event else {
            panic!("{recorded:?}");
        };
        logged.lines[0].text.clone()
    };
    events.iter().map(text).collect()
}
