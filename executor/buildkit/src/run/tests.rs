//! Builds by a real daemon.

mod ends;
mod images;
mod outputs;
mod secrets;
mod sources;

use std::path::PathBuf;

use super::*;
use crate::event::FailureKind;
use crate::testkit::Outcome;

/// How a build failed.
#[track_caller]
fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Err(RunError::Failed(failure)) => *failure,
        other => panic!("the build did not fail: {other:?}"),
    }
}

#[track_caller]
fn assert_failed(outcome: Outcome, kind: FailureKind) {
    let failure = failure(outcome);
    assert_eq!(failure.kind, kind, "{failure:?}");
}
