//! What differs between two builds.

use domain::build::{
    BaseResolved, CacheKind, CacheSubject, Command, Event, Phase, PhaseFinished, PhaseStarted,
    StepFinished, StepStarted,
};
use domain::digest::Digest;
use domain::failure::{Failure, FailureReason};
use serde_json::{Value, json};

use super::support::{TestApp, build_id, is_error};

async fn diff(app: &TestApp, before: &Value, after: &Value) -> Value {
    let (before, after) = (build_id(before), build_id(after));
    app.get_json(&format!("/v1/templates/builds/{before}/diff?with={after}"))
        .await
}

/// A definition with these commands as its steps.
fn commands(commands: &[&str]) -> Value {
    let steps = commands.iter();
    let steps: Value = steps
        .map(|command| json!({"action": "run", "command": command}))
        .collect();
    json!({"base_image": "debian", "name": "my-app", "steps": steps})
}

/// What happens when these steps are there already, under keys of these texts.
fn cached(titles_and_keys: &[(&str, &str)]) -> Vec<Event> {
    let total = u32::try_from(titles_and_keys.len()).unwrap();
    let steps = (1..)
        .zip(titles_and_keys)
        .flat_map(|(index, (title, key))| {
            [
                Event::StepStarted(StepStarted {
                    index,
                    total,
                    name: (*title).to_owned(),
                }),
                Event::CacheHit(CacheSubject {
                    kind: CacheKind::Layer,
                    subject: (*title).to_owned(),
                    step_index: Some(index),
                    key: Digest::of(key.as_bytes()),
                }),
                Event::StepFinished(StepFinished {
                    index,
                    total,
                    duration_ms: 0,
                    exit_code: None,
                    cached: true,
                }),
            ]
        });
    let phase = Phase::Step;
    std::iter::once(Event::PhaseStarted(PhaseStarted { phase }))
        .chain(steps)
        .chain([Event::PhaseFinished(PhaseFinished {
            phase,
            duration_ms: 1,
            pulled_bytes: None,
        })])
        .collect()
}

fn base(content: &str) -> Event {
    Event::BaseResolved(BaseResolved {
        reference: "docker.io/library/debian:latest".to_owned(),
        digest: Digest::of(content.as_bytes()),
    })
}

/// A build of `body` that reports `events`, and is ready.
async fn built(app: &TestApp, body: &Value, events: Vec<Event>) -> Value {
    let build = app.accept(body).await;
    let id = build_id(&build);
    let fence = app.start_building(&id).await;
    app.command(&id, Command::Report { fence, events }).await;
    app.complete(&id, fence).await;
    build
}

#[tokio::test]
async fn a_changed_step_is_told_with_its_keys_and_what_stands_on_it() {
    let app = TestApp::start().await;
    let mut events = cached(&[("RUN one", "1"), ("RUN two", "2"), ("RUN four", "4")]);
    events.insert(0, base("old"));
    let before = built(&app, &commands(&["one", "two", "four"]), events).await;
    let titles = [("RUN one", "1"), ("RUN three", "3"), ("RUN four", "4 on 3")];
    let mut events = cached(&titles);
    events.insert(0, base("new"));
    let after = built(&app, &commands(&["one", "three", "four"]), events).await;

    let told = diff(&app, &before, &after).await;
    assert_eq!(told["before"]["build_id"], before["build_id"]);
    assert_eq!(told["after"]["build_id"], after["build_id"]);
    assert_eq!(told["same_definition"], false);
    assert_eq!(told["definition"], json!([]));
    let steps = told["steps"].as_array().unwrap();
    let words: Vec<_> = steps
        .iter()
        .map(|step| (step["change"].as_str().unwrap(), step["same_key"].as_bool()))
        .collect();
    let expected = [
        ("same", Some(true)),
        ("changed", Some(false)),
        // Asked for alike, and made on something else.
        ("same", Some(false)),
    ];
    assert_eq!(words, expected);
    let changed = json!([
        {"path": "/command", "change": "changed", "before": "two", "after": "three"}
    ]);
    assert_eq!(steps[1]["fields"], changed);
    assert_eq!(steps[1]["after"]["name"], "RUN three");
    assert_eq!(
        steps[1]["after"]["cache"]["key"],
        Digest::of(b"3").to_string()
    );
    assert_eq!(steps[0]["before"]["outcome"], "done");
    assert_eq!(told["base"]["same"], false);
    assert_eq!(
        told["base"]["before"]["digest"],
        Digest::of(b"old").to_string()
    );
    assert_eq!(told["base"]["after"]["asked"], "debian");
    assert_eq!(told["cache"]["before"]["layer_hits"], 3);
    assert_eq!(told["artifact"]["same"], true);
    assert_eq!(told["artifact"]["before"]["memory_bytes"], 1);

    // Timings are those of the timelines.
    for (side, build) in [("before_us", &before), ("after_us", &after)] {
        let path = format!("/v1/templates/builds/{}/timeline", build_id(build));
        let timeline = app.get_json(&path).await;
        let timings = told["timings"].as_array().unwrap();
        for timing in timings {
            let what = timing["what"].as_str().unwrap();
            let expected = match what {
                "total" => &timeline["total_us"],
                _ => &timeline["sums_us"][what],
            };
            assert_eq!(timing.get(side).unwrap_or(&Value::Null), expected, "{what}");
        }
    }
    let same = diff(&app, &before, &before).await;
    assert_eq!(same["same_definition"], true);
    let steps = same["steps"].as_array().unwrap();
    assert!(
        steps.iter().all(|step| step["change"] == "same"),
        "{steps:?}"
    );
}

#[tokio::test]
async fn fields_are_told_by_their_pointers_and_values_of_variables_never() {
    let app = TestApp::start().await;
    let mut body = commands(&["one"]);
    let envs = json!({"GONE": "untold", "TURNED": "untold 1", "SAME": "untold"});
    body["runtime_config"] = json!({"default_envs": envs});
    body["build_envs"] = json!({"BUILD": "untold"});
    let before = app.accept(&body).await;
    let envs = json!({"NEW": "untold", "TURNED": "untold 2", "SAME": "untold"});
    body["runtime_config"] = json!({"default_envs": envs});
    body["build_config"] = json!({"memory_mib": 1024});
    body["tags"] = json!(["default", "v1"]);
    body["start_cmd"] = json!("serve");
    let after = app.accept(&body).await;

    let told = diff(&app, &before, &after).await;
    let expected = json!([
        {"path": "/config/memory_mib", "change": "changed", "before": 512, "after": 1024},
        {"path": "/start_cmd", "change": "added", "after": "serve"},
        {"path": "/tags", "change": "added", "after": "v1"},
        {"path": "/runtime/default_envs/GONE", "change": "removed", "redacted": true},
        {"path": "/runtime/default_envs/NEW", "change": "added", "redacted": true},
        {"path": "/runtime/default_envs/TURNED", "change": "changed", "redacted": true},
    ]);
    assert_eq!(told["definition"], expected);
    assert!(!told.to_string().contains("untold"), "{told}");
    // Nothing has been done yet.
    assert_eq!(told["steps"][0]["before"]["outcome"], "not_run");
    assert_eq!(told["base"].get("same"), None);
    assert_eq!(told["artifact"], json!({}));
}

#[tokio::test]
async fn a_dockerfile_is_told_by_its_lines_and_its_steps_by_their_text() {
    let app = TestApp::start().await;
    let body = |token: &str, lines: &str| {
        json!({
            "name": "my-app",
            "dockerfile": format!("FROM debian\n{lines}"),
            "build_args": {"TOKEN": token},
        })
    };
    let events = cached(&[("[1/2] FROM debian", "0"), ("[2/2] RUN two", "2")]);
    let before = built(&app, &body("untold 1", "RUN two\n"), events).await;
    let after = app.accept(&body("untold 2", "RUN one\nRUN two\n")).await;
    let id = build_id(&after);
    let fence = app.start_building(&id).await;
    let titles = [
        ("[1/3] FROM debian", "0"),
        ("[2/3] RUN one", "1"),
        ("[3/3] RUN two", "2 on 1"),
    ];
    let mut events = cached(&titles);
    // The last step does not come to its end.
    events.truncate(events.len() - 3);
    app.command(&id, Command::Report { fence, events }).await;
    let mut failure = Failure::new(FailureReason::StepFailed, "it broke");
    failure.step_index = Some(3);
    failure.exit_code = Some(7);
    app.command(&id, Command::Fail { fence, failure }).await;

    let told = diff(&app, &before, &after).await;
    let argument =
        json!({"path": "/source/build_args/TOKEN", "change": "changed", "redacted": true});
    assert_eq!(told["definition"][1], argument);
    assert_eq!(told["definition"].as_array().unwrap().len(), 2);
    let text = &told["definition"][0];
    assert_eq!(text["path"], "/source/text");
    let lines = text["diff"].as_str().unwrap();
    assert!(
        lines.ends_with(" FROM debian\n+RUN one\n RUN two\n"),
        "{lines}"
    );
    let words = told["steps"].as_array().unwrap().iter();
    let words: Vec<_> = words.map(|step| step["change"].as_str().unwrap()).collect();
    assert_eq!(words, ["same", "added", "same"]);
    let last = &told["steps"][2]["after"];
    assert_eq!(
        (&last["outcome"], &last["exit_code"]),
        (&json!("failed"), &json!(7))
    );
    assert_eq!(told["after"]["error_detail"]["details"]["exit_code"], 7);
    assert_eq!(told["artifact"].get("after"), None);
    assert!(!told.to_string().contains("untold"), "{told}");
}

#[tokio::test]
async fn both_builds_must_be_there_and_be_named() {
    let app = TestApp::start().await;
    let build = app.accept(&commands(&["one"])).await;
    let path = format!("/v1/templates/builds/{}/diff", build_id(&build));
    let error = is_error(app.get(&path).await, 400, "invalid_request").await;
    assert_eq!(error["details"]["problems"][0]["field"], "with");
    let unknown = app.get(&format!("{path}?with=tb_x")).await;
    is_error(unknown, 404, "template_build_not_found").await;
    let stranger = app.key_of("other").await;
    let theirs = app.request_by(&stranger, reqwest::Method::POST, "/v1/templates/builds");
    let theirs = theirs.json(&commands(&["one"])).send().await.unwrap();
    let theirs: Value = theirs.json().await.unwrap();
    let with = format!("{path}?with={}", build_id(&theirs));
    is_error(app.get(&with).await, 404, "template_build_not_found").await;
}
