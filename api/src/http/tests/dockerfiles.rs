//! Builds from a Dockerfile, and what becomes of the secret values that they bring.

use domain::build::{Command, Event};
use domain::failure::{Failure, FailureReason};
use domain::ids::BuildId;
use domain::name::SecretId;
use domain::ports::EventReader;
use domain::recorded::Position;
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::captured::{Captured, holds, places};
use super::support::{TestApp, build_id, is_error};

/// Values that nothing else has in it; one has several lines.
const VALUE: &str = "kqV8xT2mZr7-canary-Wd4Lp0Ys";
const LINES: &str = "-----BEGIN Gf3nQ7-----\nXb6Jt1Hc9Re5Mk2Uo8\n-----END Gf3nQ7-----\n";
const PASSWORD: &str = "Pz5Dw8-canary-password-Ia3Ne6";

const TEXT: &str = "FROM ghcr.io/team/base:1\n\
    RUN --mount=type=secret,id=npm_token --mount=type=secret,id=.. true\n";

fn secrets() -> Value {
    json!([
        {"id": "npm_token", "value": VALUE, "source": "env"},
        {"id": "..", "value": LINES, "source": "file"}
    ])
}

fn auth() -> Value {
    json!({"kind": "basic", "username": "u", "password": PASSWORD})
}

/// A build with two secrets and the credentials of its base.
fn request() -> Value {
    json!({"dockerfile": TEXT, "name": "my-app", "build_secrets": secrets(),
        "base_image_auth": auth()})
}

fn vault_holds(app: &TestApp, id: &BuildId) -> bool {
    let Some(kept) = app.service.app.vault.get(id) else {
        return false;
    };
    let value = |id: &str| {
        let value = kept.value(&id.parse().unwrap()).unwrap();
        value.expose_secret().to_vec()
    };
    value("npm_token") == VALUE.as_bytes()
        && value("..") == LINES.as_bytes()
        && kept.registry("ghcr.io").is_some()
}

async fn cancel(app: &TestApp, id: &BuildId) {
    let path = format!("/v1/templates/builds/{id}/cancel");
    assert_eq!(app.post(&path, &json!({})).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_dockerfile_is_accepted_and_shown_as_what_it_is() {
    let app = TestApp::start().await;
    let file = json!({"path": "src/a b", "entry_type": "file", "content_base64": "aGk="});
    let body = json!({"dockerfile": TEXT, "name": "my-app", "tags": ["v1"],
        "dockerfile_path": "deploy/Dockerfile", "build_context": {"files": [file]},
        "build_args": {"A": "an argument"}, "build_target": "final", "start_cmd": "serve"});
    let build = app.accept(&body).await;
    assert_eq!(build["status"], "waiting");
    assert_eq!(build["build_backend"], "buildkit");
    assert_eq!(build["source_type"], "dockerfile");
    let digest = domain::Digest::of(TEXT.as_bytes()).to_string();
    assert_eq!(build["dockerfile_digest"], digest);
    assert!(build["context_digest"].is_string());
    assert!(!build.to_string().contains("an argument"), "{build}");
    let id = build_id(&build);
    let snapshot = app.get_json(&format!("/v1/templates/builds/{id}")).await;
    assert_eq!(snapshot["build"], build);
    assert_eq!(snapshot["entries"][0]["kind"], "start");
}

#[tokio::test]
async fn a_refused_dockerfile_leaves_nothing_behind() {
    let app = TestApp::start().await;
    let head = EventReader::head(&app.service.app.log);
    for (change, field) in [
        (json!({"build_backend": "native"}), "build_backend"),
        (json!({"dockerfile": ""}), "dockerfile"),
        (
            json!({"dockerfile_path": "../Dockerfile"}),
            "dockerfile_path",
        ),
        (
            json!({"build_args": {"BUILDKIT_SYNTAX": "x"}}),
            "build_args.BUILDKIT_SYNTAX",
        ),
        (
            json!({"build_secrets": [{"id": "a/b", "value": VALUE}]}),
            "build_secrets[0].id",
        ),
        (
            json!({"registry_auth": [{"registry": "quay.io", "auth": auth()}]}),
            "registry_auth[0].registry",
        ),
        (json!({"dockerfile": "RUNN true"}), "dockerfile"),
        (
            json!({"dockerfile": null, "base_image": "a"}),
            "build_secrets",
        ),
    ] {
        let mut body = request();
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        for path in ["/v1/templates/build", "/v1/templates/builds"] {
            let error = is_error(app.post(path, &body).await, 400, "invalid_request").await;
            let first = error["details"]["problems"][0]["field"].as_str().unwrap();
            assert_eq!(first, field, "{error}");
            for value in [VALUE, LINES, PASSWORD] {
                assert!(!holds(error.to_string().as_bytes(), value), "{error}");
            }
        }
    }
    assert_eq!(EventReader::head(&app.service.app.log), head);
    assert!(app.service.app.vault.builds().is_empty());
}

#[tokio::test]
async fn secret_values_are_in_the_vault_and_their_ids_in_the_event() {
    let app = TestApp::start().await;
    let id = build_id(&app.accept(&request()).await);
    assert!(vault_holds(&app, &id));
    let log = &app.service.app.log;
    let events = EventReader::read_all(log, Position::START, 1000)
        .await
        .unwrap();
    let requested = events.iter().find_map(|recorded| {
        if let domain::Event::Build(Event::Requested(requested)) = &recorded.event {
            return Some(requested);
        }
        None
    });
    let requested = requested.unwrap();
    let ids: Vec<_> = requested
        .definition
        .secret_ids
        .iter()
        .map(SecretId::as_str)
        .collect();
    assert_eq!(ids, ["..", "npm_token"]);
    let kinds = [("ghcr.io".to_owned(), "basic".to_owned())].into();
    assert_eq!(requested.registry_auth, kinds);
}

#[tokio::test]
async fn a_retry_brings_exactly_the_same_secrets_and_credentials() {
    let app = TestApp::start().await;
    let first = build_id(&app.accept(&request()).await);
    cancel(&app, &first).await;
    let head = EventReader::head(&app.service.app.log);
    let known = app.service.app.vault.builds();
    let retry = format!("/v1/templates/builds/{first}/retry");
    let one = json!([{"id": "npm_token", "value": VALUE}]);
    let mut three = secrets();
    let extra = json!({"id": "extra", "value": PASSWORD});
    three.as_array_mut().unwrap().push(extra);
    let quay = json!([{"registry": "quay.io", "auth": auth()}]);
    for (body, field, said) in [
        (
            json!({}),
            "build_secrets",
            "missing: .., npm_token; unknown: none",
        ),
        (
            json!({"build_secrets": one, "base_image_auth": auth()}),
            "build_secrets",
            "missing: ..;",
        ),
        (
            json!({"build_secrets": three, "base_image_auth": auth()}),
            "build_secrets",
            "unknown: extra",
        ),
        (
            json!({"build_secrets": secrets()}),
            "registry_auth",
            "ghcr.io",
        ),
        (
            json!({"build_secrets": secrets(), "registry_auth": quay}),
            "registry_auth[0].registry",
            "quay.io",
        ),
    ] {
        let error = is_error(app.post(&retry, &body).await, 400, "invalid_request").await;
        let problem = &error["details"]["problems"][0];
        assert_eq!(problem["field"], field, "{error}");
        assert!(
            problem["message"].as_str().unwrap().contains(said),
            "{error}"
        );
        for value in [VALUE, LINES, PASSWORD] {
            assert!(!holds(error.to_string().as_bytes(), value), "{error}");
        }
    }
    assert_eq!(EventReader::head(&app.service.app.log), head);
    assert_eq!(app.service.app.vault.builds(), known);

    for right in [
        json!({"build_secrets": secrets(), "base_image_auth": auth()}),
        json!({"build_secrets": secrets(),
            "registry_auth": [{"registry": "ghcr.io", "auth": auth()}]}),
    ] {
        let response = app.post(&retry, &right).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let again: Value = response.json().await.unwrap();
        assert_eq!(again["retry_of_build_id"], first.as_str());
        assert_eq!(again["build_backend"], "buildkit");
        assert!(vault_holds(&app, &build_id(&again)));
    }
}

#[tokio::test]
async fn failures_of_dockerfile_builds_reach_the_client_in_its_words() {
    let app = TestApp::start().await;
    for reason in [
        FailureReason::SecretMissing,
        FailureReason::NetworkOff,
        FailureReason::NotPermitted,
        FailureReason::BuilderUnavailable,
        FailureReason::DockerfileInvalid,
        FailureReason::SecretLeaked,
    ] {
        // So that one attempt is the last.
        let app = if reason.retried_by_itself() {
            &TestApp::start_with(|config| config.executor.max_attempts = 1).await
        } else {
            &app
        };
        let id = build_id(&app.accept(&json!({"dockerfile": TEXT})).await);
        let fence = app.start_building(&id).await;
        let failure = Failure::new(reason, "it broke").with_detail("line", "3");
        app.command(&id, Command::Fail { fence, failure }).await;
        let snapshot = app.get_json(&format!("/v1/templates/builds/{id}")).await;
        assert_eq!(snapshot["build"]["status"], "error", "{reason:?}");
        let detail = &snapshot["build"]["error_detail"];
        assert_eq!(detail["code"], "build_error");
        assert_eq!(detail["phase"], "build_step");
        assert_eq!(detail["details"]["reason"], reason.as_str());
        assert_eq!(detail["details"]["line"], "3");
        assert_eq!(detail["retryable"], reason.retryable());
    }
}

#[tokio::test]
async fn no_secret_value_leaves_the_vault() {
    let captured = Captured::start();
    let app = TestApp::start_on_disk().await;
    let mut answers = Vec::new();
    let mut post = async |path: &str, body: String| {
        let sent = app.request(Method::POST, path).body(body).send().await;
        let text = sent.unwrap().text().await.unwrap();
        answers.push(text.clone());
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let first = build_id(&post("/v1/templates/builds", request().to_string()).await);
    let mut refused = request();
    refused["tags"] = json!([]);
    refused["build_secrets"][0]["id"] = json!("not an id");
    post("/v1/templates/builds", refused.to_string()).await;
    let broken = format!("{}}}", request());
    post("/v1/templates/builds", broken).await;
    let fence = app.start_building(&first).await;
    app.log(&first, fence, &["a line"]).await;
    let failure = Failure::new(FailureReason::StepFailed, "step 1 exited with 3");
    app.command(&first, Command::Fail { fence, failure }).await;
    let retry = format!("/v1/templates/builds/{first}/retry");
    let incomplete = json!({"build_secrets": secrets()});
    post(&retry, incomplete.to_string()).await;
    let right = json!({"build_secrets": secrets(), "base_image_auth": auth()});
    let second = build_id(&post(&retry, right.to_string()).await);
    cancel(&app, &second).await;
    for id in [&first, &second] {
        answers.push(
            app.get_json(&format!("/v1/templates/builds/{id}"))
                .await
                .to_string(),
        );
        let logs = app
            .get(&format!("/v1/templates/builds/{id}/logs?follow=true"))
            .await;
        answers.push(logs.text().await.unwrap());
        assert!(
            vault_holds(&app, id),
            "the search is for values that are there"
        );
    }
    for value in [VALUE, LINES, PASSWORD] {
        assert!(!answers.iter().any(|answer| holds(answer.as_bytes(), value)));
        assert_eq!(places(&app, &captured, value).await, [""; 0]);
    }

    // The same search finds what is planted, and the service's threads are listened to.
    assert!(holds(&captured.bytes(), "refused status=400"));
    let planted = "Vu9Ks4-planted-Tg7Bh2";
    tracing::trace!(planted, "planted on purpose");
    let body = json!({"dockerfile": format!("FROM scratch\n# {planted}\n"), "name": "planted"});
    app.accept(&body).await;
    let places = places(&app, &captured, planted).await;
    for kind in ["event", "file", "the log"] {
        assert!(
            places.iter().any(|place| place.starts_with(kind)),
            "{kind}: {places:?}"
        );
    }
}
