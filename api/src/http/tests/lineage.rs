//! Lines of retries.

use domain::build::Command;
use domain::failure::{Failure, FailureReason};
use domain::recorded::Actor;
use reqwest::Method;
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error};
use crate::service::actors::Labels;
use crate::service::operator;
use crate::wire::admin::NewKey;

/// Lets the build fail for good.
async fn fail(app: &TestApp, build: &Value) {
    let id = build_id(build);
    let fence = app.start_building(&id).await;
    let failure = Failure::new(FailureReason::StepFailed, "it broke");
    app.command(&id, Command::Fail { fence, failure }).await;
}

async fn retry(app: &TestApp, build: &Value) -> Value {
    let path = format!("/v1/templates/builds/{}/retry", build_id(build));
    app.post_json(&path, &json!({}), 202).await
}

async fn lineage(app: &TestApp, build: &Value) -> Value {
    app.get_json(&format!("/v1/templates/builds/{}/lineage", build_id(build)))
        .await
}

/// What each build of the line is to the one that was asked for, by its id.
fn relations(line: &Value) -> Vec<(&str, &str)> {
    let builds = line["builds"].as_array().unwrap().iter();
    builds
        .map(|build| {
            let text = |key: &str| build[key].as_str().unwrap();
            (text("build_id"), text("relation"))
        })
        .collect()
}

#[tokio::test]
async fn a_retry_of_a_retry_knows_its_line_and_the_line_knows_it() {
    let app = TestApp::start().await;
    let body = json!({"base_image": "a", "name": "my-app", "tags": ["v1"]});
    let first = app.accept(&body).await;
    fail(&app, &first).await;
    let second = retry(&app, &first).await;
    fail(&app, &second).await;
    let third = retry(&app, &second).await;
    let cousin = retry(&app, &first).await;
    let line = lineage(&app, &second).await;
    let ids = [&first, &second, &third, &cousin].map(|build| build_id(build).to_string());
    let expected = [
        (ids[0].as_str(), "ancestor"),
        (ids[1].as_str(), "asked"),
        (ids[2].as_str(), "descendant"),
        (ids[3].as_str(), "other"),
    ];
    assert_eq!(relations(&line), expected);
    assert_eq!(line["build_count"], 4);
    assert_eq!(line["truncated"], false);
    for build in [&first, &third, &cousin] {
        let other = lineage(&app, build).await;
        assert_eq!(other["original_build_id"], ids[0]);
        assert_eq!(other["builds"].as_array().unwrap().len(), 4);
    }

    let builds = &line["builds"];
    assert_eq!(builds[0]["retries"], json!([ids[1], ids[3]]));
    assert_eq!(builds[1]["retries"], json!([ids[2]]));
    assert_eq!(builds[2]["retry_of_build_id"], json!(ids[1]));
    assert_eq!(builds[0].get("retry_of_build_id"), None);
    // How each went is what its record says.
    let record = app
        .get_json(&format!("/v1/templates/builds/{}", ids[0]))
        .await;
    let record = &record["build"];
    for key in [
        "status",
        "queued_at",
        "started_at",
        "finished_at",
        "duration_ms",
        "error_detail",
    ] {
        assert_eq!(builds[0][key], record[key], "{key}");
    }
    assert_eq!(builds[0]["attempt"], 1);
    assert_eq!(builds[3]["status"], "waiting");
    assert_eq!(builds[3].get("duration_ms"), None);
    let by = &builds[0]["triggered_by"];
    assert_eq!(
        (&by["kind"], &by["id"]),
        (&json!("key"), &record["triggered_by"])
    );
}

#[tokio::test]
async fn who_asked_is_told_by_the_label_of_the_key() {
    let app = TestApp::start().await;
    let service = &app.service.app;
    let new = NewKey {
        owner: "default".to_owned(),
        label: "the release bot".to_owned(),
    };
    let made = operator::create_key(&service.dispatcher, &service.ids, new);
    let made = made.await.unwrap();
    let (keys, _) = service.dispatcher.load_keys().await.unwrap();
    service.keys.replace(&keys);
    let body = json!({"base_image": "a", "name": "my-app"});
    let asked = app.request_by(&made.key, Method::POST, "/v1/templates/builds");
    let accepted: Value = asked
        .json(&body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let line = lineage(&app, &accepted).await;
    let by = &line["builds"][0]["triggered_by"];
    assert_eq!(by["label"], "the release bot");
    assert_eq!(by["id"], accepted["triggered_by"]);
}

#[tokio::test]
async fn the_line_of_somebody_elses_build_is_nowhere() {
    let app = TestApp::start().await;
    let build = app
        .accept(&json!({"base_image": "a", "name": "my-app"}))
        .await;
    let stranger = app.key_of("other").await;
    let id = build_id(&build);
    for below in [
        "lineage".to_owned(),
        "timeline".into(),
        format!("diff?with={id}"),
    ] {
        let path = format!("/v1/templates/builds/{id}/{below}");
        let asked = app.request_by(&stranger, Method::GET, &path).send().await;
        is_error(asked.unwrap(), 404, "template_build_not_found").await;
        let path = format!("/v1/templates/builds/tb_x/{below}");
        is_error(app.get(&path).await, 404, "template_build_not_found").await;
    }
}

#[tokio::test]
async fn what_others_call_their_keys_is_told_to_nobody_else() {
    let app = TestApp::start().await;
    let service = &app.service.app;
    for owner in ["one", "other"] {
        let new = NewKey {
            owner: owner.to_owned(),
            label: format!("of {owner}"),
        };
        let made = operator::create_key(&service.dispatcher, &service.ids, new).await;
        made.unwrap();
    }
    let owner = "one".parse().unwrap();
    let labels = Labels::of(service, &owner).await.unwrap();
    let (keys, _) = service.dispatcher.load_keys().await.unwrap();
    let shown = |owner: &str| {
        let key = keys.iter().find(|key| key.owner.as_str() == owner).unwrap();
        labels.actor(&Actor::Key { id: key.id.clone() }).label
    };
    assert_eq!(shown("one").as_deref(), Some("of one"));
    assert_eq!(shown("other"), None);
}
