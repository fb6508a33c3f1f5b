//! Requests that are only looked at.

#![expect(clippy::too_many_lines, reason = "a table of mistakes")]

mod bodies;
mod dockerfiles;

use domain::ports::EventReader;
use reqwest::Method;
use serde_json::{Value, json};

use super::retention::{make_of, publish};
use super::support::{TestApp, is_error};

const VALIDATE: &str = "/v1/templates/validate";
const PLAN: &str = "/v1/templates/plan";

/// What every base64 below means: `eA==` is `x`.
fn file(path: &str, content: &str) -> Value {
    json!({"path": path, "entry_type": "file", "content_base64": content})
}

async fn plan(app: &TestApp, body: &Value) -> Value {
    app.post_json(PLAN, body, 200).await
}

async fn plan_digest(app: &TestApp, body: &Value) -> Value {
    plan(app, body).await["plan_digest"].clone()
}

/// A request with something of everything.
fn whole() -> Value {
    json!({
        "name": "my-app", "tags": ["v1"], "base_image": "debian:bookworm",
        "steps": [
            {"action": "apt_install", "packages": ["git", "curl"]},
            {"action": "run", "command": "echo hi", "user": "app"},
            {"action": "copy", "sources": ["src"], "dst": "/app/", "mode": "0644"},
            {"action": "git_clone", "url": "https://example.org/x.git", "depth": 1},
            {"action": "workdir", "path": "/app"},
        ],
        "build_envs": {"BUILD_ONLY": "build-canary"},
        "start_cmd": "serve",
        "build_context": {"files": [
            {"path": "src", "entry_type": "dir"}, file("src/b", ""), file("src/a", "eA=="),
        ]},
        "build_config": {"vcpus": 2, "memory_mib": 512, "disk_mb": 2048},
        "runtime_config": {
            "default_user": "app", "default_workdir": "/app",
            "default_envs": {"B": "run-canary", "A": "run-canary"},
            "readiness": {"kind": "tcp", "port": 80},
        },
    })
}

/// The kinds of a definition's steps, in order.
fn kinds(definition: &Value) -> Vec<&str> {
    let steps = definition["build_steps"].as_array().unwrap();
    let kinds = steps
        .iter()
        .flat_map(|step| step.as_object().unwrap().keys());
    kinds.map(String::as_str).collect()
}

#[tokio::test]
async fn a_right_request_is_valid_and_leaves_nothing_behind() {
    let app = TestApp::start().await;
    let state = &app.service.app;
    let head = EventReader::head(&state.log);
    for path in [VALIDATE, PLAN] {
        app.post_json(path, &whole(), 200).await;
    }
    let valid = app.post_json(VALIDATE, &whole(), 200).await;
    assert_eq!(valid, json!({"valid": true, "errors": [], "warnings": []}));
    assert_eq!(EventReader::head(&state.log), head);
    let content = domain::Digest::of(b"x");
    assert!(!state.blobs.contains(&content).await.unwrap());
    let unknown = app.get("/v1/templates/refs/my-app").await;
    is_error(unknown, 404, "template_not_found").await;
}

#[tokio::test]
async fn a_wrong_request_is_answered_with_every_mistake() {
    let app = TestApp::start().await;
    for (change, code, message) in [
        (
            json!({"steps": [{"action": "teleport"}]}),
            "invalid_request",
            "steps[0].action: ",
        ),
        (
            json!({"base_image": null}),
            "invalid_request",
            "base_image: ",
        ),
        (
            json!({"base_image": "A b"}),
            "invalid_request",
            "base_image: ",
        ),
        (
            json!({"base_image": "UPPER:x"}),
            "invalid_request",
            "base_image: ",
        ),
        (json!({"tags": []}), "invalid_request", "tags: "),
        (
            json!({"base_image": "nullspace/nowhere:latest"}),
            "template_not_found",
            "base_image: ",
        ),
        (
            json!({"base_image": "tmpl_nowhere"}),
            "invalid_request",
            "base_image: ",
        ),
        (
            json!({"build_secrets": [{"id": "t", "value": "canary"}]}),
            "invalid_request",
            "build_secrets: ",
        ),
        (
            json!({"build_context": {"files": [file("x", "no base64")]}}),
            "invalid_request",
            "build_context.files[0].content_base64: ",
        ),
        (
            json!({"build_context": {"files": [file("x", ""), file("x/y", "")]}}),
            "invalid_request",
            "build_context.files: ",
        ),
        (
            json!({"build_context": {"files": [
                {"path": "x", "entry_type": "file", "blob_id": "blob_x"}]}}),
            "invalid_request",
            "build_context.files[0].blob_id: ",
        ),
    ] {
        let mut body = json!({"base_image": "debian:bookworm", "name": "wrong"});
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        let answer = app.post_json(VALIDATE, &body, 200).await;
        assert_eq!(answer["valid"], false, "{answer}");
        let error = &answer["errors"][0];
        assert_eq!(error["code"], code, "{answer}");
        assert!(
            error["message"].as_str().unwrap().starts_with(message),
            "{answer}"
        );
        assert!(!answer.to_string().contains("canary"));
        let status = if code == "template_not_found" {
            404
        } else {
            400
        };
        is_error(app.post(PLAN, &body).await, status, code).await;
    }
    let many: Vec<Value> = (0..30).map(|_| json!({"action": "x"})).collect();
    let body = json!({"base_image": "a", "steps": many});
    let errors = app.post_json(VALIDATE, &body, 200).await["errors"].clone();
    assert_eq!(errors.as_array().unwrap().len(), 21);
    assert_eq!(errors[20]["message"], "10 more fields are wrong");
}

#[tokio::test]
async fn what_was_perhaps_not_meant_is_a_warning() {
    let app = TestApp::start().await;
    let body = json!({
        "base_image": "debian", "colour": "red", "_note": 1,
        "steps": [{"action": "skip_cache"}],
        "runtime_config": {"readiness": {"kind": "timeout", "timeout_ms": 1}},
    });
    let answer = app.post_json(VALIDATE, &body, 200).await;
    assert_eq!(answer["valid"], true);
    let warnings = answer["warnings"].as_array().unwrap();
    let fields: Vec<&str> = warnings
        .iter()
        .map(|warning| warning.as_str().unwrap().split(':').next().unwrap())
        .collect();
    let expected = [
        "colour",
        "base_image",
        "steps[0]",
        "runtime_config.readiness",
    ];
    assert_eq!(fields, expected, "{answer}");
    assert_eq!(plan(&app, &body).await["warnings"], answer["warnings"]);
}

#[tokio::test]
async fn a_plan_says_what_the_build_will_record_and_no_value_of_a_variable() {
    let app = TestApp::start().await;
    let planned = plan(&app, &whole()).await;
    assert!(!planned.to_string().contains("canary"), "{planned}");
    assert_eq!(
        (&planned["build_backend"], &planned["source_type"]),
        (&json!("native"), &json!("declarative"))
    );
    assert_eq!(planned["context_manifest"]["file_count"], 2);
    assert_eq!(planned["context_manifest"]["total_bytes"], 1);
    assert_eq!(planned["requires_base_image_auth"], false);
    let steps = &planned["build_plan"];
    assert_eq!(steps["base_template"], "docker.io/library/debian:bookworm");
    let untold = |names: &[&str]| -> Value {
        let pairs = names.iter().map(|name| json!([name, "[REDACTED]"]));
        pairs.collect()
    };
    assert_eq!(steps["env_assignments"], untold(&["A", "B"]));
    assert_eq!(steps["build_envs"], json!({"BUILD_ONLY": "[REDACTED]"}));
    assert_eq!(
        kinds(steps),
        ["AptInstall", "Run", "Copy", "GitClone", "Workdir"]
    );
    assert_eq!(
        steps["build_steps"][1],
        json!({"Run": {"command": "echo hi", "user": "app"}})
    );
    let commands = steps["run_steps"].as_array().unwrap();
    assert_eq!(commands.len(), 3, "{commands:?}");
    assert_eq!(commands[1], "echo hi");
    assert_eq!(
        (
            &steps["start_cmd"],
            &steps["default_user"],
            &steps["default_workdir"]
        ),
        (&json!("serve"), &json!("app"), &json!("/app"))
    );
    assert_eq!(steps["readiness"]["kind"], "tcp");
    assert_eq!(steps["ignored_instructions"], json!([]));

    let built = app.accept(&whole()).await;
    assert_eq!(built["source_digest"], planned["source_digest"]);
    let context = &planned["context_manifest"];
    assert_eq!(built["context_digest"], context["context_digest"]);
}

#[tokio::test]
async fn a_plan_is_the_same_for_the_same_and_another_for_what_decides_the_result() {
    let app = TestApp::start().await;
    let first = plan_digest(&app, &whole()).await;
    assert_eq!(plan(&app, &whole()).await, plan(&app, &whole()).await);
    let changed = |pointer: &str, value: Value| {
        let mut body = whole();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap()[key] = value;
        body
    };
    for (same, pointer, value) in [
        (true, "/name", json!("another")),
        (true, "/tags", json!(["v2"])),
        (true, "/colour", json!("red")),
        (
            true,
            "/base_image",
            json!("docker.io/library/debian:bookworm"),
        ),
        (true, "/build_backend", json!("native")),
        (true, "/skip_cache", json!(false)),
        (
            true,
            "/runtime_config/readiness",
            json!({"kind": "tcp", "port": 80, "timeout_secs": 30}),
        ),
        (
            true,
            "/build_context/files",
            json!([file("src/a", "eA=="), file("src/b", ""), {"path": "src", "entry_type": "dir"}]),
        ),
        (false, "/base_image", json!("debian:trixie")),
        (false, "/start_cmd", json!("serve more")),
        (false, "/build_envs/BUILD_ONLY", json!("another")),
        (false, "/runtime_config/default_envs/A", json!("another")),
        (false, "/runtime_config/default_user", json!("root")),
        (false, "/build_config/vcpus", json!(1)),
        (false, "/build_config/disk_mb", json!(2049)),
        (false, "/build_config/internet_access", json!(false)),
        (false, "/skip_cache", json!(true)),
        (false, "/steps", json!([])),
        (
            false,
            "/build_context/files",
            json!([{"path": "src", "entry_type": "dir"}, file("src/b", ""), file("src/a", "eQ==")]),
        ),
    ] {
        let digest = plan_digest(&app, &changed(pointer, value.clone())).await;
        assert_eq!(digest == first, same, "{pointer} = {value}");
    }
}

#[tokio::test]
async fn a_plan_on_a_template_changes_when_the_template_does() {
    let app = TestApp::start_with(|config| config.builtins.base.image = "debian:12".into()).await;
    let made = app.make("base-app", &["default"]).await;
    let build = made["build_id"].as_str().unwrap();
    let on = |base: &str| json!({"base_image": base, "steps": []});
    let planned = plan(&app, &on("nullspace/base-app:latest")).await;
    assert_eq!(planned["source_type"], "template_base");
    assert_eq!(
        planned["build_plan"]["base_template"],
        format!("default/base-app:{build}")
    );
    // However it is called, it is the same.
    let exact = plan(&app, &on(&format!("base-app:{build}"))).await;
    assert_eq!(planned["plan_digest"], exact["plan_digest"]);
    assert_ne!(planned["source_digest"], exact["source_digest"]);
    // A further build that made the same changes nothing, and one that made something else does.
    app.make("base-app", &["v2"]).await;
    let same = plan(&app, &on("base-app:v2")).await;
    assert_eq!(planned["plan_digest"], same["plan_digest"]);
    assert_ne!(
        planned["build_plan"]["base_template"],
        same["build_plan"]["base_template"]
    );
    let artifact = publish(&app, "another").await;
    make_of(&app, "base-app", &artifact).await;
    let other = plan(&app, &on("base-app:v1")).await;
    assert_ne!(planned["plan_digest"], other["plan_digest"]);
    let builtin = plan(&app, &on("nullspace/base:latest")).await;
    let image = plan(&app, &on("debian:12")).await;
    assert_eq!(builtin["plan_digest"], image["plan_digest"]);
    assert_eq!(
        builtin["build_plan"]["base_template"],
        "docker.io/library/debian:12"
    );
}

#[tokio::test]
async fn credentials_are_wanted_again_and_never_told() {
    let app = TestApp::start().await;
    let auth = json!({"kind": "basic", "username": "u-canary", "password": "p-canary"});
    let body = json!({"base_image": "r.example/a:1", "base_image_auth": auth});
    let planned = plan(&app, &body).await;
    assert_eq!(planned["requires_base_image_auth"], true);
    assert!(!planned.to_string().contains("canary"));
}
