//! Statuses and bodies of everything that goes wrong, whatever the endpoint.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{TestApp, is_error};
use crate::http::entry::guarded;

#[tokio::test]
async fn health_answers_everybody_and_machines_only_callers() {
    let app = TestApp::start().await;
    for path in ["/healthz", "/readyz"] {
        let response = app.client.get(app.url(path)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.headers().contains_key("x-request-id"));
        assert_eq!(
            response.json::<Value>().await.unwrap(),
            json!({"status": "ok"})
        );
    }
    let machines = app.get_json("/v1/machines?limit=1").await;
    assert_eq!(machines, json!([]));
}

#[tokio::test]
async fn a_stopping_service_is_not_ready_but_alive() {
    let app = TestApp::start().await;
    app.service.app.stopping.cancel();
    is_error(app.get("/readyz").await, 503, "database_error").await;
    assert_eq!(app.get("/healthz").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn without_a_good_key_nothing_is_told() {
    let app = TestApp::start().await;
    let good = app.key.clone();
    let headers = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ns_live_wrong".to_owned()),
        Some(format!("Basic {good}")),
        Some(format!("Bearer {good}x")),
        Some(format!("Bearer {}", "x".repeat(2000))),
    ];
    for header in headers {
        for (method, path) in [
            (Method::GET, "/v1/templates"),
            (Method::GET, "/v1/machines"),
            (Method::POST, "/v1/templates/build"),
            (Method::POST, "/v1/templates/builds"),
            (Method::PUT, "/v1/templates/blobs/blob_x"),
            (Method::GET, "/v1/templates/builds/tb_x/logs"),
            (Method::POST, "/v1/templates/plan"),
        ] {
            let mut request = app.client.request(method, app.url(path));
            if let Some(header) = &header {
                request = request.header("authorization", header);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            let body = is_error(response, 401, "unauthorized").await;
            assert!(!body.to_string().contains(&good));
        }
    }
    let lower = app.client.get(app.url("/v1/templates"));
    let lower = lower.header("authorization", format!("bearer {good}"));
    assert_eq!(lower.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn unknown_paths_and_methods_answer_in_json_and_never_redirect() {
    let app = TestApp::start().await;
    for path in ["/", "/v1/nothing", "/v1/templates/nothing/here"] {
        is_error(app.get(path).await, 404, "not_found").await;
    }
    let put = app.request(Method::PUT, "/v1/templates/builds");
    let response = put.json(&json!({})).send().await.unwrap();
    assert_eq!(response.headers()["allow"], "POST");
    is_error(response, 405, "invalid_request").await;
    assert_eq!(app.get("/v1/templates/").await.status(), StatusCode::OK);
    is_error(app.get("/v1/templates/%zz").await, 400, "invalid_request").await;
    is_error(
        app.get("/v1/template-warm-pools").await,
        501,
        "not_implemented",
    )
    .await;
}

#[tokio::test]
async fn bodies_that_are_no_json_objects_are_refused() {
    let app = TestApp::start().await;
    for path in [
        "/v1/templates",
        "/v1/templates/build",
        "/v1/templates/builds",
        "/v1/templates/validate",
        "/v1/templates/plan",
        "/v1/templates/blobs/preflight",
    ] {
        for body in ["", "{", "[]", "\"x\"", "nul", "{\"a\": 1} x"] {
            let request = app.request(Method::POST, path).body(body);
            let response = request.send().await.unwrap();
            is_error(response, 400, "invalid_request").await;
        }
        let request = app.request(Method::POST, path).body(vec![0xff, 0xfe]);
        is_error(request.send().await.unwrap(), 400, "invalid_request").await;
    }
}

#[tokio::test]
async fn a_body_of_20_mb_is_refused_so_that_its_sender_reads_it() {
    let app = TestApp::start().await;
    let body = json!({"base_image": "a", "start_cmd": "#".repeat(20_000_000)});
    let response = app.post("/v1/templates/builds", &body).await;
    let body = is_error(response, 413, "invalid_request").await;
    assert_eq!(body["error"], "the body is larger than 16777216 bytes");
    // The connection and the service are as good as before.
    assert_eq!(app.get_json("/v1/machines").await, json!([]));
}

#[tokio::test]
async fn a_body_without_a_length_is_bounded_too() {
    let app = TestApp::start_with(|config| config.limits.json_body_bytes_max = 1000).await;
    let pieces = (0..100).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1000]));
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let request = app.request(Method::POST, "/v1/templates/builds").body(body);
    is_error(request.send().await.unwrap(), 413, "invalid_request").await;
}

#[tokio::test]
async fn a_body_that_stops_arriving_is_given_up() {
    let app = TestApp::start_with(|config| config.limits.body_idle_ms_max = 50).await;
    let mut stream = tokio::net::TcpStream::connect(app.service.address)
        .await
        .unwrap();
    let head = format!(
        "POST /v1/templates/builds HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         content-length: 10\r\nconnection: close\r\n\r\n{{",
        app.key
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("\"code\":\"invalid_request\""), "{answer}");
}

#[tokio::test]
async fn a_panic_is_an_internal_error_that_tells_nothing() {
    let panicking = async {
        let never: Option<actix_web::HttpResponse> = std::iter::empty().next();
        Ok(never.expect("secret words"))
    };
    let response = guarded("req_1", panicking).await;
    assert_eq!(response.status().as_u16(), 500);
    let body = actix_web::body::to_bytes(response.into_body()).await.ok();
    let body: Value = serde_json::from_slice(&body.unwrap()).unwrap();
    assert_eq!(body["code"], "internal_error");
    assert_eq!(body["request_id"], "req_1");
    assert!(!body.to_string().contains("secret"));
}

#[tokio::test]
async fn a_sane_request_id_is_echoed_and_another_replaced() {
    let app = TestApp::start().await;
    for (sent, kept) in [
        ("abc-1.2_3", true),
        ("a b", false),
        (&"x".repeat(200), false),
    ] {
        let request = app.request(Method::GET, "/v1/templates");
        let response = request.header("x-request-id", sent).send().await.unwrap();
        let got = response.headers()["x-request-id"].to_str().unwrap();
        assert_eq!(got == sent, kept);
        assert!(!got.is_empty());
    }
}

#[tokio::test]
async fn queries_are_checked() {
    let app = TestApp::start().await;
    let build = app.accept(&json!({"base_image": "a"})).await;
    let id = build["build_id"].as_str().unwrap();
    for query in ["offset=-1", "offset=x", "offset=1.5", "offset="] {
        let response = app.get(&format!("/v1/templates/builds/{id}?{query}")).await;
        let body = is_error(response, 400, "invalid_request").await;
        assert!(body["error"].as_str().unwrap().starts_with("offset: "));
    }
    for query in ["follow=maybe", "cursor=x"] {
        let path = format!("/v1/templates/builds/{id}/logs?{query}");
        is_error(app.get(&path).await, 400, "invalid_request").await;
    }
    for path in [
        "/v1/templates?fields=nope",
        "/v1/templates/refs/x?fields=id,,name",
    ] {
        is_error(app.get(path).await, 400, "invalid_fields").await;
    }
}
