//! How large a request may be that is only looked at, and what its files count for.

use super::*;

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
