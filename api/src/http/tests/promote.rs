//! Moving tags to a build.

use domain::build::Command;
use domain::failure::{Failure, FailureReason};
use domain::recorded::{Actor, StreamName};
use domain::{Event, template};
use reqwest::Method;
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error};

fn path(build: &Value) -> String {
    format!("/v1/templates/builds/{}/promote", build_id(build))
}

/// Where the tags of `my-app` point to.
async fn tags(app: &TestApp) -> Value {
    let tags = app.get_json("/v1/templates/refs/my-app/tags").await;
    let tags = tags.as_array().unwrap().iter();
    tags.map(|tag| json!([tag["tag"], tag["build_id"]]))
        .collect()
}

#[tokio::test]
async fn a_tag_moves_to_a_ready_build_and_the_log_tells_who_moved_it() {
    let app = TestApp::start().await;
    let old = app.make("my-app", &["v1"]).await;
    let new = app.make("my-app", &["v2"]).await;
    let template = app
        .post_json(&path(&new), &json!({"tag": "prod"}), 200)
        .await;
    assert_eq!(template["id"], old["template_id"]);
    assert_eq!(template["tags"], json!(["prod", "v1", "v2"]));
    let (old_id, new_id) = (build_id(&old), build_id(&new));
    let expected = json!([
        ["prod", new_id.as_str()],
        ["v1", old_id.as_str()],
        ["v2", new_id.as_str()]
    ]);
    assert_eq!(tags(&app).await, expected);

    // Back again: that is what a promotion of an older build is.
    let template = app
        .post_json(&path(&old), &json!({"tags": ["prod", "v2"]}), 200)
        .await;
    assert_eq!(template["tags"], json!(["prod", "v1", "v2"]));
    for reference in ["my-app%3Aprod", "my-app%3Av2"] {
        let info = app
            .get_json(&format!("/v1/templates/refs/{reference}"))
            .await;
        assert_eq!(info, template);
    }
    let stream = StreamName::Template(old["template_id"].as_str().unwrap().parse().unwrap());
    let events = app.events(&stream).await;
    let last = events.last().unwrap();
    let tags = ["prod", "v2"].map(|tag| tag.parse().unwrap()).to_vec();
    let moved = template::Event::TagsAssigned {
        tags,
        build: old_id,
    };
    assert_eq!(last.event, Event::Template(moved));
    assert!(matches!(last.actor, Actor::Key { .. }));
}

#[tokio::test]
async fn a_build_that_is_not_ready_gets_no_tag() {
    let app = TestApp::start().await;
    let body = json!({"base_image": "a", "name": "my-app"});
    let build = app.accept(&body).await;
    let refused = async |status: &str| {
        let response = app.post(&path(&build), &json!({"tag": "prod"})).await;
        let error = is_error(response, 409, "transition_conflict").await;
        let message = error["error"].as_str().unwrap();
        assert!(message.contains(&format!("`{status}`")), "{message}");
    };
    refused("waiting").await;
    let id = build_id(&build);
    let fence = app.start_building(&id).await;
    refused("building").await;
    let failure = Failure::new(FailureReason::StepFailed, "it broke");
    app.command(&id, Command::Fail { fence, failure }).await;
    refused("error").await;
    assert_eq!(tags(&app).await, json!([]));
}

#[tokio::test]
async fn what_is_wrong_with_a_promotion_is_named() {
    let app = TestApp::start().await;
    let build = app.make("my-app", &["v1"]).await;
    for (body, field) in [
        (json!({}), "tag"),
        (json!({"tag": "tb_x"}), "tag"),
        (json!({"tag": "prod", "force": true}), "force"),
        (json!({"tags": []}), "tags"),
    ] {
        let response = app.post(&path(&build), &body).await;
        let error = is_error(response, 400, "invalid_request").await;
        assert_eq!(error["details"]["problems"][0]["field"], field, "{error}");
    }
    for body in ["", "[]", "{"] {
        let request = app.request(Method::POST, &path(&build)).body(body);
        is_error(request.send().await.unwrap(), 400, "invalid_request").await;
    }
    assert_eq!(tags(&app).await, json!([["v1", build["build_id"]]]));
}

#[tokio::test]
async fn somebody_elses_build_cannot_be_promoted_even_if_its_template_is_public() {
    let app = TestApp::start().await;
    let build = app.make("my-app", &["v1"]).await;
    let visibility = app.request(Method::PATCH, "/v1/templates/refs/my-app/visibility");
    let public = visibility.json(&json!({"visibility": "public"}));
    assert_eq!(public.send().await.unwrap().status().as_u16(), 200);
    let other = app.key_of("other").await;
    for path in [
        path(&build),
        "/v1/templates/builds/tb_nope/promote".to_owned(),
    ] {
        let request = app.request_by(&other, Method::POST, &path);
        let response = request.json(&json!({"tag": "prod"})).send().await.unwrap();
        is_error(response, 404, "template_build_not_found").await;
    }
    assert_eq!(tags(&app).await, json!([["v1", build["build_id"]]]));
}

#[tokio::test]
async fn a_build_of_a_deleted_template_cannot_be_promoted() {
    let app = TestApp::start().await;
    let build = app.make("my-app", &["v1"]).await;
    let deleted = app.delete("/v1/templates/refs/my-app").await;
    assert_eq!(deleted.status().as_u16(), 204);
    let response = app.post(&path(&build), &json!({"tag": "prod"})).await;
    is_error(response, 409, "transition_conflict").await;
    let unknown = app.get("/v1/templates/refs/my-app%3Aprod").await;
    is_error(unknown, 404, "template_not_found").await;
}

#[tokio::test]
async fn promoting_and_deleting_at_once_has_one_winner() {
    let app = TestApp::start().await;
    for round in 0..10 {
        let build = app.make("my-app", &["v1"]).await;
        let path = path(&build);
        let promotion = json!({"tag": "prod"});
        let (promoted, deleted) = tokio::join!(
            app.post(&path, &promotion),
            app.delete("/v1/templates/refs/my-app"),
        );
        let statuses = (promoted.status().as_u16(), deleted.status().as_u16());
        let stream = StreamName::Template(build["template_id"].as_str().unwrap().parse().unwrap());
        let events: Vec<&str> = app
            .events(&stream)
            .await
            .iter()
            .map(|recorded| recorded.event.name())
            .collect();
        // Deleting says what it has seen, so that it cannot take a tag along that just came.
        match statuses {
            (200, 409) => assert_eq!(events, ["TagsAssigned"], "round {round}"),
            (409, 204) => assert_eq!(events, ["Deleted"], "round {round}"),
            (200, 204) => assert_eq!(events, ["TagsAssigned", "Deleted"], "round {round}"),
            other => panic!("round {round}: {other:?}"),
        }
        if statuses.1 == 409 {
            let deleted = app.delete("/v1/templates/refs/my-app").await;
            assert_eq!(deleted.status().as_u16(), 204);
        }
    }
}
