//! What arrives: everything, in order, signed.

use std::collections::BTreeMap;

use commands::clock::SystemClock;
use domain::ports::Clock as _;

use super::receiver::{Act, Came, Receiver, taken};
use super::*;

/// Checks that within each stream no event was sent before an earlier one was taken.
fn in_order(came: &[Came]) {
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    for came in came {
        let (stream, version) = came.id.rsplit_once('/').unwrap();
        let version: u64 = version.parse().unwrap();
        let expected = next.entry(stream.to_owned()).or_insert(version);
        assert!(version <= *expected, "{} came before {expected}", came.id);
        if came.act == Act::Answer(204) {
            *expected = (*expected).max(version + 1);
        }
    }
}

#[tokio::test]
async fn a_receiver_that_fails_hangs_and_recovers_gets_everything_in_order_and_signed() {
    let app = TestApp::start_with(|config| {
        local(config);
        config.limits.webhook_timeout_ms = 40;
    })
    .await;
    // Of three attempts one fails, and now and then one hangs.
    let receiver = Receiver::start(|event, attempt| {
        let sequence = event["sequence"].as_str().unwrap();
        let number = u32::from_str_radix(sequence, 16).unwrap() + attempt;
        match number % 7 {
            0 => Act::Hang,
            2 => Act::Answer(500),
            4 => Act::Answer(302),
            _ => Act::Answer(204),
        }
    });
    build(&app, "before", 1).await;
    let start = app.service.app.log.head();
    let (id, secret) = register(&app, &json!({"url": receiver.url()})).await;
    let other = app.key_of("other").await;
    let theirs = json!({"base_image": "debian:bookworm", "name": "theirs"});
    let theirs = app
        .request_by(&other, Method::POST, "/v1/templates/builds")
        .json(&theirs)
        .send();
    let theirs: Value = theirs.await.unwrap().json().await.unwrap();
    let theirs = build_id(&theirs).to_string();
    let (one, two) = tokio::join!(build(&app, "one", 6), build(&app, "two", 6));
    let all = happened(&app, start).await;
    let own: Vec<_> = all
        .into_iter()
        .filter(|recorded| {
            let stream = recorded.stream.to_string();
            !stream.contains(&theirs) && stream != "namespace-other"
        })
        .collect();
    assert!(own.len() > 20, "{}", own.len());

    let came = receiver.wait_for(&ids(&own)).await;
    in_order(&came);
    let wanted = ids(&own);
    let now = SystemClock.now().unix_micros() / 1_000_000;
    for came in &came {
        assert!(wanted.contains(&came.id), "{} is not its owner's", came.id);
        assert!(came.is_signed_with(&secret));
        assert!(!came.is_signed_with("whsec_AAAA"));
        assert_eq!(came.webhook, id);
        let timestamp: i64 = came.timestamp.parse().unwrap();
        assert!((timestamp - now).abs() < 600, "{timestamp}");
        let event = came.event();
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["id"], came.id.as_str());
    }
    assert!(came.iter().any(|came| came.act == Act::Hang));
    assert!(came.iter().any(|came| came.attempt > 1));
    for build in [one, two] {
        let snapshotted = came.iter().find(|came| {
            let event = came.event();
            event["subject"] == build.as_str() && event["type"] == "nullspace.build.Snapshotted"
        });
        assert_eq!(snapshotted.unwrap().event()["data"]["reused"], false);
    }
}

#[tokio::test]
async fn a_build_whose_events_are_not_taken_holds_back_no_other() {
    let app = TestApp::start_with(|config| {
        local(config);
        // It is not tried again while this test runs.
        config.limits.webhook_backoff_ms_min = 3_600_000;
        config.limits.webhook_backoff_ms_max = 3_600_000;
    })
    .await;
    let receiver = Receiver::start(|event, _| match &event["type"] {
        // Nothing of the build that logs is taken from there on.
        kind if kind == "nullspace.build.StepLogged" => Act::Answer(503),
        _ => Act::Answer(204),
    });
    let (id, _) = register(&app, &json!({"url": receiver.url()})).await;
    let start = app.service.app.log.head();
    let stuck = build(&app, "stuck", 2).await;
    build(&app, "other", 0).await;
    let all = ids(&happened(&app, start).await);
    let stuck_stream = format!("build-{stuck}");
    let (held_back, free): (Vec<_>, Vec<_>) = all
        .into_iter()
        // Requested and Started come before the first line.
        .partition(|id| {
            id.starts_with(&stuck_stream) && !id.ends_with("/0") && !id.ends_with("/1")
        });
    receiver.wait_for(&free).await;
    let came = receiver
        .wait(|came| came.iter().any(|came| came.act == Act::Answer(503)))
        .await;
    let failed: Vec<_> = came
        .iter()
        .filter(|came| held_back.contains(&came.id))
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");

    // What is open is shown, the failure is kept before that can be seen.
    let open = loop {
        let open = deliveries(&app, &id, "").await;
        if let Some(open) = open.iter().find(|open| open["status"] == "retrying") {
            break open.clone();
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(open["event_id"], held_back[0].as_str());
    assert_eq!(
        (&open["attempts"], &open["last_status"]),
        (&json!(1), &json!(503))
    );
    assert!(open["next_attempt_at"].as_str() > open["last_attempt_at"].as_str());
    let status = app.get_json(&format!("/v1/webhooks/{id}")).await;
    assert_eq!(status["pending_stream_count"], 1, "{status}");
}

#[tokio::test]
async fn a_receiver_that_hangs_slows_no_other_webhook() {
    let app = TestApp::start_with(local).await;
    let hanging = Receiver::start(|_, _| Act::Hang);
    let good = Receiver::start(|_, _| Act::Answer(204));
    register(&app, &json!({"url": hanging.url()})).await;
    let (id, _) = register(&app, &json!({"url": good.url()})).await;
    let start = app.service.app.log.head();
    for name in ["a", "b", "c", "d", "e"] {
        build(&app, name, 1).await;
    }
    let all = ids(&happened(&app, start).await);
    let came = good.wait_for(&all).await;
    assert!(
        came.iter()
            .all(|came| came.webhook == id && came.attempt == 1)
    );
    // As many at once as may be, of different builds, and no more.
    let hung = hanging.came();
    assert_eq!(
        hung.len(),
        app.service.app.config.limits.webhook_concurrent_count_max
    );
}

#[tokio::test]
async fn more_builds_than_there_are_lanes_wait_in_the_log() {
    let app = TestApp::start_with(|config| {
        local(config);
        config.limits.webhook_lane_count_max = 2;
    })
    .await;
    let receiver = Receiver::start(|_, _| Act::Answer(503));
    let (id, _) = register(&app, &json!({"url": receiver.url()})).await;
    let start = app.service.app.log.head();
    for name in ["a", "b", "c", "d"] {
        build(&app, name, 1).await;
    }
    receiver.wait(|came| came.len() > 20).await;
    let status = app.get_json(&format!("/v1/webhooks/{id}")).await;
    assert_eq!(status["pending_stream_count"], 2);
    receiver.now(|_, _| Act::Answer(204));
    let came = receiver.wait_for(&ids(&happened(&app, start).await)).await;
    in_order(&came);
}

#[tokio::test]
async fn only_events_that_were_asked_for_are_sent() {
    let app = TestApp::start_with(local).await;
    let receiver = Receiver::start(|_, _| Act::Answer(204));
    let first = app.make("first", &["v1"]).await;
    let template = first["template_id"].as_str().unwrap();
    let body = json!({
        "url": receiver.url(),
        "types": ["Snapshotted", "VisibilityChanged"],
        "templates": [template],
    });
    register(&app, &body).await;
    let again = build(&app, "first", 3).await;
    build(&app, "second", 3).await;
    let path = format!("/v1/templates/{template}/visibility");
    let change = app
        .request(Method::PATCH, &path)
        .json(&json!({"visibility": "public"}));
    assert_eq!(change.send().await.unwrap().status(), StatusCode::OK);
    let visibility = format!("template-{template}/0");
    let came = receiver.wait_for(std::slice::from_ref(&visibility)).await;
    let came = if came.len() < 2 {
        receiver.wait(|came| came.len() == 2).await
    } else {
        came
    };
    let mut came = taken(&came);
    came.sort();
    let (stream, _) = came[0].rsplit_once('/').unwrap();
    assert_eq!(stream, format!("build-{again}"));
    assert_eq!(came[1..], [visibility]);
}

#[tokio::test]
async fn what_happens_while_it_is_paused_is_sent_when_it_is_resumed() {
    let app = TestApp::start_with(local).await;
    let receiver = Receiver::start(|_, _| Act::Answer(204));
    let (id, _) = register(&app, &json!({"url": receiver.url()})).await;
    let marker = Receiver::start(|_, _| Act::Answer(204));
    register(&app, &json!({"url": marker.url()})).await;
    patch(&app, &id, true).await;
    let start = app.service.app.log.head();
    build(&app, "meanwhile", 1).await;
    let all = ids(&happened(&app, start).await);
    // Another webhook has got everything, and this one nothing.
    marker.wait_for(&all).await;
    assert!(receiver.came().is_empty());
    patch(&app, &id, false).await;
    let came = receiver.wait_for(&all).await;
    in_order(&came);
}

#[tokio::test]
async fn a_replay_sends_again_from_a_position_also_what_was_before_the_registration() {
    let app = TestApp::start_with(local).await;
    let receiver = Receiver::start(|_, _| Act::Answer(204));
    build(&app, "before", 1).await;
    let (id, _) = register(&app, &json!({"url": receiver.url()})).await;
    let registered = app.service.app.log.head();
    build(&app, "after", 1).await;
    let after = ids(&happened(&app, registered).await);
    let came = receiver.wait_for(&after).await;
    assert_eq!(
        came.len(),
        after.len(),
        "nothing from before comes by itself"
    );

    let replay = format!("/v1/webhooks/{id}/replay");
    let from = came[2].event()["sequence"].as_str().unwrap().to_owned();
    app.post_json(&replay, &json!({"from": from}), 202).await;
    let again = |came: &[Came]| came.len() == after.len() * 2 - 3;
    receiver.wait(again).await;

    let everything = ids(&happened(&app, Position::START).await);
    app.post_json(&replay, &json!({"from": "0".repeat(16)}), 202)
        .await;
    receiver.wait_for(&everything).await;
}
