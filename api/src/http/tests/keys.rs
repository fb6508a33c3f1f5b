//! Keys, the first start, and the operator's door.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use super::support::{TestApp, is_error};
use crate::config::{Config, DataDir};
use crate::wiring::Service;

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_first_start_makes_a_key_and_later_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config {
        data_dir: DataDir::new(folder.path().join("data")),
        ..Config::default()
    };
    config.http.listen = "127.0.0.1:0".parse().unwrap();
    config.data_dir.create().unwrap();
    let start = |config: Config| async move {
        let (foundation, runner) = crate::wiring::Foundation::open(config).await.unwrap();
        Service::without_worker(foundation, runner).await.unwrap()
    };
    let first = start(config.clone()).await;
    let key = first.first_key.as_ref().unwrap().reveal().to_owned();
    let kept = std::fs::read_to_string(config.data_dir.admin_key()).unwrap();
    assert_eq!(kept.trim(), key);
    assert_eq!(mode(&config.data_dir.admin_key()), 0o600);
    assert_eq!(mode(&config.data_dir.admin_socket()), 0o600);
    assert_eq!(mode(config.data_dir.path()), 0o700);
    first.stop().await.unwrap();
    assert!(!config.data_dir.admin_socket().exists());

    let second = start(config).await;
    assert!(second.first_key.is_none());
    let url = format!("http://{}/v1/templates", second.address);
    let client = Client::builder().no_proxy().build().unwrap();
    let response = client.get(url).bearer_auth(&key).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    second.stop().await.unwrap();
}

#[tokio::test]
async fn the_operators_door_makes_lists_and_revokes_keys() {
    let app = TestApp::start().await;
    let socket = app.service.app.config.data_dir.admin_socket();
    let door = Client::builder()
        .unix_socket(socket)
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap();
    let keys = "http://localhost/admin/keys";
    let new = json!({"owner": "guest", "label": "for a while"});
    let created = door.post(keys).json(&new).send().await.unwrap();
    assert_eq!(created.status(), StatusCode::CREATED);
    let created: Value = created.json().await.unwrap();
    let key = created["key"].as_str().unwrap();
    let probe = || async {
        let request = app.client.get(app.url("/v1/templates")).bearer_auth(key);
        request.send().await.unwrap()
    };
    assert_eq!(probe().await.status(), StatusCode::OK);
    let listed = door.get(keys).send().await.unwrap().text().await.unwrap();
    assert!(listed.contains("for a while") && !listed.contains(key));
    let id = created["id"].as_str().unwrap();
    let revoked = door.delete(format!("{keys}/{id}")).send().await.unwrap();
    assert_eq!(revoked.status(), StatusCode::NO_CONTENT);
    is_error(probe().await, 401, "unauthorized").await;
    let again = door.delete(format!("{keys}/{id}")).send().await.unwrap();
    is_error(again, 404, "not_found").await;
    let wrong = json!({"owner": "Not An Owner", "label": ""});
    let refused = door.post(keys).json(&wrong).send().await.unwrap();
    is_error(refused, 400, "invalid_request").await;
    // The door is not in the house's front.
    is_error(app.get("/admin/keys").await, 404, "not_found").await;
}

#[tokio::test]
async fn the_operators_door_resolves_references() {
    let app = TestApp::start().await;
    app.make("my-app", &["v1"]).await;
    let socket = app.service.app.config.data_dir.admin_socket();
    let door = Client::builder()
        .unix_socket(socket)
        .no_proxy()
        .build()
        .unwrap();
    let ask = |reference: &str| {
        door.get(format!(
            "http://localhost/admin/templates/{reference}?owner=default"
        ))
    };
    let found: Value = ask("my-app%3Av1")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(found["artifact_id"].as_str().unwrap().starts_with("art_"));
    assert_eq!(found["canonical_ref"], "default/my-app");
    let refused = ask("my-app").send().await.unwrap();
    let body = is_error(refused, 404, "template_not_found").await;
    assert!(
        body["error"].as_str().unwrap().contains("has the tags v1"),
        "{body}"
    );
}

#[tokio::test]
async fn a_key_made_elsewhere_is_seen_without_a_restart() {
    let app = TestApp::start_with(|config| config.limits.key_refresh_ms = 1).await;
    let state = &app.service.app;
    let new = crate::wire::admin::NewKey {
        owner: "late".into(),
        label: String::new(),
    };
    let created = crate::service::operator::create_key(&state.dispatcher, &state.ids, new)
        .await
        .unwrap();
    let found = async {
        while state.keys.find(&created.key).is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found)
        .await
        .unwrap();
}
