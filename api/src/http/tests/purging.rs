//! What is said of an artifact whose files are gone, also after a crash.

use commands::Meta;
use domain::ids::ArtifactId;
use domain::recorded::Actor;
use domain::template::{Command, Event as TemplateEvent};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::retention::{PATIENCE, expired, keeping_for, make_of, publish, said, shown};
use super::support::{TestApp, build_id, is_error};

/// Waits until the stream of the template says that nothing is left of what the build made.
async fn purged(app: &TestApp, build: &Value) {
    let id = build_id(build);
    let says = |event: &TemplateEvent| matches!(event, TemplateEvent::ArtifactPurged { build, .. } if *build == id);
    said(app, build, says).await;
}

async fn is_stored(app: &TestApp, artifact: &ArtifactId) -> bool {
    let artifacts = &app.service.app.desk.cache.artifacts;
    artifacts.list().await.unwrap().contains(artifact)
}

#[tokio::test]
async fn a_build_says_that_what_it_made_was_removed() {
    let app = keeping_for(1).await;
    let (gone, kept) = (publish(&app, "gone").await, publish(&app, "kept").await);
    let first = make_of(&app, "my-app", &gone).await;
    make_of(&app, "my-app", &kept).await;
    purged(&app, &first).await;
    assert!(!is_stored(&app, &gone).await);
    assert!(is_stored(&app, &kept).await);

    let build = shown(&app, &first).await;
    let at = expired(&app, &first).await;
    assert_eq!(build["status"], "ready");
    assert_eq!(build["retention_expires_at"], at.to_string());
    assert_eq!(build["artifact_availability"]["status"], "unavailable");
    let promotability = &build["promotability"];
    assert_eq!(promotability["status"], "purged");
    assert_eq!(promotability["promotable"], false);
    let reason = promotability["reason"].as_str().unwrap();
    assert!(reason.contains("was removed"), "{reason}");
    let promote = format!("/v1/templates/builds/{}/promote", build_id(&first));
    let refused = app.post(&promote, &json!({"tag": "v2"})).await;
    is_error(refused, 409, "transition_conflict").await;
}

#[tokio::test]
async fn an_artifact_of_two_templates_is_gone_for_both_at_once() {
    let app = keeping_for(1).await;
    let (shared, kept) = (publish(&app, "shared").await, publish(&app, "kept").await);
    let first = make_of(&app, "my-app", &shared).await;
    let second = make_of(&app, "other", &shared).await;
    make_of(&app, "my-app", &kept).await;
    expired(&app, &first).await;
    assert_eq!(
        shown(&app, &first).await["promotability"]["status"],
        "expired"
    );
    assert!(is_stored(&app, &shared).await, "`other` needs it");

    let removed = app.delete("/v1/templates/refs/other/tags/v1").await;
    assert_eq!(removed.status(), StatusCode::NO_CONTENT);
    purged(&app, &first).await;
    purged(&app, &second).await;
    assert!(!is_stored(&app, &shared).await);
}

/// A build whose artifact has expired and is still there: as a crash leaves it. Behind it stands one
/// with a tag.
async fn expired_and_left(app: &TestApp, name: &str) -> (Value, ArtifactId) {
    let artifact = publish(app, name).await;
    let first = make_of(app, name, &artifact).await;
    let kept = publish(app, &format!("{name}-kept")).await;
    make_of(app, name, &kept).await;
    let service = &app.service.app;
    let template = first["template_id"].as_str().unwrap().parse().unwrap();
    let meta = Meta {
        command_id: service.ids.new_command_id(),
        actor: Actor::Operator,
    };
    let (state, _) = service.dispatcher.load_template(&template).await.unwrap();
    let expire = Command::ExpireArtifact {
        build: build_id(&first),
        artifact: artifact.clone(),
        seen: state.version().unwrap(),
    };
    let done = service.dispatcher.template(&template, meta, expire).await;
    let position = done.unwrap().appended.unwrap().position;
    service.views.wait_for(position, PATIENCE).await.unwrap();
    (first, artifact)
}

#[tokio::test]
async fn what_was_made_for_a_deleted_template_goes_and_what_another_needs_stays() {
    let app = TestApp::start().await;
    let (shared, alone) = (publish(&app, "shared").await, publish(&app, "alone").await);
    for (name, artifact) in [
        ("deleted", &shared),
        ("deleted", &alone),
        ("other", &shared),
    ] {
        make_of(&app, name, artifact).await;
    }
    let deleted = app.delete("/v1/templates/refs/deleted").await;
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    let gone = app.service.app.desk.collect_artifacts(false).await.unwrap();
    let keys: Vec<&str> = gone.iter().map(|one| one.key.as_str()).collect();
    assert_eq!(keys, [alone.as_str()]);
    assert!(!is_stored(&app, &alone).await);
    assert!(is_stored(&app, &shared).await);
}

#[tokio::test]
async fn what_a_crash_left_behind_an_expiry_goes_at_the_next_start() {
    let app = TestApp::start_on_disk().await;
    let (left, artifact) = expired_and_left(&app, "left").await;
    let (unsaid, removed) = expired_and_left(&app, "unsaid").await;
    let (of_deleted, also_left) = expired_and_left(&app, "deleted").await;
    // One crash was before the removal, the other one behind it.
    let artifacts = &app.service.app.desk.cache.artifacts;
    let claim = artifacts.claim(&removed).await.unwrap();
    app.service.app.desk.cache.remove(claim).await.unwrap();
    let deleted = app.delete("/v1/templates/refs/deleted").await;
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    assert!(is_stored(&app, &artifact).await);
    assert!(is_stored(&app, &also_left).await);
    for build in [&left, &unsaid] {
        let build = shown(&app, build).await;
        assert_eq!(build["promotability"]["status"], "expired");
    }

    let app = app.restarted().await;
    for build in [&left, &unsaid] {
        purged(&app, build).await;
        let build = shown(&app, build).await;
        assert_eq!(build["promotability"]["status"], "purged");
    }
    let going = async {
        while is_stored(&app, &artifact).await || is_stored(&app, &also_left).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, going).await.unwrap();
    let build = shown(&app, &of_deleted).await;
    assert_eq!(build["promotability"]["status"], "unavailable");
    let kept = &app.service.app.desk.cache.artifacts;
    assert_eq!(kept.list().await.unwrap().len(), 3, "those with a tag stay");
}
