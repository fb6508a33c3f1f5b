//! Dockerfiles that are only looked at.

use super::*;

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
    assert_eq!(kinds(steps), expected);
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
