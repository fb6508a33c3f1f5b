//! Caches and outcomes, and the entries that a person reads.

use domain::Digest;
use domain::build::{
    Aftermath, BypassReason, CacheBypassed, CacheKind, CacheMissed, CacheStored, CacheSubject,
    CancelRequested, Cancelled, Event as BuildEvent, FilesCounted, RetryScheduled, Snapshotted,
};
use domain::failure::{Failure, FailureReason};

use super::super::CacheStatus::{Bypass, Hit, Miss, Stored};
use super::super::LogLevel::{Debug, Info, Warn};
use super::super::{CacheReason, LogKind, LogLevel};
use super::tests::{after_start, one, step_started};
use crate::testing::{artifact, layer, snapshot, started, step_failure};

fn whole_artifact() -> CacheSubject {
    CacheSubject {
        kind: CacheKind::FinalArtifact,
        subject: "my-app".into(),
        step_index: None,
        key: Digest::ZERO,
    }
}

#[test]
fn cache_entries_say_which_cache_did_what_and_why() {
    let artifact = whole_artifact();
    let entries = after_start(vec![
        step_started(1, "RUN a"),
        BuildEvent::CacheHit(artifact.clone()),
        BuildEvent::CacheHit(layer(1, "RUN a")),
        BuildEvent::CacheMissed(CacheMissed {
            entry: layer(2, "COPY src /app"),
            difference: Some("src/a.py changed (sha256 1a2b3c4d… → 5e6f7a8b…)".into()),
        }),
        BuildEvent::CacheMissed(CacheMissed {
            entry: artifact.clone(),
            difference: None,
        }),
        BuildEvent::CacheBypassed(CacheBypassed {
            entry: layer(3, "COPY x /"),
            reason: BypassReason::ForceUpload,
        }),
        BuildEvent::CacheStored(CacheStored {
            entry: artifact,
            bytes: 12 << 20,
        }),
    ]);
    let missing = Some(CacheReason::MissingOrIncompatible);
    let forced = Some(CacheReason::ForceUpload);
    let expected = [
        (Info, Hit, None, "Artifact cache hit: my-app"),
        (Debug, Hit, None, "Layer cache hit: RUN a"),
        (
            Info,
            Miss,
            missing,
            "Layer cache miss: COPY src /app: src/a.py changed (sha256 1a2b3c4d… → 5e6f7a8b…)",
        ),
        (Debug, Miss, missing, "Artifact cache miss: my-app"),
        (
            Debug,
            Bypass,
            forced,
            "Layer cache bypassed: COPY x / (its files were uploaded anew)",
        ),
        (
            Debug,
            Stored,
            None,
            "Artifact stored in the cache: my-app (12.0 MiB)",
        ),
    ];
    for (entry, (level, status, reason, words)) in entries[1..].iter().zip(expected) {
        assert_eq!(entry.kind, LogKind::Cache);
        assert_eq!((entry.level, &*entry.message), (level, words));
        assert_eq!(
            (entry.cache_status, entry.cache_reason),
            (Some(status), reason)
        );
    }
    assert_eq!(entries[1].cache_kind, Some(CacheKind::FinalArtifact));
    assert_eq!(entries[1].cache_subject.as_deref(), Some("my-app"));
    assert_eq!(
        (entries[1].step_index, entries[1].total_steps),
        (None, None)
    );
    assert_eq!(
        (entries[2].step_index, entries[2].total_steps),
        (Some(1), Some(5))
    );
}

#[test]
fn files_that_are_not_told_one_by_one_are_told_in_one_entry() {
    let counted = one(BuildEvent::FilesCounted(FilesCounted {
        hits: 4090,
        stores: 2,
        misses: 2,
        bypasses: 0,
    }));
    assert_eq!(
        counted.message,
        "Further files of the context: 4090 there, 2 missing, 2 stored"
    );
}

#[test]
fn the_wire_words_are_the_stored_words() {
    for reason in [
        BypassReason::WholeBuildSkipCache,
        BypassReason::BuilderCacheBoundary,
        BypassReason::ForceUpload,
    ] {
        let stored = serde_json::to_value(reason).unwrap();
        assert_eq!(stored, CacheReason::from(reason).as_str());
    }
    assert_eq!(
        serde_json::to_value(CacheReason::MissingOrIncompatible).unwrap(),
        "missing_or_incompatible"
    );
}

#[test]
fn a_failure_that_is_repeated_is_no_error() {
    let failure = Failure::new(FailureReason::ImagePull, "the registry answered 503");
    let retry = BuildEvent::RetryScheduled(RetryScheduled {
        attempt: 1,
        max_attempts: 2,
        failure: failure.clone(),
    });
    let entries = after_start(vec![retry, started(2), BuildEvent::Failed(step_failure())]);
    let retry = &entries[0];
    assert_eq!((retry.kind, retry.level), (LogKind::Retry, Warn));
    assert_eq!(
        retry.message,
        "Attempt 1 of 2 failed and is repeated: the registry answered 503"
    );
    assert_eq!(retry.failure, Some(failure));
    let error = &entries[2];
    assert_eq!((error.kind, error.level), (LogKind::Error, LogLevel::Error));
    assert_eq!(error.message, "step 2 exited with code 3");
    assert_eq!(error.phase.as_deref(), Some("build_step"));
    assert_eq!(error.failure, Some(step_failure()));
    assert_eq!((error.attempt, error.max_attempts), (Some(2), Some(2)));
    assert_eq!(error.step_index, Some(2));
}

#[test]
fn a_cancellation_warns_and_then_ends() {
    let entries = after_start(vec![
        BuildEvent::CancelRequested(CancelRequested {
            by: "key_1".into(),
            reason: Some("too slow".into()),
        }),
        BuildEvent::Cancelled(Cancelled {
            killed: vec!["step 2".into(), "the machine".into()],
            aftermath: None,
        }),
    ]);
    assert_eq!(
        (entries[0].kind, entries[0].level),
        (LogKind::Warning, Warn)
    );
    assert_eq!(
        entries[0].message,
        "Cancellation requested by key_1: too slow"
    );
    assert_eq!(entries[1].kind, LogKind::Cancelled);
    assert_eq!(
        entries[1].message,
        "Build cancelled; stopped step 2, the machine"
    );
    let nothing = one(BuildEvent::Cancelled(Cancelled::default()));
    assert_eq!(
        nothing.message,
        "Build cancelled; nothing of it was running"
    );
    let silent = one(BuildEvent::CancelRequested(CancelRequested {
        by: "key_1".into(),
        reason: None,
    }));
    assert_eq!(silent.message, "Cancellation requested by key_1");
}

#[test]
fn a_cancellation_says_what_is_gone_and_what_is_not() {
    let seen = |left: &[&str]| {
        let aftermath = Aftermath {
            gone: vec!["process 7 (QEMU)".into(), "folder machine-x".into()],
            left: left.iter().map(|left| (*left).to_owned()).collect(),
            took_ms: 40,
        };
        one(BuildEvent::Cancelled(Cancelled {
            killed: vec!["the machine".into()],
            aftermath: Some(aftermath),
        }))
        .message
    };
    let gone = "Build cancelled; stopped the machine; seen to be gone within 40 ms: process 7 (QEMU), \
                folder machine-x";
    assert_eq!(seen(&[]), gone);
    assert_eq!(
        seen(&["mount view-y"]),
        format!("{gone}; still there: mount view-y")
    );
}

#[test]
fn a_log_ends_with_the_template() {
    let end = one(BuildEvent::Snapshotted(snapshot(1)));
    assert_eq!((end.kind, end.level), (LogKind::End, Info));
    assert_eq!(
        end.message,
        format!("Template my-app is ready: artifact {}", artifact(1))
    );
    let reused = one(BuildEvent::Snapshotted(Box::new(Snapshotted {
        reused: true,
        ..*snapshot(1)
    })));
    assert!(
        reused.message.ends_with(", made by an earlier build"),
        "{}",
        reused.message
    );
}
