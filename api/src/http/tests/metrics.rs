use domain::ports::EventReader as _;
use reqwest::StatusCode;
use serde_json::json;

use super::support::TestApp;

/// The value of a line of the figures.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.and_then(|value| value.trim().parse().ok())
}

async fn figures(app: &TestApp) -> String {
    let response = app.get("/metrics").await;
    assert_eq!(response.status(), StatusCode::OK);
    let kind = response.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    response.text().await.unwrap()
}

/// The figures once they show what is looked for; they follow the log.
async fn figures_with(app: &TestApp, series: &str, wanted: f64) -> String {
    loop {
        let text = figures(app).await;
        if value(&text, series) == Some(wanted) {
            return text;
        }
        assert_ne!(
            app.service.app.metrics.position(),
            app.service.app.log.head(),
            "all was counted and {series} is not {wanted}: {text}"
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_are_counted_by_what_became_of_them() {
    let app = TestApp::start().await;
    let body = json!({"name": "secret-name", "base_image": "debian:bookworm"});
    let one = app.accept(&body).await;
    let two = app.accept(&body).await;
    figures_with(&app, "nullspaced_builds_waiting ", 2.0).await;
    let id = |record: &serde_json::Value| record["build_id"].as_str().unwrap().parse().unwrap();
    let fence = app.start_building(&id(&one)).await;
    figures_with(&app, "nullspaced_builds_building ", 1.0).await;
    app.complete(&id(&one), fence).await;
    let path = format!(
        "/v1/templates/builds/{}/cancel",
        two["build_id"].as_str().unwrap()
    );
    assert_eq!(app.post(&path, &json!({})).await.status(), StatusCode::OK);
    let text = figures_with(&app, "nullspaced_builds_waiting ", 0.0).await;
    let finished = |outcome| {
        let labels = format!("backend=\"native\",outcome=\"{outcome}\",reason=\"\"");
        value(
            &text,
            &format!("nullspaced_builds_finished_total{{{labels}}} "),
        )
    };
    assert_eq!(finished("ready"), Some(1.0), "{text}");
    assert_eq!(finished("cancelled"), Some(1.0), "{text}");
    let requested = "nullspaced_builds_requested_total{backend=\"native\"} ";
    assert_eq!(value(&text, requested), Some(2.0), "{text}");
    assert!(!text.contains("secret-name"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_route_and_never_by_what_callers_wrote() {
    let app = TestApp::start().await;
    app.get("/v1/templates/refs/chosen-by-a-caller").await;
    app.get("/no/such/path").await;
    let text = figures(&app).await;
    let requests = |route: &str| {
        let series = format!("nullspaced_http_requests_total{{route=\"{route}\",status=\"404\"}} ");
        value(&text, &series)
    };
    assert_eq!(requests("/v1/templates/refs/{ref}"), Some(1.0), "{text}");
    assert_eq!(requests("none"), Some(1.0), "{text}");
    assert!(!text.contains("chosen-by-a-caller"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_for_those_with_a_key() {
    let app = TestApp::start().await;
    let response = app.client.get(app.url("/metrics")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}
