//! Builds that are waited for.

use std::time::Duration;

use domain::build::Command;
use domain::failure::{Failure, FailureReason};
use domain::ids::BuildId;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::support::{TestApp, is_error};
use crate::http::openapi::tests::is_described;

const PATH: &str = "/v1/templates";

/// Asks for a build of `name` and waits for it, while the test goes on.
fn create(app: &TestApp, name: &str) -> JoinHandle<Response> {
    let body = json!({"base_image": "a", "name": name, "tags": ["v1"]});
    let request = app.request(Method::POST, PATH).json(&body);
    tokio::spawn(async move { request.send().await.unwrap() })
}

/// The build of `name`, as soon as it is there.
async fn begun(app: &TestApp, name: &str) -> BuildId {
    let path = format!("/v1/templates/refs/{name}/builds");
    let views = &app.service.app.views;
    loop {
        let seen = views.applied();
        let history: Value = app.get(&path).await.json().await.unwrap();
        if let Some(id) = history["builds"][0]["build_id"].as_str() {
            return id.parse().unwrap();
        }
        views.changed(seen).await.unwrap();
    }
}

#[tokio::test]
async fn a_build_that_is_ready_answers_with_its_template() {
    let app = TestApp::start().await;
    let waiting = create(&app, "waited-for");
    let id = begun(&app, "waited-for").await;
    let fence = app.start_building(&id).await;
    assert!(!waiting.is_finished());
    app.complete(&id, fence).await;
    let response = waiting.await.unwrap();
    assert_eq!(response.status().as_u16(), 201);
    let template: Value = response.json().await.unwrap();
    is_described("POST", PATH, 201, &template);
    assert_eq!(template["name"], "waited-for");
    assert_eq!(template["tags"], json!(["v1"]));
    assert_eq!(
        template,
        app.get_json("/v1/templates/refs/waited-for%3Av1").await
    );
}

#[tokio::test]
async fn a_build_that_fails_is_refused_with_its_own_reason() {
    let app = TestApp::start().await;
    for (reason, status, code) in [
        (FailureReason::StepFailed, 400, "build_error"),
        (FailureReason::RegistryUnauthorized, 400, "unauthorized"),
        (FailureReason::SecretsLost, 503, "build_error"),
    ] {
        let name = format!("failing-{}", reason.as_str().replace('_', "-"));
        let waiting = create(&app, &name);
        let id = begun(&app, &name).await;
        let fence = app.start_building(&id).await;
        let failure = Failure::new(reason, "it broke");
        app.command(&id, Command::Fail { fence, failure }).await;
        let response = waiting.await.unwrap();
        // A refused build is no refused key.
        assert!(!response.headers().contains_key("www-authenticate"));
        assert!(!response.headers().contains_key("retry-after"));
        let error = is_error(response, status, code).await;
        assert_eq!(error["error"], "it broke");
        assert_eq!(error["build_id"], id.as_str());
        let record = app.get_json(&format!("/v1/templates/builds/{id}")).await;
        assert_eq!(error["error_detail"], record["build"]["error_detail"]);
        assert_eq!(error["retryable"], reason.retryable());
    }
}

#[tokio::test]
async fn a_build_that_is_cancelled_is_a_conflict() {
    let app = TestApp::start().await;
    let waiting = create(&app, "stopped");
    let id = begun(&app, "stopped").await;
    let cancel = format!("/v1/templates/builds/{id}/cancel");
    app.post_json(&cancel, &json!({}), 200).await;
    let error = is_error(waiting.await.unwrap(), 409, "transition_conflict").await;
    assert!(error["error"].as_str().unwrap().contains(id.as_str()));
}

#[tokio::test]
async fn nobody_waits_for_ever_and_the_build_goes_on() {
    let app = TestApp::start_with(|config| config.limits.blocking_build_secs_max = 1).await;
    let error = is_error(create(&app, "slow").await.unwrap(), 503, "build_error").await;
    let id = begun(&app, "slow").await;
    assert_eq!(error["build_id"], id.as_str());
    assert!(error["error"].as_str().unwrap().contains("1 s"), "{error}");
    let fence = app.start_building(&id).await;
    app.complete(&id, fence).await;
}

#[tokio::test]
async fn a_service_that_stops_lets_waiting_clients_go() {
    let app = TestApp::start().await;
    let waiting = create(&app, "interrupted");
    let id = begun(&app, "interrupted").await;
    app.service.app.stopping.cancel();
    let error = is_error(waiting.await.unwrap(), 503, "build_error").await;
    assert_eq!(error["build_id"], id.as_str());
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_stop_its_build() {
    let app = TestApp::start().await;
    let body = json!({"base_image": "a", "name": "left"});
    let request = app.request(Method::POST, PATH).json(&body);
    let waiting = tokio::spawn(request.timeout(Duration::from_secs(30)).send());
    let id = begun(&app, "left").await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    let fence = app.start_building(&id).await;
    app.complete(&id, fence).await;
    app.get_json("/v1/templates/refs/left").await;
}

#[tokio::test]
async fn as_many_are_waited_for_as_streams_may_be_open() {
    let app = TestApp::start_with(|config| config.limits.open_stream_count_max = 1).await;
    let waiting = create(&app, "first");
    begun(&app, "first").await;
    let second = create(&app, "second").await.unwrap();
    is_error(second, 503, "capacity_exceeded").await;
    let unknown = app.get("/v1/templates/refs/second/builds").await;
    is_error(unknown, 404, "template_not_found").await;
    waiting.abort();
}
