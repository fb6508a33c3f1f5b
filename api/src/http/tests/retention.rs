//! Builds that no tag points to expire, and their artifacts go.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::build::{Command, Event as BuildEvent, OciMetadata, RootfsGrown, Snapshotted};
use domain::ids::{ArtifactId, BuildId};
use domain::ports::EventReader as _;
use domain::recorded::StreamName;
use domain::template::Event as TemplateEvent;
use domain::time::Timestamp;
use domain::{Digest, Event};
use executor::artifact::{Description, Machine, Part, Runtime};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error, snapshotted};

/// No expiry within this time means that there is none.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn keeping_for(seconds: u64) -> TestApp {
    TestApp::start_with(|config| config.retention.untagged_secs = seconds).await
}

pub(super) async fn shown(app: &TestApp, build: &Value) -> Value {
    let id = build["build_id"].as_str().unwrap();
    let path = format!("/v1/templates/builds/{id}?offset=0");
    app.get_json(&path).await["build"].clone()
}

/// Waits until the stream of the template says that the build has expired.
pub(super) async fn expired(app: &TestApp, build: &Value) -> Timestamp {
    let id = build_id(build);
    let says = |event: &TemplateEvent| matches!(event, TemplateEvent::ArtifactExpired { build, .. } if *build == id);
    said(app, build, says).await
}

/// Waits until the stream of the template of `build` has such an event, and the views show it.
pub(super) async fn said(
    app: &TestApp,
    build: &Value,
    wanted: impl Fn(&TemplateEvent) -> bool,
) -> Timestamp {
    let service = &app.service.app;
    let stream = StreamName::Template(build["template_id"].as_str().unwrap().parse().unwrap());
    let waiting = async {
        loop {
            let head = service.log.head();
            let events = app.events(&stream).await;
            let found = events.iter().find(
                |recorded| matches!(&recorded.event, Event::Template(event) if wanted(event)),
            );
            if let Some(recorded) = found {
                service
                    .views
                    .wait_for(recorded.position, PATIENCE)
                    .await
                    .unwrap();
                return recorded.time;
            }
            service.log.wait_behind(head).await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap()
}

#[tokio::test]
async fn a_build_says_when_it_expires_once_no_tag_points_to_it() {
    let app = TestApp::start().await;
    let first = app.make("my-app", &["v1"]).await;
    assert_eq!(shown(&app, &first).await.get("retention_expires_at"), None);
    let second = app.make("my-app", &["v1"]).await;
    assert_eq!(shown(&app, &second).await.get("retention_expires_at"), None);

    let build = shown(&app, &first).await;
    let service = &app.service.app;
    let template = first["template_id"].as_str().unwrap().parse().unwrap();
    let row = service.views.template(&template).unwrap().unwrap();
    let since = row.tags[&"v1".parse().unwrap()].since;
    let fortnight = since.plus_millis(14 * 24 * 60 * 60 * 1000);
    assert_eq!(build["retention_expires_at"], fortnight.to_string());
    assert_eq!(build["artifact_availability"]["status"], "available");
    assert_eq!(build["promotability"]["status"], "promotable");

    let exact = format!("/v1/templates/refs/my-app:{}/tags", build_id(&first));
    let assigned = app.post(&exact, &json!({"tags": ["keep"]})).await;
    assert_eq!(assigned.status(), StatusCode::OK);
    assert_eq!(shown(&app, &first).await.get("retention_expires_at"), None);
}

#[tokio::test]
async fn an_expired_build_can_neither_be_used_nor_be_tagged() {
    let app = keeping_for(1).await;
    // Both of one artifact, so that it stays.
    let artifact = publish(&app, "shared").await;
    let first = make_of(&app, "my-app", &artifact).await;
    let second = make_of(&app, "my-app", &artifact).await;
    let at = expired(&app, &first).await;

    let build = shown(&app, &first).await;
    assert_eq!(build["status"], "ready");
    assert_eq!(build["retention_expires_at"], at.to_string());
    assert_eq!(build["artifact_availability"]["status"], "unavailable");
    let promotability = &build["promotability"];
    assert_eq!(promotability["status"], "expired");
    assert_eq!(promotability["promotable"], false);
    assert!(promotability["reason"].as_str().unwrap().contains("no tag"));

    let exact = format!("my-app:{}", build_id(&first));
    let found = app.get(&format!("/v1/templates/refs/{exact}")).await;
    is_error(found, 404, "template_not_found").await;
    let tags = format!("/v1/templates/refs/{exact}/tags");
    let refused = app.post(&tags, &json!({"tags": ["v2"]})).await;
    let error = is_error(refused, 409, "transition_conflict").await;
    assert!(error["error"].as_str().unwrap().contains("has expired"));
    let back = json!({"to": first["build_id"]});
    let rollback = "/v1/templates/refs/my-app/tags/v1/rollback";
    let refused = app.post(rollback, &back).await;
    let error = is_error(refused, 409, "transition_conflict").await;
    assert!(error["error"].as_str().unwrap().contains("cannot go back"));
    let child = json!({"base_image": exact});
    let refused = app.post("/v1/templates/builds", &child).await;
    is_error(refused, 404, "template_not_found").await;

    // The one with the tag is as old, and stays.
    let tagged = shown(&app, &second).await;
    assert_eq!(tagged["promotability"]["status"], "promotable");
    assert_eq!(tagged.get("retention_expires_at"), None);
}

#[tokio::test]
async fn a_build_of_a_deleted_template_is_not_to_be_had() {
    let app = TestApp::start().await;
    let first = app.make("my-app", &["v1"]).await;
    app.make("my-app", &["v1"]).await;
    let deleted = app.delete("/v1/templates/refs/my-app").await;
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    let build = shown(&app, &first).await;
    assert_eq!(build["artifact_availability"]["status"], "unavailable");
    assert_eq!(build["promotability"]["status"], "unavailable");
    assert_eq!(build.get("retention_expires_at"), None);
}

/// Puts an artifact into the store.
pub(super) async fn publish(app: &TestApp, hostname: &str) -> ArtifactId {
    let artifacts = &app.service.app.desk.cache.artifacts;
    let staging = artifacts.stage().await.unwrap();
    for part in [Part::Rootfs, Part::Memory, Part::DeviceState] {
        std::fs::write(staging.path(part), hostname).unwrap();
    }
    let snapshotted = snapshotted();
    let description = Description {
        created_at: Timestamp::from_unix_micros(0).unwrap(),
        base: None,
        machine: Machine {
            vcpus: 1,
            memory_mib: 128,
            network: false,
            hostname: hostname.to_owned(),
        },
        vmm: snapshotted.vmm,
        runtime: Runtime {
            env: [].into(),
            user: None,
            workdir: None,
            start_cmd: None,
        },
        readiness: None,
        restore_check: snapshotted.restore_check,
        oci: OciMetadata::default(),
        layers: vec![Digest::of(b"layer")],
    };
    let published = artifacts.publish(staging, description).await.unwrap();
    published.id().clone()
}

/// Accepts a build, and finishes it with an artifact.
pub(super) async fn make_of(app: &TestApp, name: &str, artifact: &ArtifactId) -> Value {
    let body = json!({"base_image": "debian:bookworm", "name": name, "tags": ["v1"]});
    let accepted = app.accept(&body).await;
    let id: BuildId = build_id(&accepted);
    let fence = app.start_building(&id).await;
    let grown = BuildEvent::RootfsGrown(RootfsGrown {
        from_bytes: 1,
        to_bytes: 2,
    });
    let events = vec![grown];
    app.command(&id, Command::Report { fence, events }).await;
    let snapshotted = Box::new(Snapshotted {
        artifact: artifact.clone(),
        ..snapshotted()
    });
    app.command(&id, Command::Complete { fence, snapshotted })
        .await;
    accepted
}

#[tokio::test]
async fn an_artifact_goes_when_no_other_build_needs_it() {
    let app = keeping_for(1).await;
    let alone = publish(&app, "alone").await;
    let shared = publish(&app, "shared").await;
    let tagged = publish(&app, "tagged").await;
    let artifacts = &app.service.app.desk.cache.artifacts;
    make_of(&app, "other", &shared).await;
    make_of(&app, "my-app", &shared).await;
    make_of(&app, "my-app", &alone).await;
    // Expires last, so that what became of the others is known by then.
    let last = make_of(&app, "my-app", &tagged).await;
    make_of(&app, "my-app", &tagged).await;
    expired(&app, &last).await;
    let going = async {
        while artifacts.list().await.unwrap().contains(&alone) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, going).await.unwrap();
    let mut left = artifacts.list().await.unwrap();
    left.sort();
    let mut expected = vec![shared, tagged];
    expected.sort();
    assert_eq!(left, expected);
}

/// Makes a file as old as the epoch, as far as the store knows.
pub(super) fn age(app: &TestApp, content: &[u8]) {
    let path = app.service.app.blobs.path(&Digest::of(content));
    let file = std::fs::File::open(path).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
}

pub(super) async fn is_kept(app: &TestApp, content: &[u8]) -> bool {
    let service = &app.service.app;
    service.desk.collect_files(false).await.unwrap();
    service.blobs.contains(&Digest::of(content)).await.unwrap()
}

fn with_file(content: &[u8]) -> Value {
    let file =
        json!({"path": "a", "entry_type": "file", "content_base64": STANDARD.encode(content)});
    json!({
        "base_image": "debian:bookworm",
        "name": "my-app",
        "steps": [{"action": "copy", "sources": ["a"], "dst": "/a"}],
        "build_context": {"files": [file]},
    })
}

/// Accepts a build of one file, which came long ago, and cancels it.
async fn cancelled(app: &TestApp, content: &[u8]) -> String {
    let accepted = app.accept(&with_file(content)).await;
    age(app, content);
    assert!(is_kept(app, content).await, "a build waits for it");
    let id = accepted["build_id"].as_str().unwrap().to_owned();
    let cancel = format!("/v1/templates/builds/{id}/cancel");
    assert!(app.post(&cancel, &json!({})).await.status().is_success());
    id
}

#[tokio::test]
async fn files_stay_while_their_build_may_be_retried() {
    let app = TestApp::start().await;
    let id = cancelled(&app, b"x").await;
    assert!(is_kept(&app, b"x").await);
    let retry = format!("/v1/templates/builds/{id}/retry");
    let retried = app.post(&retry, &json!({})).await;
    assert_eq!(retried.status(), StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_build_whose_files_have_gone_has_to_be_built_anew() {
    let app = TestApp::start_with(|config| config.retention.context_secs = 1).await;
    let id = cancelled(&app, b"x").await;
    let going = async { while is_kept(&app, b"x").await {} };
    tokio::time::timeout(PATIENCE, going).await.unwrap();
    let retry = format!("/v1/templates/builds/{id}/retry");
    let refused = app.post(&retry, &json!({})).await;
    let error = is_error(refused, 409, "rebuild_required").await;
    assert!(error["error"].as_str().unwrap().contains(&id), "{error}");
}

#[tokio::test]
async fn an_uploaded_file_is_kept_for_the_request_that_will_refer_to_it() {
    let app = TestApp::start().await;
    let file = json!({"path": "a", "entry_type": "file", "sha256": Digest::of(b"y").hex(), "size_bytes": 1});
    let preflight = json!({"files": [file]});
    let announce = || app.post("/v1/templates/blobs/preflight", &preflight);
    let answer: Value = announce().await.json().await.unwrap();
    let blob = answer["files"][0]["blob_id"].as_str().unwrap();
    let path = format!("/v1/templates/blobs/{blob}");
    let request = app.request(reqwest::Method::PUT, &path).body("y");
    assert_eq!(
        request.send().await.unwrap().status(),
        StatusCode::NO_CONTENT
    );
    assert!(is_kept(&app, b"y").await);
    // A preflight that says that it need not be sent keeps it for a while, too.
    age(&app, b"y");
    let answer: Value = announce().await.json().await.unwrap();
    assert_eq!(answer["files"][0]["missing"], false);
    assert!(is_kept(&app, b"y").await);
    age(&app, b"y");
    assert!(!is_kept(&app, b"y").await);
    let answer: Value = announce().await.json().await.unwrap();
    assert_eq!(answer["files"][0]["missing"], true);
}
