//! Announcing and sending files.

use domain::Digest;
use domain::definition::ContextManifest;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::support::{TestApp, is_error};

fn announced(path: &str, content: &[u8], force_upload: bool) -> Value {
    let mut file = json!({"path": path, "entry_type": "file", "mode": "0644",
                          "sha256": Digest::of(content).hex(), "size_bytes": content.len()});
    if force_upload {
        file["force_upload"] = json!(true);
    }
    file
}

async fn preflight(app: &TestApp, files: &[Value]) -> Vec<Value> {
    let response = app
        .post("/v1/templates/blobs/preflight", &json!({"files": files}))
        .await;
    assert_eq!(response.status(), StatusCode::OK);
    let body: Value = response.json().await.unwrap();
    body["files"].as_array().unwrap().clone()
}

async fn put(app: &TestApp, blob: &Value, content: &[u8]) -> Response {
    let path = format!("/v1/templates/blobs/{}", blob.as_str().unwrap());
    let request = app.request(Method::PUT, &path).body(content.to_vec());
    request.send().await.unwrap()
}

#[tokio::test]
async fn files_are_announced_sent_once_and_built_from() {
    let app = TestApp::start().await;
    let files = [
        json!({"path": "d", "entry_type": "dir", "mode": "0755"}),
        announced("d/a.txt", b"a", false),
        announced("d/naïve ü.txt", b"a", false),
        announced("d/empty", b"", false),
    ];
    let results = preflight(&app, &files).await;
    let paths: Vec<&Value> = results.iter().map(|result| &result["path"]).collect();
    assert_eq!(
        paths,
        files.iter().map(|file| &file["path"]).collect::<Vec<_>>()
    );
    assert_eq!(
        results[0],
        json!({"path": "d", "entry_type": "dir", "missing": false, "mode": "0755"})
    );
    assert_eq!(results[1]["blob_id"], results[2]["blob_id"]);
    assert!(results[1..].iter().all(|result| result["missing"] == true));
    for (result, content) in [(&results[1], &b"a"[..]), (&results[3], b"")] {
        let stored = put(&app, &result["blob_id"], content).await;
        assert_eq!(stored.status(), StatusCode::NO_CONTENT);
        assert_eq!(stored.bytes().await.unwrap().len(), 0);
    }
    let again = preflight(&app, &files).await;
    assert!(again.iter().all(|result| result["missing"] == false));

    let file = |index: usize| {
        json!({"path": files[index]["path"], "entry_type": "file",
                                     "mode": "0600", "blob_id": results[index]["blob_id"]})
    };
    let body = json!({"base_image": "a", "name": "x", "steps": [{"action": "copy", "sources": ["d"], "dst": "/app/"}],
                      "build_context": {"files": [{"path": "d", "entry_type": "dir"}, file(1), file(2), file(3),
                          {"path": "inline", "entry_type": "file", "content_base64": "aW5saW5l"}]}});
    let build = app.accept(&body).await;
    let context: Digest = build["context_digest"].as_str().unwrap().parse().unwrap();
    let listing = app.service.app.blobs.read(&context, 1 << 20).await.unwrap();
    let listing: ContextManifest = serde_json::from_slice(&listing).unwrap();
    assert_eq!(listing.entries().len(), 5);
    let inline = Digest::of(b"inline");
    assert!(app.service.app.blobs.contains(&inline).await.unwrap());
    assert!(
        listing
            .entries()
            .iter()
            .all(|entry| entry.path != "d/a.txt" || entry.mode == 0o600)
    );
}

#[tokio::test]
async fn a_forced_upload_has_a_name_of_its_own_for_each_file() {
    let app = TestApp::start().await;
    let files = [announced("a", b"same", true), announced("b", b"same", true)];
    let first = preflight(&app, &files).await;
    assert_ne!(first[0]["blob_id"], first[1]["blob_id"]);
    for result in &first {
        assert_eq!(result["missing"], true);
        assert_eq!(
            put(&app, &result["blob_id"], b"same").await.status(),
            StatusCode::NO_CONTENT
        );
    }
    let second = preflight(&app, &files).await;
    assert!(
        second
            .iter()
            .all(|result| result["missing"] == true && result["blob_id"] != first[0]["blob_id"])
    );
    // The content itself is there now.
    let unforced = preflight(&app, &[announced("a", b"same", false)]).await;
    assert_eq!(unforced[0]["missing"], false);
    let body = json!({"base_image": "a", "build_context": {"files": [
        {"path": "a", "entry_type": "file", "blob_id": first[0]["blob_id"]}]}});
    app.accept(&body).await;
    let unsent = json!({"base_image": "a", "build_context": {"files": [
        {"path": "a", "entry_type": "file", "blob_id": second[0]["blob_id"]}]}});
    let refused = app.post("/v1/templates/builds", &unsent).await;
    is_error(refused, 400, "invalid_request").await;
}

#[tokio::test]
async fn a_context_that_a_build_would_refuse_is_not_even_sent() {
    let app = TestApp::start_with(|config| config.limits.context_bytes_max = 3).await;
    preflight(
        &app,
        &[announced("a", b"ab", false), announced("b", b"c", false)],
    )
    .await;
    let files = [announced("a", b"ab", false), announced("b", b"ab", false)];
    let refused = app
        .post("/v1/templates/blobs/preflight", &json!({"files": files}))
        .await;
    let error = is_error(refused, 413, "invalid_request").await;
    let message = error["error"].as_str().unwrap();
    assert!(message.contains("build_context together"), "{message}");
}

#[tokio::test]
async fn other_content_than_announced_is_refused() {
    let app = TestApp::start().await;
    let results = preflight(&app, &[announced("a", b"right", false)]).await;
    for (wrong, reason) in [
        (&b"wrong"[..], "digest_mismatch"),
        (b"right and more", "size_mismatch"),
        (b"righ", "size_mismatch"),
        (b"", "size_mismatch"),
    ] {
        let response = put(&app, &results[0]["blob_id"], wrong).await;
        let body = is_error(response, 400, "file_upload_error").await;
        let detail = &body["error_detail"];
        assert_eq!(detail["phase"], "blob_upload");
        assert_eq!(detail["details"]["reason"], reason);
        let keys: Vec<&str> = detail
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        for key in [
            "code",
            "message",
            "phase",
            "retryable",
            "suggested_action",
            "details",
        ] {
            assert!(keys.contains(&key), "{keys:?}");
        }
        assert_eq!(keys.len(), 6, "{keys:?}");
    }
    let again = preflight(&app, &[announced("a", b"right", false)]).await;
    assert_eq!(again[0]["missing"], true);
}

#[tokio::test]
async fn an_upload_that_nobody_announced_is_not_taken() {
    let app = TestApp::start().await;
    for id in [
        "blob_x",
        "blob_01arz3ndektsv4rrffq69g5fav",
        "..%2F..%2Fetc%2Fpasswd",
    ] {
        let path = format!("/v1/templates/blobs/{id}");
        let response = app
            .request(Method::PUT, &path)
            .body("x")
            .send()
            .await
            .unwrap();
        is_error(response, 404, "not_found").await;
    }
    // The name of content says itself what is wanted.
    let name = json!(format!("blob_{}", Digest::of(b"x").hex()));
    assert_eq!(
        put(&app, &name, b"x").await.status(),
        StatusCode::NO_CONTENT
    );
}

#[tokio::test]
async fn what_another_owner_has_sent_is_missing_all_the_same() {
    let app = TestApp::start().await;
    let file = announced("a", b"private", false);
    let results = preflight(&app, std::slice::from_ref(&file)).await;
    put(&app, &results[0]["blob_id"], b"private").await;
    let other = app.key_of("other").await;
    let request = app
        .client
        .post(app.url("/v1/templates/blobs/preflight"))
        .bearer_auth(&other);
    let body: Value = request
        .json(&json!({"files": [file]}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(body["files"][0]["missing"], true);
    let stolen = json!({"base_image": "a", "build_context": {"files": [
        {"path": "a", "entry_type": "file", "blob_id": results[0]["blob_id"]}]}});
    let request = app
        .client
        .post(app.url("/v1/templates/builds"))
        .bearer_auth(&other);
    let response = request.json(&stolen).send().await.unwrap();
    is_error(response, 400, "invalid_request").await;
}

#[tokio::test]
async fn announcements_are_checked() {
    let app = TestApp::start_with(|config| config.limits.blob_bytes_max = 10).await;
    for (file, field) in [
        (
            json!({"path": "a", "entry_type": "file", "size_bytes": 1}),
            "files[0].sha256",
        ),
        (
            json!({"path": "a", "entry_type": "file", "sha256": "AB", "size_bytes": 1}),
            "files[0].sha256",
        ),
        (
            json!({"path": "a", "entry_type": "file", "sha256": Digest::ZERO.hex()}),
            "files[0].size_bytes",
        ),
        (
            json!({"path": "../a", "entry_type": "dir"}),
            "files[0].path",
        ),
        (
            json!({"path": "a", "entry_type": "socket"}),
            "files[0].entry_type",
        ),
    ] {
        let response = app
            .post("/v1/templates/blobs/preflight", &json!({"files": [file]}))
            .await;
        let body = is_error(response, 400, "invalid_request").await;
        assert!(body["error"].as_str().unwrap().starts_with(field), "{body}");
    }
    let large = announced("large", b"more than ten", false);
    let response = app
        .post("/v1/templates/blobs/preflight", &json!({"files": [large]}))
        .await;
    let body = is_error(response, 400, "file_upload_error").await;
    assert_eq!(body["error_detail"]["phase"], "preflight");
    assert_eq!(body["error_detail"]["details"]["blob"], "large");
}
