//! Where the time of a build went.

use domain::build::{
    CacheKind, CacheMissed, CacheStored, CacheSubject, Cancelled, Command, Event, Phase,
    PhaseFinished, PhaseStarted, StepFinished, StepStarted,
};
use domain::digest::Digest;
use domain::failure::{Failure, FailureReason};
use serde_json::{Value, json};

use super::support::{TestApp, build_id};

async fn timeline(app: &TestApp, build: &Value) -> Value {
    app.get_json(&format!(
        "/v1/templates/builds/{}/timeline",
        build_id(build)
    ))
    .await
}

fn layer(index: u32) -> CacheSubject {
    CacheSubject {
        kind: CacheKind::Layer,
        subject: "RUN true".to_owned(),
        step_index: Some(index),
        key: Digest::of(&index.to_be_bytes()),
    }
}

/// A phase with one step, which misses the cache and is stored.
fn step_phase() -> Vec<Event> {
    let (index, total) = (1, 1);
    vec![
        Event::PhaseStarted(PhaseStarted { phase: Phase::Step }),
        Event::StepStarted(StepStarted {
            index,
            total,
            name: "RUN true".to_owned(),
        }),
        Event::CacheMissed(CacheMissed {
            entry: layer(index),
            difference: Some("the text of the step".to_owned()),
        }),
        Event::CacheStored(CacheStored {
            entry: layer(index),
            bytes: 4096,
        }),
        Event::StepFinished(StepFinished {
            index,
            total,
            duration_ms: 12,
            exit_code: Some(0),
            cached: false,
        }),
        Event::PhaseFinished(PhaseFinished {
            phase: Phase::Step,
            duration_ms: 13,
            pulled_bytes: None,
        }),
    ]
}

/// Checks that the segments have no gaps, and that all sums are the whole; gives the segments as
/// `kind or phase@attempt outcome`.
fn adds_up(timeline: &Value) -> Vec<String> {
    let number = |value: &Value| value.as_u64().unwrap();
    let mut offset = 0;
    let mut told = Vec::new();
    for segment in timeline["segments"].as_array().unwrap() {
        assert_eq!(number(&segment["offset_us"]), offset, "{timeline}");
        offset += number(&segment["duration_us"]);
        let name = segment["phase"]
            .as_str()
            .or_else(|| segment["kind"].as_str());
        let outcome = segment["outcome"].as_str().unwrap();
        told.push(format!(
            "{}@{} {outcome}",
            name.unwrap(),
            segment["attempt"]
        ));
    }
    assert_eq!(offset, number(&timeline["total_us"]));
    let sums = timeline["sums_us"].as_object().unwrap();
    assert_eq!(sums.values().map(number).sum::<u64>(), offset);
    if let Some(finished_at) = timeline["finished_at"].as_str() {
        let moment = |text: &str| text.parse::<domain::time::Timestamp>().unwrap();
        let queued_at = moment(timeline["queued_at"].as_str().unwrap());
        assert_eq!(moment(finished_at).micros_since(queued_at), offset);
    }
    told
}

#[tokio::test]
async fn a_timeline_tells_waits_phases_steps_and_attempts_and_adds_up() {
    let app = TestApp::start().await;
    let body = json!({
        "base_image": "a",
        "name": "my-app",
        "steps": [{"action": "run", "command": "true"}],
    });
    let build = app.accept(&body).await;
    let id = build_id(&build);
    let waiting = timeline(&app, &build).await;
    assert_eq!(adds_up(&waiting), ["waiting@1 under_way"]);

    let fence = app.start_building(&id).await;
    let events = vec![Event::PhaseStarted(PhaseStarted {
        phase: Phase::Preparing,
    })];
    app.command(&id, Command::Report { fence, events }).await;
    let failure = Failure::new(FailureReason::ImagePull, "503");
    app.command(&id, Command::Fail { fence, failure }).await;
    let fence = app.start_building(&id).await;
    let events = step_phase();
    app.command(&id, Command::Report { fence, events }).await;
    app.complete(&id, fence).await;

    let timeline = timeline(&app, &build).await;
    let told = adds_up(&timeline);
    let named: Vec<&str> = told
        .iter()
        .map(String::as_str)
        .filter(|segment| !segment.starts_with("other"))
        .collect();
    let expected = [
        "waiting@1 done",
        "preparing@1 failed",
        "waiting@2 done",
        "step@2 done",
    ];
    assert_eq!(named, expected);
    let attempts = &timeline["attempts"];
    assert_eq!(attempts[0]["retried"], true);
    assert_eq!(
        attempts[0]["error_detail"]["details"]["reason"],
        "image_pull"
    );
    assert_eq!(attempts[1]["outcome"], "done");
    let segments = timeline["segments"].as_array().unwrap();
    let steps = segments.iter().find(|segment| segment["phase"] == "step");
    let step = &steps.unwrap()["steps"]["items"][0];
    assert_eq!(step["name"], "RUN true");
    assert_eq!(step["measured_ms"], 12);
    assert_eq!(step["cached"], false);
    assert_eq!(step["stored_bytes"], 4096);
    let key = layer(1).key.to_string();
    let looked = json!({"key": key, "status": "miss", "difference": "the text of the step"});
    assert_eq!(step["cache"], looked);
    assert_eq!(
        timeline["bytes"],
        json!({"layers": 4096, "rootfs": 2, "snapshot": 2})
    );
    assert_eq!(timeline["status"], "ready");
}

#[tokio::test]
async fn a_cancelled_build_tells_how_long_it_took_to_stop() {
    let app = TestApp::start().await;
    let build = app
        .accept(&json!({"base_image": "a", "name": "my-app"}))
        .await;
    let id = build_id(&build);
    let fence = app.start_building(&id).await;
    let events = vec![Event::PhaseStarted(PhaseStarted {
        phase: Phase::VmCreate,
    })];
    app.command(&id, Command::Report { fence, events }).await;
    let path = format!("/v1/templates/builds/{id}/cancel");
    app.post_json(&path, &json!({}), 200).await;
    let stopping = adds_up(&timeline(&app, &build).await);
    assert_eq!(stopping.last().unwrap(), "stopping@1 under_way");
    let cancelled = Cancelled {
        killed: vec!["the machine".to_owned()],
        ..Cancelled::default()
    };
    app.command(&id, Command::ConfirmCancelled { fence, cancelled })
        .await;
    let stopped = adds_up(&timeline(&app, &build).await);
    let [.., phase, stopping] = stopped.as_slice() else {
        panic!("{stopped:?}");
    };
    assert_eq!(
        (phase.as_str(), stopping.as_str()),
        ("vm_create@1 cancelled", "stopping@1 cancelled")
    );
}
