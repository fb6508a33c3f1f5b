use super::*;
use crate::progress::wire;

/// A graph of vertexes: digest, what it takes, name.
fn graph(vertexes: &[(&str, &[&str], &str)]) -> Graph {
    let mut graph = Graph::new(100);
    for &(digest, inputs, name) in vertexes {
        let told = serde_json::json!({ "digest": digest, "inputs": inputs, "name": name });
        let told = told.to_string();
        let told: wire::Vertex<'_> = serde_json::from_str(&told).unwrap();
        graph.meet(&told);
    }
    graph
}

fn stages(names: &[&str]) -> Stages {
    let name = |name: &&str| (!name.is_empty()).then(|| (*name).to_owned());
    Stages::new(&names.iter().map(name).collect::<Vec<_>>())
}

#[track_caller]
fn check(names: &[&str], vertexes: &[(&str, &[&str], &str)], expected: &[&str]) {
    let placed = place(&graph(vertexes), &mut stages(names), 1_000);
    let titles: Vec<&str> = placed.iter().map(|step| step.title.as_str()).collect();
    assert_eq!(titles, expected);
}

#[test]
fn steps_stand_in_the_order_of_their_stages() {
    let vertexes: &[(&str, &[&str], &str)] = &[
        ("d", &["b", "c"], "[stage-2 1/1] COPY --from=b . ."),
        ("c", &[], "[Second 1/1] RUN c"),
        ("b", &["a"], "[zero 2/2] RUN b"),
        ("a", &[], "[zero 1/2] FROM a"),
    ];
    let expected = [
        "[zero 1/2] FROM a",
        "[zero 2/2] RUN b",
        "[second 1/1] RUN c",
        "[stage-2 1/1] COPY --from=b . .",
    ];
    check(&["zero", "Second", ""], vertexes, &expected);
    // Without the Dockerfile, the order of announcement is the best guess.
    check(&[], vertexes, &expected);
}

#[test]
fn an_only_stage_has_many_names() {
    for stage in ["", "stage-0 ", "main ", "linux/amd64 main "] {
        let base = format!("[{stage}1/2] FROM a");
        let run = format!("[{stage}2/2] RUN b");
        check(
            &["main"],
            &[("b", &["a"], &run), ("a", &[], &base)],
            &["[1/2] FROM a", "[2/2] RUN b"],
        );
    }
}

#[test]
fn a_stage_is_found_by_what_buildkit_calls_it() {
    for label in ["", "stage-0", "main"] {
        assert_eq!(stages(&["main"]).find(label), Some(0), "{label}");
    }
    let two = stages(&["main", ""]);
    assert_eq!(two.find("main"), Some(0));
    assert_eq!(two.find("stage-1"), Some(1));
    for label in ["", "stage-0", "other"] {
        assert_eq!(two.find(label), None, "{label}");
    }
}

#[test]
fn a_base_that_stages_share_stands_in_the_first() {
    check(
        &["one", "two"],
        &[
            ("d", &["a", "b"], "[two 2/2] COPY --from=one . ."),
            ("b", &["a"], "[one 2/2] RUN b"),
            ("a", &[], "[two 1/2] FROM a"),
        ],
        &[
            "[one 1/2] FROM a",
            "[one 2/2] RUN b",
            "[two 2/2] COPY --from=one . .",
        ],
    );
}

#[test]
fn a_base_that_another_build_takes_files_from_stands_before_what_is_built_on_it() {
    check(
        &[""],
        &[("a", &[], "FROM a"), ("b", &["a"], "[2/2] RUN b")],
        &["[1/2] FROM a", "[2/2] RUN b"],
    );
    check(
        &["one", ""],
        &[
            ("a", &[], "FROM a"),
            ("b", &["a"], "[one 2/2] RUN b"),
            ("c", &["a", "b"], "[stage-1 2/2] COPY --from=one b ."),
        ],
        &[
            "[one 1/2] FROM a",
            "[one 2/2] RUN b",
            "[stage-1 2/2] COPY --from=one b .",
        ],
    );
    check(&[""], &[("a", &[], "FROM a")], &["[1/1] FROM a"]);
}

#[test]
fn an_image_that_steps_only_take_files_from_is_no_step() {
    for tools in ["FROM tools", "[1/4] FROM tools"] {
        for base in ["FROM a", "[1/2] FROM a"] {
            check(
                &[""],
                &[
                    ("x", &[], tools),
                    ("a", &[], base),
                    ("c", &["a", "x"], "[2/2] COPY --from=tools x ."),
                ],
                &["[1/2] FROM a", "[2/2] COPY --from=tools x ."],
            );
            check(
                &[""],
                &[
                    ("x", &[], tools),
                    ("a", &[], base),
                    ("c", &["x"], "[2/2] COPY --link --from=tools x ."),
                    ("d", &["a", "c"], "[2/2] LINK COPY --link --from=tools x ."),
                ],
                &["[1/2] FROM a", "[2/2] COPY --link --from=tools x ."],
            );
        }
        check(
            &[""],
            &[
                ("x", &[], tools),
                ("c", &["x"], "[1/1] COPY --from=tools x ."),
            ],
            &["[1/1] COPY --from=tools x ."],
        );
    }
}

#[test]
fn a_stage_that_is_only_a_base_is_a_step_although_it_only_gives_files() {
    check(
        &["tools", ""],
        &[
            ("x", &[], "[tools 1/1] FROM tools"),
            ("a", &[], "[stage-1 1/2] FROM a"),
            ("c", &["a", "x"], "[stage-1 2/2] COPY --from=tools x ."),
        ],
        &[
            "[tools 1/1] FROM tools",
            "[stage-1 1/2] FROM a",
            "[stage-1 2/2] COPY --from=tools x .",
        ],
    );
}

#[test]
fn a_chain_with_the_names_of_another_build_stands_before_what_takes_it() {
    check(
        &["build", ""],
        &[
            ("e", &["d"], "[stage-1 1/1] COPY --from=build . ."),
            ("d", &["c"], "[build 4/4] RUN d"),
            // Told out of order.
            ("b", &["a"], "[theirs 7/9] RUN b"),
            ("c", &["b"], "[theirs 8/9] RUN c"),
            ("a", &[], "[1/9] FROM a"),
        ],
        &[
            "[build 1/4] FROM a",
            "[build 2/4] RUN b",
            "[build 3/4] RUN c",
            "[build 4/4] RUN d",
            "[stage-1 1/1] COPY --from=build . .",
        ],
    );
}

#[test]
fn what_nothing_takes_stands_behind_all_others() {
    check(
        &["build", ""],
        &[
            ("x", &[], "[theirs 1/1] RUN x"),
            ("b", &[], "[build 1/1] RUN b"),
        ],
        &["[build 1/1] RUN b", "[1/1] RUN x"],
    );
}

#[test]
fn a_place_that_is_taken_is_nobody_else_s() {
    check(
        &["build", ""],
        &[
            ("c", &["b", "x"], "[build 3/3] COPY --from=x . ."),
            ("b", &["a"], "[build 2/3] RUN b"),
            ("a", &[], "[build 1/3] FROM a"),
            ("x", &[], "[theirs 4/9] RUN x"),
        ],
        &[
            "[build 1/3] FROM a",
            "[build 2/3] RUN b",
            "[build 3/3] COPY --from=x . .",
            "[4/4] RUN x",
        ],
    );
}

#[test]
fn vertexes_with_one_place_and_one_instruction_are_one_step() {
    let graph = graph(&[
        ("d", &["b", "c"], "[2/2] LINK COPY --link a ."),
        ("c", &[], "[2/2] COPY --link a ."),
        ("b", &[], "[1/2] FROM a"),
        // The name is another build's.
        ("x", &[], "[2/2] RUN x"),
    ]);
    let placed = place(&graph, &mut stages(&[""]), 1_000);
    let sizes: Vec<(&str, usize)> = placed
        .iter()
        .map(|step| (step.text.as_str(), step.vertexes.len()))
        .collect();
    assert_eq!(sizes, [("FROM a", 1), ("COPY --link a .", 2), ("RUN x", 1)]);
}

#[test]
fn a_build_is_announced_wholly_once_every_stage_is_there_to_its_end() {
    let last = ("d", &["b", "a"][..], "[two 2/2] COPY --from=one . .");
    let run = ("b", &["a"][..], "[one 2/2] RUN b");
    let base = ("a", &[][..], "[two 1/2] FROM a");
    for (vertexes, is_closed, complete) in [
        (&[base][..], true, false),
        (&[base, run], true, false),
        (&[last, run], false, true),
        (&[last, run, base], true, true),
    ] {
        let graph = graph(vertexes);
        assert_eq!(graph.is_closed(), is_closed, "{vertexes:?}");
        let mut stages = stages(&["one", "two"]);
        assert_eq!(is_complete(&graph, &mut stages), complete, "{vertexes:?}");
    }
    let skipped = graph(&[
        ("b", &[], "[one 3/3] RUN b"),
        ("a", &[], "[one 1/3] FROM a"),
    ]);
    assert!(!is_complete(&skipped, &mut stages(&["one"])));
    assert!(is_complete(&graph(&[]), &mut stages(&["one"])));
}

#[test]
fn a_title_is_one_line_and_not_too_long() {
    let slot = Slot { stage: 0, place: 1 };
    let stages = stages(&["a", "b"]);
    assert_eq!(
        title(&stages, slot, 2, "RUN a\n\tb", 100),
        "[a 1/2] RUN a  b"
    );
    let long = title(&stages, slot, 2, &"x".repeat(100), 40);
    assert_eq!(long.len(), 40);
    assert!(long.starts_with("[a 1/2] x") && long.contains(" … "));
}
