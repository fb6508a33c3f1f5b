//! When steps start and end, and how long they take.

use super::*;

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
fn a_moment_that_cannot_be_read_is_a_moment() {
    let mut build = Build::new(&[""]);
    let mut vertex = vertex("a", &[], "[1/1] RUN a");
    vertex["started"] = json!("this morning");
    build.vertexes(&[vertex]).told(&["1/1 [1/1] RUN a"]);
}

#[test]
fn a_part_that_two_steps_share_ends_neither() {
    // An address that two stages add is fetched once, under the name of one of them.
    let mut build = Build::new(&["one", "two"]);
    build
        .vertexes(&[
            vertex("d", &["b", "c"], "[two 2/2] COPY --from=one x y"),
            vertex("c", &["fetch"], "[two 1/2] ADD http://u /"),
            vertex("b", &["fetch"], "[one 1/1] ADD http://u /"),
            vertex("fetch", &[], "[one 1/1] ADD http://u /"),
        ])
        .vertexes(&[completed("fetch", &[], "[one 1/1] ADD http://u /", (1, 2))])
        .vertexes(&[started("c", &["fetch"], "[two 1/2] ADD http://u /", 3)])
        .told(&[
            "1/3 [one 1/1] ADD http://u /",
            "2/3 [two 1/2] ADD http://u /",
        ])
        .vertexes(&[started("b", &["fetch"], "[one 1/1] ADD http://u /", 4)])
        .told(&[])
        .vertexes(&[
            completed("b", &["fetch"], "[one 1/1] ADD http://u /", (4, 5)),
            completed("c", &["fetch"], "[two 1/2] ADD http://u /", (3, 6)),
            started("d", &["b", "c"], "[two 2/2] COPY --from=one x y", 7),
        ])
        .told(&[
            "1 done in 2000 ms",
            "2 done in 3000 ms",
            "3/3 [two 2/2] COPY --from=one x y",
        ]);
}

#[test]
fn a_step_is_cached_if_its_last_part_is_whatever_the_others_did() {
    // An address is asked for whether it has changed.
    let mut build = Build::new(&[""]);
    build
        .vertexes(&[
            vertex("c", &["fetch"], "[1/1] ADD http://u /"),
            vertex("fetch", &[], "[1/1] ADD http://u /"),
        ])
        .vertexes(&[completed("fetch", &[], "[1/1] ADD http://u /", (1, 2))])
        .vertexes(&[cached("c", &["fetch"], "[1/1] ADD http://u /", 3)])
        .told(&["1/1 [1/1] ADD http://u /"]);
    assert_eq!(build.end(Some(0), &["1 cached"]), None);
}

#[test]
fn the_time_in_which_several_parts_are_at_work_counts_once() {
    let mut build = Build::new(&[""]);
    build.vertexes(&[
        completed("a", &[], "[1/1] ADD http://u /", (1, 4)),
        completed("b", &[], "[1/1] ADD http://u /", (2, 6)),
    ]);
    assert_eq!(
        build.end(Some(0), &["1/1 [1/1] ADD http://u /", "1 done in 5000 ms"]),
        None
    );
}

#[test]
fn a_step_does_not_end_as_its_last_part_begins_though_something_stands_between() {
    let mut build = Build::new(&[""]);
    build
        .vertexes(&[
            vertex("b", &["i"], "[1/1] ADD http://u /"),
            vertex("i", &["a"], "[internal] unpack"),
            vertex("a", &[], "[1/1] ADD http://u /"),
        ])
        .vertexes(&[completed("a", &[], "[1/1] ADD http://u /", (1, 2))])
        .vertexes(&[started("b", &["i"], "[1/1] ADD http://u /", 3)])
        .told(&["1/1 [1/1] ADD http://u /"]);
}

#[test]
fn what_a_vertex_takes_is_known_though_it_is_not_always_told() {
    let mut build = Build::new(&[""]);
    begun(&mut build);
    build
        .vertexes(&[started("c", &[], "[3/3] RUN c", 4)])
        .told(&["2 done in 0 ms", "3/3 [3/3] RUN c"]);
}

#[test]
fn output_that_looked_told_again_is_told_whole_before_its_step_ends_well() {
    let mut build = Build::new(&[""]);
    begun(&mut build);
    clipped(&mut build);
    build
        .vertexes(&[completed("b", &["a"], "[2/3] RUN b", (3, 6))])
        .told(&["2 Stdout: came through\\nlost\\n"])
        .vertexes(&[started("c", &["b"], "[3/3] RUN c", 7)])
        .told(&["2 done in 3000 ms", "3/3 [3/3] RUN c"]);
}
