//! What was so at an earlier moment.

use domain::ports::EventReader as _;
use domain::recorded::Position;
use reqwest::Method;
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error};
use crate::wire::position::WirePosition;

fn path_of(build: &Value) -> String {
    format!("/v1/templates/builds/{}", build_id(build))
}

/// The log's end, as callers name it.
fn now(app: &TestApp) -> String {
    WirePosition(app.service.app.log.head()).to_string()
}

async fn at(app: &TestApp, path: &str, moment: &str) -> Value {
    app.get_json(&format!("{path}?at={moment}")).await
}

#[tokio::test]
async fn a_build_is_answered_as_it_was_answered_then() {
    let app = TestApp::start().await;
    let body = json!({"base_image": "a", "name": "my-app", "tags": ["v1"]});
    let before = now(&app);
    let build = app.accept(&body).await;
    let (id, path) = (build_id(&build), path_of(&build));
    let mut answers = Vec::new();
    let remember = async |answers: &mut Vec<_>| {
        answers.push((now(&app), app.get_json(&path).await));
    };
    remember(&mut answers).await;
    let fence = app.start_building(&id).await;
    remember(&mut answers).await;
    app.log(&id, fence, &["one", "two"]).await;
    remember(&mut answers).await;
    app.complete(&id, fence).await;
    remember(&mut answers).await;
    let other = app.make("my-app", &["v1"]).await;
    remember(&mut answers).await;
    let public = json!({"visibility": "public"});
    let shown = app
        .request(Method::PATCH, "/v1/templates/refs/my-app/visibility")
        .json(&public)
        .send();
    assert_eq!(shown.await.unwrap().status(), 200);
    remember(&mut answers).await;
    app.delete("/v1/templates/refs/my-app").await;
    remember(&mut answers).await;

    for (position, answer) in &answers {
        assert_eq!(at(&app, &path, position).await, *answer, "{position}");
    }
    let mut distinct: Vec<String> = answers
        .iter()
        .map(|(_, answer)| answer.to_string())
        .collect();
    distinct.dedup();
    assert_eq!(distinct.len(), answers.len(), "each step shows");
    let (position, whole) = &answers[2];
    let offset = format!("{path}?offset=1&at={position}");
    let rest = app.get_json(&offset).await;
    let entries = |answer: &Value| answer["entries"].as_array().unwrap().clone();
    assert_eq!(entries(&rest), entries(whole)[1..]);

    let early = app.get(&format!("{path}?at={before}")).await;
    is_error(early, 404, "template_build_not_found").await;
    let early = app.get(&format!("{}?at={before}", path_of(&other))).await;
    is_error(early, 404, "template_build_not_found").await;
    let guest = app.key_of("guest").await;
    let (position, _) = &answers[0];
    let theirs = app.request_by(&guest, Method::GET, &format!("{path}?at={position}"));
    is_error(
        theirs.send().await.unwrap(),
        404,
        "template_build_not_found",
    )
    .await;
}

#[tokio::test]
async fn a_reference_means_what_it_meant_then() {
    let app = TestApp::start().await;
    let path = "/v1/templates/refs/my-app";
    let before = now(&app);
    app.make("my-app", &["default"]).await;
    let (first, was) = (now(&app), app.get_json(path).await);
    let renamed = json!({"new_name": "newer"});
    app.post_json(&format!("{path}/rename"), &renamed, 200)
        .await;
    let (second, alias) = (now(&app), app.get_json(path).await);
    app.delete("/v1/templates/refs/newer").await;
    let gone = now(&app);
    app.make("my-app", &["default"]).await;
    let (third, is) = (now(&app), app.get_json(path).await);

    assert_eq!(at(&app, path, &first).await, was);
    assert_eq!(at(&app, path, &second).await, alias);
    assert_eq!(at(&app, path, &third).await, is);
    assert_ne!(was["id"], is["id"], "another template has the name now");
    let fields = format!("{path}?fields=name&at={second}");
    assert_eq!(app.get_json(&fields).await, json!({"name": "newer"}));
    for moment in [&before, &gone] {
        let missing = app.get(&format!("{path}?at={moment}")).await;
        is_error(missing, 404, "template_not_found").await;
    }
    let by_id = format!("/v1/templates/{}", was["id"].as_str().unwrap());
    assert_eq!(at(&app, &by_id, &first).await, was);
    let builtin = "/v1/templates/refs/nullspace%2Fbase";
    assert_eq!(
        at(&app, builtin, &before).await,
        app.get_json(builtin).await
    );
}

#[tokio::test]
async fn what_others_have_hidden_since_is_not_seen_in_the_past() {
    let app = TestApp::start().await;
    app.make("my-app", &["default"]).await;
    let guest = app.key_of("guest").await;
    let path = "/v1/templates/refs/default%2Fmy-app";
    let private = now(&app);
    let set = async |word: &str| {
        let visibility = app
            .request(Method::PATCH, "/v1/templates/refs/my-app/visibility")
            .json(&json!({"visibility": word}));
        assert_eq!(visibility.send().await.unwrap().status(), 200);
    };
    let seen = async |moment: &str| {
        let request = app.request_by(&guest, Method::GET, &format!("{path}?at={moment}"));
        request.send().await.unwrap().status().as_u16()
    };
    set("public").await;
    let public = now(&app);
    assert_eq!((seen(&private).await, seen(&public).await), (404, 200));
    set("private").await;
    assert_eq!(seen(&public).await, 404);
    set("public").await;
    assert_eq!(seen(&public).await, 200);
}

#[tokio::test]
async fn a_time_means_the_last_event_that_is_not_later() {
    let app = TestApp::start().await;
    let build = app.make("my-app", &["v1"]).await;
    let path = path_of(&build);
    let stream = domain::recorded::StreamName::Build(build_id(&build));
    for recorded in app.events(&stream).await {
        let by_position = WirePosition(recorded.position).to_string();
        // Several events may have one time; the last of them is meant.
        let log = &app.service.app.log;
        let last = log.position_at(recorded.time).await.unwrap();
        assert!(last >= recorded.position);
        let by_time = at(&app, &path, &recorded.time.to_string()).await;
        if last == recorded.position {
            assert_eq!(by_time, at(&app, &path, &by_position).await);
        }
        let utc = recorded.time.to_string().replace('Z', "%2B00:00");
        assert_eq!(at(&app, &path, &utc).await, by_time);
        assert_eq!(at(&app, &path, &utc.replace("%2B", "+")).await, by_time);
    }
    let whole = app.get_json(&path).await;
    let clock = app.service.app.clock.0.now();
    assert_eq!(at(&app, &path, &clock.to_string()).await, whole);
    let early = app.get(&format!("{path}?at=1970-01-01T00:00:00Z")).await;
    is_error(early, 404, "template_build_not_found").await;
}

#[tokio::test]
async fn a_moment_that_cannot_be_read_or_is_not_there_yet_is_refused_by_name() {
    let app = TestApp::start().await;
    let build = app.make("my-app", &["v1"]).await;
    let head = app.service.app.log.head().raw();
    let behind = WirePosition(Position::from_raw(head + 1)).to_string();
    let future = app.service.app.clock.0.now().plus_millis(3_600_000);
    for path in [
        path_of(&build),
        "/v1/templates/refs/my-app".into(),
        "/v1/templates/refs/nullspace%2Fbase".into(),
    ] {
        for (moment, says) in [
            ("", "must be a position"),
            ("7", "must be a position"),
            ("yesterday", "must be a position"),
            ("2026-11-28", "must be a position"),
            (behind.as_str(), "lies behind"),
            (&*future.to_string(), "lies in the future"),
        ] {
            let refused = app.get(&format!("{path}?at={moment}")).await;
            let body = is_error(refused, 400, "invalid_request").await;
            let problem = &body["details"]["problems"][0];
            assert_eq!(problem["field"], "at", "{path} {moment}");
            let message = problem["message"].as_str().unwrap();
            assert!(message.starts_with(says), "{path} {moment}: {message}");
        }
    }
}
