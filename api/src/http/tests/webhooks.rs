//! Webhooks: requests, and what a receiver gets that fails, hangs and recovers.

mod delivering;
mod receiver;
mod trouble;

use std::time::Duration;

use domain::event::{Category, Event};
use domain::ids::BuildId;
use domain::ports::EventReader as _;
use domain::recorded::{Position, Recorded};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error};
use crate::config::Config;
use crate::http::openapi::tests::is_described;

/// A service that sends to this machine, soon again, and as often as is needed.
fn local(config: &mut Config) {
    config.webhooks.allowed_networks = vec!["127.0.0.0/8".parse().unwrap()];
    config.limits.webhook_timeout_ms = 20_000;
    config.limits.webhook_backoff_ms_min = 2;
    config.limits.webhook_backoff_ms_max = 10;
    config.limits.webhook_attempt_count_max = 1_000;
}

/// Registers a webhook and gives its id and its secret.
async fn register(app: &TestApp, body: &Value) -> (String, String) {
    let created = app.post_json("/v1/webhooks", body, 201).await;
    let text = |key: &str| created[key].as_str().unwrap().to_owned();
    (text("id"), text("secret"))
}

async fn patch(app: &TestApp, id: &str, paused: bool) -> Value {
    let path = format!("/v1/webhooks/{id}");
    let body = json!({"paused": paused});
    let response = app.request(Method::PATCH, &path).json(&body).send().await;
    let response = response.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{response:?}");
    let answer = response.json().await.unwrap();
    is_described("PATCH", &path, 200, &answer);
    answer
}

/// Everything that has happened to builds, templates and names behind `position`.
async fn happened(app: &TestApp, position: Position) -> Vec<Recorded<Event>> {
    let log = &app.service.app.log;
    let events = log.read_all(position, 4_000).await.unwrap();
    let is_told = |recorded: &Recorded<Event>| match Category::from(&recorded.stream) {
        Category::Build | Category::Template | Category::Namespace => true,
        Category::Keys | Category::Webhook => false,
    };
    events.into_iter().filter(is_told).collect()
}

/// What the receiver knows them by.
fn ids(events: &[Recorded<Event>]) -> Vec<String> {
    let ids = events
        .iter()
        .map(|recorded| format!("{}/{}", recorded.stream, recorded.version.0));
    ids.collect()
}

/// Accepts a build, lets it log and finish.
async fn build(app: &TestApp, name: &str, lines: usize) -> BuildId {
    let body = json!({"base_image": "debian:bookworm", "name": name});
    let id = build_id(&app.accept(&body).await);
    let fence = app.start_building(&id).await;
    for _ in 0..lines {
        app.log(&id, fence, &["a line"]).await;
    }
    app.complete(&id, fence).await;
    id
}

/// What the service says about deliveries.
async fn deliveries(app: &TestApp, id: &str, query: &str) -> Vec<Value> {
    let path = format!("/v1/webhooks/{id}/deliveries{query}");
    let page = app.get_json(&path).await;
    page["deliveries"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_webhook_is_registered_listed_paused_and_deleted() {
    let app = TestApp::start().await;
    let body = json!({
        "url": "https://hooks.example/in?a=b",
        "types": ["Snapshotted", "Failed", "Failed"],
        "templates": ["tmpl_01arz3ndektsv4rrffq69g5fav"],
        "description": "chat",
    });
    let created = app.post_json("/v1/webhooks", &body, 201).await;
    let secret = created["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_"), "{created}");
    let id = created["id"].as_str().unwrap();
    let mut shown = created.clone();
    shown.as_object_mut().unwrap().remove("secret");
    assert_eq!(shown["types"], json!(["Failed", "Snapshotted"]));
    assert_eq!(shown["paused"], false);

    let listed = app.get_json("/v1/webhooks").await;
    assert_eq!(listed, json!({"webhooks": [shown]}));
    let path = format!("/v1/webhooks/{id}");
    let one = app.get_json(&path).await;
    assert_eq!(one["url"], "https://hooks.example/in?a=b");
    assert_eq!(one["pending_stream_count"], 0);
    for _ in 0..2 {
        let paused = patch(&app, id, true).await;
        assert_eq!(paused["paused_reason"], "asked");
    }
    let resumed = patch(&app, id, false).await;
    assert_eq!(resumed["paused"], false);
    assert_eq!(resumed.get("paused_reason"), None);
    assert!(deliveries(&app, id, "").await.is_empty());

    let deleted = app.delete(&path).await;
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    is_error(app.get(&path).await, 404, "not_found").await;
    is_error(app.delete(&path).await, 404, "not_found").await;
    assert_eq!(app.get_json("/v1/webhooks").await, json!({"webhooks": []}));
}

#[tokio::test]
async fn somebody_elses_webhook_is_nowhere() {
    let app = TestApp::start().await;
    let (id, _) = register(&app, &json!({"url": "https://hooks.example/"})).await;
    let other = app.key_of("other").await;
    let one = format!("/v1/webhooks/{id}");
    let dead = "0000000000000001";
    for (method, path, body) in [
        (Method::GET, one.clone(), None),
        (Method::DELETE, one.clone(), None),
        (Method::PATCH, one.clone(), Some(json!({"paused": true}))),
        (Method::GET, format!("{one}/deliveries"), None),
        (
            Method::POST,
            format!("{one}/replay"),
            Some(json!({"from": dead})),
        ),
        (
            Method::POST,
            format!("{one}/deliveries/{dead}/redeliver"),
            None,
        ),
    ] {
        let request = app.request_by(&other, method, &path);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        is_error(request.send().await.unwrap(), 404, "not_found").await;
    }
    let listed = app.request_by(&other, Method::GET, "/v1/webhooks").send();
    let listed: Value = listed.await.unwrap().json().await.unwrap();
    assert_eq!(listed, json!({"webhooks": []}));
    assert_eq!(app.get_json(&one).await["paused"], false);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let app = TestApp::start().await;
    let (id, _) = register(&app, &json!({"url": "https://hooks.example/"})).await;
    let url = "https://hooks.example/";
    for (field, body) in [
        ("url", json!({})),
        ("url", json!({"url": "http://127.0.0.1:9/"})),
        ("url", json!({"url": "http://[::ffff:10.0.0.1]/"})),
        ("url", json!({"url": "ftp://hooks.example/"})),
        ("url", json!({"url": "https://me:pw@hooks.example/"})),
        (
            "types[1]",
            json!({"url": url, "types": ["Failed", "Fails"]}),
        ),
        ("types[0]", json!({"url": url, "types": ["KeyCreated"]})),
        ("templates[0]", json!({"url": url, "templates": ["my-app"]})),
        ("description", json!({"url": url, "description": 7})),
        ("secret", json!({"url": url, "secret": "mine"})),
    ] {
        let refused = app.post("/v1/webhooks", &body).await;
        let refused = is_error(refused, 400, "invalid_request").await;
        assert_eq!(refused["details"]["problems"][0]["field"], field, "{body}");
        assert!(!refused.to_string().contains("pw@"), "{refused}");
    }
    let one = format!("/v1/webhooks/{id}");
    let after_all = "ffffffffffffffff";
    for (field, path, body) in [
        ("from", "/replay", json!({})),
        ("from", "/replay", json!({"from": "7"})),
        ("from", "/replay", json!({"from": after_all})),
    ] {
        let refused = app.post(&format!("{one}{path}"), &body).await;
        let refused = is_error(refused, 400, "invalid_request").await;
        assert_eq!(refused["details"]["problems"][0]["field"], field, "{body}");
    }
    let request = app.request(Method::PATCH, &one).json(&json!({"url": url}));
    let refused = request.send().await.unwrap();
    let refused = is_error(refused, 400, "invalid_request").await;
    assert_eq!(refused["details"]["problems"][0]["field"], "url");
    for (field, query) in [
        ("status", "status=lost"),
        ("limit", "limit=0"),
        ("cursor", "cursor=x"),
    ] {
        let refused = app.get(&format!("{one}/deliveries?{query}")).await;
        let refused = is_error(refused, 400, "invalid_request").await;
        assert_eq!(refused["details"]["problems"][0]["field"], field);
    }
    let path = format!("{one}/deliveries/{}/redeliver", "0".repeat(16));
    is_error(app.post(&path, &json!({})).await, 404, "not_found").await;
}

#[tokio::test]
async fn an_owner_has_so_many_and_none_if_they_are_switched_off() {
    let app = TestApp::start_with(|config| config.limits.webhook_count_max = 2).await;
    let body = json!({"url": "https://hooks.example/"});
    let (first, _) = register(&app, &body).await;
    register(&app, &body).await;
    let refused = app.post("/v1/webhooks", &body).await;
    is_error(refused, 403, "QUOTA_EXCEEDED").await;
    app.delete(&format!("/v1/webhooks/{first}")).await;
    register(&app, &body).await;

    let app = TestApp::start_with(|config| config.webhooks.enabled = false).await;
    let refused = app.post("/v1/webhooks", &body).await;
    is_error(refused, 403, "forbidden").await;
}
