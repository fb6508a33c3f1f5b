//! The builds of a template, page by page.

use domain::build::Command;
use domain::failure::{Failure, FailureReason};
use reqwest::Method;
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error};

const PATH: &str = "/v1/templates/refs/my-app/builds";

/// The ids of the builds on a page, in their order.
fn ids(page: &Value) -> Vec<String> {
    let builds = page["builds"].as_array().unwrap();
    let id = |build: &Value| build["build_id"].as_str().unwrap().to_owned();
    builds.iter().map(id).collect()
}

/// A template with a ready build from an image alone, a failed one with a step, and one that waits;
/// their ids, the newest first.
async fn three_builds(app: &TestApp) -> [String; 3] {
    let ready = app.make("my-app", &["v1"]).await;
    let body = json!({"base_image": "a", "name": "my-app", "steps": []});
    let failed = app.accept(&body).await;
    let fence = app.start_building(&build_id(&failed)).await;
    let failure = Failure::new(FailureReason::StepFailed, "it broke");
    app.command(&build_id(&failed), Command::Fail { fence, failure })
        .await;
    let waiting = app.accept(&body).await;
    [waiting, failed, ready].map(|build| build_id(&build).to_string())
}

#[tokio::test]
async fn a_history_is_told_the_newest_first_with_every_build_as_its_record_is() {
    let app = TestApp::start().await;
    let builds = three_builds(&app).await;
    let history = app.get_json(PATH).await;
    assert_eq!(ids(&history), builds);
    assert_eq!(history.get("next_cursor"), None);
    for (build, id) in history["builds"].as_array().unwrap().iter().zip(&builds) {
        let status = app.get_json(&format!("/v1/templates/builds/{id}")).await;
        assert_eq!(*build, status["build"]);
    }
    let template = history["builds"][0]["template_id"].as_str().unwrap();
    for path in [
        format!("/v1/templates/{template}/builds"),
        format!("/v1/templates/refs/{template}/builds"),
        "/v1/templates/refs/my-app%3Av1/builds".into(),
        format!("/v1/templates/refs/my-app%3A{}/builds", builds[1]),
        "/v1/templates/refs/default/my-app/builds".into(),
    ] {
        assert_eq!(app.get_json(&path).await, history, "{path}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repeat() {
    let app = TestApp::start().await;
    let builds = three_builds(&app).await;
    for limit in 1..=4 {
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = app.get_json(&format!("{PATH}?limit={limit}{cursor}")).await;
            let on_page = ids(&page);
            assert!((1..=limit).contains(&on_page.len()), "{page}");
            found.extend(on_page);
            // What begins meanwhile is newer than every page to come.
            if found.len() == limit && limit < 3 {
                app.accept(&json!({"base_image": "a", "name": "other"}))
                    .await;
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(found, builds, "limit {limit}");
    }
}

#[tokio::test]
async fn filters_leave_what_was_asked_for() {
    let app = TestApp::start().await;
    let [waiting, failed, ready] = three_builds(&app).await;
    let all = vec![waiting.clone(), failed.clone(), ready.clone()];
    for (query, expected) in [
        ("status=ready", vec![ready.clone()]),
        ("status=error", vec![failed.clone()]),
        ("status=waiting", vec![waiting.clone()]),
        ("status=cancelled", vec![]),
        ("backend=native", all),
        ("backend=buildkit", vec![]),
        ("source_type=oci_import", vec![ready.clone()]),
        ("source_type=declarative", vec![waiting, failed.clone()]),
        (
            "source_type=declarative&status=error&backend=native",
            vec![failed],
        ),
        ("source_type=declarative&status=ready", vec![]),
    ] {
        let page = app.get_json(&format!("{PATH}?{query}")).await;
        assert_eq!(ids(&page), expected, "{query}");
        assert_eq!(page.get("next_cursor"), None, "{query}");
    }
}

#[tokio::test]
async fn a_wrong_filter_is_named() {
    let app = TestApp::start().await;
    three_builds(&app).await;
    for (query, field) in [
        ("status=bogus", "status"),
        ("status=READY", "status"),
        ("status=", "status"),
        ("backend=docker", "backend"),
        ("source_type=image", "source_type"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=-1", "limit"),
        ("limit=many", "limit"),
        ("cursor=c0", "cursor"),
        ("cursor=", "cursor"),
    ] {
        let response = app.get(&format!("{PATH}?{query}")).await;
        let error = is_error(response, 400, "invalid_request").await;
        assert_eq!(error["details"]["problems"][0]["field"], field, "{error}");
    }
}

#[tokio::test]
async fn a_template_that_the_caller_may_not_know_has_no_history() {
    let app = TestApp::start().await;
    three_builds(&app).await;
    let template = app.get_json(PATH).await["builds"][0]["template_id"].clone();
    let template = template.as_str().unwrap();
    let other = app.key_of("other").await;
    for (key, path) in [
        (&app.key, "/v1/templates/refs/nope/builds".to_owned()),
        (
            &app.key,
            "/v1/templates/refs/my-app%3Anowhere/builds".into(),
        ),
        (&app.key, "/v1/templates/refs/a%2Fb%2Fc/builds".into()),
        (&app.key, "/v1/templates/tmpl_nope/builds".into()),
        (&other, PATH.into()),
        (&other, "/v1/templates/refs/default%2Fmy-app/builds".into()),
        (&other, format!("/v1/templates/{template}/builds")),
    ] {
        let response = app
            .request_by(key, Method::GET, &path)
            .send()
            .await
            .unwrap();
        is_error(response, 404, "template_not_found").await;
    }
    // It is his own that everybody sees of a public one.
    let visibility = app.request(Method::PATCH, "/v1/templates/refs/my-app/visibility");
    let visibility = visibility.json(&json!({"visibility": "public"}));
    assert_eq!(visibility.send().await.unwrap().status().as_u16(), 200);
    let path = "/v1/templates/refs/default%2Fmy-app/builds";
    let response = app
        .request_by(&other, Method::GET, path)
        .send()
        .await
        .unwrap();
    assert_eq!(
        response.json::<Value>().await.unwrap(),
        json!({"builds": []})
    );
}

#[tokio::test]
async fn the_history_of_a_deleted_template_is_gone_and_its_builds_stay() {
    let app = TestApp::start().await;
    let builds = three_builds(&app).await;
    let template = app.get_json(PATH).await["builds"][0]["template_id"].clone();
    let deleted = app.delete("/v1/templates/refs/my-app").await;
    assert_eq!(deleted.status().as_u16(), 204);
    let by_id = format!("/v1/templates/{}/builds", template.as_str().unwrap());
    for path in [PATH, &by_id] {
        is_error(app.get(path).await, 404, "template_not_found").await;
    }
    for build in builds {
        app.get_json(&format!("/v1/templates/builds/{build}")).await;
    }
    // The name begins a history of its own.
    let again = app.make("my-app", &["v1"]).await;
    let history = app.get_json(PATH).await;
    assert_eq!(ids(&history), [build_id(&again).to_string()]);
}

#[tokio::test]
async fn a_builtin_template_was_built_by_nobody() {
    let app = TestApp::start_with(|config| config.builtins.base.image = "debian:12".into()).await;
    let history = app
        .get_json("/v1/templates/refs/nullspace%2Fbase/builds")
        .await;
    assert_eq!(history, json!({"builds": []}));
}

#[tokio::test]
async fn a_template_whose_builds_all_failed_has_a_history() {
    let app = TestApp::start().await;
    let build = app
        .accept(&json!({"base_image": "a", "name": "unlucky"}))
        .await;
    let page = app.get_json("/v1/templates/refs/unlucky/builds").await;
    assert_eq!(ids(&page), [build_id(&build).to_string()]);
}
