//! Keeping names for a while.

use domain::Digest;
use domain::namespace::Event;
use domain::recorded::StreamName;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::support::{TestApp, is_error};

async fn reserve(app: &TestApp, reference: &str) -> Response {
    let body = json!({"template_ref": reference});
    app.post("/v1/templates/claims", &body).await
}

async fn reserved(app: &TestApp, reference: &str) -> Value {
    let response = reserve(app, reference).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    response.json().await.unwrap()
}

fn path(claim: &Value) -> String {
    let token = claim["claim_token"].as_str().unwrap();
    format!("/v1/templates/claims/{token}")
}

#[tokio::test]
async fn a_name_is_kept_until_it_is_released() {
    let app = TestApp::start().await;
    let claim = reserved(&app, "x").await;
    assert_eq!(claim.as_object().unwrap().len(), 3);
    assert_eq!(claim["canonical_ref"], "default/x");
    let until = claim["expires_at"].as_str().unwrap().to_owned();
    assert!(until.len() == 27 && until.ends_with('Z'), "{until}");
    // Whoever has the token has the name, also among the keys of one owner.
    for reference in ["x", "default/x"] {
        let error = is_error(reserve(&app, reference).await, 409, "conflict").await;
        let expected = format!("the name `x` is reserved until {until}");
        assert_eq!(error["error"], expected);
    }
    assert_ne!(
        reserved(&app, "y").await["claim_token"],
        claim["claim_token"]
    );
    let released = app.delete(&path(&claim)).await;
    assert_eq!(released.status(), StatusCode::NO_CONTENT);
    assert_eq!(released.text().await.unwrap(), "");
    let again = app.delete(&path(&claim)).await;
    is_error(again, 404, "template_name_claim_not_found").await;
    reserved(&app, "x").await;
}

#[tokio::test]
async fn a_token_opens_nothing_for_others_and_is_not_kept() {
    let app = TestApp::start().await;
    let claim = reserved(&app, "x").await;
    let other = app.key_of("other").await;
    let by_other = app.request_by(&other, Method::DELETE, &path(&claim));
    let response = by_other.send().await.unwrap();
    is_error(response, 404, "template_name_claim_not_found").await;
    for token in ["tnc_unknown", "x", "%2F"] {
        let response = app.delete(&format!("/v1/templates/claims/{token}")).await;
        is_error(response, 404, "template_name_claim_not_found").await;
    }
    let token = claim["claim_token"].as_str().unwrap();
    assert!(
        token.starts_with("tnc_") && token.len() == 4 + 64,
        "{token}"
    );
    let stream = StreamName::Namespace("default".parse().unwrap());
    let events = app.events(&stream).await;
    assert!(!format!("{events:?}").contains(&token[4..]));
    let [recorded] = events.as_slice() else {
        panic!("{events:?}");
    };
    let domain::Event::Namespace(Event::NameClaimed { token_digest, .. }) = &recorded.event else {
        panic!("{recorded:?}");
    };
    assert_eq!(*token_digest, Digest::of(token.as_bytes()));
}

#[tokio::test]
async fn a_claim_ends_by_itself() {
    let app = TestApp::start_with(|config| config.limits.claim_secs = 0).await;
    let claim = reserved(&app, "x").await;
    let released = app.delete(&path(&claim)).await;
    is_error(released, 404, "template_name_claim_not_found").await;
    reserved(&app, "x").await;
}

#[tokio::test]
async fn what_there_is_cannot_be_reserved_and_a_build_uses_a_claim_up() {
    let app = TestApp::start().await;
    let claim = reserved(&app, "my-app").await;
    app.make("my-app", &["default"]).await;
    let released = app.delete(&path(&claim)).await;
    is_error(released, 404, "template_name_claim_not_found").await;
    is_error(reserve(&app, "my-app").await, 409, "conflict").await;
    // So does a rename, and the old name is not free either.
    let claim = reserved(&app, "new-app").await;
    let rename = json!({"new_name": "new-app"});
    let renamed = app.post("/v1/templates/refs/my-app/rename", &rename).await;
    assert_eq!(renamed.status(), StatusCode::OK);
    let released = app.delete(&path(&claim)).await;
    is_error(released, 404, "template_name_claim_not_found").await;
    for name in ["my-app", "new-app"] {
        is_error(reserve(&app, name).await, 409, "conflict").await;
    }
}

#[tokio::test]
async fn the_claims_of_an_owner_are_bounded() {
    let app = TestApp::start_with(|config| config.limits.claim_count_max = 2).await;
    let first = reserved(&app, "a").await;
    reserved(&app, "b").await;
    let error = is_error(reserve(&app, "c").await, 403, "QUOTA_EXCEEDED").await;
    assert_eq!(error["error"], "at most 2 names can be reserved at once");
    app.delete(&path(&first)).await;
    reserved(&app, "c").await;
}

#[tokio::test]
async fn a_build_with_a_token_has_the_name_by_that_claim_or_not_at_all() {
    let app = TestApp::start().await;
    let (x, y) = (reserved(&app, "x").await, reserved(&app, "y").await);
    let body = |name: &str, claim: &Value| {
        let token = claim["claim_token"].clone();
        json!({"base_image": "a", "name": name, "claim_token": token})
    };
    let builds = "/v1/templates/builds";
    let refused = app.post(builds, &body("x", &y)).await;
    is_error(refused, 404, "template_name_claim_not_found").await;
    let other = app.key_of("other").await;
    let by_other = app.request_by(&other, Method::POST, builds);
    let refused = by_other.json(&body("x", &x)).send().await.unwrap();
    is_error(refused, 404, "template_name_claim_not_found").await;

    app.accept(&body("x", &x)).await;
    let again = app.post(builds, &body("x", &x)).await;
    is_error(again, 404, "template_name_claim_not_found").await;
    // Without it, it is one more build of the template, and whoever reserved a name has it anyhow.
    app.accept(&json!({"base_image": "a", "name": "x"})).await;
    app.accept(&json!({"base_image": "a", "name": "y"})).await;

    for (wrong, message) in [
        (json!({"base_image": "a", "claim_token": "t"}), "say `name`"),
        (
            json!({"base_image": "a", "name": "z", "claim_token": 1}),
            "must be a string",
        ),
    ] {
        let refused = app.post(builds, &wrong).await;
        let error = is_error(refused, 400, "invalid_request").await;
        let text = error["error"].as_str().unwrap();
        assert!(
            text.contains("claim_token") && text.contains(message),
            "{text}"
        );
    }
}
