//! Builds that a real daemon did.

use super::*;

#[test]
fn stages_are_numbered_in_order_and_a_base_that_they_share_is_the_first_s() {
    succeeds(
        PARALLEL_STAGES,
        &["one", "two", ""],
        r"
        note: resolving docker.io/library/debian:bookworm
        1/9 [one 1/3] FROM docker.io/library/debian:bookworm@sha256:10
        note: transferred 42 bytes of context
        1 done in 1714 ms
        4/9 [two 2/4] WORKDIR /work
        2/9 [one 2/3] RUN echo one; sleep 1; echo one-end >&2
        2 Stdout: one\n
        4 done in 231 ms
        5/9 [two 3/4] RUN echo two; sleep 1
        5 Stdout: two\n
        2 Stderr: one-end\n
        2 done in 1134 ms
        3/9 [one 3/3] RUN echo more > /one
        5 done in 1116 ms
        6/9 [two 4/4] COPY hello.txt .
        3 done in 74 ms
        7/9 [stage-2 2/4] COPY --from=one /one /one
        6 done in 20 ms
        7 done in 8 ms
        8/9 [stage-2 3/4] COPY --from=two /work /work
        8 done in 22 ms
        9/9 [stage-2 4/4] RUN printf 'partial'; sleep 0.3; printf ' line\n\033[31mred\033[0m\rback\n\377\n'
        9 Stdout: partial
        9 Stdout:  line\n\x1b[31mred\x1b[0m\rback\n\xff\n
        9 done in 377 ms
        note: exporting to oci image format
        ",
    );
}

const CACHED_STORY: &str = r"
    note: resolving docker.io/library/debian:bookworm
    1/9 [one 1/3] FROM docker.io/library/debian:bookworm@sha256:14
    note: transferred 30 bytes of context
    1 cached
    2/9 [one 2/3] RUN echo one; sleep 1; echo one-end >&2
    2 cached
    3/9 [one 3/3] RUN echo more > /one
    4/9 [two 2/4] WORKDIR /work
    4 cached
    5/9 [two 3/4] RUN echo two; sleep 1
    5 cached
    6/9 [two 4/4] COPY hello.txt .
    3 cached
    7/9 [stage-2 2/4] COPY --from=one /one /one
    6 cached
    7 cached
    8/9 [stage-2 3/4] COPY --from=two /work /work
    8 cached
    9/9 [stage-2 4/4] RUN printf 'partial'; sleep 0.3; printf ' line\n\033[31mred\033[0m\rback\n\377\n'
    9 cached
    note: exporting to oci image format
    ";

#[test]
fn a_build_whose_steps_are_all_there_tells_them_as_cached() {
    succeeds(CACHED, &["one", "two", ""], CACHED_STORY);
}

#[test]
fn the_stages_need_not_be_known() {
    succeeds(CACHED, &[], CACHED_STORY);
}

#[test]
fn a_here_document_s_step_bears_its_first_words() {
    succeeds(
        HEREDOC,
        &[""],
        r"
        note: resolving docker.io/library/debian:bookworm
        1/3 [1/3] FROM docker.io/library/debian:bookworm@sha256:08
        1 cached
        2/3 [2/3] RUN <<SCRIPT (set -e...)
        2 Stdout: hello world\n
        2 Stdout: 12.15\n
        2 done in 120 ms
        3/3 [3/3] COPY <<TEXT /greeting
        3 done in 55 ms
        note: exporting to oci image format
        ",
    );
}

#[test]
fn a_copy_that_is_linked_is_one_step_which_starts_after_those_before_it() {
    // It copies while step 2 is at work, and is merged after step 3.
    succeeds(
        COPY_LINK,
        &["s"],
        r"
        note: resolving docker.io/library/debian:bookworm
        1/5 [1/5] FROM docker.io/library/debian:bookworm@sha256:11
        1 cached
        2/5 [2/5] WORKDIR /a
        note: transferred 42 bytes of context
        2 done in 9 ms
        3/5 [3/5] RUN sleep 1
        4/5 [4/5] COPY --link hello.txt /b/
        3 done in 1078 ms
        4 done in 26 ms
        5/5 [5/5] RUN cat /b/hello.txt
        5 Stdout: hello\n
        5 done in 62 ms
        note: exporting to oci image format
        ",
    );
}

#[test]
fn an_address_that_is_added_is_one_step_which_starts_after_those_before_it() {
    // It is fetched before anything else.
    succeeds(
        ADD_URL,
        &[""],
        r"
        note: resolving docker.io/library/debian:bookworm
        1/4 [1/4] FROM docker.io/library/debian:bookworm@sha256:09
        1 cached
        2/4 [2/4] RUN sleep 0.5
        3/4 [3/4] ADD http://127.0.0.1:5999/ok /x
        2 done in 786 ms
        3 done in 149 ms
        4/4 [4/4] RUN ls -l /x
        4 Stdout: -rw------- 1 root root 0 Jan  1  1970 /x\n
        4 done in 199 ms
        note: exporting to oci image format
        ",
    );
}

#[test]
fn an_only_stage_is_not_named_though_buildkit_calls_it_by_its_number() {
    succeeds(
        SECRET_MOUNT,
        &[""],
        r"
        note: resolving docker.io/library/debian:bookworm
        1/3 [1/3] FROM docker.io/library/debian:bookworm@sha256:07
        1 cached
        2/3 [2/3] RUN --mount=type=secret,id=tok,required=true wc -c < /run/secrets/tok
        2 Stdout: 10\n
        2 done in 81 ms
        3/3 [3/3] RUN echo done
        3 Stdout: done\n
        3 done in 72 ms
        note: exporting to oci image format
        ",
    );
}

#[test]
fn steps_that_another_build_does_bear_their_names_in_this_one() {
    // The other build has one stage and calls the steps `[1/5]` to `[4/5]`; the copy it does is not even
    // announced.
    succeeds(
        SHARED,
        &["build", ""],
        r"
        note: resolving docker.io/library/debian:bookworm
        1/7 [build 1/5] FROM docker.io/library/debian:bookworm@sha256:12
        1 cached
        2/7 [build 2/5] RUN echo shared-one; sleep 3; echo shared-one-end
        2 Stdout: shared-one\n
        note: transferred 33 bytes of context
        2 Stdout: shared-one-end\n
        2 done in 3105 ms
        3/7 [build 3/5] RUN echo shared-two; sleep 3; echo shared-two-end
        3 Stdout: shared-two\n
        3 Stdout: shared-two-end\n
        3 done in 3093 ms
        4/7 [build 4/5] COPY f /f
        4 done in 45 ms
        5/7 [build 5/5] RUN cat /f; echo b-only
        5 Stdout: same\n
        5 Stdout: b-only\n
        5 done in 103 ms
        6/7 [stage-1 2/3] COPY --from=build /f /f
        6 done in 63 ms
        7/7 [stage-1 3/3] RUN echo final
        7 Stdout: final\n
        7 done in 107 ms
        note: exporting to oci image format
        ",
    );
}

#[test]
fn a_cache_that_cannot_be_imported_is_a_note_and_no_failure() {
    let story = tell(
        include_str!("../fixtures/missing_cache.jsonl"),
        &["one", "two", ""],
        Some(0),
    );
    let notes: Vec<&String> = story
        .lines
        .iter()
        .filter(|line| line.starts_with("note: importing"))
        .collect();
    let name = "note: importing cache manifest from 127.0.0.1:5997/nope/cache";
    assert_eq!(notes[0], name);
    assert!(notes[1].starts_with(&format!(
        "{name} failed: failed to configure registry cache"
    )));
    assert_eq!(story.outcome, Ok(()));
}

#[test]
fn warnings_name_their_rule_and_their_line_and_nothing_else_of_the_file() {
    let recording = include_str!("../fixtures/warnings.jsonl");
    let story = tell(recording, &["base"], Some(0));
    check(
        &story,
        r#"
        warning: StageNameCasing: Stage name 'Base' should be lowercase (Dockerfile:1)
        warning: MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (Dockerfile:2)
        warning: ConsistentInstructionCasing: Command 'from' should match the case of the command majority (uppercase) (Dockerfile:1)
        note: resolving docker.io/library/debian:bookworm
        warning: LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format (Dockerfile:3)
        warning: SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV "KEY") (Dockerfile:3)
        warning: JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (Dockerfile:5)
        1/2 [1/2] FROM docker.io/library/debian:bookworm@sha256:07
        1 cached
        2/2 [2/2] RUN echo warned
        2 Stdout: warned\n
        2 done in 85 ms
        note: exporting to oci image format
        "#,
    );
    assert!(recording.contains("\"sourceInfo\":{\"filename\":\"Dockerfile\",\"data\":"));
}

#[test]
fn a_base_that_another_build_takes_files_from_is_a_step() {
    succeeds(
        NAMED_BY_ANOTHER,
        &[""],
        r"
        note: resolving docker.io/library/debian:bookworm
        1/1 [1/1] FROM docker.io/library/debian:bookworm@sha256:05
        1 cached
        note: exporting to oci image format
        ",
    );
}
