//! Looking templates up in every form, listing them, deleting them.

use domain::build::Command;
use domain::failure::{Failure, FailureReason};
use domain::name::Namespace;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error};

const BUILTIN_ID: &str = "tmpl_00000000000000000000000000";

/// `default/my-app` with two finished builds: the first is `v1`, the second `default`.
async fn two_builds() -> (TestApp, Value, Value) {
    let app = TestApp::start().await;
    let first = app.make("my-app", &["v1"]).await;
    let second = app.make("my-app", &["default"]).await;
    (app, first, second)
}

fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap().iter();
    list.map(|it| it["canonical_ref"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn every_form_of_a_reference_is_looked_up_on_every_kind_of_path() {
    let (app, first, _) = two_builds().await;
    let (id, build) = (
        first["template_id"].as_str().unwrap(),
        first["build_id"].as_str().unwrap(),
    );
    for path in [
        "refs/my-app".to_owned(),
        "refs/my-app%3Av1".into(),
        "refs/my-app:v1".into(),
        format!("refs/my-app%3A{build}"),
        "refs/default%2Fmy-app".into(),
        "refs/default%2Fmy-app%3Av1".into(),
        "refs/default/my-app:v1".into(),
        format!("refs/{id}"),
        id.to_owned(),
        "my-app".into(),
        "my-app:v1".into(),
    ] {
        let found = app.get_json(&format!("/v1/templates/{path}")).await;
        assert_eq!(found["id"], id, "{path}");
        assert_eq!(found["canonical_ref"], "default/my-app", "{path}");
    }
    for path in [
        "refs/my-app%3Av9",
        "refs/other%2Fmy-app",
        "refs/nullspace%2Fmy-app",
        "refs/none",
        "refs/tmpl_01arz3ndektsv4rrffq69g5fav",
        "refs/not%20a%20name",
        "refs/a%2Fb%2Fc",
        "none",
        "tmpl_x",
    ] {
        let response = app.get(&format!("/v1/templates/{path}")).await;
        is_error(response, 404, "template_not_found").await;
    }
}

#[tokio::test]
async fn a_template_tells_all_that_the_contract_asks_for() {
    let (app, first, _) = two_builds().await;
    let found = app.get_json("/v1/templates/refs/my-app").await;
    let expected = json!({
        "id": first["template_id"],
        "name": "my-app",
        "description": "",
        "builtin": false,
        "canonical_ref": "default/my-app",
        "namespace_slug": "default",
        "visibility": "private",
        "tags": ["default", "v1"],
        "default_tag": "default",
        "runtime_defaults": {"default_env_keys": ["A"], "start_cmd": "serve"},
    });
    assert_eq!(found, expected);
    let path = "/v1/templates/refs/my-app?fields=name,%20id%20,name";
    let some = app.request(Method::GET, path).send().await.unwrap();
    let text = some.text().await.unwrap();
    let expected = json!({"name": "my-app", "id": first["template_id"]});
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    assert!(text.starts_with("{\"name\":"), "{text}");
    let listed = app.get_json("/v1/templates?fields=id").await;
    let ids = json!([{"id": first["template_id"]}, {"id": BUILTIN_ID}]);
    assert_eq!(listed, ids);
    let response = app.get("/v1/templates/refs/my-app?fields=nope").await;
    is_error(response, 400, "invalid_fields").await;
}

#[tokio::test]
async fn the_list_has_what_the_caller_sees_by_namespace_and_name() {
    let (app, _, _) = two_builds().await;
    app.make("a-second", &["v1"]).await;
    app.accept(&json!({"base_image": "debian:bookworm", "name": "unready"}))
        .await;
    let listed = app.get_json("/v1/templates").await;
    let expected = ["default/a-second", "default/my-app", "nullspace/base"];
    assert_eq!(names(&listed), expected);
    let other = app.key_of("other").await;
    let listed = app.request_by(&other, Method::GET, "/v1/templates");
    let listed: Value = listed.send().await.unwrap().json().await.unwrap();
    assert_eq!(names(&listed), ["nullspace/base"]);
}

#[tokio::test]
async fn the_builtin_template_is_seen_and_not_touched() {
    let app = TestApp::start_with(|config| config.builtins.base.image = "debian:x".into()).await;
    for reference in [
        "nullspace%2Fbase",
        "nullspace%2Fbase%3Alatest",
        "nullspace%2Fbase%3Adefault",
        "nullspace/base:default",
        BUILTIN_ID,
    ] {
        let path = format!("/v1/templates/refs/{reference}");
        let found = app.get_json(&path).await;
        assert_eq!(found["canonical_ref"], "nullspace/base", "{reference}");
        assert_eq!(found["builtin"], true);
        assert_eq!(found["visibility"], "public");
        assert_eq!(found["tags"], json!(["default", "latest"]));
        assert!(found["description"].as_str().unwrap().contains("debian:x"));
    }
    let unknown = app.get("/v1/templates/refs/nullspace%2Fbase%3Av9").await;
    is_error(unknown, 404, "template_not_found").await;
    let body = json!({"tags": ["x"], "new_name": "x", "visibility": "public"});
    for base in ["refs/nullspace%2Fbase", BUILTIN_ID] {
        for (method, below) in [
            (Method::DELETE, ""),
            (Method::GET, "/tags"),
            (Method::POST, "/tags"),
            (Method::DELETE, "/tags/latest"),
            (Method::DELETE, "/aliases/x"),
            (Method::POST, "/rename"),
            (Method::PATCH, "/visibility"),
        ] {
            let request = app.request(method, &format!("/v1/templates/{base}{below}"));
            let response = request.json(&body).send().await.unwrap();
            is_error(response, 403, "forbidden").await;
        }
        let aliases = app.get_json(&format!("/v1/templates/{base}/aliases")).await;
        assert_eq!(aliases, json!([]));
    }
}

#[tokio::test]
async fn a_full_reference_wins_over_what_belongs_to_a_template() {
    let app = TestApp::start().await;
    app.make("default", &["default"]).await;
    let tags = app.get_json("/v1/templates/refs/default/tags").await;
    assert_eq!(tags[0]["tag"], "default");
    app.make("tags", &["v1"]).await;
    let template = app.get_json("/v1/templates/refs/default/tags").await;
    assert_eq!(template["canonical_ref"], "default/tags");
    let tags = app.get_json("/v1/templates/refs/default/tags/tags").await;
    assert_eq!(tags[0]["tag"], "v1");
    let aliases = app.get_json("/v1/templates/refs/default/aliases").await;
    assert_eq!(aliases, json!([]));
    // By its name alone, there is no doubt about the other one.
    let tags = app.get_json("/v1/templates/default/tags").await;
    assert_eq!(tags[0]["tag"], "default");
}

#[tokio::test]
async fn a_deleted_template_is_gone_with_its_names() {
    let (app, first, _) = two_builds().await;
    let id = first["template_id"].as_str().unwrap();
    let missing = app.delete("/v1/templates/refs/my-app%3Av9").await;
    let body = is_error(missing, 404, "template_not_found").await;
    assert!(body["error"].as_str().unwrap().contains("default, v1"));
    let response = app.delete("/v1/templates/refs/default%2Fmy-app%3Av1").await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(response.text().await.unwrap(), "");
    for path in ["refs/my-app", "refs/my-app%3Adefault", id] {
        let response = app.get(&format!("/v1/templates/{path}")).await;
        is_error(response, 404, "template_not_found").await;
        let response = app.delete(&format!("/v1/templates/{path}")).await;
        is_error(response, 404, "template_not_found").await;
    }
    // Its builds stay on record; the name is anybody's, and means another template.
    let build = first["build_id"].as_str().unwrap();
    let snapshot = app.get_json(&format!("/v1/templates/builds/{build}")).await;
    assert_eq!(snapshot["build"]["status"], "ready");
    let again = app.make("my-app", &["default"]).await;
    assert_ne!(again["template_id"], first["template_id"]);
    let found = app.get_json("/v1/templates/refs/my-app").await;
    assert_eq!(found["tags"], json!(["default"]));
}

#[tokio::test]
async fn a_template_that_never_was_ready_can_be_deleted() {
    let app = TestApp::start().await;
    let failed = app
        .accept(&json!({"base_image": "debian:bookworm", "name": "broken"}))
        .await;
    let failure = Failure::new(FailureReason::SecretsLost, "gone");
    app.command(&build_id(&failed), Command::Abandon { failure })
        .await;
    let path = "/v1/templates/refs/broken";
    is_error(app.get(path).await, 404, "template_not_found").await;
    assert_eq!(app.delete(path).await.status(), StatusCode::NO_CONTENT);
    let again = app.make("broken", &["default"]).await;
    assert_ne!(again["template_id"], failed["template_id"]);
}

#[tokio::test]
async fn a_build_of_a_deleted_template_is_not_retried() {
    let app = TestApp::start().await;
    let first = app.make("my-app", &["default"]).await;
    assert_eq!(
        app.delete("/v1/templates/refs/my-app").await.status(),
        StatusCode::NO_CONTENT
    );
    let build = build_id(&first);
    let path = format!("/v1/templates/builds/{build}/retry");
    is_error(app.post(&path, &json!({})).await, 409, "conflict").await;
}

#[tokio::test]
async fn namespaces_are_told_as_far_as_the_caller_may_know() {
    let app = TestApp::start().await;
    let other = app.key_of("other").await;
    app.make("my-app", &["default"]).await;
    let path = |slug: &str| format!("/v1/templates/namespaces/{slug}");
    let own = app.get_json(&path("default")).await;
    let expected = json!({"slug": "default", "kind": "user", "is_default": true});
    assert_eq!(own, expected);
    let system = app.get_json(&path(Namespace::system().as_str())).await;
    let expected = json!({"slug": "nullspace", "kind": "system", "is_default": false});
    assert_eq!(system, expected);
    for slug in ["none", "Not%20One", "other"] {
        is_error(app.get(&path(slug)).await, 404, "not_found").await;
    }
    let as_other = || async {
        let request = app.request_by(&other, Method::GET, &path("default"));
        request.send().await.unwrap()
    };
    is_error(as_other().await, 404, "not_found").await;
    let public = app.request(Method::PATCH, "/v1/templates/refs/my-app/visibility");
    let public = public.json(&json!({"visibility": "public"}));
    assert_eq!(public.send().await.unwrap().status(), StatusCode::OK);
    let told: Value = as_other().await.json().await.unwrap();
    let expected = json!({"slug": "default", "kind": "user", "is_default": false});
    assert_eq!(told, expected);
}

#[tokio::test]
async fn bodies_that_are_wrong_are_refused_with_their_field() {
    let (app, _, _) = two_builds().await;
    for (method, path, body, field) in [
        (Method::POST, "refs/my-app/tags", json!({}), "tags"),
        (
            Method::POST,
            "refs/my-app/tags",
            json!({"tags": ["tb_x"]}),
            "tags[0]",
        ),
        (
            Method::POST,
            "refs/my-app/rename",
            json!({"new_name": "a/b"}),
            "new_name",
        ),
        (Method::POST, "refs/my-app/rename", json!([]), ""),
        (
            Method::PATCH,
            "refs/my-app/visibility",
            json!({"visibility": "secret"}),
            "visibility",
        ),
        (
            Method::POST,
            "claims",
            json!({"template_ref": "other/x"}),
            "template_ref",
        ),
        (
            Method::POST,
            "claims",
            json!({"template_ref": "x:v1"}),
            "template_ref",
        ),
    ] {
        let request = app.request(method.clone(), &format!("/v1/templates/{path}"));
        let response = request.json(&body).send().await.unwrap();
        let error = is_error(response, 400, "invalid_request").await;
        assert_eq!(error["details"]["problems"][0]["field"], field, "{path}");
        let empty = app.request(method, &format!("/v1/templates/{path}"));
        is_error(empty.send().await.unwrap(), 400, "invalid_request").await;
    }
}
