//! What failed, and what ends then.

use super::*;
use crate::event::FailureKind;

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

#[test]
fn of_several_errors_the_one_in_the_reason_is_the_failure() {
    let mut build = Build::new(&["a", "b"]);
    build
        .vertexes(&[
            failed(
                "x",
                &[],
                "[a 1/1] RUN x",
                (1, 2),
                "the cache of x is broken",
            ),
            failed("y", &[], "[b 1/1] RUN y", (1, 3), "y is broken"),
        ])
        .told(&["1/2 [a 1/1] RUN x", "2/2 [b 1/1] RUN y"])
        .text("error: failed to solve: y is broken");
    let failure = build.end(Some(1), &[]);
    assert_eq!(failure.unwrap().step.unwrap().index, 2);
}

#[test]
fn a_step_that_was_stopped_with_the_others_is_not_the_failure() {
    let mut build = Build::new(&[""]);
    let error = "context canceled: context canceled";
    build
        .vertexes(&[failed("x", &[], "[1/1] RUN x", (1, 2), error)])
        .told(&["1/1 [1/1] RUN x"])
        .text("error: failed to solve: something else");
    assert_eq!(build.end(Some(1), &[]).unwrap().step, None);
}

#[test]
fn an_error_is_over_once_the_vertex_is_at_work_again() {
    let mut build = Build::new(&[""]);
    build
        .vertexes(&[failed("x", &[], "[1/1] RUN x", (1, 2), "no such layer")])
        .vertexes(&[started("x", &[], "[1/1] RUN x", 3)])
        .told(&["1/1 [1/1] RUN x"])
        .text("error: failed to solve: something else");
    assert_eq!(build.end(Some(1), &[]).unwrap().step, None);
}

#[test]
fn a_step_that_is_at_work_again_has_not_ended() {
    let mut build = Build::new(&[""]);
    begun(&mut build);
    build
        .vertexes(&[completed("b", &["a"], "[2/3] RUN b", (3, 4))])
        .vertexes(&[started("b", &["a"], "[2/3] RUN b", 5)])
        .vertexes(&[completed("b", &["a"], "[2/3] RUN b", (3, 4))])
        .text("error: failed to solve: something else");
    build.end(Some(1), &[]);
}

#[test]
fn a_failing_step_is_told_though_one_before_it_has_not_begun() {
    let mut build = Build::new(&[""]);
    build
        .vertexes(&[
            vertex("c", &["b", "copy"], "[3/3] LINK COPY --link x ."),
            vertex("copy", &[], "[3/3] COPY --link x ."),
            vertex("b", &["a"], "[2/3] RUN b"),
            vertex("a", &[], "[1/3] FROM a"),
        ])
        .vertexes(&[started("a", &[], "[1/3] FROM a", 1)])
        .vertexes(&[failed(
            "copy",
            &[],
            "[3/3] COPY --link x .",
            (1, 2),
            "not found",
        )])
        .told(&["1/3 [1/3] FROM a"])
        .text("error: failed to solve: not found");
    let failure = build.end(Some(1), &["3/3 [3/3] COPY --link x ."]);
    assert_eq!(failure.unwrap().step.unwrap().index, 3);
}

#[test]
fn what_was_held_back_is_told_if_its_step_never_ends() {
    let mut build = Build::new(&[""]);
    begun(&mut build);
    clipped(&mut build);
    build.text("error: failed to receive status: rpc error: code = Unavailable desc = EOF");
    build.end(Some(1), &["2 Stdout: lost\\n"]);
}
