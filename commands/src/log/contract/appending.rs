//! What a log promises to those who append.

use std::sync::Arc;

use domain::event::Event;
use domain::ids::KeyId;
use domain::keys;
use domain::ports::{Appended, EventAppender, EventReader, LogError};
use domain::recorded::{Position, Version};

use super::{append, everything, limits, logged, moment, stream, texts};
use crate::codec::encode_event;
use crate::log::{AnyLog, InvalidAppend};

pub(super) async fn an_append_is_answered_with_its_place(log: AnyLog) {
    assert_eq!(log.head(), Position::START);
    let (one, other) = (stream(1), stream(2));
    let first = append(&one, 0, 1, &["a", "b"]);
    let answer = log.append(first.clone()).await.unwrap();
    assert_eq!(answer.version, Version(2));
    assert_eq!(answer.position, log.head());
    let next = log.append(append(&other, 0, 2, &["c"])).await.unwrap();
    assert_eq!(next.version, Version(1));
    assert!(next.position > answer.position);

    let events = log.read_stream(&one, Version::EMPTY, 10).await.unwrap();
    assert_eq!(events.len(), 2);
    for (recorded, version) in events.iter().zip(0..) {
        assert_eq!(recorded.stream, one);
        assert_eq!(recorded.version, Version(version));
        assert_eq!(recorded.time, first.time);
        assert_eq!(recorded.actor, first.actor);
        assert_eq!(recorded.command_id, first.command_id);
        assert_eq!(recorded.schema_version, 1);
    }
    assert_eq!(events[1].position, answer.position);
    assert!(events[0].position > Position::START);
    assert_eq!(texts(&events), ["a", "b"]);
    assert_eq!(everything(&log).await.len(), 3);
}

pub(super) async fn another_expected_version_is_a_conflict(log: AnyLog) {
    let stream = stream(1);
    let conflict = async |expected, command, actual| {
        let refused = log.append(append(&stream, expected, command, &["x"])).await;
        assert!(
            matches!(
                refused,
                Err(LogError::Conflict { expected: Version(wanted), actual: Version(found) })
                    if wanted == expected && found == actual
            ),
            "{refused:?}"
        );
    };
    conflict(1, 1, 0).await;
    log.append(append(&stream, 0, 2, &["a", "b"]))
        .await
        .unwrap();
    conflict(0, 3, 2).await;
    conflict(1, 4, 2).await;
    conflict(3, 5, 2).await;
    assert_eq!(texts(&everything(&log).await), ["a", "b"]);
}

pub(super) async fn a_repeated_append_is_answered_as_before(log: AnyLog) {
    let stream = stream(1);
    let first = append(&stream, 0, 1, &["a", "b"]);
    // At the same time, too.
    let (one, other) = tokio::join!(log.append(first.clone()), log.append(first.clone()));
    let answer = one.unwrap();
    assert_eq!(other.unwrap(), answer);
    log.append(append(&stream, 2, 2, &["c"])).await.unwrap();
    assert_eq!(log.append(first.clone()).await.unwrap(), answer);

    let conflicts = [
        // Another command with the same events, the same command with others, or with fewer.
        append(&stream, 0, 3, &["a", "b"]),
        append(&stream, 0, 1, &["a", "x"]),
        append(&stream, 0, 1, &["a"]),
        append(&stream, 1, 1, &["b"]),
    ];
    for other in conflicts {
        let refused = log.append(other).await;
        assert!(
            matches!(
                refused,
                Err(LogError::Conflict {
                    actual: Version(3),
                    ..
                })
            ),
            "{refused:?}"
        );
    }
    assert_eq!(texts(&everything(&log).await), ["a", "b", "c"]);
}

pub(super) async fn of_those_who_append_at_one_version_one_wins(log: AnyLog) {
    let stream = stream(1);
    for version in 0..25 {
        let rivals = (0..8).map(|rival| {
            let (log, append) = (
                log.clone(),
                append(&stream, version, version * 8 + rival, &["x"]),
            );
            tokio::spawn(async move { log.append(append).await })
        });
        let mut winners = 0;
        for rival in rivals.collect::<Vec<_>>() {
            match rival.await.unwrap() {
                Ok(Appended { version: after, .. }) => {
                    assert_eq!(after, Version(version + 1));
                    winners += 1;
                }
                Err(LogError::Conflict { expected, actual }) => {
                    assert_eq!((expected, actual), (Version(version), Version(version + 1)));
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(winners, 1, "at version {version}");
    }
    assert_eq!(everything(&log).await.len(), 25);
}

pub(super) async fn what_is_too_large_or_makes_no_sense_is_refused(log: AnyLog) {
    let stream = stream(1);
    let bytes_max = usize::try_from(limits().event_bytes_max).unwrap();
    let overhead = encode_event(&logged("")).unwrap().len();
    let large = "x".repeat(bytes_max - overhead + 1);
    let refused = log.append(append(&stream, 0, 1, &["a", &large])).await;
    assert!(
        matches!(refused, Err(LogError::TooLarge { bytes, bytes_max: max })
            if bytes == bytes_max + 1 && max == bytes_max),
        "{refused:?}"
    );
    let five = [&large[1..]; 5];
    let refused = log.append(append(&stream, 0, 2, &five)).await;
    assert!(
        matches!(
            refused,
            Err(LogError::TooLarge {
                bytes_max: 1_048_576,
                ..
            })
        ),
        "{refused:?}"
    );
    let invalid = async |append| match log.append(append).await {
        Err(LogError::Unavailable(err)) => err,
        other => panic!("{other:?}"),
    };
    let is = |err: &Arc<dyn std::error::Error + Send + Sync>,
              wanted: fn(&InvalidAppend) -> bool| {
        err.downcast_ref().is_some_and(wanted)
    };
    let empty = invalid(append(&stream, 0, 3, &[])).await;
    assert!(is(&empty, |err| matches!(err, InvalidAppend::Empty)));
    let many = invalid(append(&stream, 0, 4, &["x"; 101])).await;
    assert!(is(&many, |err| matches!(
        err,
        InvalidAppend::TooManyEvents { .. }
    )));
    let mut foreign = append(&stream, 0, 5, &["x"]);
    foreign.events.push(Event::Keys(keys::Event::KeyRevoked {
        id: KeyId::generate(moment(0), [0; 10]),
    }));
    let foreign = invalid(foreign).await;
    assert!(is(&foreign, |err| matches!(
        err,
        InvalidAppend::ForeignEvent { .. }
    )));
    assert_eq!(everything(&log).await, []);
    assert_eq!(log.head(), Position::START);
}
