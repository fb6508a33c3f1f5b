//! Accepting builds, looking at them and at what they made.

use domain::build::Command;
use domain::failure::{Failure, FailureReason};
use domain::ids::BuildId;
use domain::ports::EventReader;
use domain::recorded::Position;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error};

fn no_null(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(list) => list.iter().all(no_null),
        Value::Object(object) => object.values().all(no_null),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

#[tokio::test]
async fn an_accepted_build_waits_and_can_be_seen_at_once() {
    let app = TestApp::start().await;
    let body = json!({"base_image": "debian:bookworm", "name": "my-app", "tags": ["v1", "v1"],
                      "build_config": {"disk_mb": 2048}, "runtime_config": {"default_envs": {"A": "hidden"}}});
    let build = app.accept(&body).await;
    assert!(no_null(&build), "{build}");
    assert_eq!(build["status"], "waiting");
    assert_eq!(build["name"], "my-app");
    assert_eq!(build["tags"], json!(["v1"]));
    assert_eq!(build["build_backend"], "native");
    assert_eq!(build["source_type"], "oci_import");
    assert_eq!(build["canonical_ref"], "default/my-app");
    assert_eq!(build["visibility"], "private");
    assert_eq!(build["build_config"]["disk_mb"], 2048);
    let created = build["created_at"].as_str().unwrap();
    assert_eq!(
        (created.len(), created.ends_with('Z')),
        (27, true),
        "{created}"
    );
    assert!(!build.to_string().contains("hidden"));

    let id = build["build_id"].as_str().unwrap();
    let snapshot = app
        .get_json(&format!("/v1/templates/builds/{id}?offset=0"))
        .await;
    assert_eq!(snapshot["build"], build);
    assert_eq!(snapshot["entries"][0]["kind"], "start");
    assert_eq!(snapshot["next_offset"], 1);
    assert!(no_null(&snapshot), "{snapshot}");
}

#[tokio::test]
async fn builds_of_one_name_share_their_template_and_nameless_ones_do_not() {
    let app = TestApp::start().await;
    let named = json!({"base_image": "a", "name": "x"});
    let (one, two) = (app.accept(&named).await, app.accept(&named).await);
    assert_eq!(one["template_id"], two["template_id"]);
    assert_ne!(one["build_id"], two["build_id"]);
    let nameless = json!({"base_image": "a"});
    let (three, four) = (app.accept(&nameless).await, app.accept(&nameless).await);
    assert_ne!(three["name"], four["name"]);
    assert_ne!(three["template_id"], four["template_id"]);
}

#[tokio::test]
async fn a_refused_request_leaves_nothing_behind() {
    let app = TestApp::start().await;
    let head = EventReader::head(&app.service.app.log);
    let file = json!({"path": "../x", "entry_type": "file", "content_base64": "YQ=="});
    for (change, field) in [
        (
            json!({"steps": [{"action": "teleport"}]}),
            "steps[0].action",
        ),
        (json!({"tags": []}), "tags"),
        (json!({"tags": ["tb_x"]}), "tags[0]"),
        (
            json!({"build_config": {"disk_mb": 0}}),
            "build_config.disk_mb",
        ),
        (
            json!({"build_context": {"files": [file]}}),
            "build_context.files[0].path",
        ),
        (json!({"base_image": null}), "base_image"),
        (
            json!({"build_context": {"files": [{"path": "x", "entry_type": "file", "blob_id": "blob_x"}]}}),
            "build_context.files[0].blob_id",
        ),
        (
            json!({"build_context": {"files": [{"path": "x", "entry_type": "file", "content_base64": ""},
                                               {"path": "x/y", "entry_type": "file", "content_base64": ""}]}}),
            "build_context.files",
        ),
    ] {
        let mut body = json!({"base_image": "a", "name": "refused"});
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        for path in ["/v1/templates/build", "/v1/templates/builds"] {
            let error = is_error(app.post(path, &body).await, 400, "invalid_request").await;
            let message = error["error"].as_str().unwrap();
            assert!(message.starts_with(&format!("{field}: ")), "{message}");
            assert_eq!(error["details"]["problems"][0]["field"], field);
        }
    }
    assert_eq!(EventReader::head(&app.service.app.log), head);
    let unknown = app.get("/v1/templates/refs/refused").await;
    is_error(unknown, 404, "template_not_found").await;
}

#[tokio::test]
async fn a_definition_that_the_log_would_not_take_is_too_large() {
    let app = TestApp::start().await;
    let steps: Vec<Value> = (0..10)
        .map(|_| json!({"action": "run", "command": "x".repeat(60_000)}))
        .collect();
    let body = json!({"base_image": "a", "name": "large", "steps": steps});
    let response = app.post("/v1/templates/builds", &body).await;
    is_error(response, 413, "invalid_request").await;
}

#[tokio::test]
async fn somebody_elses_build_is_not_there() {
    let app = TestApp::start().await;
    let build = app
        .accept(&json!({"base_image": "a", "name": "mine"}))
        .await;
    let id = build["build_id"].as_str().unwrap();
    let other = app.key_of("other").await;
    for (method, path) in [
        (Method::GET, format!("/v1/templates/builds/{id}")),
        (Method::GET, format!("/v1/templates/builds/{id}/logs")),
        (Method::POST, format!("/v1/templates/builds/{id}/cancel")),
        (Method::GET, "/v1/templates/builds/tb_nope".to_owned()),
    ] {
        let request = app.client.request(method, app.url(&path));
        let response = request.bearer_auth(&other).send().await.unwrap();
        is_error(response, 404, "template_build_not_found").await;
    }
}

#[tokio::test]
async fn a_finished_template_is_found_by_every_reference() {
    let app = TestApp::start().await;
    let build = app.make("my-app", &["v1", "default"]).await;
    let (id, template) = (
        build["build_id"].as_str().unwrap(),
        build["template_id"].as_str().unwrap(),
    );
    for reference in [
        "my-app".to_owned(),
        "my-app%3Av1".into(),
        format!("my-app%3A{id}"),
        "default%2Fmy-app%3Av1".into(),
        "default/my-app:v1".into(),
        template.to_owned(),
    ] {
        let info = app
            .get_json(&format!("/v1/templates/refs/{reference}"))
            .await;
        assert_eq!(info["id"], template, "{reference}");
        assert_eq!(info["canonical_ref"], "default/my-app");
        assert_eq!(info["tags"], json!(["default", "v1"]));
        assert_eq!(info["default_tag"], "default");
        assert_eq!(info["runtime_defaults"]["default_env_keys"], json!(["A"]));
        assert!(no_null(&info));
    }
    for reference in [
        "nope",
        "my-app%3Av2",
        "other%2Fmy-app",
        "tmpl_nope",
        "a%2Fb%2Fc",
        "%20",
    ] {
        let response = app.get(&format!("/v1/templates/refs/{reference}")).await;
        is_error(response, 404, "template_not_found").await;
    }
    let other = app.key_of("other").await;
    for path in [
        format!("/v1/templates/refs/{template}"),
        "/v1/templates/refs/default%2Fmy-app".into(),
    ] {
        let request = app.client.get(app.url(&path)).bearer_auth(&other);
        is_error(request.send().await.unwrap(), 404, "template_not_found").await;
    }
}

#[tokio::test]
async fn a_template_without_the_default_tag_is_found_by_its_name() {
    let app = TestApp::start().await;
    app.make("tagged", &["v1"]).await;
    let info = app.get_json("/v1/templates/refs/tagged").await;
    assert_eq!(info["tags"], json!(["v1"]));
    assert!(info.get("default_tag").is_none());
    app.accept(&json!({"base_image": "a", "name": "unfinished"}))
        .await;
    let response = app.get("/v1/templates/refs/unfinished").await;
    is_error(response, 404, "template_not_found").await;
}

#[tokio::test]
async fn fields_limit_what_is_shown() {
    let app = TestApp::start().await;
    app.make("one", &["default"]).await;
    let list = app.get_json("/v1/templates").await;
    // Behind it, the builtin template.
    assert_eq!(list.as_array().unwrap().len(), 2);
    let list = app
        .get_json("/v1/templates?fields=id%2C+canonical_ref,id")
        .await;
    let keys: Vec<&String> = list[0].as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 2, "{keys:?}");
    let one = app
        .get_json("/v1/templates/refs/one?fields=name,tags")
        .await;
    assert_eq!(one, json!({"name": "one", "tags": ["default"]}));
}

#[tokio::test]
async fn a_failed_build_says_why() {
    let app = TestApp::start().await;
    let build = app
        .accept(&json!({"base_image": "a", "name": "failing"}))
        .await;
    let id = build_id(&build);
    let fence = app.start_building(&id).await;
    let mut failure = Failure::new(FailureReason::StepFailed, "step 1 exited with 3");
    failure.step_index = Some(1);
    failure.exit_code = Some(3);
    failure.stderr_tail = vec!["last words".into()];
    app.command(&id, Command::Fail { fence, failure }).await;
    let snapshot = app.get_json(&format!("/v1/templates/builds/{id}")).await;
    let build = &snapshot["build"];
    assert_eq!(build["status"], "error");
    assert_eq!(build["error"], "step 1 exited with 3");
    assert_eq!(build["failure_phase"], "build_step");
    let last = snapshot["entries"].as_array().unwrap().last().unwrap();
    assert_eq!(last["kind"], "error");
    for detail in [&build["error_detail"], &last["error_detail"]] {
        assert_eq!(detail["code"], "build_error");
        assert_eq!(detail["phase"], "build_step");
        assert_eq!(detail["build_id"], id.as_str());
        assert_eq!(detail["step_index"], 1);
        assert_eq!(detail["details"]["exit_code"], 3);
        assert_eq!(detail["details"]["stderr_tail"], json!(["last words"]));
    }
    assert!(no_null(&snapshot));
}

#[tokio::test]
async fn a_status_never_lowers_the_offset_and_ends_with_every_entry() {
    let app = TestApp::start().await;
    let build = app.accept(&json!({"base_image": "a", "name": "x"})).await;
    let id = build_id(&build);
    let fence = app.start_building(&id).await;
    let lines: Vec<String> = (0..1000).map(|index| format!("line {index}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    app.log(&id, fence, &lines).await;
    app.complete(&id, fence).await;
    let all = app.get_json(&format!("/v1/templates/builds/{id}")).await;
    let entries = all["entries"].as_array().unwrap();
    let offsets: Vec<u64> = entries
        .iter()
        .map(|entry| entry["offset"].as_u64().unwrap())
        .collect();
    assert_eq!(
        offsets,
        (0..u64::try_from(offsets.len()).unwrap()).collect::<Vec<_>>()
    );
    assert!(entries.len() > 1000);
    assert_eq!(entries.last().unwrap()["kind"], "end");
    let next = all["next_offset"].as_u64().unwrap();
    assert_eq!(next, u64::try_from(entries.len()).unwrap());
    for beyond in [next, next + 100] {
        let rest = app
            .get_json(&format!("/v1/templates/builds/{id}?offset={beyond}"))
            .await;
        assert_eq!(
            (&rest["entries"], &rest["next_offset"]),
            (&json!([]), &json!(beyond))
        );
    }
}

#[tokio::test]
async fn credentials_are_kept_in_memory_until_they_are_needed_and_nowhere_else() {
    let app = TestApp::start().await;
    let auth = json!({"kind": "basic", "username": "planted-user", "password": "hunter2"});
    let body = json!({"base_image": "r.example/a:1", "name": "private", "base_image_auth": auth});
    let accepted = app.accept(&body).await;
    assert!(!accepted.to_string().contains("hunter2"));
    let id: BuildId = accepted["build_id"].as_str().unwrap().parse().unwrap();
    let kept = app.service.app.vault.get(&id).unwrap();
    assert!(kept.registry("r.example").is_some());
    let events = EventReader::read_all(&app.service.app.log, Position::START, 1000)
        .await
        .unwrap();
    let recorded = format!("{events:?}");
    assert!(
        recorded.contains(r#"registry_auth: {"r.example": "basic"}"#),
        "{recorded}"
    );
    assert!(!recorded.contains("hunter2") && !recorded.contains("planted-user"));

    // A retry brings them again, or for the first time.
    let cancel = format!("/v1/templates/builds/{id}/cancel");
    assert_eq!(app.post(&cancel, &json!({})).await.status(), StatusCode::OK);
    let retry = format!("/v1/templates/builds/{id}/retry");
    let refused = is_error(app.post(&retry, &json!({})).await, 400, "invalid_request").await;
    let message = refused["error"].as_str().unwrap();
    assert!(message.starts_with("base_image_auth: "), "{message}");
    assert!(message.contains("r.example"), "{message}");
    for right in [
        json!({"base_image_auth": auth}),
        json!({"registry_auth": [{"registry": "r.example", "auth": auth}]}),
    ] {
        let response = app.post(&retry, &right).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let again: Value = response.json().await.unwrap();
        let id: BuildId = again["build_id"].as_str().unwrap().parse().unwrap();
        assert!(app.service.app.vault.get(&id).is_some());
    }
}

#[tokio::test]
async fn a_finished_build_is_retried_as_a_new_one() {
    let app = TestApp::start().await;
    let body = json!({"base_image": "a", "name": "x", "tags": ["v1"]});
    let first = app.accept(&body).await;
    let retry = |id: &Value| format!("/v1/templates/builds/{}/retry", id.as_str().unwrap());
    let waiting = app.post(&retry(&first["build_id"]), &json!({})).await;
    is_error(waiting, 409, "transition_conflict").await;

    let cancel = format!(
        "/v1/templates/builds/{}/cancel",
        first["build_id"].as_str().unwrap()
    );
    assert_eq!(app.post(&cancel, &json!({})).await.status(), StatusCode::OK);
    let secret = json!({"build_secrets": [{"id": "token", "value": "v"}]});
    let refused = app.post(&retry(&first["build_id"]), &secret).await;
    let refused = is_error(refused, 400, "invalid_request").await;
    assert!(
        refused["error"].as_str().unwrap().contains("token"),
        "{refused}"
    );

    let response = app.post(&retry(&first["build_id"]), &json!({})).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let second: Value = response.json().await.unwrap();
    assert_eq!(second["retry_of_build_id"], first["build_id"]);
    assert_eq!(second["original_build_id"], first["build_id"]);
    assert_eq!(second["template_id"], first["template_id"]);
    assert_eq!(
        (&second["tags"], &second["status"]),
        (&json!(["v1"]), &json!("waiting"))
    );

    let cancel = format!(
        "/v1/templates/builds/{}/cancel",
        second["build_id"].as_str().unwrap()
    );
    assert_eq!(app.post(&cancel, &json!({})).await.status(), StatusCode::OK);
    let third = app
        .post(&retry(&second["build_id"]), &json!({"tags": ["r1"]}))
        .await;
    let third: Value = third.json().await.unwrap();
    assert_eq!(third["retry_of_build_id"], second["build_id"]);
    assert_eq!(third["original_build_id"], first["build_id"]);
    assert_eq!(third["tags"], json!(["r1"]));
}

#[tokio::test]
async fn cancelling_is_idempotent() {
    let app = TestApp::start().await;
    let build = app.accept(&json!({"base_image": "a", "name": "x"})).await;
    let path = format!(
        "/v1/templates/builds/{}/cancel",
        build["build_id"].as_str().unwrap()
    );
    let first = app
        .post(&path, &json!({"reason": "no longer needed"}))
        .await;
    assert_eq!(first.status(), StatusCode::OK);
    let first: Value = first.json().await.unwrap();
    assert_eq!(first["build"]["status"], "cancelled");
    assert_eq!(first["build"]["cancellation_reason"], "no longer needed");
    assert_eq!(
        first["entries"].as_array().unwrap().last().unwrap()["kind"],
        "cancelled"
    );
    let again: Value = app.post(&path, &json!({})).await.json().await.unwrap();
    assert_eq!(again, first);
    let empty = app.request(Method::POST, &path).send().await.unwrap();
    assert_eq!(empty.status(), StatusCode::OK);
    is_error(
        app.post(&path, &json!({"reason": 1})).await,
        400,
        "invalid_request",
    )
    .await;
}
