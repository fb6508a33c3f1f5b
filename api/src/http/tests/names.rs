//! Renaming, aliases, and what a crash between the two streams of a name leaves.

use domain::ids::TemplateId;
use domain::namespace::Command as Names;
use domain::recorded::Version;
use domain::template::Command;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::support::{TestApp, is_error};

async fn rename(app: &TestApp, reference: &str, to: &str) -> Response {
    let path = format!("/v1/templates/refs/{reference}/rename");
    app.post(&path, &json!({"new_name": to})).await
}

async fn renamed(app: &TestApp, reference: &str, to: &str) -> Value {
    let response = rename(app, reference, to).await;
    assert_eq!(response.status(), StatusCode::OK, "{reference} to {to}");
    response.json().await.unwrap()
}

/// The template that a reference means.
async fn meant(app: &TestApp, reference: &str) -> Option<Value> {
    let path = format!("/v1/templates/refs/{reference}");
    let response = app.get(&path).await;
    if response.status() == StatusCode::OK {
        let found: Value = response.json().await.unwrap();
        return Some(found["id"].clone());
    }
    is_error(response, 404, "template_not_found").await;
    None
}

async fn aliases(app: &TestApp, reference: &str) -> Vec<String> {
    let path = format!("/v1/templates/refs/{reference}/aliases");
    let listed = app.get_json(&path).await;
    let listed = listed.as_array().unwrap().iter();
    listed
        .map(|alias| {
            assert_eq!(alias.as_object().unwrap().len(), 2);
            let created = alias["created_at"].as_str().unwrap();
            assert!(created.len() == 27 && created.ends_with('Z'), "{created}");
            alias["alias_ref"].as_str().unwrap().to_owned()
        })
        .collect()
}

async fn build(app: &TestApp, name: &str) -> Response {
    let body = json!({"base_image": "debian:bookworm", "name": name});
    app.post("/v1/templates/builds", &body).await
}

fn id(template: &Value) -> TemplateId {
    template["template_id"].as_str().unwrap().parse().unwrap()
}

/// The first half of a rename to `to`, as a crash would leave it.
async fn take_only(app: &TestApp, template: &Value, to: &str) {
    let state = &app.service.app;
    let caller = state.keys.find(&app.key).unwrap();
    let take = Names::TakeAlso {
        name: to.parse().unwrap(),
        template_id: id(template),
        owner: caller.owner.clone(),
        renaming: Version::EMPTY,
        now: state.clock.0.now(),
    };
    let dispatcher = &state.dispatcher;
    let taken = dispatcher.names(&caller.namespace, state.meta(&caller), take);
    state.shown(taken.await.unwrap().appended).await.unwrap();
}

/// One thing that is done to a template, and nothing to its names.
async fn do_only(app: &TestApp, template: &Value, command: Command) {
    let state = &app.service.app;
    let caller = state.keys.find(&app.key).unwrap();
    let meta = state.meta(&caller);
    let id = id(template);
    let done = state.dispatcher.template(&id, meta, command).await;
    state.shown(done.unwrap().appended).await.unwrap();
}

#[tokio::test]
async fn the_old_name_still_means_a_renamed_template() {
    let app = TestApp::start().await;
    let made = app.make("my-app", &["v1"]).await;
    let info = renamed(&app, "my-app", "new-app").await;
    assert_eq!(info["id"], made["template_id"]);
    assert_eq!(info["canonical_ref"], "default/new-app");
    for reference in ["my-app", "my-app%3Av1", "new-app%3Av1", "default%2Fmy-app"] {
        let found = meant(&app, reference).await;
        assert_eq!(found, Some(info["id"].clone()), "{reference}");
    }
    assert_eq!(aliases(&app, "new-app").await, ["default/my-app"]);
    // It is listed once, by the new name.
    let listed = app.get_json("/v1/templates?fields=name").await;
    assert_eq!(listed, json!([{"name": "new-app"}, {"name": "base"}]));
    let back = renamed(&app, "my-app", "default/my-app").await;
    assert_eq!(back["name"], "my-app");
    assert_eq!(aliases(&app, "my-app").await, ["default/new-app"]);
    // The same name again is no rename.
    renamed(&app, "my-app", "my-app").await;
    assert_eq!(aliases(&app, "my-app").await, ["default/new-app"]);
}

#[tokio::test]
async fn a_removed_alias_is_free() {
    let app = TestApp::start().await;
    let made = app.make("my-app", &["default"]).await;
    renamed(&app, "my-app", "new-app").await;
    renamed(&app, "new-app", "newer-app").await;
    let expected = ["default/my-app", "default/new-app"];
    assert_eq!(aliases(&app, "newer-app").await, expected);
    let path = "/v1/templates/refs/newer-app/aliases/";
    for alias in [
        "newer-app",
        "none",
        "other%2Fmy-app",
        "default%2Fnone",
        "a%2Fb%2Fc",
    ] {
        let response = app.delete(&format!("{path}{alias}")).await;
        is_error(response, 404, "not_found").await;
    }
    for (alias, gone) in [("default%2Fmy-app", "my-app"), ("new-app", "new-app")] {
        let removed = app.delete(&format!("{path}{alias}")).await;
        assert_eq!(removed.status(), StatusCode::NO_CONTENT);
        assert_eq!(removed.text().await.unwrap(), "");
        assert_eq!(meant(&app, gone).await, None);
        let response = app.delete(&format!("{path}{alias}")).await;
        is_error(response, 404, "not_found").await;
    }
    assert_eq!(aliases(&app, "newer-app").await, Vec::<String>::new());
    let again = app.make("my-app", &["default"]).await;
    assert_ne!(again["template_id"], made["template_id"]);
    assert_eq!(
        meant(&app, "my-app").await,
        Some(again["template_id"].clone())
    );
}

#[tokio::test]
async fn an_alias_can_be_removed_below_the_id_and_without_encoding() {
    let app = TestApp::start().await;
    let made = app.make("a", &["default"]).await;
    for to in ["b", "c"] {
        renamed(&app, "a", to).await;
    }
    let by_id = format!("/v1/templates/{}/aliases/default%2Fa", id(&made));
    assert_eq!(app.delete(&by_id).await.status(), StatusCode::NO_CONTENT);
    let plain = "/v1/templates/refs/c/aliases/default/b";
    assert_eq!(app.delete(plain).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(aliases(&app, "c").await, Vec::<String>::new());
}

#[tokio::test]
async fn nobody_gets_a_name_that_means_another_template() {
    let app = TestApp::start().await;
    app.make("my-app", &["default"]).await;
    app.make("second", &["default"]).await;
    renamed(&app, "my-app", "new-app").await;
    for to in ["my-app", "new-app"] {
        is_error(rename(&app, "second", to).await, 409, "conflict").await;
    }
    // A build under an alias could mean either: it is refused.
    let error = is_error(build(&app, "my-app").await, 409, "conflict").await;
    assert!(error["error"].as_str().unwrap().contains("alias"));
    assert_eq!(build(&app, "new-app").await.status(), StatusCode::ACCEPTED);
    let deleted = app.delete("/v1/templates/refs/my-app").await;
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    for name in ["my-app", "new-app"] {
        renamed(&app, "second", name).await;
    }
}

#[tokio::test]
async fn a_base_is_found_by_its_alias() {
    let app = TestApp::start().await;
    let made = app.make("my-app", &["v1"]).await;
    renamed(&app, "my-app", "new-app").await;
    let body = json!({"base_image": "nullspace/my-app:v1", "name": "child", "steps": []});
    assert_eq!(app.accept(&body).await["source_type"], "template_base");
    // And it does not keep the template from its own alias's name.
    let error = is_error(build(&app, "my-app").await, 409, "conflict").await;
    assert!(
        !error
            .to_string()
            .contains(made["template_id"].as_str().unwrap())
    );
}

#[tokio::test]
async fn a_rename_that_crashed_half_way_shows_nothing_and_is_mended_by_its_repeat() {
    let app = TestApp::start().await;
    let made = app.make("my-app", &["default"]).await;
    app.make("second", &["default"]).await;
    take_only(&app, &made, "new-app").await;
    assert_eq!(meant(&app, "new-app").await, None);
    is_error(build(&app, "new-app").await, 409, "conflict").await;
    is_error(rename(&app, "second", "new-app").await, 409, "conflict").await;
    renamed(&app, "my-app", "new-app").await;
    let found = Some(made["template_id"].clone());
    assert_eq!(meant(&app, "new-app").await, found);
    assert_eq!(meant(&app, "my-app").await, found);
}

#[tokio::test]
async fn the_name_of_a_rename_that_crashed_is_free_once_its_template_has_moved_on() {
    let app = TestApp::start().await;
    let made = app.make("my-app", &["default"]).await;
    take_only(&app, &made, "new-app").await;
    let public = app.request(Method::PATCH, "/v1/templates/refs/my-app/visibility");
    let public = public.json(&json!({"visibility": "public"}));
    assert_eq!(public.send().await.unwrap().status(), StatusCode::OK);
    let new = app.make("new-app", &["default"]).await;
    assert_ne!(new["template_id"], made["template_id"]);
    assert_eq!(
        meant(&app, "new-app").await,
        Some(new["template_id"].clone())
    );
    assert_eq!(
        meant(&app, "my-app").await,
        Some(made["template_id"].clone())
    );
}

#[tokio::test]
async fn the_names_of_a_template_whose_deletion_crashed_are_free() {
    let app = TestApp::start().await;
    for (name, alias) in [("one", "uno"), ("two", "due"), ("three", "tre")] {
        let made = app.make(alias, &["default"]).await;
        renamed(&app, alias, name).await;
        let seen = Version(1);
        do_only(&app, &made, Command::Delete { seen }).await;
        assert_eq!(meant(&app, name).await, None);
    }
    // Whoever wants one of them, and in whatever way.
    app.make("one", &["default"]).await;
    app.make("uno", &["default"]).await;
    let claim = json!({"template_ref": "two"});
    let claimed = app.post("/v1/templates/claims", &claim).await;
    assert_eq!(claimed.status(), StatusCode::CREATED);
    renamed(&app, "one", "three").await;
    renamed(&app, "uno", "tre").await;
}

#[tokio::test]
async fn an_alias_whose_removal_crashed_is_free() {
    let app = TestApp::start().await;
    let made = app.make("my-app", &["default"]).await;
    renamed(&app, "my-app", "new-app").await;
    let remove = Command::RemoveAlias {
        namespace: "default".parse().unwrap(),
        alias: "my-app".parse().unwrap(),
    };
    do_only(&app, &made, remove).await;
    assert_eq!(meant(&app, "my-app").await, None);
    let again = app.make("my-app", &["default"]).await;
    assert_ne!(again["template_id"], made["template_id"]);
    assert_eq!(
        meant(&app, "new-app").await,
        Some(made["template_id"].clone())
    );
}
