//! The trail of a build.

use domain::recorded::StreamName;
use reqwest::Method;
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error};
use crate::wire::ascii;
use crate::wire::event::EventRecord;

#[tokio::test]
async fn a_trail_is_all_that_happened_page_by_page_with_its_chain() {
    let app = TestApp::start().await;
    let id = build_id(&app.make("x", &["v1"]).await);
    let recorded = app.events(&StreamName::Build(id.clone())).await;
    let expected: Vec<Value> = recorded
        .iter()
        .map(|event| {
            let written = ascii::to_vec(&EventRecord::of(event).unwrap()).unwrap();
            serde_json::from_slice(&written).unwrap()
        })
        .collect();
    let path = format!("/v1/templates/builds/{id}/events");
    let whole = app.get_json(&path).await;
    assert_eq!(whole["events"], json!(expected));
    assert_eq!(whole["build_id"], id.as_str());
    let zeros = format!("sha256:{}", "0".repeat(64));
    assert_eq!(whole["previous_hash"], zeros);
    assert_eq!(whole.get("next"), None);

    let (mut from, mut previous, mut got) = (0, json!(zeros), Vec::new());
    loop {
        let page = app.get_json(&format!("{path}?from={from}&limit=3")).await;
        assert_eq!(page["previous_hash"], previous);
        let events = page["events"].as_array().unwrap();
        previous = events.last().unwrap()["hash"].clone();
        got.extend(events.clone());
        match page["next"].as_u64() {
            None => break,
            Some(next) => {
                assert_eq!(next, from + 3);
                from = next;
            }
        }
    }
    assert_eq!(got, expected);

    // Behind the last one nothing has happened yet.
    let count = expected.len();
    let page = app.get_json(&format!("{path}?from={count}")).await;
    assert_eq!(
        (&page["events"], &page["previous_hash"]),
        (&json!([]), &previous)
    );
    let behind = app.get(&format!("{path}?from={}", count + 1)).await;
    let body = is_error(behind, 400, "invalid_request").await;
    assert_eq!(body["details"]["problems"][0]["field"], "from");
    for limit in ["0", "1001", "-1"] {
        let refused = app.get(&format!("{path}?limit={limit}")).await;
        let body = is_error(refused, 400, "invalid_request").await;
        assert_eq!(body["details"]["problems"][0]["field"], "limit");
    }
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes_and_says_where_to_go_on() {
    let app = TestApp::start_with(|config| config.limits.batch_bytes_max = 10_000).await;
    let id = build_id(&app.accept(&json!({"base_image": "a", "name": "x"})).await);
    let fence = app.start_building(&id).await;
    for _ in 0..3 {
        app.log(&id, fence, &[&"x".repeat(6_000)]).await;
    }
    let path = format!("/v1/templates/builds/{id}/events?from=2");
    let page = app.get_json(&path).await;
    assert_eq!(page["events"].as_array().unwrap().len(), 1);
    assert_eq!(page["next"], 3);
}

#[tokio::test]
async fn the_trail_of_somebody_elses_build_is_not_there() {
    let app = TestApp::start().await;
    let id = build_id(&app.make("x", &["v1"]).await);
    let key = app.key_of("other").await;
    for path in [
        format!("/v1/templates/builds/{id}/events"),
        "/v1/templates/builds/tb_x/events".to_owned(),
    ] {
        let asked = app
            .request_by(&key, Method::GET, &path)
            .send()
            .await
            .unwrap();
        is_error(asked, 404, "template_build_not_found").await;
    }
    let path = format!("/v1/templates/builds/{id}/events");
    is_error(app.post(&path, &json!({})).await, 405, "invalid_request").await;
}
