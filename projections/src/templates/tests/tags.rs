//! Where tags point.

use super::*;

#[test]
fn only_a_ready_build_moves_tags() {
    let mut history = two_builds();
    history
        .build(3, requested(1, &["default", "v3"]))
        .build(3, started(1))
        .build(3, BuildEvent::Failed(step_failure()))
        .build(4, requested(1, &["default"]))
        .build(4, BuildEvent::Cancelled(Cancelled::default()));
    let views = history.views();
    assert_eq!(resolved(&views, "acme", "my-app"), Some(build_id(2)));
    assert_eq!(resolved(&views, "acme", "my-app:v3"), None);
    let failed = format!("my-app:{}", build_id(3));
    assert_eq!(resolved(&views, "acme", &failed), None);
}

#[test]
fn tags_move_in_the_order_of_the_log() {
    let mut history = two_builds();
    // Requested first, ready last: the last word counts.
    history
        .build(3, requested(1, &["default"]))
        .build(3, started(1))
        .ready_build(4, 1, &["default"])
        .template(1, assigned(&["default", "x"], 1))
        .build(3, grown())
        .build(3, snapshotted(3));
    let views = history.views();
    assert_eq!(resolved(&views, "acme", "my-app"), Some(build_id(3)));
    assert_eq!(resolved(&views, "acme", "my-app:x"), Some(build_id(1)));
    let moves = tag_moves(&views, "default");
    let builds: Vec<_> = moves.into_iter().map(|it| it.build_id.unwrap()).collect();
    assert_eq!(builds, [3, 1, 4, 2].map(build_id));
}

#[test]
fn a_tag_that_is_set_to_where_it_is_keeps_its_time() {
    let mut history = two_builds();
    history.template(1, assigned(&["v1"], 1));
    let views = history.views();
    let row = views.template(&template_id(1)).unwrap().unwrap();
    let expected = TagRow {
        build_id: build_id(1),
        since: at(5_000),
    };
    assert_eq!(row.tags.get(&tag("v1")), Some(&expected));
    let moves = tag_moves(&views, "v1");
    assert_eq!(moves.len(), 1);
}

#[test]
fn a_removed_tag_means_nothing_and_its_history_stays() {
    let mut history = two_builds();
    let remove = || TemplateEvent::TagRemoved {
        tag: tag("v1"),
        build: None,
    };
    history.template(1, remove()).template(1, remove());
    let views = history.views();
    assert_eq!(resolved(&views, "acme", "my-app:v1"), None);
    let moves = tag_moves(&views, "v1");
    let builds: Vec<_> = moves.into_iter().map(|it| it.build_id).collect();
    assert_eq!(builds, [None, Some(build_id(1))]);
}
