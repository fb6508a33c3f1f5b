//! Moving tags by hand.

use domain::recorded::{Actor, StreamName};
use domain::template::Event;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error};

async fn two_builds() -> (TestApp, Value, Value) {
    let app = TestApp::start().await;
    let first = app.make("my-app", &["v1"]).await;
    let second = app.make("my-app", &["default"]).await;
    (app, first, second)
}

/// Where the tags point, by name.
async fn tags(app: &TestApp) -> Vec<(String, String)> {
    let listed = app.get_json("/v1/templates/refs/my-app/tags").await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let listed = listed.as_array().unwrap().iter();
    listed
        .map(|tag| {
            let created = text(&tag["created_at"]);
            assert!(created.len() == 27 && created.ends_with('Z'), "{created}");
            assert_eq!(tag.as_object().unwrap().len(), 3);
            (text(&tag["tag"]), text(&tag["build_id"]))
        })
        .collect()
}

fn points(tag: &str, build: &Value) -> (String, String) {
    (tag.to_owned(), build_id(build).to_string())
}

#[tokio::test]
async fn tags_are_assigned_to_the_build_that_the_reference_means() {
    let (app, first, second) = two_builds().await;
    let start = [points("default", &second), points("v1", &first)];
    assert_eq!(tags(&app).await, start);
    let path = format!("/v1/templates/refs/my-app%3A{}/tags", build_id(&first));
    let assigned = app.post(&path, &json!({"tags": ["a", "b", "a"]})).await;
    assert_eq!(assigned.status(), StatusCode::OK);
    let info: Value = assigned.json().await.unwrap();
    assert_eq!(info["tags"], json!(["a", "b", "default", "v1"]));
    assert_eq!(info["id"], first["template_id"]);
    for (reference, tag) in [
        ("my-app".to_owned(), "by-name"),
        ("default%2Fmy-app%3Av1".into(), "by-tag"),
        (first["template_id"].as_str().unwrap().into(), "by-id"),
    ] {
        let path = format!("/v1/templates/refs/{reference}/tags");
        let assigned = app.post(&path, &json!({"tags": [tag]})).await;
        assert_eq!(assigned.status(), StatusCode::OK, "{reference}");
    }
    let expected = [
        points("a", &first),
        points("b", &first),
        points("by-id", &second),
        points("by-name", &second),
        points("by-tag", &first),
        points("default", &second),
        points("v1", &first),
    ];
    assert_eq!(tags(&app).await, expected);
    // A tag moves.
    app.post(&path, &json!({"tags": ["default"]})).await;
    assert!(tags(&app).await.contains(&points("default", &first)));
}

#[tokio::test]
async fn only_a_build_of_the_template_that_is_ready_gets_a_tag() {
    let (app, _, _) = two_builds().await;
    let waiting = app
        .accept(&json!({"base_image": "debian:bookworm", "name": "my-app", "tags": ["v3"]}))
        .await;
    let other = app.make("other-app", &["default"]).await;
    let body = json!({"tags": ["x"]});
    let assign = |reference: String| {
        let (app, body) = (&app, &body);
        async move {
            let path = format!("/v1/templates/refs/{reference}/tags");
            app.post(&path, body).await
        }
    };
    let reference = format!("my-app%3A{}", build_id(&waiting));
    let error = is_error(assign(reference).await, 409, "transition_conflict").await;
    assert!(error["error"].as_str().unwrap().contains("`waiting`"));
    for reference in [
        "my-app%3Av3".to_owned(),
        format!("my-app%3A{}", build_id(&other)),
        "none".into(),
    ] {
        is_error(assign(reference).await, 404, "template_not_found").await;
    }
    assert_eq!(tags(&app).await.len(), 2);
}

#[tokio::test]
async fn a_removed_tag_means_nothing_any_more() {
    let (app, first, _) = two_builds().await;
    let path = "/v1/templates/refs/my-app/tags/v1";
    let removed = app.delete(path).await;
    assert_eq!(removed.status(), StatusCode::NO_CONTENT);
    assert_eq!(removed.text().await.unwrap(), "");
    is_error(app.delete(path).await, 404, "not_found").await;
    let gone = app.get("/v1/templates/refs/my-app%3Av1").await;
    is_error(gone, 404, "template_not_found").await;
    let unknown = app.delete("/v1/templates/refs/my-app/tags/tb_x").await;
    is_error(unknown, 404, "not_found").await;
    // The build is still there.
    let path = format!("/v1/templates/refs/my-app%3A{}", build_id(&first));
    assert_eq!(app.get(&path).await.status(), StatusCode::OK);
    let id = first["template_id"].as_str().unwrap();
    let removed = app
        .delete(&format!("/v1/templates/{id}/tags/default"))
        .await;
    assert_eq!(removed.status(), StatusCode::NO_CONTENT);
    let info = app.get_json("/v1/templates/refs/my-app").await;
    assert_eq!(info["tags"], json!([]));
    assert_eq!(info.get("default_tag"), None);
}

#[tokio::test]
async fn a_tag_that_was_removed_comes_back_with_the_next_build_and_goes_again() {
    let (app, _, _) = two_builds().await;
    let path = "/v1/templates/refs/my-app/tags/v1";
    for _ in 0..3 {
        assert_eq!(app.delete(path).await.status(), StatusCode::NO_CONTENT);
        is_error(app.delete(path).await, 404, "not_found").await;
        app.make("my-app", &["v1"]).await;
    }
}

#[tokio::test]
async fn the_tags_of_a_template_are_bounded() {
    let app = TestApp::start_with(|config| config.limits.template_tag_count_max = 3).await;
    app.make("my-app", &["v1"]).await;
    let path = "/v1/templates/refs/my-app:v1/tags";
    let more = app.post(path, &json!({"tags": ["a", "b", "c"]})).await;
    is_error(more, 403, "QUOTA_EXCEEDED").await;
    let fit = app.post(path, &json!({"tags": ["a", "b", "v1"]})).await;
    assert_eq!(fit.status(), StatusCode::OK);
    let moved = app.post(path, &json!({"tags": ["b", "a"]})).await;
    assert_eq!(moved.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_log_tells_who_moved_what() {
    let (app, first, _) = two_builds().await;
    let path = format!("/v1/templates/refs/my-app%3A{}/tags", build_id(&first));
    app.post(&path, &json!({"tags": ["prod"]})).await;
    app.delete("/v1/templates/refs/my-app/tags/prod").await;
    let stream = StreamName::Template(first["template_id"].as_str().unwrap().parse().unwrap());
    let events = app.events(&stream).await;
    let caller = app.service.app.keys.find(&app.key).unwrap();
    for recorded in &events {
        let id = caller.key.clone();
        assert_eq!(recorded.actor, Actor::Key { id });
    }
    let events: Vec<_> = events.into_iter().map(|recorded| recorded.event).collect();
    let prod = || "prod".parse().unwrap();
    let expected = [
        Event::TagsAssigned {
            tags: vec![prod()],
            build: build_id(&first),
        },
        Event::TagRemoved {
            tag: prod(),
            build: Some(build_id(&first)),
        },
    ];
    assert_eq!(events, expected.map(Into::into));
}
