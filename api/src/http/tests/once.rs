//! One build for requests that ask for it twice: by a key, and by what is under way.

use std::sync::Arc;

use domain::build::{Command, Event as BuildEvent};
use domain::failure::{Failure, FailureReason};
use domain::ids::BuildId;
use domain::recorded::StreamName;
use futures_util::future::join_all;
use projections::builds::BuildFilter;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error};
use crate::normalise;
use crate::service::App;
use crate::service::accept::accept;
use crate::service::once::{Terms, Way};

const BUILDS: &str = "/v1/templates/builds";
const STREAM: &str = "/v1/templates/build";
/// How often two at once are tried.
const ROUNDS: usize = 60;
/// How many requests come at once.
const AT_ONCE: usize = 8;

async fn send(app: &TestApp, path: &str, header: (&str, &str), body: &Value) -> Response {
    let request = app.request(Method::POST, path).header(header.0, header.1);
    request.json(body).send().await.unwrap()
}

async fn keyed(app: &TestApp, key: &str, body: &Value) -> Response {
    send(app, BUILDS, ("Idempotency-Key", key), body).await
}

async fn joining(app: &TestApp, body: &Value) -> Response {
    send(app, BUILDS, ("Prefer", "single-flight"), body).await
}

fn header(response: &Response, name: &str) -> Option<String> {
    let value = response.headers().get(name)?;
    Some(value.to_str().unwrap().to_owned())
}

/// The build of an answer to a start, and what its header says.
async fn started(response: Response, name: &str) -> (BuildId, Option<String>) {
    assert_eq!(response.status().as_u16(), 202);
    let said = header(&response, name);
    (build_id(&response.json().await.unwrap()), said)
}

async fn once(response: Response) -> (BuildId, Option<String>) {
    started(response, "idempotency-replayed").await
}

async fn joined(response: Response) -> (BuildId, Option<String>) {
    started(response, "preference-applied").await
}

fn body(name: &str) -> Value {
    json!({"base_image": "debian:bookworm", "name": name})
}

/// How many builds there are of the template that this build is one of.
fn build_count(app: &App, id: &BuildId) -> usize {
    let row = app.views.build(id).unwrap().unwrap();
    let page = app
        .views
        .builds_of_template(&row.template_id, &BuildFilter::default(), None, 1_000);
    page.unwrap().items.len()
}

async fn fail(app: &TestApp, id: &BuildId) {
    let fence = app.start_building(id).await;
    let failure = Failure::new(FailureReason::StepFailed, "no");
    app.command(id, Command::Fail { fence, failure }).await;
}

#[tokio::test]
async fn the_same_request_with_the_same_key_is_about_the_same_build() {
    let app = TestApp::start().await;
    let (first, said) = once(keyed(&app, "k-1", &body("app")).await).await;
    assert_eq!(said, None);
    let (again, said) = once(keyed(&app, "k-1", &body("app")).await).await;
    assert_eq!((again, said.as_deref()), (first.clone(), Some("true")));
    // Also when it is over, and however it ended.
    fail(&app, &first).await;
    let answer = keyed(&app, "k-1", &body("app")).await;
    assert_eq!(answer.status().as_u16(), 202);
    let build: Value = answer.json().await.unwrap();
    assert_eq!(build_id(&build), first);
    assert_eq!(build["status"], "error");
    assert_eq!(build_count(&app.service.app, &first), 1);
    // Without the key, and with another one, it is a new request.
    for (key, wanted) in [(None, 2), (Some("k-2"), 3)] {
        match key {
            None => drop(app.accept(&body("app")).await),
            Some(key) => drop(once(keyed(&app, key, &body("app")).await).await),
        }
        assert_eq!(build_count(&app.service.app, &first), wanted);
    }
}

#[tokio::test]
async fn the_stream_of_a_repeated_request_tells_the_same_build_from_its_beginning() {
    let app = TestApp::start().await;
    let (first, _) = once(keyed(&app, "k", &body("app")).await).await;
    fail(&app, &first).await;
    let response = send(&app, STREAM, ("Idempotency-Key", "k"), &body("app")).await;
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(
        header(&response, "idempotency-replayed").as_deref(),
        Some("true")
    );
    let text = response.text().await.unwrap();
    let entries: Vec<Value> = text
        .split_terminator("\n\n")
        .filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok())
        .collect();
    let of = |entry: &Value, field: &str| entry[field].as_str().map(str::to_owned);
    assert_eq!(entries[0]["offset"], 0);
    assert_eq!(of(&entries[0], "build_id").as_deref(), Some(first.as_str()));
    let last = entries.last().unwrap();
    assert_eq!(of(last, "kind").as_deref(), Some("error"));
}

#[tokio::test]
async fn another_request_with_the_same_key_is_a_conflict_that_names_it() {
    let app = TestApp::start().await;
    let mut with_file = body("app");
    with_file["steps"] = json!([{"action": "copy", "sources": ["a"], "dst": "/a"}]);
    let file = |text: &str| {
        let mut body = with_file.clone();
        body["build_context"] =
            json!({"files": [{"path": "a", "entry_type": "file", "content_base64": text}]});
        body
    };
    let (first, _) = once(keyed(&app, "k", &file("YQ==")).await).await;
    let mut tagged = file("YQ==");
    tagged["tags"] = json!(["v2"]);
    let mut larger = file("YQ==");
    larger["build_config"] = json!({"memory_mib": 1024});
    for other in [body("app"), file("Yg=="), tagged, larger] {
        let refused = keyed(&app, "k", &other).await;
        let refused = is_error(refused, 409, "conflict").await;
        let message = refused["error"].as_str().unwrap();
        assert!(message.contains("`k`"), "{message}");
        assert!(message.contains(first.as_str()), "{message}");
    }
    assert_eq!(build_count(&app.service.app, &first), 1);
    // What means nothing to a build does not make it another request.
    let mut noted = file("YQ==");
    noted["_client"] = json!("2");
    let (again, _) = once(keyed(&app, "k", &noted).await).await;
    assert_eq!(again, first);
}

#[tokio::test]
async fn somebody_elses_key_is_another_key() {
    let app = TestApp::start().await;
    let (mine, _) = once(keyed(&app, "k", &body("app")).await).await;
    let other = app.key_of("other").await;
    let request = app.request_by(&other, Method::POST, BUILDS);
    let request = request.header("Idempotency-Key", "k").json(&body("app"));
    let (theirs, said) = once(request.send().await.unwrap()).await;
    assert_ne!(theirs, mine);
    assert_eq!(said, None);
}

#[tokio::test]
async fn a_key_that_is_none_is_named() {
    let app = TestApp::start().await;
    let long = "x".repeat(256);
    for key in ["", "a b", &long] {
        let refused = is_error(keyed(&app, key, &body("app")).await, 400, "invalid_request").await;
        let problem = &refused["details"]["problems"][0];
        assert_eq!(problem["field"], "Idempotency-Key", "{refused}");
    }
}

#[tokio::test]
async fn a_key_is_free_again_when_its_time_is_over() {
    let app = TestApp::start_with(|config| config.limits.idempotency_secs = 0).await;
    let (first, _) = once(keyed(&app, "k", &body("app")).await).await;
    let (second, said) = once(keyed(&app, "k", &body("app")).await).await;
    assert_ne!(first, second);
    assert_eq!(said, None);
}

#[tokio::test]
async fn a_key_is_known_after_a_restart() {
    let app = TestApp::start_on_disk().await;
    let (first, _) = once(keyed(&app, "k", &body("app")).await).await;
    let app = app.restarted().await;
    let (again, said) = once(keyed(&app, "k", &body("app")).await).await;
    assert_eq!((again, said.as_deref()), (first, Some("true")));
    is_error(keyed(&app, "k", &body("other")).await, 409, "conflict").await;
}

/// What many requests of these terms at once get, on as many threads as there are.
async fn at_once(app: &TestApp, name: &str, terms: Terms) -> Vec<(BuildId, Way)> {
    let state = &app.service.app;
    let caller = state.keys.find(&app.key).unwrap();
    let bounds = normalise::Bounds {
        limits: &state.config.limits,
        executor: &state.config.executor,
    };
    let requests = (0..AT_ONCE).map(|_| {
        let request = normalise::build_request(&body(name), &caller.owner, bounds).unwrap();
        accept(state, caller.clone(), request, terms.clone())
    });
    let accepted = join_all(requests.collect::<Vec<_>>()).await.into_iter();
    accepted
        .map(|accepted| {
            let accepted = accepted.unwrap();
            (accepted.row.build_id, accepted.way)
        })
        .collect()
}

/// That one of them made the build of all.
fn one_builds(app: &TestApp, got: &[(BuildId, Way)], others: Way) {
    let (first, _) = &got[0];
    assert!(got.iter().all(|(id, _)| id == first), "{got:?}");
    let ways = |wanted| got.iter().filter(|(_, way)| *way == wanted).count();
    assert_eq!((ways(Way::New), ways(others)), (1, AT_ONCE - 1), "{got:?}");
    assert_eq!(build_count(&app.service.app, first), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_requests_with_one_key_at_once_one_builds() {
    let app = TestApp::start().await;
    for round in 0..ROUNDS {
        let terms = Terms {
            key: Some(format!("k-{round}")),
            joins: false,
        };
        let got = at_once(&app, &format!("app-{round}"), terms).await;
        one_builds(&app, &got, Way::Replayed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_requests_with_one_key_and_other_contents_at_once_one_is_refused() {
    let app = TestApp::start().await;
    for round in 0..ROUNDS {
        let key = format!("k-{round}");
        let (one, two) = (body(&format!("a-{round}")), body(&format!("b-{round}")));
        let (one, two) = tokio::join!(keyed(&app, &key, &one), keyed(&app, &key, &two));
        let mut statuses = [one.status().as_u16(), two.status().as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 409]);
    }
}

#[tokio::test]
async fn what_is_recorded_of_a_key_holds_no_value_of_a_secret() {
    let app = TestApp::start().await;
    let with = |value: &str| {
        json!({
            "name": "app",
            "dockerfile": "FROM debian:bookworm\n",
            "build_secrets": [{"id": "token", "value": value}],
        })
    };
    let (first, _) = once(keyed(&app, "k", &with("first-value")).await).await;
    // The values are left out of what identifies a request: nobody can try values against it.
    let (again, said) = once(keyed(&app, "k", &with("second-value")).await).await;
    assert_eq!((&again, said.as_deref()), (&first, Some("true")));
    let events = app.events(&StreamName::Build(first)).await;
    let domain::Event::Build(BuildEvent::Requested(requested)) = &events[0].event else {
        panic!("{:?}", events[0]);
    };
    assert_eq!(requested.idempotency_key.as_deref(), Some("k"));
    assert!(requested.request_digest.is_some());
    let mut other = with("first-value");
    other["build_secrets"][0]["id"] = json!("other");
    is_error(keyed(&app, "k", &other).await, 409, "conflict").await;
}

#[tokio::test]
async fn a_retry_with_a_key_is_made_once() {
    let app = TestApp::start().await;
    let (first, _) = once(keyed(&app, "k", &body("app")).await).await;
    fail(&app, &first).await;
    let path = format!("{BUILDS}/{first}/retry");
    let retry = |key: &'static str, body: Value| {
        let (app, path) = (&app, path.clone());
        async move { send(app, &path, ("Idempotency-Key", key), &body).await }
    };
    let (one, two) = tokio::join!(retry("r", json!({})), retry("r", json!({})));
    let (one, two) = (once(one).await, once(two).await);
    assert_eq!(one.0, two.0);
    assert_ne!(one.0, first);
    assert_eq!(build_count(&app.service.app, &first), 2);
    let tagged = json!({"tags": ["v2"]});
    is_error(retry("r", tagged).await, 409, "conflict").await;
    // The key of the original is taken by another request.
    is_error(retry("k", json!({})).await, 409, "conflict").await;
}

#[tokio::test]
async fn a_request_that_would_join_gets_the_build_under_way() {
    let app = TestApp::start().await;
    let (first, said) = joined(joining(&app, &body("app")).await).await;
    assert_eq!(said, None);
    let (again, said) = joined(joining(&app, &body("app")).await).await;
    assert_eq!((&again, said.as_deref()), (&first, Some("single-flight")));
    // While it is built as well, and whoever made it.
    app.start_building(&first).await;
    let (again, _) = joined(joining(&app, &body("app")).await).await;
    assert_eq!(again, first);
    let plain = app.accept(&body("app")).await;
    assert_ne!(
        build_id(&plain),
        first,
        "nobody joins who does not ask for it"
    );
}

#[tokio::test]
async fn whoever_joins_does_not_wait_in_line() {
    let app = TestApp::start_with(|config| config.limits.waiting_build_count_max = 1).await;
    let (first, _) = joined(joining(&app, &body("app")).await).await;
    let (again, said) = joined(joining(&app, &body("app")).await).await;
    assert_eq!((&again, said.as_deref()), (&first, Some("single-flight")));
    let refused = joining(&app, &body("other")).await;
    assert_eq!(refused.status().as_u16(), 429);
}

#[tokio::test]
async fn what_differs_or_is_over_is_not_joined() {
    let app = TestApp::start().await;
    let first = build_id(&app.accept(&body("app")).await);
    let mut tagged = body("app");
    tagged["tags"] = json!(["v2"]);
    let mut defined = body("app");
    defined["skip_cache"] = json!(true);
    let unnamed = json!({"base_image": "debian:bookworm"});
    for other in [tagged, defined, body("other"), unnamed.clone(), unnamed] {
        let (id, said) = joined(joining(&app, &other).await).await;
        assert_ne!(id, first, "{other}");
        assert_eq!(said, None, "{other}");
    }
    let others = app.key_of("other").await;
    let request = app.request_by(&others, Method::POST, BUILDS);
    let request = request.header("Prefer", "single-flight").json(&body("app"));
    let (theirs, _) = joined(request.send().await.unwrap()).await;
    assert_ne!(theirs, first);
    // Being cancelled is as good as over.
    app.start_building(&first).await;
    let path = format!("{BUILDS}/{first}/cancel");
    let cancelled = app.post(&path, &json!({})).await;
    assert_eq!(cancelled.status().as_u16(), 200);
    let (next, said) = joined(joining(&app, &body("app")).await).await;
    assert_ne!(next, first);
    assert_eq!(said, None);
    fail(&app, &next).await;
    let (last, _) = joined(joining(&app, &body("app")).await).await;
    assert_ne!(last, next);
}

#[tokio::test]
async fn a_request_with_secrets_or_a_key_joins_nothing() {
    let app = TestApp::start().await;
    let secret = json!({
        "name": "secret",
        "dockerfile": "FROM debian:bookworm\n",
        "build_secrets": [{"id": "token", "value": "a-value"}],
    });
    let credentials = json!({
        "name": "private",
        "base_image": "registry.example/app:1",
        "base_image_auth": {"kind": "basic", "username": "u", "password": "p"},
    });
    for body in [secret, credentials] {
        let (one, _) = joined(joining(&app, &body).await).await;
        let (two, said) = joined(joining(&app, &body).await).await;
        assert_ne!(one, two, "{body}");
        assert_eq!(said, None, "{body}");
    }
    let first = build_id(&app.accept(&body("app")).await);
    let request = app.request(Method::POST, BUILDS);
    let request = request
        .header("Prefer", "single-flight")
        .header("Idempotency-Key", "k")
        .json(&body("app"));
    let (second, _) = joined(request.send().await.unwrap()).await;
    assert_ne!(first, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_would_join_at_once_one_builds() {
    let app = TestApp::start().await;
    for round in 0..ROUNDS {
        let terms = Terms {
            key: None,
            joins: true,
        };
        let got = at_once(&app, &format!("app-{round}"), terms).await;
        one_builds(&app, &got, Way::Joined);
    }
}

#[tokio::test]
async fn turns_leave_nothing_behind() {
    let app = TestApp::start().await;
    once(keyed(&app, "k", &body("app")).await).await;
    joined(joining(&app, &body("app")).await).await;
    let app: &Arc<App> = &app.service.app;
    assert_eq!(app.turns.open_count(), 0);
}
