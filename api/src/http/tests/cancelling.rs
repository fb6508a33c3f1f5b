//! A cancellation, and outcomes that come after it.

use domain::build::{Aftermath, Build, Cancelled, Command, Rejection};
use domain::failure::{Failure, FailureReason};
use domain::ids::BuildId;
use domain::recorded::{Actor, StreamName};
use reqwest::StatusCode;
use serde_json::json;

use super::support::{TestApp, build_id, snapshotted};

/// What becomes of an outcome that a worker reports.
async fn reported(app: &TestApp, id: &BuildId, command: Command) -> Result<Build, Rejection> {
    let app = &app.service.app;
    let worker = Actor::Worker {
        id: app.ids.new_worker_id(),
    };
    let meta = commands::Meta {
        command_id: app.ids.new_command_id(),
        actor: worker,
    };
    match app.dispatcher.build(id, meta, command).await {
        Ok(done) => Ok(done.state),
        Err(commands::DispatchError::Rejected(rejection)) => Err(rejection),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_late_outcome_of_a_cancelled_attempt_changes_nothing() {
    let app = TestApp::start().await;
    let body = json!({"base_image": "debian:bookworm", "name": "app"});
    let id = build_id(&app.accept(&body).await);
    let fence = app.start_building(&id).await;
    let path = format!("/v1/templates/builds/{id}/cancel");
    let answer = app.post(&path, &json!({"reason": "enough"})).await;
    assert_eq!(answer.status(), StatusCode::OK);

    let complete = || Command::Complete {
        fence,
        snapshotted: Box::new(snapshotted()),
    };
    let failed = Command::Fail {
        fence,
        failure: Failure::new(FailureReason::ImagePull, "late"),
    };
    for outcome in [complete(), failed.clone()] {
        let refused = reported(&app, &id, outcome).await;
        assert_eq!(refused, Err(Rejection::CancelRequested));
    }
    let cancelled = Cancelled {
        killed: vec!["the machine".to_owned()],
        aftermath: Some(Aftermath {
            gone: vec!["process 7 (QEMU)".to_owned()],
            left: Vec::new(),
            took_ms: 40,
        }),
    };
    // The word of another attempt ends this one's life as little.
    let other = domain::build::Fence(fence.0 + 1);
    let confirm = |fence| Command::ConfirmCancelled {
        fence,
        cancelled: cancelled.clone(),
    };
    let refused = reported(&app, &id, confirm(other)).await;
    assert!(
        matches!(refused, Err(Rejection::StaleFence { .. })),
        "{refused:?}"
    );
    app.command(&id, confirm(fence)).await;
    let recorded = app.events(&StreamName::Build(id.clone())).await.len();
    for outcome in [complete(), failed] {
        let refused = reported(&app, &id, outcome).await;
        assert_eq!(refused, Err(Rejection::Finished));
    }
    let events = app.events(&StreamName::Build(id.clone())).await;
    assert_eq!(events.len(), recorded);

    let status = app.get_json(&format!("/v1/templates/builds/{id}")).await;
    assert_eq!(status["build"]["status"], "cancelled");
    let last = status["entries"].as_array().unwrap().last().unwrap();
    assert_eq!(last["kind"], "cancelled");
    assert_eq!(
        last["message"],
        "Build cancelled; stopped the machine; seen to be gone within 40 ms: process 7 (QEMU)"
    );
    let template = app.get("/v1/templates/refs/app").await;
    assert_eq!(template.status(), StatusCode::NOT_FOUND);
}
