//! Requests that are only looked at.

#![expect(clippy::too_many_lines, reason = "a table of mistakes")]

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
    let kinds: Vec<&String> = steps["build_steps"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|step| step.as_object().unwrap().keys())
        .collect();
    assert_eq!(kinds, ["AptInstall", "Run", "Copy", "GitClone", "Workdir"]);
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

#[tokio::test]
async fn a_body_may_be_as_large_as_a_context_and_no_larger() {
    const CONTEXT_BYTES: u64 = 3_000_000;
    let app = TestApp::start_with(|config| {
        config.limits.json_body_bytes_max = 10_000;
        config.limits.context_bytes_max = CONTEXT_BYTES;
        config.limits.inspection_count_max = 1;
    })
    .await;
    let with = |contents: &[&str]| {
        let files = contents
            .iter()
            .enumerate()
            .map(|(index, content)| file(&index.to_string(), content));
        let files: Vec<Value> = files.collect();
        json!({"base_image": "debian:12", "steps": [], "build_context": {"files": files}})
    };
    // Four letters for three bytes: two files are just what there is room for.
    let half = "AAAA".repeat(500_000);
    let planned = plan(&app, &with(&[&half, &half])).await;
    assert_eq!(planned["context_manifest"]["total_bytes"], CONTEXT_BYTES);
    for path in [VALIDATE, PLAN] {
        let response = app.post(path, &with(&[&half, &half, "AA=="])).await;
        let error = is_error(response, 413, "invalid_request").await;
        assert_eq!(
            error["error"],
            "the files of build_context together is larger than 3000000 bytes"
        );
        let body = json!({"base_image": "a", "start_cmd": "x".repeat(10_000)});
        let error = is_error(app.post(path, &body).await, 413, "invalid_request").await;
        assert_eq!(
            error["error"],
            "the body without its files is larger than 10000 bytes"
        );
        let huge = app.request(Method::POST, path).body(vec![b' '; 4_100_000]);
        let error = is_error(huge.send().await.unwrap(), 413, "invalid_request").await;
        assert_eq!(error["error"], "the body is larger than 4010000 bytes");
    }
    // Builds have their own bound.
    let response = app.post("/v1/templates/builds", &with(&[&half])).await;
    is_error(response, 413, "invalid_request").await;
}

#[tokio::test]
async fn one_file_may_be_no_larger_than_an_upload() {
    let app = TestApp::start_with(|config| config.limits.blob_bytes_max = 10).await;
    let body = json!({"base_image": "a", "steps": [], "build_context": {"files": [
        file("small", "AAAAAAAAAAAAAA=="), file("large", "AAAAAAAAAAAAAAA=")]}});
    let answer = app.post_json(VALIDATE, &body, 200).await;
    assert_eq!(answer["errors"][0]["field"], "build_context.files[1]");
}

#[tokio::test]
async fn large_bodies_are_looked_at_a_few_at_a_time() {
    let app = TestApp::start_with(|config| {
        config.limits.json_body_bytes_max = 1000;
        config.limits.inspection_count_max = 1;
    })
    .await;
    let large = json!({"base_image": "a", "steps": [],
                       "build_context": {"files": [file("x", &"AAAA".repeat(1000))]}});
    let room = app.service.app.inspections.acquire().await.unwrap();
    let refused = app.post(VALIDATE, &large).await;
    is_error(refused, 503, "capacity_exceeded").await;
    // Small ones need no room.
    app.post_json(VALIDATE, &json!({"base_image": "a"}), 200)
        .await;
    drop(room);
    app.post_json(VALIDATE, &large, 200).await;
}

#[tokio::test]
async fn a_file_that_was_sent_before_counts_with_its_content() {
    let app = TestApp::start().await;
    let content = domain::Digest::of(b"x");
    let announced = json!({"files": [{"path": "x", "entry_type": "file", "mode": "0644",
                                      "sha256": content.hex(), "size_bytes": 1}]});
    let told = app
        .post_json("/v1/templates/blobs/preflight", &announced, 200)
        .await;
    let blob = told["files"][0]["blob_id"].as_str().unwrap();
    let put = app.request(Method::PUT, &format!("/v1/templates/blobs/{blob}"));
    assert_eq!(put.body("x").send().await.unwrap().status().as_u16(), 204);
    let by = |key: &str, value: &str| {
        json!({"base_image": "a", "steps": [], "build_context": {"files": [
            {"path": "x", "entry_type": "file", key: value}]}})
    };
    let sent = plan(&app, &by("blob_id", blob)).await;
    assert_eq!(sent, plan(&app, &by("content_base64", "eA==")).await);
}

const DOCKERFILE: &str = "\
# syntax=docker/dockerfile:1
FROM golang:1.25 AS build
ENV SRC=canary-src
RUN --mount=type=secret,id=token make
FROM unrelated AS unused
RUN not-needed
FROM debian:12
MAINTAINER me
ARG LEVEL=canary-level
ENV A=canary-a B=\"canary b\"
COPY --from=build /out /out
RUN setup
STOPSIGNAL SIGINT
USER app
WORKDIR /srv
CMD [\"old\"]
CMD [\"serve\"]
";

fn dockerfile(text: &str) -> Value {
    json!({
        "dockerfile": text,
        "build_args": {"LEVEL": "canary-given"},
        "build_secrets": [{"id": "token", "value": "canary-secret"}],
        "runtime_config": {"default_envs": {"C": "canary-c"}},
        "build_context": {"files": [file("x", "eA==")]},
    })
}

#[tokio::test]
async fn a_plan_of_a_dockerfile_tells_its_steps_and_what_of_it_means_nothing() {
    let app = TestApp::start().await;
    let planned = plan(&app, &dockerfile(DOCKERFILE)).await;
    assert!(!planned.to_string().contains("canary"), "{planned}");
    assert_eq!(
        (&planned["build_backend"], &planned["source_type"]),
        (&json!("buildkit"), &json!("dockerfile"))
    );
    let digest = domain::Digest::of(DOCKERFILE.as_bytes());
    assert_eq!(planned["dockerfile_digest"], digest.to_string());
    assert_eq!(planned["context_manifest"]["file_count"], 1);
    let steps = &planned["build_plan"];
    assert_eq!(steps["base_template"], "docker.io/library/debian:12");
    assert_eq!(steps["run_steps"], json!(["make", "setup"]));
    assert_eq!(steps["secret_ids"], json!(["token"]));
    assert_eq!(
        steps["env_assignments"],
        json!([
            ["A", "[REDACTED]"],
            ["B", "[REDACTED]"],
            ["C", "[REDACTED]"]
        ])
    );
    assert_eq!(
        (&steps["default_user"], &steps["default_workdir"]),
        (&json!("app"), &json!("/srv"))
    );
    let kinds: Vec<&String> = steps["build_steps"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|step| step.as_object().unwrap().keys())
        .collect();
    let expected = [
        "From",
        "Env",
        "Run",
        "From",
        "Maintainer",
        "Arg",
        "Env",
        "Copy",
        "Run",
        "Stopsignal",
        "User",
        "Workdir",
        "Cmd",
        "Cmd",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(
        steps["build_steps"][2],
        json!({"Run": {"arguments": "make", "flags": ["--mount=type=secret,id=token"], "line": 4}})
    );
    assert_eq!(
        steps["build_steps"][6],
        json!({"Env": {"names": ["A", "B"], "line": 10}})
    );
    let ignored = json!([
        {"instruction": "MAINTAINER", "line": 8},
        {"instruction": "STOPSIGNAL", "line": 13},
        {"instruction": "CMD", "line": 16},
    ]);
    assert_eq!(steps["ignored_instruction_warnings"], ignored);
    assert_eq!(steps["ignored_instructions"].as_array().unwrap().len(), 3);
    // The lines that mean nothing, and the directive.
    assert_eq!(
        planned["warnings"].as_array().unwrap().len(),
        4,
        "{planned}"
    );
}

#[tokio::test]
async fn a_dockerfile_is_read_before_it_is_valid() {
    let app = TestApp::start().await;
    let valid = app
        .post_json(VALIDATE, &dockerfile("FROM a:1\n"), 200)
        .await;
    assert_eq!(valid["valid"], true);
    let unused = "build_secrets: the Dockerfile does not mount `token`";
    assert_eq!(valid["warnings"], json!([unused]));
    for (text, target, message) in [
        (
            "FROM a\nRUNN x\n",
            "",
            "dockerfile: line 2: unknown instruction",
        ),
        (
            "RUN x\n",
            "",
            "dockerfile: line 1: RUN must come after a FROM",
        ),
        ("FROM a\n", "nowhere", "build_target: "),
    ] {
        let mut body = dockerfile(text);
        if !target.is_empty() {
            body["build_target"] = target.into();
        }
        let answer = app.post_json(VALIDATE, &body, 200).await;
        let found = answer["errors"][0]["message"].as_str().unwrap();
        assert!(found.starts_with(message), "{answer}");
        is_error(app.post(PLAN, &body).await, 400, "invalid_request").await;
    }
}

#[tokio::test]
async fn the_ids_of_secrets_enter_a_plan_and_their_values_do_not() {
    let app = TestApp::start().await;
    let text = "FROM a:1\nRUN --mount=type=secret,id=token,required=true x\n";
    let first = plan(&app, &dockerfile(text)).await;
    let mut body = dockerfile(text);
    body["build_secrets"][0]["value"] = "another".into();
    assert_eq!(plan(&app, &body).await, first);
    body["build_secrets"][0]["id"] = "other".into();
    let other = plan(&app, &body).await;
    assert_ne!(other["plan_digest"], first["plan_digest"]);
    assert_eq!(
        other["warnings"],
        json!([
            "build_secrets: line 2 of the Dockerfile needs the secret `token`, which is not there",
            "build_secrets: the Dockerfile does not mount `other`"
        ])
    );
}
