//! What is hard to record: lines made up after BuildKit's sources.

use serde_json::{Value, json};

use super::*;

/// A build of a Dockerfile with these stages, line by line.
struct Build {
    tracker: Tracker,
    events: Vec<Event>,
}

impl Build {
    fn new(stages: &[&str]) -> Self {
        Self::bounded(stages, limits())
    }

    fn bounded(stages: &[&str], limits: BuildkitLimits) -> Self {
        Self {
            tracker: Tracker::new(&names(stages), &limits),
            events: Vec::new(),
        }
    }

    fn line(&mut self, line: Value) -> &mut Self {
        self.text(&line.to_string())
    }

    fn vertexes(&mut self, vertexes: &[Value]) -> &mut Self {
        self.line(json!({ "vertexes": vertexes }))
    }

    fn text(&mut self, line: &str) -> &mut Self {
        self.tracker.line(line.as_bytes(), &mut self.events);
        self
    }

    /// What was told since the last time.
    #[track_caller]
    fn told(&mut self, expected: &[&str]) -> &mut Self {
        let told: Vec<String> = self.events.drain(..).map(|event| line(&event)).collect();
        assert_eq!(told, expected);
        self
    }

    #[track_caller]
    fn end(mut self, exit: Option<i32>, expected: &[&str]) -> Option<Failure> {
        let outcome = self.tracker.finish(exit, &mut self.events);
        let told: Vec<String> = self.events.iter().map(line).collect();
        assert_eq!(told, expected);
        outcome.err()
    }
}

fn at(second: u32) -> String {
    format!("2026-11-28T12:{:02}:{:02}.5Z", second / 60, second % 60)
}

fn vertex(digest: &str, inputs: &[&str], name: &str) -> Value {
    json!({ "digest": digest, "inputs": inputs, "name": name })
}

fn started(digest: &str, inputs: &[&str], name: &str, second: u32) -> Value {
    json!({ "digest": digest, "inputs": inputs, "name": name, "started": at(second) })
}

fn completed(digest: &str, inputs: &[&str], name: &str, seconds: (u32, u32)) -> Value {
    let (from, to) = seconds;
    json!({
        "digest": digest, "inputs": inputs, "name": name,
        "started": at(from), "completed": at(to),
    })
}

fn failed(digest: &str, inputs: &[&str], name: &str, seconds: (u32, u32), error: &str) -> Value {
    let mut vertex = completed(digest, inputs, name, seconds);
    vertex["error"] = json!(error);
    vertex
}

fn cached(digest: &str, inputs: &[&str], name: &str, second: u32) -> Value {
    let mut vertex = completed(digest, inputs, name, (second, second));
    vertex["cached"] = json!(true);
    vertex
}

fn log(digest: &str, text: &str, second: u32) -> Value {
    json!({
        "vertex": digest, "stream": 1, "data": BASE64_STANDARD.encode(text),
        "timestamp": at(second),
    })
}

/// A base and two steps are announced, and the base is there.
fn announced(build: &mut Build) {
    build
        .vertexes(&[
            vertex("c", &["b"], "[3/3] RUN c"),
            vertex("b", &["a"], "[2/3] RUN b"),
            vertex("a", &[], "[1/3] FROM a"),
        ])
        .vertexes(&[completed("a", &[], "[1/3] FROM a", (1, 2))])
        .told(&["1/3 [1/3] FROM a"]);
}

/// The first of the two steps is at work.
fn begun(build: &mut Build) {
    announced(build);
    build
        .vertexes(&[started("b", &["a"], "[2/3] RUN b", 3)])
        .told(&["1 cached", "2/3 [2/3] RUN b"]);
}

/// The daemon has dropped some of what the step at work wrote, and it may be that it told it again.
fn clipped(build: &mut Build) {
    let through = "came through\n";
    let mark = "\n[output clipped, log limit 13B reached]\n";
    build
        .line(json!({ "logs": [log("b", &format!("{through}{mark}"), 4)] }))
        .told(&["2 Stdout: came through\\n\\n[output clipped, log limit 13B reached]\\n"])
        .line(json!({ "logs": [log("b", &format!("{through}lost\n"), 5)] }))
        .told(&[]);
}

mod bounds;
mod failing;
mod numbering;
mod telling;
