//! What is hard to record: lines made up after BuildKit's sources.

use serde_json::{Value, json};

use super::*;
use crate::event::FailureKind;

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

#[test]
fn a_step_that_turns_up_later_is_appended_and_the_others_keep_their_numbers() {
    let mut build = Build::new(&[""]);
    begun(&mut build);
    build
        .vertexes(&[started("x", &[], "[2/4] ONBUILD RUN x", 4)])
        .told(&["4/4 [2/4] ONBUILD RUN x"])
        .vertexes(&[started("c", &["b"], "[3/3] RUN c", 5)])
        .told(&["2 done in 0 ms", "3/4 [3/3] RUN c"]);
    let outcome = build.end(Some(0), &["3 done in 0 ms", "4 done in 0 ms"]);
    assert_eq!(outcome, None);
}

#[test]
fn a_step_of_another_build_is_ignored() {
    let mut build = Build::new(&[""]);
    begun(&mut build);
    build
        .vertexes(&[started("x", &[], "[theirs 2/4] RUN x", 4)])
        .line(json!({ "logs": [log("x", "not ours", 5), log("nobody", "nor this", 5)] }))
        .told(&[]);
}

#[test]
fn a_step_that_another_build_does_may_fail_in_ours() {
    let mut build = Build::new(&[""]);
    begun(&mut build);
    let error = "process \"/bin/sh -c c\" did not complete successfully: exit code: 7";
    build
        .vertexes(&[started("x", &["y"], "[theirs 4/9] RUN c", 4)])
        .line(json!({ "logs": [log("x", "why\n", 5)] }))
        .told(&["3/3 [3/3] RUN c", "3 Stdout: why\\n"])
        .vertexes(&[
            completed("b", &["a"], "[2/3] RUN b", (3, 4)),
            failed("x", &["y"], "[theirs 4/9] RUN c", (4, 6), error),
        ])
        .text(&format!("error: failed to solve: {error}"));
    let failure = build.end(Some(1), &["2 done in 1000 ms"]).unwrap();
    assert_eq!(failure.kind, FailureKind::Step);
    assert_eq!(failure.exit_code, Some(7));
    assert_eq!(failure.step.map(|step| step.index), Some(3));
    assert_eq!(failure.output_tail, ["why"]);
}

#[test]
fn the_names_of_a_longer_build_with_the_same_beginning_do_not_change_the_total() {
    for [base, run] in [
        ["[1/5] FROM a", "[2/5] RUN b"],
        ["[theirs 1/5] FROM a", "[theirs 2/5] RUN b"],
    ] {
        let mut build = Build::new(&[""]);
        build
            .vertexes(&[
                completed("a", &[], base, (1, 2)),
                started("b", &["a"], run, 3),
            ])
            // There may be more to come in the next line.
            .told(&[])
            .line(json!({}))
            .told(&["1/2 [1/2] FROM a", "1 cached", "2/2 [2/2] RUN b"]);
    }
}

#[test]
fn a_step_waits_for_the_announcement_of_the_others() {
    let mut build = Build::new(&["one", ""]);
    build
        .vertexes(&[
            vertex("c", &["b"], "[one 3/3] RUN c"),
            started("b", &["a"], "[one 2/3] RUN b", 3),
        ])
        .told(&[])
        .vertexes(&[
            vertex("d", &["a", "c"], "[stage-1 2/2] COPY --from=one c ."),
            completed("a", &[], "[one 1/3] FROM a", (1, 2)),
        ])
        .told(&["1/4 [one 1/3] FROM a", "1 cached", "2/4 [one 2/3] RUN b"]);
}

#[test]
fn a_step_that_another_build_does_before_any_of_ours_begins_is_no_step_of_its_own() {
    let mut build = Build::new(&[""]);
    build
        .vertexes(&[
            vertex("b", &["a"], "[2/2] COPY x ."),
            vertex("a", &[], "[1/2] COPY x ."),
        ])
        .vertexes(&[started("theirs", &["y"], "[theirs 3/4] COPY x .", 2)])
        .vertexes(&[vertex("y", &[], "[internal] load build context")])
        .told(&["1/2 [1/2] COPY x ."]);
}

#[test]
fn the_last_step_may_bear_the_name_of_another_build_and_the_words_of_an_earlier_one() {
    let mut build = Build::new(&["a"]);
    build
        .vertexes(&[
            vertex("b", &["a"], "[theirs 2/4] RUN x"),
            vertex("a", &[], "[a 1/1] RUN x"),
        ])
        .vertexes(&[started("a", &[], "[a 1/1] RUN x", 2)])
        .told(&["1/2 [1/1] RUN x"]);
}

#[test]
fn what_is_never_announced_is_not_waited_for_forever() {
    let mut build = Build::new(&[""]);
    build.vertexes(&[started("b", &["a"], "[2/2] RUN b", 3)]);
    for _ in 1..ANNOUNCEMENT_LINES_MAX {
        build.line(json!({})).told(&[]);
    }
    build.line(json!({})).told(&["1/1 [2/2] RUN b"]);
}

#[test]
fn output_that_goes_on_in_the_next_line_comes_before_the_end_of_its_step() {
    let mut build = Build::new(&[""]);
    begun(&mut build);
    let much = "x".repeat(LINE_OUTPUT_BYTES_MAX);
    build.line(json!({
        "vertexes": [
            completed("b", &["a"], "[2/3] RUN b", (3, 9)),
            started("c", &["b"], "[3/3] RUN c", 10),
        ],
        "logs": [log("b", &much, 4), log("b", "y", 5)],
    }));
    let told = format!("2 Stdout: {much}");
    build
        .told(&[&told, "2 Stdout: y"])
        .line(json!({ "logs": [log("b", "z", 6), log("c", "c", 11)] }))
        .told(&[
            "2 Stdout: z",
            "2 done in 6000 ms",
            "3/3 [3/3] RUN c",
            "3 Stdout: c",
        ]);
}

#[test]
fn a_step_that_is_done_after_it_was_told_as_cached_writes_but_does_not_start_again() {
    let mut build = Build::new(&[""]);
    announced(&mut build);
    build
        .vertexes(&[cached("c", &["b"], "[3/3] RUN c", 4)])
        .told(&["1 cached", "2/3 [2/3] RUN b", "2 cached", "3/3 [3/3] RUN c"])
        .vertexes(&[started("b", &["a"], "[2/3] RUN b", 5)])
        .line(json!({ "logs": [log("b", "again", 6)] }))
        .told(&["2 Stdout: again"]);
}

#[test]
fn a_line_may_tell_what_happened_to_a_vertex_backwards() {
    let mut build = Build::new(&[""]);
    begun(&mut build);
    build
        .vertexes(&[
            completed("b", &["a"], "[2/3] RUN b", (3, 4)),
            started("b", &["a"], "[2/3] RUN b", 3),
            vertex("b", &["a"], "[2/3] RUN b"),
        ])
        .vertexes(&[started("b", &["a"], "[2/3] RUN b", 3)])
        .text("error: failed to solve: something else");
    let failure = build.end(Some(1), &["2 done in 1000 ms"]).unwrap();
    assert_eq!(failure.step, None);
}

#[test]
fn only_what_is_done_ends_when_a_build_fails() {
    let mut build = Build::new(&["a", "b", ""]);
    let error = "process \"/bin/sh -c x\" did not complete successfully: exit code: 1";
    let stopped = "process \"/bin/sh -c y\" did not complete successfully: exit code: 137: \
                   context canceled: context canceled";
    build
        .vertexes(&[
            vertex("z", &["x", "y", "w"], "[stage-2 1/1] COPY --from=a / /"),
            vertex("y", &[], "[b 1/1] RUN y"),
            vertex("x", &[], "[a 1/1] RUN x"),
            vertex("w", &[], "[a 1/1] RUN w"),
        ])
        .vertexes(&[
            started("x", &[], "[a 1/1] RUN x", 1),
            started("y", &[], "[b 1/1] RUN y", 1),
            completed("w", &[], "[a 1/1] RUN w", (1, 2)),
        ])
        .vertexes(&[
            failed("y", &[], "[b 1/1] RUN y", (1, 3), stopped),
            failed("x", &[], "[a 1/1] RUN x", (1, 2), error),
        ])
        .text(&format!("error: failed to solve: {error}"))
        .told(&[
            "1/4 [a 1/1] RUN w",
            "2/4 [a 1/1] RUN x",
            "3/4 [b 1/1] RUN y",
        ]);
    let failure = build.end(Some(1), &["1 done in 1000 ms"]).unwrap();
    assert_eq!(failure.step.map(|step| step.index), Some(2));
}

#[test]
fn the_export_comes_after_every_step() {
    let mut build = Build::new(&[""]);
    begun(&mut build);
    build
        .vertexes(&[completed("b", &["a"], "[2/3] RUN b", (3, 4))])
        .vertexes(&[started("e", &[], "exporting to oci image format", 5)])
        .told(&[
            "2 done in 1000 ms",
            "3/3 [3/3] RUN c",
            "3 cached",
            "note: exporting to oci image format",
        ]);
    let failure = build.end(Some(1), &[]).unwrap();
    assert_eq!(failure.step, None);
}

#[test]
fn a_step_is_known_by_the_digest_of_its_last_part_and_by_our_own() {
    let mut build = Build::new(&[""]);
    build
        .vertexes(&[
            vertex("merge", &["copy", "base"], "[2/2] LINK COPY --link a b"),
            vertex("copy", &[], "[2/2] COPY --link a b"),
            vertex("base", &[], "[1/2] FROM a"),
        ])
        .vertexes(&[started(
            "theirs",
            &["base"],
            "[theirs 3/4] COPY --link a b",
            2,
        )]);
    let _outcome = build.tracker.finish(Some(0), &mut build.events);
    let vertexes = build.events.iter().filter_map(|event| match event {
        Event::StepFinished { vertex, .. } => Some(vertex.as_str()),
        Event::StepStarted(_) | Event::StepOutput { .. } | Event::Note(_) | Event::Warning(_) => {
            None
        }
    });
    assert_eq!(vertexes.collect::<Vec<_>>(), ["base", "merge"]);
}

#[test]
fn a_base_that_is_fetched_was_not_there() {
    let mut build = Build::new(&[""]);
    build
        .vertexes(&[
            vertex("b", &["a"], "[2/2] RUN b"),
            vertex("a", &[], "[1/2] FROM a"),
        ])
        .vertexes(&[completed("a", &[], "[1/2] FROM a", (1, 2))])
        .line(json!({ "statuses": [{ "id": "extracting sha256:9", "vertex": "a", "current": 0 }] }))
        .vertexes(&[completed("a", &[], "[1/2] FROM a", (4, 6))])
        .vertexes(&[started("b", &["a"], "[2/2] RUN b", 7)])
        .told(&["1/2 [1/2] FROM a", "1 done in 3000 ms", "2/2 [2/2] RUN b"]);
}

#[test]
fn output_may_be_nothing_or_nonsense() {
    let mut build = Build::new(&[""]);
    begun(&mut build);
    build
        .text(r#"{"logs":[{"vertex":"b","stream":1,"data":null},{"vertex":"b","data":""}]}"#)
        .told(&[])
        .text(r#"{"logs":[{"vertex":"b","stream":1,"data":"%"}]}"#)
        .told(&["warning: BuildKit's progress had output that cannot be read"])
        .line(json!({ "logs": [log("b", "fine", 4)] }))
        .told(&["2 Stdout: fine"]);
}

#[test]
fn a_line_that_was_too_long_is_a_warning() {
    let mut build = Build::new(&[""]);
    build.tracker.left_out(5_000_000, &mut build.events);
    build.told(&["warning: BuildKit's progress had a line of 5000000 bytes, which is left out"]);
}

#[test]
fn there_is_a_bound_on_vertexes_and_on_notes_and_on_what_they_say() {
    let limits = BuildkitLimits {
        progress_vertexes_max: 3,
        progress_notes_max: 3,
        step_title_bytes_max: 20,
        message_bytes_max: 25,
        ..limits()
    };
    let mut build = Build::bounded(&[""], limits);
    let long = format!("[1/1] RUN {}\nend", "x".repeat(100));
    build
        .vertexes(&[
            started("a", &[], &long, 1),
            started("b", &["c", "d"], "[auth] sharing credentials for here", 1),
            started("e", &[], "exporting to oci image format", 2),
        ])
        .told(&[
            "warning: the bu … f its progress",
            "note: using  … tials for here",
            "1/1 [1/1] … xxxxxx end",
        ])
        .text("WARNING: one")
        .text("WARNING: two")
        .told(&["warning: further notes are left out"]);
}

#[test]
fn an_end_without_a_reason_is_told_as_what_it_is() {
    let mut build = Build::new(&[""]);
    build.text("panic: oh").text("");
    let failure = build.end(Some(2), &[]).unwrap();
    assert_eq!(failure.kind, FailureKind::Other);
    assert_eq!(
        failure.message,
        "buildctl ended with exit code 2: panic: oh"
    );
    let failure = Build::new(&[""]).end(Some(1), &[]).unwrap();
    assert_eq!(
        failure.message,
        "buildctl ended with exit code 1 and did not say why"
    );
    let failure = Build::new(&[""]).end(None, &[]).unwrap();
    assert_eq!(failure.message, "buildctl was killed by a signal");
}
