//! Logs as streams.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error};
use crate::http::openapi::tests::is_log_entry;

/// The entries of a stream that has ended, and how many comments were among them.
fn parse(text: &str) -> (Vec<Value>, usize) {
    let mut entries = Vec::new();
    let mut comments = 0;
    for event in text.split_terminator("\n\n") {
        assert!(!event.contains('\n'), "more than one line: {event}");
        if let Some(data) = event.strip_prefix("data: ") {
            let entry = serde_json::from_str(data).unwrap();
            is_log_entry(&entry);
            entries.push(entry);
        } else {
            assert!(event.starts_with(": "), "{event}");
            comments += 1;
        }
    }
    (entries, comments)
}

fn is_stream(response: &Response) {
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-cache");
    assert!(headers.contains_key("x-request-id"));
    assert!(!headers.contains_key("content-encoding"));
}

/// Reads a stream until `text` has come.
async fn read_until(
    stream: &mut (impl futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Unpin),
    text: &str,
) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        let piece = stream.next().await.expect("the stream goes on").unwrap();
        read.push_str(std::str::from_utf8(&piece).unwrap());
    }
    read
}

#[tokio::test]
async fn a_followed_log_is_whole_in_ascii_and_closes_after_its_end() {
    let app = TestApp::start().await;
    let body = json!({"base_image": "a", "name": "x", "tags": ["v2"]});
    let response = app.post("/v1/templates/build", &body).await;
    is_stream(&response);
    let mut stream = Box::pin(response.bytes_stream());
    let first = read_until(&mut stream, "\n\n").await;
    let (entries, _) = parse(&first);
    assert_eq!(
        (&entries[0]["kind"], &entries[0]["offset"]),
        (&json!("start"), &json!(0))
    );
    let id = build_id(&entries[0]);
    let fence = app.start_building(&id).await;
    app.log(&id, fence, &["a\u{2028}b\u{85}c\u{1c}\r😀"]).await;
    app.complete(&id, fence).await;
    let mut rest = first;
    while let Some(piece) = stream.next().await {
        rest.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
    assert!(
        rest.bytes()
            .all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte))
    );
    let (entries, _) = parse(&rest);
    let offsets: Vec<u64> = entries
        .iter()
        .map(|entry| entry["offset"].as_u64().unwrap())
        .collect();
    assert_eq!(
        offsets,
        (0..u64::try_from(offsets.len()).unwrap()).collect::<Vec<_>>()
    );
    assert!(entries.iter().all(|entry| entry["build_id"] == id.as_str()
        && entry["template_id"] == entries[0]["template_id"]));
    assert!(
        entries
            .iter()
            .any(|entry| entry["message"] == "a\u{2028}b\u{85}c\u{1c}\r😀")
    );
    let end = entries.last().unwrap();
    assert_eq!(end["kind"], "end");
    assert_eq!(end["result"]["name"], "x");
    assert_eq!(end["result"]["tags"], json!(["v2"]));
    assert_eq!(end["result"]["canonical_ref"], "default/x");
    let defaults = &end["result_metadata"]["runtime_defaults"];
    assert_eq!(defaults["default_env_keys"], json!(["A"]));
    assert_eq!(defaults["start_cmd"], "serve");

    // What is read later is what was streamed.
    let path = format!("/v1/templates/builds/{id}/logs?follow=true");
    let (later, _) = parse(&app.get(&path).await.text().await.unwrap());
    assert_eq!(later, entries);
    for query in ["offset=2", "cursor=2", "cursor=2&offset=0&follow=false"] {
        let path = format!("/v1/templates/builds/{id}/logs?{query}");
        let (from_two, _) = parse(&app.get(&path).await.text().await.unwrap());
        assert_eq!(from_two, entries[2..], "{query}");
    }
    let path = format!("/v1/templates/builds/{id}/logs?follow=true&offset=1000");
    assert_eq!(app.get(&path).await.text().await.unwrap(), "");
}

#[tokio::test]
async fn a_log_that_is_not_followed_ends_where_the_build_is() {
    let app = TestApp::start().await;
    let build = app.accept(&json!({"base_image": "a"})).await;
    let path = format!(
        "/v1/templates/builds/{}/logs?follow=false",
        build["build_id"].as_str().unwrap()
    );
    let response = app.get(&path).await;
    is_stream(&response);
    let (entries, comments) = parse(&response.text().await.unwrap());
    assert_eq!((entries.len(), comments), (1, 0));
}

#[tokio::test]
async fn a_silent_stream_gives_signs_of_life_and_ends_with_the_service() {
    let app = TestApp::start_with(|config| config.limits.keepalive_ms = 20).await;
    let build = app.accept(&json!({"base_image": "a"})).await;
    let path = format!(
        "/v1/templates/builds/{}/logs?follow=true",
        build["build_id"].as_str().unwrap()
    );
    let mut stream = Box::pin(app.get(&path).await.bytes_stream());
    let text = read_until(&mut stream, ": keepalive\n\n: keepalive\n\n").await;
    assert!(parse(&text).1 >= 2);
    app.service.app.stopping.cancel();
    while let Some(piece) = stream.next().await {
        piece.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_stop_its_build() {
    let app = TestApp::start().await;
    let body = json!({"base_image": "a", "name": "left"});
    let mut stream = Box::pin(app.post("/v1/templates/build", &body).await.bytes_stream());
    let (entries, _) = parse(&read_until(&mut stream, "\n\n").await);
    drop(stream);
    let id = build_id(&entries[0]);
    let fence = app.start_building(&id).await;
    app.complete(&id, fence).await;
    let snapshot = app.get_json(&format!("/v1/templates/builds/{id}")).await;
    assert_eq!(snapshot["build"]["status"], "ready");
}

#[tokio::test]
async fn streams_have_a_bound_and_give_their_room_back() {
    let app = TestApp::start_with(|config| {
        config.limits.open_stream_count_max = 1;
        config.limits.keepalive_ms = 20;
    })
    .await;
    let build = app.accept(&json!({"base_image": "a"})).await;
    let path = format!(
        "/v1/templates/builds/{}/logs?follow=true",
        build["build_id"].as_str().unwrap()
    );
    let mut open = Box::pin(app.get(&path).await.bytes_stream());
    read_until(&mut open, "\n\n").await;
    let head = domain::ports::EventReader::head(&app.service.app.log);
    is_error(app.get(&path).await, 503, "capacity_exceeded").await;
    let refused = app
        .post("/v1/templates/build", &json!({"base_image": "a"}))
        .await;
    is_error(refused, 503, "capacity_exceeded").await;
    assert_eq!(domain::ports::EventReader::head(&app.service.app.log), head);
    drop(open);
    let deadline = Duration::from_secs(20);
    let room = app.service.app.streams.acquire();
    drop(tokio::time::timeout(deadline, room).await.unwrap().unwrap());
}

#[tokio::test]
async fn a_stream_is_not_served_to_other_methods() {
    let app = TestApp::start().await;
    let request = app.request(Method::POST, "/v1/templates/builds/tb_x/logs");
    is_error(request.send().await.unwrap(), 405, "invalid_request").await;
}
