//! What the log tells an operator, while the service runs and while it does not, and what it tells
//! when something was done to it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tests::runner::Scenario;
use tests::service::{Place, Service};

use crate::operator::text;

/// The script that builds what is looked at here.
const TARGETS: &str = "restore_targets.py";

/// The exit code of `events verify` and `events replay` if something is wrong.
const WRONG: i32 = 3;

/// Scenarios with services of their own.
pub(crate) fn own() -> Vec<Scenario<'static>> {
    vec![Scenario::new(
        "events::the_log_is_verified_told_replayed_and_exported",
        verified_told_replayed_and_exported,
    )]
}

/// Whoever can be given operator commands: a running service, or a place without one.
type Operate<'a> = &'a dyn Fn(&[&str]) -> Output;

/// What a command printed; it ends with this code.
fn printed(operate: Operate<'_>, args: &[&str], code: i32) -> String {
    let args: Vec<&str> = ["events"].iter().chain(args).copied().collect();
    let output = operate(&args);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{args:?}: {stdout}{stderr}"
    );
    stdout
}

fn json(operate: Operate<'_>, args: &[&str], code: i32) -> Value {
    let printed = printed(operate, args, code);
    serde_json::from_str(&printed).expect("one JSON value")
}

fn verified_told_replayed_and_exported() {
    let place = Place::new();
    let service = place.start();
    service.client(TARGETS, "plain");
    let running = |args: &[&str]| service.operate(args);
    let file = place.folder().join("build.json");
    let told = everything(&running, &file);
    time_travel(&service, &running);
    assert!(service.terminate().success());
    let stopped = |args: &[&str]| place.operate(args);
    assert_eq!(everything(&stopped, &file), told);
    damaged(&stopped, &place.folder().join("data/log/db"));
}

/// Everything that the commands tell of a log with one build: its events, one a line, and its
/// build's events as a file.
fn everything(operate: Operate<'_>, file: &Path) -> (String, String) {
    let verified = json(operate, &["verify", "--json"], 0);
    assert_eq!(verified.get("is_whole"), Some(&true.into()), "{verified}");
    let events = printed(operate, &["tail"], 0);
    let count = events.lines().count();
    assert_eq!(verified.get("event_count"), Some(&count.into()));
    let replayed = json(operate, &["replay", "--json"], 0);
    assert_eq!(replayed.get("event_count"), Some(&count.into()));

    let ready = json(operate, &["tail", "--type", "Snapshotted"], 0);
    let stream = text(&ready, "stream");
    let of_build = printed(operate, &["tail", "--stream", stream], 0);
    let build = stream.strip_prefix("build-").expect("a build is ready");
    let path = file.to_str().expect("a path of ours is text");
    printed(operate, &["export", "--build", build, "--out", path], 0);
    exported(
        operate,
        file,
        of_build.lines().count(),
        text(&ready, "hash"),
    );
    (events, fs::read_to_string(file).expect("it was written"))
}

/// The file of a build with so many events, of which the last has this hash, is accepted as it is, and
/// in no other form.
fn exported(operate: Operate<'_>, file: &Path, count: usize, end: &str) {
    let path = file.to_str().expect("a path of ours is text");
    let verify = |code, head| {
        json(
            operate,
            &["verify", "--file", path, "--head", head, "--json"],
            code,
        )
    };
    let accepted = verify(0, end);
    assert_eq!(accepted.get("event_count"), Some(&count.into()));
    let zero = format!("sha256:{}", "0".repeat(64));
    verify(WRONG, &zero);

    let whole = fs::read_to_string(file).expect("it was written");
    let changed = whole.replacen("echo made", "echo fake", 1);
    assert_ne!(changed, whole, "the build's request is in the file");
    fs::write(file, &changed).expect("the disk has room");
    let refused = verify(WRONG, end);
    let damages = refused.get("damages").and_then(Value::as_array);
    let first = damages.and_then(|damages| damages.first());
    let version = first.and_then(|damage| damage.get("version"));
    assert_eq!(version, Some(&0.into()), "{refused}");
    fs::write(file, whole).expect("the disk has room");
}

/// The build as it was when its first worker took it, and before anybody asked for it.
fn time_travel(service: &Service, operate: Operate<'_>) {
    let started = json(operate, &["tail", "--type", "Started"], 0);
    let build = text(&started, "stream").trim_start_matches("build-");
    let at = |moment: &str| {
        let url = format!("{}/v1/templates/builds/{build}?at={moment}", service.url());
        let answer = Command::new("curl")
            .args(["--silent", "--noproxy", "*", &url, "--header"])
            .arg(format!("Authorization: Bearer {}", service.key()))
            .output()
            .expect("curl is installed by make setup");
        let answer: Value = serde_json::from_slice(&answer.stdout).expect("an answer is JSON");
        answer
    };
    for moment in [text(&started, "position"), text(&started, "time")] {
        let then = at(moment);
        let status = then.pointer("/build/status").and_then(Value::as_str);
        assert_eq!(status, Some("building"), "{then}");
    }
    let before = at("0000000000000001");
    assert_eq!(text(&before, "code"), "template_build_not_found");
}

/// Whatever is done to the log's file is told, event by event where they can be told, and not made
/// worse.
fn damaged(operate: Operate<'_>, db: &Path) {
    let ready = json(operate, &["tail", "--type", "Snapshotted"], 0);
    let end = text(&ready, "position");
    let whole = fs::read(db).expect("the log is there");
    let tell = |bytes: &[u8]| {
        fs::write(db, bytes).expect("the disk has room");
        let found = json(operate, &["verify", "--json"], WRONG);
        assert_eq!(fs::read(db).expect("the log is there"), bytes);
        found
    };
    // Where the build's end is stored: once by itself, and perhaps again with its neighbours.
    let needle = b"\"type\":\"Snapshotted\"";
    let places: Vec<usize> = whole
        .windows(needle.len())
        .enumerate()
        .filter_map(|(at, window)| (window == needle).then_some(at))
        .collect();
    let first = *places
        .first()
        .expect("events stand in the file as they are");
    let (kept, _) = whole.split_at(first);
    let cut = tell(kept);
    names(&cut, end);

    let mut flipped = whole.clone();
    for at in places {
        let byte = flipped.get_mut(at).expect("it was found there");
        *byte ^= 1;
    }
    let found = tell(&flipped);
    names(&found, end);

    fs::write(db, &whole).expect("the disk has room");
    printed(operate, &["verify"], 0);
}

/// Events are named, the one at `position` or some before it among them: what the engine drops
/// begins with what was damaged, or earlier.
fn names(found: &Value, position: &str) {
    let damages = found.get("damages").and_then(Value::as_array);
    let mut named = damages
        .into_iter()
        .flatten()
        .filter_map(|damage| damage.get("position").and_then(Value::as_str));
    assert!(named.any(|named| named <= position), "{position}: {found}");
}
