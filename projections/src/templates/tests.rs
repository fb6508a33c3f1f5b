//! What templates are called, where their tags point, and who sees them.

mod expiry;
mod tags;

use domain::build::{Cancelled, Event as BuildEvent};
use domain::template::Event as TemplateEvent;

use super::*;
use crate::testing::{
    History, artifact, at, build_id, grown, name, owner, reference, requested, slug, snapshotted,
    started, step_failure, tag, template_id,
};
use crate::views::Views;

/// `acme/my-app` with two ready builds: 1 is `v1`, 2 is `default`.
fn two_builds() -> History {
    let mut history = History::default();
    history
        .name_taken("acme", "my-app", 1)
        .ready_build(1, 1, &["v1"])
        .ready_build(2, 1, &["default"]);
    history
}

/// The build that a reference means.
fn resolved(views: &Views, caller: &str, text: &str) -> Option<BuildId> {
    let resolved = views.resolve(&owner(caller), &reference(text)).unwrap();
    resolved.map(|resolved| resolved.build.build_id)
}

fn tag_moves(views: &Views, text: &str) -> Vec<TagMove> {
    views
        .tag_moves(&template_id(1), &tag(text), None, 10)
        .unwrap()
}

fn listed(views: &Views, caller: &str) -> Vec<TemplateId> {
    let rows = views.list(&owner(caller)).unwrap();
    rows.into_iter().map(|row| row.id).collect()
}

fn public() -> TemplateEvent {
    TemplateEvent::VisibilityChanged {
        visibility: Visibility::Public,
    }
}

fn assigned(tags: &[&str], build: u8) -> TemplateEvent {
    TemplateEvent::TagsAssigned {
        tags: tags.iter().map(|text| tag(text)).collect(),
        build: build_id(build),
    }
}

fn renamed(from: &str, to: &str) -> TemplateEvent {
    TemplateEvent::Renamed {
        namespace: slug("acme"),
        from: name(from),
        to: name(to),
    }
}

#[test]
fn every_form_of_a_reference_means_what_the_contract_says() {
    let views = two_builds().views();
    let first = build_id(1);
    for (text, expected) in [
        ("my-app".to_owned(), Some(2)),
        ("my-app:default".into(), Some(2)),
        ("my-app:latest".into(), Some(2)),
        ("my-app:v1".into(), Some(1)),
        ("my-app:v2".into(), None),
        (format!("my-app:{first}"), Some(1)),
        (format!("my-app:{}", build_id(9)), None),
        ("acme/my-app:v1".into(), Some(1)),
        ("other/my-app".into(), None),
        ("nullspace/my-app".into(), None),
        ("none".into(), None),
        (template_id(1).to_string(), Some(2)),
        (template_id(2).to_string(), None),
    ] {
        assert_eq!(
            resolved(&views, "acme", &text),
            expected.map(build_id),
            "{text}"
        );
    }
}

#[test]
fn a_tag_called_latest_wins_over_its_fallback() {
    let mut history = two_builds();
    history.template(1, assigned(&["latest"], 1));
    let views = history.views();
    assert_eq!(resolved(&views, "acme", "my-app:latest"), Some(build_id(1)));
}

#[test]
fn an_id_means_the_latest_ready_build_if_nothing_is_the_default() {
    let mut history = History::default();
    history
        .name_taken("acme", "my-app", 1)
        .ready_build(1, 1, &["v1"])
        .ready_build(2, 1, &["v2"]);
    let views = history.views();
    assert_eq!(resolved(&views, "acme", "my-app"), None);
    let id = template_id(1).to_string();
    assert_eq!(resolved(&views, "acme", &id), Some(build_id(2)));
}

#[test]
fn a_base_that_the_system_does_not_have_is_the_callers_own() {
    let mut history = two_builds();
    let views = history.views();
    let base = |views: &Views, text| {
        let resolved = views
            .resolve_base(&owner("acme"), &reference(text))
            .unwrap();
        resolved.map(|resolved| resolved.build.build_id)
    };
    assert_eq!(base(&views, "nullspace/my-app:latest"), Some(build_id(2)));
    assert_eq!(base(&views, "nullspace/my-app:v1"), Some(build_id(1)));
    assert_eq!(base(&views, "other/my-app:v1"), None);
    assert_eq!(base(&views, "my-app:v1"), Some(build_id(1)));
    history
        .name_taken("nullspace", "my-app", 2)
        .ready_build(3, 2, &["v1"])
        .template(2, public());
    let views = history.views();
    assert_eq!(base(&views, "nullspace/my-app:v1"), Some(build_id(3)));
    assert_eq!(base(&views, "nullspace/my-app:latest"), Some(build_id(2)));
}

#[test]
fn a_base_of_somebody_else_must_be_public_and_still_there() {
    let mut history = two_builds();
    let texts = [
        "acme/my-app:v1".to_owned(),
        format!("acme/my-app:{}", build_id(1)),
    ];
    let base = |history: &History, text: &str| {
        let views = history.views();
        let (caller, reference) = (owner("other"), reference(text));
        let found = views.find_base(&caller, &reference).unwrap();
        let resolved = views.resolve_base(&caller, &reference).unwrap();
        assert_eq!(found.is_some(), resolved.is_some(), "{text}");
        resolved.map(|resolved| resolved.build.build_id)
    };
    for text in &texts {
        assert_eq!(base(&history, text), None, "private: {text}");
    }
    history.template(1, public());
    for text in &texts {
        assert_eq!(base(&history, text), Some(build_id(1)), "public: {text}");
    }
    let id = template_id(1).to_string();
    assert_eq!(base(&history, &id), Some(build_id(2)));
    // The fallback to a namespace of one's own reaches nobody else's.
    assert_eq!(base(&history, "nullspace/my-app:v1"), None);
    history.template(1, TemplateEvent::Deleted {});
    for text in &texts {
        assert_eq!(base(&history, text), None, "deleted: {text}");
    }
}

#[test]
fn a_private_template_is_its_owners_alone() {
    let mut history = two_builds();
    let id = template_id(1).to_string();
    let views = history.views();
    for text in ["acme/my-app", "acme/my-app:v1", &id] {
        assert_eq!(resolved(&views, "other", text), None, "{text}");
    }
    assert_eq!(listed(&views, "other"), []);
    history.template(1, public());
    let views = history.views();
    for text in ["acme/my-app", &id] {
        assert_eq!(resolved(&views, "other", text), Some(build_id(2)), "{text}");
    }
    assert_eq!(resolved(&views, "other", "my-app"), None);
    assert_eq!(listed(&views, "other"), [template_id(1)]);
    assert_eq!(listed(&views, "acme"), [template_id(1)]);
    let private = TemplateEvent::VisibilityChanged {
        visibility: Visibility::Private,
    };
    history.template(1, private);
    assert_eq!(listed(&history.views(), "other"), []);
}

#[test]
fn a_template_is_listed_once_a_build_is_ready() {
    let mut history = History::default();
    history
        .name_taken("acme", "my-app", 1)
        .template(1, public())
        .build(1, requested(1, &["default"]))
        .build(1, started(1));
    let views = history.views();
    assert_eq!(listed(&views, "acme"), []);
    assert_eq!(resolved(&views, "acme", "my-app"), None);
    let found = |views: &Views, caller| {
        let found = views.find(&owner(caller), &reference("acme/my-app:none"));
        found.unwrap().map(|row| row.id)
    };
    assert_eq!(found(&views, "acme"), Some(template_id(1)));
    assert_eq!(found(&views, "other"), None);
    history.build(1, grown()).build(1, snapshotted(1));
    let views = history.views();
    assert_eq!(listed(&views, "acme"), [template_id(1)]);
    assert_eq!(found(&views, "other"), Some(template_id(1)));
    let row = views.template(&template_id(1)).unwrap().unwrap();
    let ready = ReadyBuild {
        build_id: build_id(1),
        at: at(6_000),
    };
    assert_eq!(row.ready, Some(ready));
    assert_eq!((row.created_at, row.updated_at), (at(1_000), at(6_000)));
}

#[test]
fn lists_are_sorted_by_namespace_and_name() {
    let mut history = History::default();
    for (number, slug, text) in [(1, "acme", "b"), (2, "acme", "a"), (3, "aaa", "z")] {
        history
            .name_taken(slug, text, number)
            .ready_build(number, number, &["default"])
            .template(number, public());
    }
    let expected = [template_id(3), template_id(2), template_id(1)];
    assert_eq!(listed(&history.views(), "acme"), expected);
}

#[test]
fn the_build_of_another_template_is_not_reached_by_its_id() {
    let mut history = two_builds();
    history
        .name_taken("acme", "second", 2)
        .ready_build(5, 2, &["default"]);
    let text = format!("my-app:{}", build_id(5));
    assert_eq!(resolved(&history.views(), "acme", &text), None);
}

#[test]
fn an_old_name_is_an_alias_until_it_is_removed() {
    let mut history = two_builds();
    history
        .name_taken("acme", "new-app", 1)
        .template(1, renamed("my-app", "new-app"));
    let views = history.views();
    for text in ["new-app", "my-app"] {
        assert_eq!(resolved(&views, "acme", text), Some(build_id(2)), "{text}");
    }
    let row = views.template(&template_id(1)).unwrap().unwrap();
    assert_eq!(row.name, name("new-app"));
    let aliases: Vec<_> = row.aliases.into_iter().collect();
    assert_eq!(aliases, [(name("my-app"), history.last().time)]);

    history.template(
        1,
        TemplateEvent::AliasRemoved {
            namespace: slug("acme"),
            alias: name("my-app"),
        },
    );
    let views = history.views();
    assert_eq!(resolved(&views, "acme", "my-app"), None);
    assert_eq!(resolved(&views, "acme", "new-app"), Some(build_id(2)));
}

#[test]
fn a_name_that_is_only_held_for_a_rename_means_nothing_yet() {
    let mut history = two_builds();
    history.name_taken("acme", "new-app", 1);
    assert_eq!(resolved(&history.views(), "acme", "new-app"), None);
    // The rename came to nothing, and somebody else has the name.
    let released = namespace::Event::NameReleased {
        name: name("new-app"),
    };
    history
        .namespace("acme", released)
        .name_taken("acme", "new-app", 2)
        .ready_build(3, 2, &["default"]);
    let views = history.views();
    assert_eq!(resolved(&views, "acme", "new-app"), Some(build_id(3)));
    assert_eq!(resolved(&views, "acme", "my-app"), Some(build_id(2)));
}

#[test]
fn a_row_knows_how_often_something_was_done_by_hand() {
    let mut history = two_builds();
    let version = |history: &History| {
        let row = history.views().template(&template_id(1)).unwrap();
        row.unwrap().version
    };
    assert_eq!(version(&history), Version::EMPTY);
    history
        .template(1, public())
        .template(1, assigned(&["x"], 1))
        .ready_build(3, 1, &["default"]);
    assert_eq!(version(&history), Version(2));
}

#[test]
fn a_namespace_is_known_to_others_by_its_public_templates() {
    let mut history = two_builds();
    let knows = |history: &History, text| history.views().has_public(&slug(text)).unwrap();
    assert!(!knows(&history, "acme"));
    history.template(1, public());
    assert!(knows(&history, "acme"));
    assert!(!knows(&history, "acm"));
    history.template(1, TemplateEvent::Deleted {});
    assert!(!knows(&history, "acme"));
}

#[test]
fn a_template_that_gets_its_old_name_back_has_the_other_as_alias() {
    let mut history = two_builds();
    history
        .name_taken("acme", "new-app", 1)
        .template(1, renamed("my-app", "new-app"))
        .template(1, renamed("new-app", "my-app"));
    let row = history.views().template(&template_id(1)).unwrap().unwrap();
    assert_eq!(row.name, name("my-app"));
    let aliases: Vec<_> = row.aliases.into_keys().collect();
    assert_eq!(aliases, [name("new-app")]);
}

#[test]
fn a_name_that_somebody_else_has_by_now_stays_theirs() {
    let mut history = two_builds();
    let released = namespace::Event::NameReleased {
        name: name("my-app"),
    };
    history
        .name_taken("acme", "new-app", 1)
        .template(1, renamed("my-app", "new-app"))
        .namespace("acme", released)
        .name_taken("acme", "my-app", 2)
        .ready_build(3, 2, &["default"])
        .template(
            1,
            TemplateEvent::AliasRemoved {
                namespace: slug("acme"),
                alias: name("my-app"),
            },
        );
    let views = history.views();
    assert_eq!(resolved(&views, "acme", "my-app"), Some(build_id(3)));
}

#[test]
fn a_deleted_template_is_gone_for_everybody_and_for_its_running_builds() {
    let mut history = two_builds();
    history
        .template(1, public())
        .build(3, requested(1, &["default"]))
        .build(3, started(1))
        .template(1, TemplateEvent::Deleted {})
        .build(3, grown())
        .build(3, snapshotted(3));
    let views = history.views();
    let id = template_id(1).to_string();
    for caller in ["acme", "other"] {
        assert_eq!(listed(&views, caller), []);
        for text in ["acme/my-app", "acme/my-app:v1", &id] {
            assert_eq!(resolved(&views, caller, text), None, "{text}");
            let found = views.find(&owner(caller), &reference(text)).unwrap();
            assert_eq!(found, None, "{text}");
        }
    }
    let row = views.template(&template_id(1)).unwrap().unwrap();
    assert!(row.deleted_at.is_some());
    assert_eq!(row.ready.unwrap().build_id, build_id(2));
    history
        .namespace(
            "acme",
            namespace::Event::NameReleased {
                name: name("my-app"),
            },
        )
        .name_taken("acme", "my-app", 2)
        .ready_build(4, 2, &["default"]);
    let views = history.views();
    assert_eq!(resolved(&views, "acme", "my-app"), Some(build_id(4)));
}

#[test]
fn a_build_of_a_template_without_a_name_is_left_out() {
    let mut history = History::default();
    history.ready_build(1, 1, &["default"]);
    let views = history.views();
    assert_eq!(views.template(&template_id(1)).unwrap(), None);
    assert_eq!(listed(&views, "acme"), []);
}
