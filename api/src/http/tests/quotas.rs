//! What one owner may have under way.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error};

const PATHS: [&str; 2] = ["/v1/templates/build", "/v1/templates/builds"];

fn body() -> Value {
    json!({"base_image": "debian:bookworm"})
}

async fn with_room_for(count: usize) -> TestApp {
    TestApp::start_with(|config| config.limits.waiting_build_count_max = count).await
}

#[tokio::test]
async fn an_owner_whose_builds_fill_the_line_is_asked_to_come_again() {
    let app = with_room_for(2).await;
    let first = app.accept(&body()).await;
    app.accept(&body()).await;
    for path in PATHS {
        let refused = app.post(path, &body()).await;
        assert_eq!(refused.headers()["retry-after"], "5", "{path}");
        let error = is_error(refused, 429, "QUOTA_EXCEEDED").await;
        let message = error["error"].as_str().unwrap();
        assert!(message.starts_with("2 of your builds wait"), "{message}");
        assert_eq!(error["retryable"], true);
    }
    // Others have a line of their own, and a build that is taken leaves room.
    let other = app.key_of("other").await;
    let request = app.request_by(&other, Method::POST, PATHS[1]).json(&body());
    assert_eq!(request.send().await.unwrap().status(), StatusCode::ACCEPTED);
    app.start_building(&build_id(&first)).await;
    app.accept(&body()).await;
}

#[tokio::test]
async fn a_retry_needs_room_in_the_line_too() {
    let app = with_room_for(1).await;
    let first = app.accept(&body()).await["build_id"].clone();
    let first = first.as_str().unwrap();
    let (cancel, retry) = (
        format!("/v1/templates/builds/{first}/cancel"),
        format!("/v1/templates/builds/{first}/retry"),
    );
    assert!(app.post(&cancel, &json!({})).await.status().is_success());
    app.accept(&body()).await;
    let refused = app.post(&retry, &json!({})).await;
    is_error(refused, 429, "QUOTA_EXCEEDED").await;
}

#[tokio::test]
async fn requests_at_the_same_time_do_not_pass_the_bound_together() {
    let app = with_room_for(3).await;
    let body = body();
    let answers = join_all((0..12).map(|_| app.post(PATHS[1], &body))).await;
    let accepted = answers
        .iter()
        .filter(|answer| answer.status() == StatusCode::ACCEPTED)
        .count();
    let refused = answers
        .iter()
        .filter(|answer| answer.status() == StatusCode::TOO_MANY_REQUESTS)
        .count();
    assert_eq!(accepted + refused, 12);
    assert!((1..=3).contains(&accepted), "{accepted}");
}
