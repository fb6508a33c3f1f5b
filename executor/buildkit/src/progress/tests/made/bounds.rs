//! What is left out.

use super::*;

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
fn a_note_is_told_once() {
    let mut build = Build::new(&[""]);
    build
        .vertexes(&[
            started("a", &[], "[auth] x:pull token for docker.io", 1),
            started("b", &[], "[auth] y:pull token for docker.io", 1),
        ])
        .told(&["note: using the credentials for docker.io"]);
}
