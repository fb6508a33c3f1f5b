use domain::Digest;
use domain::build::{
    BypassReason, CacheBypassed, CacheKind, CacheMissed, CacheSubject, Command, Event,
    FilesCounted, Phase, PhaseFinished,
};
use domain::failure::{Failure, FailureReason};
use domain::ports::EventReader as _;
use domain::recorded::Position;
use reqwest::StatusCode;
use serde_json::json;

use super::support::{TestApp, build_id};

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

/// Some entry of a cache.
fn entry(kind: CacheKind) -> CacheSubject {
    CacheSubject {
        kind,
        subject: "x".to_owned(),
        step_index: None,
        key: Digest::ZERO,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_caches_phases_and_logs_did_is_counted_once() {
    let app = TestApp::start().await;
    let id = build_id(&app.accept(&json!({"base_image": "debian:bookworm"})).await);
    let fence = app.start_building(&id).await;
    let missed = CacheMissed {
        entry: entry(CacheKind::Layer),
        difference: None,
    };
    let bypassed = CacheBypassed {
        entry: entry(CacheKind::FinalArtifact),
        reason: BypassReason::WholeBuildSkipCache,
    };
    let files = FilesCounted {
        hits: 3,
        misses: 4,
        bypasses: 5,
        stores: 6,
    };
    let finished = PhaseFinished {
        phase: Phase::Step,
        duration_ms: 1500,
        pulled_bytes: None,
    };
    let events = vec![
        Event::CacheHit(entry(CacheKind::Layer)),
        Event::CacheHit(entry(CacheKind::Layer)),
        Event::CacheMissed(missed),
        Event::CacheBypassed(bypassed),
        Event::FilesCounted(files),
        Event::PhaseFinished(finished),
    ];
    app.command(&id, Command::Report { fence, events }).await;
    app.log(&id, fence, &["abc", "defg"]).await;
    let failure = Failure::new(FailureReason::WorkerLost, "gone");
    app.command(&id, Command::Fail { fence, failure }).await;
    let text = figures_with(&app, "nullspaced_build_attempts_retried_total ", 1.0).await;
    let looked_up = |kind, outcome| {
        let labels = format!("kind=\"{kind}\",outcome=\"{outcome}\"");
        value(
            &text,
            &format!("nullspaced_cache_lookups_total{{{labels}}} "),
        )
    };
    for (kind, outcome, expected) in [
        ("layer", "hit", 2.0),
        ("layer", "miss", 1.0),
        ("final_artifact", "bypass", 1.0),
        ("file_blob", "hit", 3.0),
        ("file_blob", "miss", 4.0),
        ("file_blob", "bypass", 5.0),
    ] {
        let found = looked_up(kind, outcome);
        assert_eq!(found, Some(expected), "{kind} {outcome}: {text}");
    }
    let phase = |part| format!("nullspaced_build_phase_duration_seconds_{part}{{phase=\"step\"}} ");
    assert_eq!(value(&text, &phase("count")), Some(1.0), "{text}");
    assert_eq!(value(&text, &phase("sum")), Some(1.5), "{text}");
    assert_eq!(value(&text, "nullspaced_build_log_bytes_total "), Some(7.0));
    assert_eq!(value(&text, "nullspaced_builds_waiting "), Some(1.0));
    assert_eq!(value(&text, "nullspaced_builds_building "), Some(0.0));

    // Whoever reads the log again from its beginning counts nothing twice.
    let service = &app.service.app;
    let (all, before) = (
        service.log.read_all(Position::START, 1000).await.unwrap(),
        service.metrics.text().unwrap(),
    );
    service.metrics.count(&all);
    assert_eq!(service.metrics.text().unwrap(), before);
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
