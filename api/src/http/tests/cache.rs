//! Which files a request brought, and what operators may take away while it waits.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::Digest;
use domain::build::Command;
use domain::definition::Arrivals;
use domain::ids::BuildId;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{TestApp, build_id};
use crate::wire::cache::{Collect, Kind, Outcome, State};

/// A build of one file that comes with the request.
fn inline(content: &[u8]) -> Value {
    let file =
        json!({"path": "a", "entry_type": "file", "content_base64": STANDARD.encode(content)});
    of(file)
}

/// A build of one file that was sent before.
fn sent(blob: &Value) -> Value {
    of(json!({"path": "a", "entry_type": "file", "blob_id": blob}))
}

fn of(file: Value) -> Value {
    json!({
        "base_image": "debian:bookworm",
        "name": "my-app",
        "steps": [{"action": "copy", "sources": ["a"], "dst": "/a"}],
        "build_context": {"files": [file]},
    })
}

/// Accepts a build for the owner of `key` and gives its id.
async fn accept_as(app: &TestApp, key: &str, body: &Value) -> BuildId {
    let url = app.url("/v1/templates/builds");
    let request = app.client.post(url).bearer_auth(key).json(body);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    build_id(&response.json().await.unwrap())
}

/// What the request of a build brought.
async fn arrivals(app: &TestApp, id: &BuildId) -> Arrivals {
    let service = &app.service.app;
    let (build, _) = service.dispatcher.load_build(id).await.unwrap();
    let Some(stored) = build.accepted().unwrap().requested.arrivals else {
        return Arrivals::default();
    };
    let stored = service.blobs.read(&stored, 10_000).await.unwrap();
    serde_json::from_slice(&stored).unwrap()
}

fn new(content: &[u8]) -> Arrivals {
    Arrivals {
        new: [Digest::of(content)].into(),
        ..Arrivals::default()
    }
}

fn again(content: &[u8]) -> Arrivals {
    Arrivals {
        again: [Digest::of(content)].into(),
        ..Arrivals::default()
    }
}

/// Announces and sends a file; gives its name.
async fn upload(app: &TestApp, content: &[u8], force_upload: bool) -> Value {
    let file = json!({"path": "a", "entry_type": "file", "sha256": Digest::of(content).hex(),
                      "size_bytes": content.len(), "force_upload": force_upload});
    let answer = app
        .post("/v1/templates/blobs/preflight", &json!({"files": [file]}))
        .await;
    let answer: Value = answer.json().await.unwrap();
    let blob = answer["files"][0]["blob_id"].clone();
    if answer["files"][0]["missing"] == true {
        let path = format!("/v1/templates/blobs/{}", blob.as_str().unwrap());
        let request = app.request(Method::PUT, &path).body(content.to_vec());
        let stored = request.send().await.unwrap();
        assert_eq!(stored.status(), StatusCode::NO_CONTENT);
    }
    blob
}

#[tokio::test]
async fn a_request_brings_what_its_owner_had_not_sent_before() {
    let app = TestApp::start().await;
    let one = accept_as(&app, &app.key, &inline(b"x")).await;
    assert_eq!(arrivals(&app, &one).await, new(b"x"));
    let two = accept_as(&app, &app.key, &inline(b"x")).await;
    assert_eq!(arrivals(&app, &two).await, again(b"x"));
    let blob = upload(&app, b"x", false).await;
    let three = accept_as(&app, &app.key, &sent(&blob)).await;
    assert_eq!(arrivals(&app, &three).await, Arrivals::default());
}

#[tokio::test]
async fn an_upload_counts_for_the_first_request_that_refers_to_it() {
    let app = TestApp::start().await;
    let blob = upload(&app, b"x", false).await;
    let one = accept_as(&app, &app.key, &sent(&blob)).await;
    assert_eq!(arrivals(&app, &one).await, new(b"x"));
    let two = accept_as(&app, &app.key, &sent(&blob)).await;
    assert_eq!(arrivals(&app, &two).await, Arrivals::default());
    let forced = upload(&app, b"x", true).await;
    let three = accept_as(&app, &app.key, &sent(&forced)).await;
    assert_eq!(arrivals(&app, &three).await, again(b"x"));
}

/// Or a digest would tell one tenant what another works with.
#[tokio::test]
async fn what_another_owner_has_sent_is_as_new_as_anything() {
    let app = TestApp::start().await;
    accept_as(&app, &app.key, &inline(b"x")).await;
    let other = app.key_of("other").await;
    let build = accept_as(&app, &other, &inline(b"x")).await;
    assert_eq!(arrivals(&app, &build).await, new(b"x"));
}

#[tokio::test]
async fn a_retry_brings_nothing() {
    let app = TestApp::start().await;
    let id = accept_as(&app, &app.key, &inline(b"x")).await;
    let cancel = Command::Cancel {
        by: "test".to_owned(),
        reason: None,
    };
    app.command(&id, cancel).await;
    let path = format!("/v1/templates/builds/{id}/retry");
    let response = app.post(&path, &json!({})).await;
    assert!(response.status().is_success(), "{response:?}");
    let retried = build_id(&response.json().await.unwrap());
    assert_eq!(arrivals(&app, &retried).await, Arrivals::default());
}

#[tokio::test]
async fn files_of_a_build_that_waits_stay_and_go_when_it_has_ended() {
    let app = TestApp::start().await;
    let id = accept_as(&app, &app.key, &inline(b"x")).await;
    let desk = &app.service.app.desk;
    let key = Digest::of(b"x").to_string();
    let refused = desk.evict(&key, None).await.unwrap();
    assert_eq!(refused.outcome, Outcome::Needed);
    let reason = refused.reason.unwrap();
    assert!(reason.contains(id.as_str()), "{reason}");

    let cancel = Command::Cancel {
        by: "test".to_owned(),
        reason: None,
    };
    app.command(&id, cancel).await;
    let evicted = desk.evict(&key, Some(Kind::Blob)).await.unwrap();
    assert_eq!(
        (evicted.outcome, evicted.freed_bytes),
        (Outcome::Removed, 1)
    );
    let gone = desk.evict(&key, None).await.unwrap();
    assert_eq!(gone.outcome, Outcome::Unknown);
    let unknown = desk.explain(&key, None).await.unwrap();
    assert_eq!(unknown.state, State::Unknown, "no event has named it");
    // Its owner is asked for it again.
    let blob = upload(&app, b"x", false).await;
    let next = accept_as(&app, &app.key, &sent(&blob)).await;
    assert_eq!(arrivals(&app, &next).await, new(b"x"));
}

#[tokio::test]
async fn an_entry_is_found_by_the_beginning_of_its_key_if_it_is_the_only_one() {
    let app = TestApp::start().await;
    let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
    for content in [b"1", b"2"] {
        let blobs = &app.service.app.blobs;
        blobs.put_bytes(content.to_vec()).await.unwrap();
    }
    let desk = &app.service.app.desk;
    for beginning in [one.hex(), format!("sha256:{}", &one.hex()[..10])] {
        let found = desk.explain(&beginning, None).await.unwrap();
        assert_eq!((found.key, found.state), (one.to_string(), State::Present));
    }
    // No two digests of these begin alike, but all begin with nothing.
    assert_ne!(one.hex()[..1], other.hex()[..1]);
    let none = desk.explain("sha256:", None).await.unwrap_err();
    assert!(none.to_string().contains("is expected"), "{none}");
    let collected = desk.collect(Collect::default()).await.unwrap();
    assert_eq!((collected.removed.len(), collected.within_bound), (0, true));
}
