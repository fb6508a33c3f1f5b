//! Subscriptions to events.

use std::time::Duration;

use domain::ids::BuildId;
use domain::ports::EventReader as _;
use futures_util::StreamExt as _;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::support::{TestApp, build_id, is_error};
use crate::http::openapi::tests::{is_cloud_event, is_event};

const CLOUD: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

/// A frame of a stream.
#[derive(Clone, Debug, PartialEq)]
struct Frame {
    id: String,
    name: String,
    data: Value,
}

/// The frames of a text without its comments, which end is whole.
fn frames(text: &str) -> Vec<Frame> {
    assert!(
        text.bytes()
            .all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte))
    );
    let frames = text
        .split_terminator("\n\n")
        .filter(|frame| !frame.starts_with(':'));
    frames
        .map(|frame| {
            let lines: Vec<&str> = frame.lines().collect();
            let [id, name, data] = lines[..] else {
                panic!("{frame}")
            };
            Frame {
                id: id.strip_prefix("id: ").unwrap().to_owned(),
                name: name.strip_prefix("event: ").unwrap().to_owned(),
                data: serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap(),
            }
        })
        .collect()
}

fn events(text: &str) -> Vec<Frame> {
    let of_the_log = |frame: &Frame| !matches!(frame.name.as_str(), "heartbeat" | "dropped");
    let events: Vec<Frame> = frames(text).into_iter().filter(of_the_log).collect();
    for event in &events {
        if event.data.get("specversion").is_some() {
            is_cloud_event(&event.data);
        } else {
            is_event(&event.data);
            assert_eq!(event.data["position"], event.id);
            assert_eq!(event.data["type"], event.name);
        }
    }
    events
}

fn names(events: &[Frame]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

async fn text(response: Response) -> String {
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    response.text().await.unwrap()
}

/// What there is, by these filters.
async fn read(app: &TestApp, query: &str) -> Vec<Frame> {
    events(&text(app.get(&format!("/v1/events?{query}")).await).await)
}

/// A followed stream.
struct Followed {
    pieces: futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    read: String,
}

impl Followed {
    async fn open(app: &TestApp, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = app.request(Method::GET, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Self {
            pieces: response.bytes_stream().boxed(),
            read: String::new(),
        }
    }

    /// Reads until there are so many events.
    async fn events(&mut self, count: usize) -> Vec<Frame> {
        loop {
            let whole = self
                .read
                .rfind("\n\n")
                .map_or("", |end| &self.read[..end + 2]);
            let events = events(whole);
            if events.len() >= count {
                return events;
            }
            let piece = self.pieces.next().await.expect("it goes on").unwrap();
            self.read.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }
}

async fn build_of(app: &TestApp, key: &str, name: &str) -> BuildId {
    let request = app.request_by(key, Method::POST, "/v1/templates/builds");
    let body = json!({"base_image": "a", "name": name});
    let accepted = request.json(&body).send().await.unwrap();
    build_id(&accepted.json().await.unwrap())
}

#[tokio::test]
async fn a_followed_subscription_tells_what_happens_and_goes_on_where_it_broke() {
    let app = TestApp::start().await;
    let mut open = Followed::open(&app, "/v1/events?follow=true", &[]).await;
    let id = build_id(&app.accept(&json!({"base_image": "a", "name": "x"})).await);
    let first = open.events(2).await;
    assert_eq!(names(&first), ["NameTaken", "Requested"]);
    assert_eq!(first[0].data["stream"], "namespace-default");
    assert_eq!(first[1].data["stream"], format!("build-{id}"));
    assert_eq!(first[1].data["data"]["owner"], "default");
    drop(open);

    let fence = app.start_building(&id).await;
    app.log(&id, fence, &["a\u{2028}é"]).await;
    let seen = [("last-event-id", first[0].id.as_str())];
    let path = format!("/v1/events?follow=true&from={}", first[1].id);
    let mut again = Followed::open(&app, &path, &seen).await;
    let rest = again.events(3).await;
    assert_eq!(names(&rest), ["Requested", "Started", "StepLogged"]);
    assert_eq!(rest[0], first[1]);
    assert_eq!(rest[2].data["data"]["lines"][0]["text"], "a\u{2028}é");
    app.complete(&id, fence).await;
    let rest = again.events(5).await;
    assert_eq!(names(&rest[3..]), ["RootfsGrown", "Snapshotted"]);
}

#[tokio::test]
async fn what_is_not_followed_ends_with_how_far_it_was_read() {
    let app = TestApp::start().await;
    app.make("x", &["v1"]).await;
    let text = text(app.get("/v1/events?type=Failed").await).await;
    let head = crate::wire::position::WirePosition(app.service.app.log.head()).to_string();
    let expected = Frame {
        id: head.clone(),
        name: "heartbeat".into(),
        data: json!({"position": head}),
    };
    assert_eq!(frames(&text), [expected]);
    assert_eq!(read(&app, &format!("from={head}")).await, []);
    assert_eq!(read(&app, "from=head").await, []);
    let all = read(&app, "").await;
    assert_eq!(all.last().unwrap().name, "Snapshotted");
    assert_eq!(read(&app, &format!("from={}", all[1].id)).await, all[2..]);
}

#[tokio::test]
async fn filters_by_stream_type_build_and_template_all_hold() {
    let app = TestApp::start().await;
    let one = app.make("one", &["v1"]).await;
    let two = app.make("two", &["v1"]).await;
    let (id, template) = (
        one["build_id"].as_str().unwrap(),
        one["template_id"].as_str().unwrap(),
    );
    let shown = json!({"visibility": "public"});
    let patched = app
        .request(Method::PATCH, "/v1/templates/refs/one/visibility")
        .json(&shown);
    assert_eq!(patched.send().await.unwrap().status(), StatusCode::OK);

    let of_build = read(&app, &format!("build={id}")).await;
    assert_eq!(
        names(&of_build),
        ["Requested", "Started", "RootfsGrown", "Snapshotted"]
    );
    assert_eq!(read(&app, &format!("stream=build-{id}")).await, of_build);
    let of_template = read(&app, &format!("template={template}")).await;
    assert_eq!(of_template[..4], of_build);
    assert_eq!(names(&of_template[4..]), ["VisibilityChanged"]);
    let other = two["template_id"].as_str().unwrap();
    let query = format!("template={template},{other}&type=Snapshotted&type=Started");
    let both = read(&app, &query).await;
    assert_eq!(
        names(&both),
        ["Started", "Snapshotted", "Started", "Snapshotted"]
    );
    let nothing = format!("template={other}&build={id}");
    assert_eq!(read(&app, &nothing).await, []);
}

#[tokio::test]
async fn nobody_gets_events_of_others_or_of_keys() {
    let app = TestApp::start().await;
    let key = app.key_of("other").await;
    let theirs = build_of(&app, &key, "secret").await;
    let fence = app.start_building(&theirs).await;
    app.complete(&theirs, fence).await;
    let shown = app.request_by(&key, Method::PATCH, "/v1/templates/refs/secret/visibility");
    let shown = shown.json(&json!({"visibility": "public"})).send().await;
    assert_eq!(shown.unwrap().status(), StatusCode::OK);
    app.make("mine", &["v1"]).await;

    let owners = |events: &[Frame]| -> Vec<bool> {
        let theirs = format!("build-{theirs}");
        events
            .iter()
            .map(|event| event.data["stream"] == theirs)
            .collect()
    };
    let mine = read(&app, "").await;
    assert!(!mine.is_empty() && owners(&mine).iter().all(|theirs| !theirs));
    assert!(mine.iter().all(|event| event.data["stream"] != "keys"));
    for query in [
        format!("build={theirs}"),
        format!("stream=build-{theirs},namespace-other"),
        "type=VisibilityChanged".to_owned(),
    ] {
        assert_eq!(read(&app, &query).await, [], "{query}");
    }
    let asked = app
        .request_by(&key, Method::GET, "/v1/events")
        .send()
        .await
        .unwrap();
    let asked = events(&text(asked).await);
    assert_eq!(
        names(&asked),
        [
            "NameTaken",
            "Requested",
            "Started",
            "RootfsGrown",
            "Snapshotted",
            "VisibilityChanged"
        ]
    );
    let body = is_error(
        app.get("/v1/events?stream=keys").await,
        400,
        "invalid_request",
    )
    .await;
    assert_eq!(body["details"]["problems"][0]["field"], "stream");
}

#[tokio::test]
async fn a_bad_request_names_its_field_and_opens_nothing() {
    let app = TestApp::start().await;
    for (query, field) in [
        ("from=42", "from"),
        ("type=failed", "type"),
        ("follow=2", "follow"),
    ] {
        let refused = app.get(&format!("/v1/events?{query}")).await;
        let body = is_error(refused, 400, "invalid_request").await;
        assert_eq!(body["details"]["problems"][0]["field"], field);
    }
    let header = app
        .request(Method::GET, "/v1/events")
        .header("last-event-id", "42");
    let body = is_error(header.send().await.unwrap(), 400, "invalid_request").await;
    assert_eq!(body["details"]["problems"][0]["field"], "Last-Event-ID");
    let posted = app.post("/v1/events", &json!({})).await;
    is_error(posted, 405, "invalid_request").await;
    let limit = app.service.app.config.limits.open_stream_count_max;
    assert_eq!(app.service.app.streams.available_permits(), limit);
}

#[tokio::test]
async fn subscriptions_count_as_streams_and_end_with_the_service() {
    let app = TestApp::start_with(|config| config.limits.open_stream_count_max = 1).await;
    let mut open = Followed::open(&app, "/v1/events?follow=true&from=head", &[]).await;
    let refused = app.get("/v1/events").await;
    is_error(refused, 503, "capacity_exceeded").await;
    app.service.app.stopping.cancel();
    while let Some(piece) = open.pieces.next().await {
        piece.unwrap();
    }
    let patience = Duration::from_secs(20);
    let room = app.service.app.streams.acquire();
    drop(tokio::time::timeout(patience, room).await.unwrap().unwrap());
}

#[tokio::test]
async fn a_silent_subscription_gives_signs_of_life() {
    let app = TestApp::start_with(|config| config.limits.keepalive_ms = 20).await;
    let mut open = Followed::open(&app, "/v1/events?follow=true&from=head", &[]).await;
    while !open.read.contains(": keepalive\n\n: keepalive\n\n") {
        let piece = open.pieces.next().await.unwrap().unwrap();
        open.read.push_str(std::str::from_utf8(&piece).unwrap());
    }
    // Somebody else's event moves it on all the same.
    let key = app.key_of("other").await;
    build_of(&app, &key, "x").await;
    while !open.read.contains("event: heartbeat\n") {
        let piece = open.pieces.next().await.unwrap().unwrap();
        open.read.push_str(std::str::from_utf8(&piece).unwrap());
    }
    assert_eq!(events(&open.read), []);
}

#[tokio::test]
async fn cloud_events_come_as_a_stream_and_as_batches_that_go_on() {
    let app = TestApp::start().await;
    app.make("one", &["v1"]).await;
    let records = read(&app, "").await;
    let mut open = Followed::open(&app, "/v1/events?follow=true", &[("accept", CLOUD)]).await;
    let streamed = open.events(records.len()).await;
    for (cloud, record) in streamed.iter().zip(&records) {
        assert_eq!((&cloud.id, &cloud.name), (&record.id, &record.name));
        assert_eq!(cloud.data["data"], record.data["data"]);
        assert_eq!(cloud.data["sequence"], record.id);
    }
    let expected: Vec<&Value> = streamed.iter().map(|event| &event.data).collect();

    for accept in [CLOUD, BATCH] {
        let mut path = "/v1/events?limit=2".to_owned();
        let mut got: Vec<Value> = Vec::new();
        let mut batches = 0;
        loop {
            let request = app.request(Method::GET, &path).header("accept", accept);
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()["content-type"], BATCH);
            let last = response.headers()["x-last-position"]
                .to_str()
                .unwrap()
                .to_owned();
            let link = response
                .headers()
                .get("link")
                .map(|link| link.to_str().unwrap().to_owned());
            let batch: Vec<Value> = response.json().await.unwrap();
            assert!((1..=2).contains(&batch.len()));
            assert_eq!(batch.last().unwrap()["sequence"], last);
            got.extend(batch);
            batches += 1;
            assert!(batches < 20, "{path}");
            let Some(link) = link else { break };
            let next = link.strip_prefix('<').unwrap();
            path = next.strip_suffix(">; rel=\"next\"").unwrap().to_owned();
            assert!(path.contains(&format!("from={last}")));
        }
        assert_eq!(got.iter().collect::<Vec<_>>(), expected);
        assert!(batches > 1);
    }
}

#[tokio::test]
async fn a_batch_keeps_its_filter_and_says_how_far_it_looked() {
    let app = TestApp::start_with(|config| {
        config.limits.batch_scan_count_max = 1;
        config.limits.event_page_count_max = 1;
    })
    .await;
    let one = app.make("one", &["v1"]).await;
    let id = one["build_id"].as_str().unwrap();
    let mut path = format!("/v1/events?type=Snapshotted,Started&build={id}&stream=build-{id}");
    let (mut got, mut batches) = (Vec::new(), 0);
    loop {
        let request = app.request(Method::GET, &path).header("accept", BATCH);
        let response = request.send().await.unwrap();
        let link = response
            .headers()
            .get("link")
            .map(|link| link.to_str().unwrap().to_owned());
        let batch: Vec<Value> = response.json().await.unwrap();
        got.extend(
            batch
                .iter()
                .map(|event| event["type"].as_str().unwrap().to_owned()),
        );
        batches += 1;
        assert!(batches < 20, "{path}");
        let Some(link) = link else { break };
        let next = link.strip_prefix('<').unwrap();
        path = next.strip_suffix(">; rel=\"next\"").unwrap().to_owned();
    }
    assert_eq!(
        got,
        ["nullspace.build.Started", "nullspace.build.Snapshotted"]
    );
    let head = usize::try_from(app.service.app.log.head().raw()).unwrap();
    assert_eq!(batches, head, "one event was looked at for each");
}

#[tokio::test]
async fn a_batch_is_bounded_in_bytes() {
    let app = TestApp::start_with(|config| config.limits.batch_bytes_max = 10_000).await;
    let id = build_id(&app.accept(&json!({"base_image": "a", "name": "x"})).await);
    let fence = app.start_building(&id).await;
    for _ in 0..3 {
        app.log(&id, fence, &[&"x".repeat(6_000)]).await;
    }
    let path = format!("/v1/events?type=StepLogged&build={id}");
    let request = app.request(Method::GET, &path).header("accept", BATCH);
    let response = request.send().await.unwrap();
    assert!(response.headers().contains_key("link"));
    let batch: Vec<Value> = response.json().await.unwrap();
    assert_eq!(batch.len(), 1);
}

/// Reads nothing, and is given up all the same: by the subscription, and by the kernel.
#[tokio::test]
async fn a_client_that_never_reads_is_dropped_and_its_connection_closed() {
    let app = TestApp::start_with(|config| {
        config.limits.slow_reader_ms_max = 200;
        config.limits.unread_answer_ms_max = 500;
    })
    .await;
    let id = build_id(&app.accept(&json!({"base_image": "a", "name": "x"})).await);
    let fence = app.start_building(&id).await;
    let line = "x".repeat(200_000);
    for _ in 0..60 {
        app.log(&id, fence, &[&line]).await;
    }
    let streams = &app.service.app.streams;
    let all = u32::try_from(streams.available_permits()).unwrap();
    let mut silent = tokio::net::TcpStream::connect(app.service.address)
        .await
        .unwrap();
    let request = format!(
        "GET /v1/events?follow=true HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        app.key
    );
    silent.write_all(request.as_bytes()).await.unwrap();
    silent.readable().await.unwrap();
    assert!(streams.available_permits() < usize::try_from(all).unwrap());
    let back = tokio::time::timeout(Duration::from_secs(30), streams.acquire_many(all));
    drop(back.await.expect("the connection is given up").unwrap());
    drop(silent);
}
