//! Two at once: one wins, the other is told, and the log knows who was who.

#![expect(
    clippy::similar_names,
    reason = "who does something and what came of it"
)]

use std::sync::Arc;

use domain::Event;
use domain::ids::KeyId;
use domain::name::{Namespace, TemplateName};
use domain::namespace::Event as NameEvent;
use domain::recorded::{Actor, Recorded, StreamName};
use domain::template::{Event as TemplateEvent, Visibility};
use projections::templates::TemplateRow;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error};
use crate::http::error::ApiError;
use crate::normalise::{self, BuildRequest};
use crate::service::accept::accept;
use crate::service::keys::Caller;
use crate::service::once::Terms;
use crate::service::{App, claims, templates};

const ROUNDS: usize = 25;

/// Two owners whose default namespace is one and the same, so that they can want one name.
async fn rivals(app: &TestApp) -> [Caller; 2] {
    let namespace: Namespace = "team".parse().unwrap();
    let mut rivals = Vec::new();
    for owner in ["one", "two"] {
        let key = app.key_of(owner).await;
        let caller = app.service.app.keys.find(&key).unwrap();
        rivals.push(Caller {
            namespace: namespace.clone(),
            ..caller
        });
    }
    rivals.try_into().unwrap()
}

fn request(app: &App, caller: &Caller, name: &str) -> BuildRequest {
    let bounds = normalise::Bounds {
        limits: &app.config.limits,
        executor: &app.config.executor,
    };
    let body = json!({"base_image": "debian:bookworm", "name": name});
    let request = normalise::build_request(&body, &caller.owner, bounds).unwrap();
    BuildRequest {
        claim: None,
        namespace: caller.namespace.clone(),
        ..request
    }
}

/// Which of the two won; the other one met a conflict.
fn winner<T>(outcomes: [Result<T, ApiError>; 2], rivals: &[Caller; 2]) -> KeyId {
    match outcomes {
        [Ok(_), Err(ApiError::Conflict(_))] => rivals[0].key.clone(),
        [Err(ApiError::Conflict(_)), Ok(_)] => rivals[1].key.clone(),
        [one, other] => panic!(
            "{:?} and {:?}",
            one.err().map(|err| err.to_string()),
            other.err().map(|err| err.to_string())
        ),
    }
}

async fn team_events(app: &TestApp) -> Vec<Recorded<Event>> {
    app.events(&StreamName::Namespace("team".parse().unwrap()))
        .await
}

/// Who did it, of all events that `is` holds for.
fn actors(events: &[Recorded<Event>], is: impl Fn(&Event) -> bool) -> Vec<Actor> {
    let found = events.iter().filter(|recorded| is(&recorded.event));
    found.map(|recorded| recorded.actor.clone()).collect()
}

fn takes(event: &Event, wanted: &TemplateName) -> bool {
    matches!(event, Event::Namespace(NameEvent::NameTaken { name, .. }) if name == wanted)
}

#[tokio::test]
async fn of_two_owners_who_build_under_one_name_one_has_it() {
    let app = TestApp::start().await;
    let rivals = rivals(&app).await;
    let state = &app.service.app;
    for round in 0..ROUNDS {
        let name = format!("app-{round}");
        let build = |caller: &Caller| {
            accept(
                state,
                caller.clone(),
                request(state, caller, &name),
                Terms::default(),
            )
        };
        let [one, two] = &rivals;
        let (one, two) = tokio::join!(build(one), build(two));
        let id = winner([one, two], &rivals);
        let name = name.parse().unwrap();
        let events = team_events(&app).await;
        let actors = actors(&events, |event| takes(event, &name));
        assert_eq!(actors, [Actor::Key { id }], "{name}");
    }
}

#[tokio::test]
async fn of_two_owners_who_reserve_one_name_one_has_it() {
    let app = TestApp::start().await;
    let rivals = rivals(&app).await;
    let state = &app.service.app;
    for round in 0..ROUNDS {
        let name: TemplateName = format!("app-{round}").parse().unwrap();
        let [one, two] = &rivals;
        let (one, two) = tokio::join!(
            claims::reserve(state, one, name.clone()),
            claims::reserve(state, two, name.clone())
        );
        let id = winner([one, two], &rivals);
        let is = |event: &Event| matches!(event, Event::Namespace(NameEvent::NameClaimed { name: claimed, .. }) if *claimed == name);
        let actors = actors(&team_events(&app).await, is);
        assert_eq!(actors, [Actor::Key { id }], "{name}");
    }
}

/// A template of the caller in its namespace.
async fn made(app: &Arc<App>, caller: &Caller, name: &str) -> TemplateRow {
    let build = accept(
        app,
        caller.clone(),
        request(app, caller, name),
        Terms::default(),
    )
    .await;
    let id = build.unwrap().row.template_id;
    app.views.template(&id).unwrap().unwrap()
}

#[tokio::test]
async fn of_two_owners_who_rename_to_one_name_one_has_it() {
    let app = TestApp::start().await;
    let rivals = rivals(&app).await;
    let state = &app.service.app;
    let rows = [
        made(state, &rivals[0], "one").await,
        made(state, &rivals[1], "two").await,
    ];
    for round in 0..ROUNDS {
        let name: TemplateName = format!("app-{round}").parse().unwrap();
        let rename = |which: usize| {
            let (caller, row) = (rivals[which].clone(), rows[which].clone());
            templates::rename(state, caller, row, name.clone())
        };
        let (one, two) = tokio::join!(rename(0), rename(1));
        let id = winner([one, two], &rivals);
        let events = team_events(&app).await;
        let actors = actors(&events, |event| takes(event, &name));
        assert_eq!(actors, [Actor::Key { id: id.clone() }], "{name}");
        for (caller, row) in rivals.iter().zip(&rows) {
            let now = state.views.template(&row.id).unwrap().unwrap();
            assert_eq!(now.name == name, caller.key == id, "{name}");
        }
    }
}

/// Two keys of the owner `default`, by the way they are sent and by their id.
async fn keys(app: &TestApp) -> [(String, KeyId); 2] {
    let second = app.key_of("default").await;
    [app.key.clone(), second].map(|key| {
        let caller = app.service.app.keys.find(&key).unwrap();
        (key, caller.key)
    })
}

async fn send(app: &TestApp, key: &str, method: Method, path: &str, body: Value) -> Response {
    let request = app.request_by(key, method, path).json(&body);
    request.send().await.unwrap()
}

/// What one of two who did something to a template at once was told.
async fn is_lost(response: Response) {
    let status = response.status().as_u16();
    // Whoever comes when all is over finds nothing.
    let code = match status {
        404 => "template_not_found",
        _ => "conflict",
    };
    assert!([404, 409].contains(&status), "{response:?}");
    is_error(response, status, code).await;
}

#[tokio::test]
async fn when_a_tag_is_moved_and_the_template_deleted_at_once_the_log_tells_what_was_first() {
    let app = TestApp::start().await;
    let [(assigner, assigner_id), (deleter, deleter_id)] = keys(&app).await;
    for round in 0..ROUNDS {
        let name = format!("app-{round}");
        let template = app.make(&name, &["default"]).await;
        let path = format!("/v1/templates/refs/{name}");
        let tags = format!("{path}/tags");
        let assign = send(
            &app,
            &assigner,
            Method::POST,
            &tags,
            json!({"tags": ["prod"]}),
        );
        let delete = send(&app, &deleter, Method::DELETE, &path, json!({}));
        let (assigned, deleted) = if round % 2 == 0 {
            tokio::join!(assign, delete)
        } else {
            let (second, first) = tokio::join!(delete, assign);
            (first, second)
        };
        let stream =
            StreamName::Template(template["template_id"].as_str().unwrap().parse().unwrap());
        let events = app.events(&stream).await;
        let told: Vec<_> = events
            .iter()
            .map(|recorded| (recorded.event.name(), recorded.actor.clone()))
            .collect();
        let assignment = (
            "TagsAssigned",
            Actor::Key {
                id: assigner_id.clone(),
            },
        );
        let deletion = (
            "Deleted",
            Actor::Key {
                id: deleter_id.clone(),
            },
        );
        match (assigned.status(), deleted.status()) {
            // One after the other.
            (StatusCode::OK, StatusCode::NO_CONTENT) => assert_eq!(told, [assignment, deletion]),
            (StatusCode::OK, _) => {
                assert_eq!(told, [assignment]);
                is_error(deleted, 409, "conflict").await;
            }
            (_, StatusCode::NO_CONTENT) => {
                assert_eq!(told, [deletion]);
                is_lost(assigned).await;
            }
            (_, _) => panic!("{assigned:?} and {deleted:?}"),
        }
    }
}

#[tokio::test]
async fn whoever_has_not_seen_what_another_did_meets_a_conflict() {
    let app = TestApp::start().await;
    let state = &app.service.app;
    let caller = state.keys.find(&app.key).unwrap();
    let template = app.make("my-app", &["default"]).await;
    let id = template["template_id"].as_str().unwrap().parse().unwrap();
    let seen = state.views.template(&id).unwrap().unwrap();
    let assign = || {
        let tags = vec!["prod".parse().unwrap()];
        templates::assign(state, &caller, &seen, build_id(&template), tags)
    };
    assign().await.unwrap();
    let stale = templates::delete(state, caller.clone(), seen.clone()).await;
    assert!(matches!(stale, Err(ApiError::Conflict(_))), "{stale:?}");
    let now = state.views.template(&id).unwrap().unwrap();
    templates::delete(state, caller.clone(), now).await.unwrap();
    let late = assign().await;
    assert!(matches!(late, Err(ApiError::Conflict(_))), "{late:?}");
    let to = "new-app".parse().unwrap();
    let late = templates::rename(state, caller.clone(), seen.clone(), to).await;
    assert!(matches!(late, Err(ApiError::Conflict(_))), "{late:?}");
    let public = Visibility::Public;
    let late = templates::set_visibility(state, &caller, &seen, public).await;
    assert!(
        matches!(late, Err(ApiError::TemplateNotFound(_))),
        "{late:?}"
    );
    // Nothing was left behind by those who came too late.
    assert_eq!(app.make("new-app", &["default"]).await["status"], "waiting");
}

#[tokio::test]
async fn of_two_who_delete_a_template_at_once_one_did() {
    let app = TestApp::start().await;
    let keys = keys(&app).await;
    for round in 0..ROUNDS {
        let name = format!("app-{round}");
        let template = app.make(&name, &["default"]).await;
        let path = format!("/v1/templates/refs/{name}");
        let [(one, _), (two, _)] = &keys;
        let (one, two) = tokio::join!(
            send(&app, one, Method::DELETE, &path, json!({})),
            send(&app, two, Method::DELETE, &path, json!({}))
        );
        let (won, lost) = match (one.status(), two.status()) {
            (StatusCode::NO_CONTENT, _) => (&keys[0].1, two),
            (_, StatusCode::NO_CONTENT) => (&keys[1].1, one),
            (_, _) => panic!("{one:?} and {two:?}"),
        };
        is_error(lost, 404, "template_not_found").await;
        let stream =
            StreamName::Template(template["template_id"].as_str().unwrap().parse().unwrap());
        let events = app.events(&stream).await;
        let is = |event: &Event| matches!(event, Event::Template(TemplateEvent::Deleted {}));
        assert_eq!(actors(&events, is), [Actor::Key { id: won.clone() }]);
    }
}

#[tokio::test]
async fn of_two_who_remove_a_tag_at_once_one_did() {
    let app = TestApp::start().await;
    let [(one, _), (two, _)] = keys(&app).await;
    for round in 0..ROUNDS {
        let name = format!("app-{round}");
        let template = app.make(&name, &["default"]).await;
        let path = format!("/v1/templates/refs/{name}/tags/default");
        let (one, two) = tokio::join!(
            send(&app, &one, Method::DELETE, &path, json!({})),
            send(&app, &two, Method::DELETE, &path, json!({}))
        );
        let lost = match (one.status(), two.status()) {
            (StatusCode::NO_CONTENT, _) => two,
            (_, StatusCode::NO_CONTENT) => one,
            (_, _) => panic!("{one:?} and {two:?}"),
        };
        is_error(lost, 404, "not_found").await;
        let stream =
            StreamName::Template(template["template_id"].as_str().unwrap().parse().unwrap());
        assert_eq!(app.events(&stream).await.len(), 1);
    }
}
