//! Where tags have pointed to, and taking them back there.

use reqwest::Method;
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error};

const PATH: &str = "/v1/templates/refs/my-app/tags/prod";

/// `prod` is built to the first build, moved to the second by hand, and taken away.
async fn moved() -> (TestApp, Value, Value) {
    let app = TestApp::start().await;
    let first = app.make("my-app", &["prod"]).await;
    let second = app.make("my-app", &["v2"]).await;
    let exact = format!("/v1/templates/refs/my-app:{}/tags", build_id(&second));
    app.post_json(&exact, &json!({"tags": ["prod"]}), 200).await;
    assert_eq!(app.delete(PATH).await.status(), 204);
    (app, first, second)
}

async fn history(app: &TestApp) -> Vec<Value> {
    let page = app.get_json(&format!("{PATH}/history")).await;
    page["moves"].as_array().unwrap().clone()
}

/// Where `prod` points to.
async fn prod(app: &TestApp) -> Value {
    let tags = app.get_json("/v1/templates/refs/my-app/tags").await;
    let tags = tags.as_array().unwrap();
    let found = tags.iter().find(|tag| tag["tag"] == "prod");
    found.map_or(Value::Null, |tag| tag["build_id"].clone())
}

async fn roll_back(app: &TestApp, to: &Value) -> Value {
    let path = format!("{PATH}/rollback");
    app.post_json(&path, &json!({"to": to}), 200).await
}

#[tokio::test]
async fn every_move_is_told_with_its_cause_and_who_did_it() {
    let (app, first, second) = moved().await;
    let moves = history(&app).await;
    let told: Vec<_> = moves
        .iter()
        .map(|one| json!([one["cause"], one["previous_build_id"], one["build_id"]]))
        .collect();
    let (first, second) = (&first["build_id"], &second["build_id"]);
    let expected = [
        json!(["removed", second, null]),
        json!(["assigned", first, second]),
        json!(["built", null, first]),
    ];
    assert_eq!(told, expected);
    assert_eq!(moves[1]["by"]["kind"], "key");
    assert_eq!(moves[2]["by"]["kind"], "worker");
    assert_eq!(moves[2]["requested_by"], moves[1]["by"]);
    assert_eq!(moves[1]["promotability"]["promotable"], true);
    assert_eq!(moves[0].get("promotability"), None);
}

#[tokio::test]
async fn pages_of_a_history_follow_each_other_without_gap_or_repeat() {
    let (app, ..) = moved().await;
    let whole = history(&app).await;
    for limit in 1..=4 {
        let mut found = Vec::new();
        let mut cursor = String::new();
        // Pages that do not move on are found out, too.
        for _ in 0..=whole.len() {
            let path = format!("{PATH}/history?limit={limit}{cursor}");
            let page = app.get_json(&path).await;
            let moves = page["moves"].as_array().unwrap().clone();
            assert!((1..=limit).contains(&moves.len()), "{page}");
            found.extend(moves);
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(found, whole, "limit {limit}");
    }
    for (query, field) in [
        ("cursor=1", "cursor"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
    ] {
        let refused = app.get(&format!("{PATH}/history?{query}")).await;
        let error = is_error(refused, 400, "invalid_request").await;
        assert_eq!(error["details"]["problems"][0]["field"], field);
    }
}

#[tokio::test]
async fn a_tag_goes_back_to_a_build_or_to_a_move_also_after_it_was_removed() {
    let (app, first, second) = moved().await;
    let moves = history(&app).await;
    let template = roll_back(&app, &first["build_id"]).await;
    assert_eq!(template["tags"], json!(["prod", "v2"]));
    assert_eq!(prod(&app).await, first["build_id"]);
    roll_back(&app, &moves[1]["position"]).await;
    assert_eq!(prod(&app).await, second["build_id"]);
    // An undo is a move, too, and can be undone.
    let now = history(&app).await;
    assert_eq!(now.len(), 5);
    assert_eq!(now[0]["cause"], "assigned");
    assert_eq!(now[0]["previous_build_id"], first["build_id"]);
    roll_back(&app, &now[1]["position"]).await;
    assert_eq!(prod(&app).await, first["build_id"]);
    // Where it is already.
    roll_back(&app, &first["build_id"]).await;
    assert_eq!(history(&app).await.len(), 6);
}

#[tokio::test]
async fn a_tag_goes_nowhere_that_it_has_never_been() {
    let (app, first, _) = moved().await;
    let moves = history(&app).await;
    let third = app.make("my-app", &["v3"]).await;
    let other = app.make("other-app", &["prod"]).await;
    let path = format!("{PATH}/rollback");
    for (to, word) in [
        (&third["build_id"], "never pointed"),
        (&other["build_id"], "never pointed"),
        (&moves[0]["position"], "was removed"),
        (&json!("0000000000000000"), "not moved"),
    ] {
        let refused = app.post(&path, &json!({"to": to})).await;
        let error = is_error(refused, 409, "transition_conflict").await;
        assert!(error["error"].as_str().unwrap().contains(word), "{error}");
    }
    for body in [json!({}), json!({"to": "tb_x"}), json!({"to": 1})] {
        let error = is_error(app.post(&path, &body).await, 400, "invalid_request").await;
        assert_eq!(error["details"]["problems"][0]["field"], "to", "{body}");
    }
    assert_eq!(prod(&app).await, Value::Null);
    let body = json!({"to": first["build_id"]});
    for tag in ["none", "tb_x", "%20"] {
        let path = format!("/v1/templates/refs/my-app/tags/{tag}");
        let unknown = app.get(&format!("{path}/history")).await;
        is_error(unknown, 404, "not_found").await;
        let unknown = app.post(&format!("{path}/rollback"), &body).await;
        is_error(unknown, 404, "not_found").await;
    }
}

#[tokio::test]
async fn the_moves_of_a_public_template_are_its_owners_alone() {
    let (app, first, _) = moved().await;
    let visibility = app.request(Method::PATCH, "/v1/templates/refs/my-app/visibility");
    let shown = visibility.json(&json!({"visibility": "public"}));
    assert_eq!(shown.send().await.unwrap().status(), 200);
    let stranger = app.key_of("other").await;
    let path = "/v1/templates/refs/default%2Fmy-app/tags/prod";
    let history = app.request_by(&stranger, Method::GET, &format!("{path}/history"));
    is_error(history.send().await.unwrap(), 403, "forbidden").await;
    let rollback = app.request_by(&stranger, Method::POST, &format!("{path}/rollback"));
    let rollback = rollback.json(&json!({"to": first["build_id"]}));
    is_error(rollback.send().await.unwrap(), 403, "forbidden").await;
    let builtin = app.get("/v1/templates/refs/nullspace%2Fbase/tags/default/history");
    is_error(builtin.await, 403, "forbidden").await;
    // By the id, and with slashes as they are.
    let id = first["template_id"].as_str().unwrap();
    for base in [
        id.to_owned(),
        format!("refs/{id}"),
        "refs/default/my-app".into(),
    ] {
        let page = app
            .get_json(&format!("/v1/templates/{base}/tags/prod/history"))
            .await;
        assert_eq!(page["moves"].as_array().unwrap().len(), 3, "{base}");
    }
}
