//! What is given up, what a restart leaves, and what a lost key means.

use domain::recorded::StreamName;

use super::receiver::{Act, Came, Receiver, taken};
use super::*;

/// Waits until the service says what is wanted about a webhook.
async fn wait_status(app: &TestApp, id: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    let asking = async {
        loop {
            let status = app.get_json(&format!("/v1/webhooks/{id}")).await;
            if is_wanted(&status) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), asking)
        .await
        .unwrap()
}

fn is_log(event: &Value) -> bool {
    event["type"] == "nullspace.build.StepLogged"
}

#[tokio::test]
async fn an_event_that_is_never_taken_is_given_up_shown_and_sent_again_on_demand() {
    let app = TestApp::start_with(|config| {
        local(config);
        config.limits.webhook_attempt_count_max = 3;
    })
    .await;
    let receiver = Receiver::start(|event, _| {
        if is_log(event) {
            Act::Answer(410)
        } else {
            Act::Answer(204)
        }
    });
    let start = app.service.app.log.head();
    let (id, _) = register(&app, &json!({"url": receiver.url()})).await;
    build(&app, "app", 1).await;
    let all = happened(&app, start).await;
    let line = all
        .iter()
        .find(|recorded| recorded.event.name() == "StepLogged")
        .unwrap();
    let line = ids(std::slice::from_ref(line)).remove(0);
    let others: Vec<_> = ids(&all).into_iter().filter(|id| *id != line).collect();
    // What comes behind it in its build is sent.
    let came = receiver.wait_for(&others).await;
    let attempts: Vec<u32> = came
        .iter()
        .filter(|came| came.id == line)
        .map(|came| came.attempt)
        .collect();
    assert_eq!(attempts, [1, 2, 3]);

    let dead = deliveries(&app, &id, "?status=dead").await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0]["event_id"], line.as_str());
    assert_eq!(
        (
            &dead[0]["status"],
            &dead[0]["attempts"],
            &dead[0]["last_status"]
        ),
        (&json!("dead"), &json!(3), &json!(410))
    );
    let status = wait_status(&app, &id, |status| status["pending_stream_count"] == 0).await;
    assert_eq!(status["dead_letter_count"], 1);
    // It is among all of them in its place, page by page.
    let delivered = deliveries(&app, &id, "").await;
    let shown: Vec<_> = delivered.iter().map(|one| one["id"].as_str()).collect();
    assert!(shown.is_sorted_by(|a, b| a > b), "{shown:?}");
    assert_eq!(delivered.len(), all.len());
    assert!(delivered.contains(&dead[0]));
    let page = app
        .get_json(&format!("/v1/webhooks/{id}/deliveries?limit=2"))
        .await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = deliveries(&app, &id, &format!("?cursor={cursor}")).await;
    assert_eq!(rest, delivered[2..]);

    receiver.now(|_, _| Act::Answer(204));
    let delivery = dead[0]["id"].as_str().unwrap();
    let path = format!("/v1/webhooks/{id}/deliveries/{delivery}/redeliver");
    app.post_json(&path, &json!({}), 202).await;
    receiver.wait_for(std::slice::from_ref(&line)).await;
    let status = wait_status(&app, &id, |status| status["pending_stream_count"] == 0).await;
    assert_eq!(status["dead_letter_count"], 0);
    let delivered = deliveries(&app, &id, "").await;
    let found = delivered.iter().find(|one| one["id"] == delivery).unwrap();
    assert_eq!(found["status"], "delivered");
    is_error(app.post(&path, &json!({})).await, 404, "not_found").await;
}

#[tokio::test]
async fn a_receiver_that_is_gone_gets_its_webhook_paused_and_the_log_few_events() {
    let app = TestApp::start_with(|config| {
        local(config);
        config.limits.webhook_attempt_count_max = 2;
        config.limits.webhook_dead_letter_count_max = 3;
        config.limits.webhook_concurrent_count_max = 1;
    })
    .await;
    let receiver = Receiver::start(|_, _| Act::Answer(500));
    let start = app.service.app.log.head();
    let (id, _) = register(&app, &json!({"url": receiver.url()})).await;
    build(&app, "app", 5).await;
    let status = wait_status(&app, &id, |status| status["paused"] == true).await;
    assert_eq!(status["paused_reason"], "dead_letters");
    assert_eq!(status["dead_letter_count"], 3);
    let stream = StreamName::Webhook(id.parse().unwrap());
    assert_eq!(app.events(&stream).await.len(), 1 + 3 + 1);
    let path = format!("/v1/webhooks/{id}");
    let resume = app
        .request(Method::PATCH, &path)
        .json(&json!({"paused": false}));
    is_error(resume.send().await.unwrap(), 409, "transition_conflict").await;

    // Its owner has mended it.
    receiver.now(|_, _| Act::Answer(204));
    let replay = format!("/v1/webhooks/{id}/replay");
    let replayed = app
        .post_json(&replay, &json!({"from": "0".repeat(16)}), 202)
        .await;
    assert_eq!(replayed["dead_letter_count"], 0);
    assert_eq!(replayed["paused"], true);
    patch(&app, &id, false).await;
    let all = ids(&happened(&app, start).await);
    receiver.wait_for(&all).await;
}

#[tokio::test]
async fn a_restart_in_the_middle_loses_nothing_and_keeps_the_secret() {
    let app = TestApp::start_on_disk_with(local).await;
    let receiver = Receiver::start(|event, _| {
        if is_log(event) {
            Act::Hang
        } else {
            Act::Answer(204)
        }
    });
    let start = app.service.app.log.head();
    let (id, secret) = register(&app, &json!({"url": receiver.url()})).await;
    build(&app, "app", 3).await;
    // One is under way when the service stops; what is behind it was not sent.
    receiver
        .wait(|came| came.iter().any(|came| came.act == Act::Hang))
        .await;
    let before = taken(&receiver.came());
    let app = app.restarted().await;
    receiver.now(|_, _| Act::Answer(204));
    build(&app, "later", 1).await;
    let all = ids(&happened(&app, start).await);
    let came = receiver.wait_for(&all).await;
    assert!(came.iter().all(|came| came.is_signed_with(&secret)));
    // What was taken before is known: it did not come again.
    for id in &before {
        let times = came.iter().filter(|came| came.id == *id).count();
        assert_eq!(times, 1, "{id}");
    }
    let status = wait_status(&app, &id, |status| status["pending_stream_count"] == 0).await;
    assert_eq!(status["paused"], false);
}

#[tokio::test]
async fn without_what_was_delivered_everything_since_the_registration_is_sent_again() {
    let app = TestApp::start_on_disk_with(local).await;
    let receiver = Receiver::start(|_, _| Act::Answer(204));
    build(&app, "before", 0).await;
    let start = app.service.app.log.head();
    register(&app, &json!({"url": receiver.url()})).await;
    build(&app, "app", 1).await;
    let all = ids(&happened(&app, start).await);
    receiver.wait_for(&all).await;
    let _app = app
        .restarted_after(|data| std::fs::remove_dir_all(data.deliveries()).unwrap())
        .await;
    let came = receiver.wait(|came| came.len() == all.len() * 2).await;
    let again: Vec<String> = taken(&came[all.len()..]);
    assert!(all.iter().all(|id| again.contains(id)), "{again:?}");
}

#[tokio::test]
async fn with_another_key_nothing_is_sent_that_its_receiver_would_refuse() {
    let app = TestApp::start_on_disk_with(local).await;
    let receiver = Receiver::start(|_, _| Act::Answer(204));
    let (id, _) = register(&app, &json!({"url": receiver.url()})).await;
    let app = app
        .restarted_after(|data| std::fs::remove_file(data.webhooks_key()).unwrap())
        .await;
    let status = wait_status(&app, &id, |status| status["paused"] == true).await;
    assert_eq!(status["paused_reason"], "signing_key");
    build(&app, "app", 1).await;
    // A webhook that is registered now is served.
    let (_, secret) = register(
        &app,
        &json!({"url": receiver.url(), "types": ["Snapshotted"]}),
    )
    .await;
    build(&app, "other", 0).await;
    let came = receiver.wait(|came| !came.is_empty()).await;
    assert!(came.iter().all(|came: &Came| came.is_signed_with(&secret)));
}

#[tokio::test]
async fn the_secret_is_in_no_event_and_in_no_file_but_as_the_key_it_is_made_of() {
    let app = TestApp::start_on_disk_with(local).await;
    let receiver = Receiver::start(|_, _| Act::Answer(204));
    let start = app.service.app.log.head();
    let (_, secret) = register(&app, &json!({"url": receiver.url()})).await;
    build(&app, "app", 1).await;
    receiver.wait_for(&ids(&happened(&app, start).await)).await;
    let folder = app.service.app.config.data_dir.path().to_owned();
    let secret = secret.strip_prefix("whsec_").unwrap().to_owned();
    let _app = app
        .restarted_after(|_| {
            let key = std::fs::read_to_string(folder.join("webhooks.key")).unwrap();
            let mut seen = Vec::new();
            for file in files(&folder) {
                let content = std::fs::read(&file).unwrap();
                let holds = |needle: &str| {
                    let mut windows = content.windows(needle.len());
                    windows.any(|window| window == needle.as_bytes())
                };
                assert!(!holds(&secret), "{}", file.display());
                if holds(key.trim()) {
                    seen.push(file.file_name().unwrap().to_owned());
                }
            }
            assert_eq!(seen, ["webhooks.key"]);
        })
        .await;
}

/// All files below `folder`.
fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}
