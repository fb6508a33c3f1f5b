//! Templates of others: private ones are nowhere, public ones are looked at and built on.

use domain::build::PinnedBase;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error};

/// `default/my-app`, tagged `v1` and `default`, and the key of somebody else.
struct World {
    app: TestApp,
    made: Value,
    other: String,
}

impl World {
    async fn new() -> Self {
        let app = TestApp::start().await;
        let made = app.make("my-app", &["v1", "default"]).await;
        let other = app.key_of("other").await;
        Self { app, made, other }
    }

    async fn set_visibility(&self, visibility: &str) -> Value {
        let path = "/v1/templates/refs/my-app/visibility";
        let request = self.app.request(Method::PATCH, path);
        let body = json!({"visibility": visibility});
        let response = request.json(&body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.json().await.unwrap()
    }

    async fn by_other(&self, method: Method, path: &str) -> Response {
        let request = self.app.request_by(&self.other, method, path);
        let body = json!({"tags": ["x"], "new_name": "x", "visibility": "private"});
        request.json(&body).send().await.unwrap()
    }

    /// Everything that the other owner may try with the template.
    fn tries(&self) -> Vec<(Method, String)> {
        let id = self.made["template_id"].as_str().unwrap();
        let mut tries = Vec::new();
        for base in ["refs/default%2Fmy-app", "refs/default%2Fmy-app%3Av1", id] {
            for (method, below) in [
                (Method::GET, ""),
                (Method::GET, "/tags"),
                (Method::GET, "/aliases"),
                (Method::DELETE, ""),
                (Method::POST, "/tags"),
                (Method::DELETE, "/tags/v1"),
                (Method::DELETE, "/aliases/x"),
                (Method::POST, "/rename"),
                (Method::PATCH, "/visibility"),
            ] {
                tries.push((method, format!("/v1/templates/{base}{below}")));
            }
        }
        tries
    }
}

#[tokio::test]
async fn a_private_template_is_nowhere_for_others() {
    let world = World::new().await;
    for (method, path) in world.tries() {
        let response = world.by_other(method, &path).await;
        let error = is_error(response, 404, "template_not_found").await;
        assert!(!error.to_string().contains("default, v1"), "{error}");
    }
    let listed = world.by_other(Method::GET, "/v1/templates?fields=name");
    let listed: Value = listed.await.json().await.unwrap();
    assert_eq!(listed, json!([{"name": "base"}]));
}

#[tokio::test]
async fn a_public_template_is_looked_at_by_others_and_not_changed() {
    let world = World::new().await;
    assert_eq!(world.set_visibility("public").await["visibility"], "public");
    for (method, path) in world.tries() {
        let reads = method == Method::GET;
        let response = world.by_other(method, &path).await;
        if reads {
            assert_eq!(response.status(), StatusCode::OK, "{path}");
        } else {
            is_error(response, 403, "forbidden").await;
        }
    }
    let listed = world.by_other(Method::GET, "/v1/templates").await;
    let listed: Value = listed.json().await.unwrap();
    assert_eq!(listed[0]["canonical_ref"], "default/my-app");
    assert_eq!(listed[0]["visibility"], "public");
    // A bare name is one's own.
    let bare = world.by_other(Method::GET, "/v1/templates/refs/my-app");
    is_error(bare.await, 404, "template_not_found").await;
    // The builds behind it are still nobody else's.
    let build = format!("/v1/templates/builds/{}", build_id(&world.made));
    let response = world.by_other(Method::GET, &build).await;
    is_error(response, 404, "template_build_not_found").await;
    assert_eq!(
        world.set_visibility("private").await["visibility"],
        "private"
    );
    for (method, path) in world.tries() {
        let response = world.by_other(method, &path).await;
        is_error(response, 404, "template_not_found").await;
    }
}

#[tokio::test]
async fn a_public_template_is_a_base_for_everybody() {
    let world = World::new().await;
    let template = world.made["template_id"].as_str().unwrap().to_owned();
    let id = build_id(&world.made);
    let build = |base: String| {
        let app = &world.app;
        let request = app.request_by(&world.other, Method::POST, "/v1/templates/builds");
        let request = request.json(&json!({"base_image": base, "name": "child", "steps": []}));
        async move { request.send().await.unwrap() }
    };
    let forms = [
        "default/my-app:v1".to_owned(),
        "default/my-app".into(),
        format!("default/my-app:{id}"),
        template,
    ];
    world.set_visibility("public").await;
    for base in &forms {
        let response = build(base.clone()).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED, "{base}");
        let child: Value = response.json().await.unwrap();
        assert_eq!(child["source_type"], "template_base", "{base}");
        let dispatcher = &world.app.service.app.dispatcher;
        let (state, _) = dispatcher.load_build(&build_id(&child)).await.unwrap();
        let base = state.accepted().unwrap().requested.base.clone();
        assert!(matches!(base, Some(PinnedBase::Template(base)) if base.build == id));
    }
    world.set_visibility("private").await;
    let [_, _, by_build, by_id] = forms;
    for base in [by_build, by_id] {
        is_error(build(base).await, 404, "template_not_found").await;
    }
}

#[tokio::test]
async fn the_names_of_others_are_not_in_the_way() {
    let world = World::new().await;
    world.set_visibility("public").await;
    let request = world
        .app
        .request_by(&world.other, Method::POST, "/v1/templates/claims");
    let request = request.json(&json!({"template_ref": "my-app"}));
    assert_eq!(request.send().await.unwrap().status(), StatusCode::CREATED);
    let foreign = world
        .app
        .request_by(&world.other, Method::POST, "/v1/templates/claims");
    let foreign = foreign.json(&json!({"template_ref": "default/x"}));
    let error = is_error(foreign.send().await.unwrap(), 400, "invalid_request").await;
    assert!(
        error["error"]
            .as_str()
            .unwrap()
            .contains("`other` is your namespace")
    );
}
