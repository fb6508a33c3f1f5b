//! What the base of a request means: every form of a reference, and what is said when it means
//! nothing.

use domain::build::{Command, PinnedBase};
use domain::ids::BuildId;
use reqwest::Method;
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error};

/// A service of two owners. `default` has `my-app` with two finished builds, the first tagged `v1`,
/// the second `default`, and `unready` without any; `other` has the private `theirs`.
struct World {
    app: TestApp,
    first: BuildId,
    second: BuildId,
    template: String,
    theirs: Value,
    other: String,
}

impl World {
    async fn new() -> Self {
        let app =
            TestApp::start_with(|config| config.builtins.base.image = "debian:bookworm".into())
                .await;
        let first = app.make("my-app", &["v1"]).await;
        let second = app.make("my-app", &["default"]).await;
        app.accept(&json!({"base_image": "debian:bookworm", "name": "unready"}))
            .await;
        let other = app.key_of("other").await;
        let body = json!({"base_image": "debian:bookworm", "name": "theirs"});
        let theirs = app
            .client
            .post(app.url("/v1/templates/builds"))
            .bearer_auth(&other)
            .json(&body);
        let theirs: Value = theirs.send().await.unwrap().json().await.unwrap();
        let id = build_id(&theirs);
        let fence = app.start_building(&id).await;
        app.complete(&id, fence).await;
        Self {
            first: build_id(&first),
            second: build_id(&second),
            template: first["template_id"].as_str().unwrap().to_owned(),
            app,
            theirs,
            other,
        }
    }

    /// What a request with this base was accepted as.
    async fn base(&self, name: &str, base: &str) -> (String, Option<PinnedBase>) {
        let body = json!({"base_image": base, "name": name, "steps": []});
        let build = self.app.accept(&body).await;
        let source_type = build["source_type"].as_str().unwrap().to_owned();
        let dispatcher = &self.app.service.app.dispatcher;
        let (state, _) = dispatcher.load_build(&build_id(&build)).await.unwrap();
        (
            source_type,
            state.accepted().unwrap().requested.base.clone(),
        )
    }
}

#[tokio::test]
async fn every_form_of_a_reference_is_kept_as_the_build_that_it_meant() {
    let world = World::new().await;
    let (first, second, template) = (&world.first, &world.second, &world.template);
    for (text, expected) in [
        ("nullspace/my-app:latest".to_owned(), second),
        ("nullspace/my-app:default".into(), second),
        ("nullspace/my-app:v1".into(), first),
        ("my-app".into(), second),
        ("my-app:latest".into(), second),
        ("my-app:v1".into(), first),
        (format!("my-app:{first}"), first),
        ("default/my-app".into(), second),
        ("default/my-app:v1".into(), first),
        (format!("default/my-app:{first}"), first),
        (template.clone(), second),
    ] {
        let (source_type, base) = world.base("child", &text).await;
        assert_eq!(source_type, "template_base", "{text}");
        let Some(PinnedBase::Template(base)) = base else {
            panic!("{text}: {base:?}");
        };
        assert_eq!(base.build, *expected, "{text}");
        assert_eq!(base.template_id.as_str(), template, "{text}");
        assert_eq!(
            base.reference().to_string(),
            format!("default/my-app:{expected}")
        );
        assert_eq!(base.env_keys, ["A"], "{text}");
    }
}

#[tokio::test]
async fn what_no_template_of_the_caller_is_called_is_an_image() {
    let world = World::new().await;
    for text in [
        "debian:bookworm",
        "my-app:v9",
        "unready",
        "acme/my-app:v1",
        "default/none:v1",
        "default/my-app:v9",
        "other/theirs",
        "localhost:5000/my-app",
        "docker.io/default/my-app:v1",
        "a/b/c",
        "Acme/x",
    ] {
        let (source_type, base) = world.base("child", text).await;
        assert_eq!((&*source_type, base), ("declarative", None), "{text}");
    }
}

#[tokio::test]
async fn a_template_called_like_its_image_does_not_start_from_itself() {
    let world = World::new().await;
    for text in ["my-app", "my-app:v1", "my-app:latest"] {
        let (_, base) = world.base("my-app", text).await;
        assert_eq!(base, None, "{text}");
    }
    // Who says that a template is meant gets it.
    for text in [
        "nullspace/my-app:v1".to_owned(),
        format!("my-app:{}", world.first),
    ] {
        let (_, base) = world.base("my-app", &text).await;
        assert!(matches!(base, Some(PinnedBase::Template(_))), "{text}");
    }
}

#[tokio::test]
async fn the_builtin_is_the_configured_image() {
    let world = World::new().await;
    // One's own template of that name is reached by every other form.
    world.app.make("base", &["default", "v1"]).await;
    for text in [
        "nullspace/base:latest",
        "nullspace/base:default",
        "nullspace/base",
    ] {
        let (source_type, base) = world.base("child", text).await;
        let image = "debian:bookworm".to_owned();
        assert_eq!(base, Some(PinnedBase::Builtin { image }), "{text}");
        assert_eq!(source_type, "template_base");
    }
    for text in ["nullspace/base:v1", "base", "default/base"] {
        let (_, base) = world.base("child", text).await;
        assert!(
            matches!(base, Some(PinnedBase::Template(_))),
            "{text}: {base:?}"
        );
    }
}

#[tokio::test]
async fn a_template_that_is_not_there_is_named_and_nothing_is_recorded() {
    let world = World::new().await;
    let head = domain::ports::EventReader::head(&world.app.service.app.log);
    let unknown = "tmpl_01arz3ndektsv4rrffq69g5fav";
    let theirs = &world.theirs;
    for (text, message) in [
        (
            "nullspace/none:latest".to_owned(),
            "there is neither a builtin template `nullspace/none:latest` nor a template `none:latest` of yours".to_owned(),
        ),
        (
            "nullspace/my-app:v9".into(),
            "`nullspace/my-app:v9` means no finished build of the template `default/my-app`; it has the tags default, v1".into(),
        ),
        (
            "nullspace/unready:latest".into(),
            "`nullspace/unready:latest` means no finished build of the template `default/unready`; it has no tags".into(),
        ),
        (unknown.into(), format!("there is no template `{unknown}`")),
        (
            theirs["template_id"].as_str().unwrap().into(),
            format!("there is no template `{}`", theirs["template_id"].as_str().unwrap()),
        ),
        (
            format!("other/theirs:{}", build_id(theirs)),
            format!("there is no template `other/theirs:{}`", build_id(theirs)),
        ),
    ] {
        let body = json!({"base_image": text, "name": "child"});
        for path in ["/v1/templates/build", "/v1/templates/builds"] {
            let error = is_error(world.app.post(path, &body).await, 404, "template_not_found").await;
            assert_eq!(error["error"], format!("base_image: {message}"), "{text}");
        }
    }
    // The other owner gets for what is private here what it gets for what is nowhere.
    for name in ["my-app", "none"] {
        let text = format!("nullspace/{name}:v1");
        let request = world.app.client.post(world.app.url("/v1/templates/builds"));
        let body = json!({"base_image": text, "name": "child"});
        let response = request.bearer_auth(&world.other).json(&body).send().await;
        let error = is_error(response.unwrap(), 404, "template_not_found").await;
        let message = format!(
            "base_image: there is neither a builtin template `{text}` nor a template `{name}:v1` of yours"
        );
        assert_eq!(error["error"], message);
    }
    for text in ["tmpl_x", "nullspace/a/b", "nullspace/x:", "base:tb_1"] {
        let body = json!({"base_image": text, "name": "child"});
        let response = world.app.post("/v1/templates/builds", &body).await;
        let error = is_error(response, 400, "invalid_request").await;
        assert_eq!(
            error["details"]["problems"][0]["field"], "base_image",
            "{text}"
        );
    }
    assert_eq!(
        domain::ports::EventReader::head(&world.app.service.app.log),
        head
    );
}

#[tokio::test]
async fn a_retry_starts_from_what_the_base_meant_at_first() {
    let world = World::new().await;
    let body = json!({"base_image": "nullspace/my-app:latest", "name": "child"});
    let child = build_id(&world.app.accept(&body).await);
    let cancel = Command::Cancel {
        by: "a test".to_owned(),
        reason: None,
    };
    world.app.command(&child, cancel).await;
    world.app.make("my-app", &["default"]).await;
    let path = format!("/v1/templates/builds/{child}/retry");
    let request = world.app.request(Method::POST, &path).json(&json!({}));
    let retried: Value = request.send().await.unwrap().json().await.unwrap();
    let dispatcher = &world.app.service.app.dispatcher;
    let (state, _) = dispatcher.load_build(&build_id(&retried)).await.unwrap();
    let base = state.accepted().unwrap().requested.base.clone();
    let Some(PinnedBase::Template(base)) = base else {
        panic!("{base:?}");
    };
    assert_eq!(base.build, world.second);
}
