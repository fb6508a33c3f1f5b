//! Which steps there are, and in which order.

use super::*;

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
fn an_image_without_a_place_that_turns_up_later_is_ignored() {
    let mut build = Build::new(&[""]);
    begun(&mut build);
    build
        .vertexes(&[started("x", &[], "FROM x", 4)])
        .told(&[])
        .vertexes(&[completed("x", &[], "FROM x", (4, 5))])
        .told(&[]);
    let outcome = build.end(Some(0), &["2 done in 0 ms", "3/3 [3/3] RUN c", "3 cached"]);
    assert_eq!(outcome, None);
}

#[test]
fn a_base_that_another_build_has_begun_is_told_when_what_is_built_on_it_is_announced() {
    let mut build = Build::new(&[""]);
    build
        .vertexes(&[cached("a", &[], "FROM a", 1)])
        .told(&[])
        .vertexes(&[vertex("b", &["a"], "[2/2] RUN b")])
        .told(&["1/2 [1/2] FROM a"]);
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
fn a_step_that_another_build_does_is_the_one_in_its_place_if_two_have_its_words() {
    let mut build = Build::new(&[""]);
    build
        .vertexes(&[
            vertex("c", &["b"], "[3/3] RUN x"),
            vertex("b", &["a"], "[2/3] RUN x"),
            vertex("a", &[], "[1/3] FROM a"),
        ])
        .vertexes(&[completed("a", &[], "[1/3] FROM a", (1, 2))])
        .vertexes(&[started("b", &["a"], "[2/3] RUN x", 3)])
        .told(&["1/3 [1/3] FROM a", "1 cached", "2/3 [2/3] RUN x"])
        .vertexes(&[started("theirs", &["y"], "[3/3] RUN x", 4)])
        .told(&["3/3 [3/3] RUN x"]);
}
