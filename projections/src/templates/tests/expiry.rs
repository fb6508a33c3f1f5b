//! Builds without a tag, and artifacts that expire.

use super::*;

/// The builds of the template without a tag, and which expires first.
fn untagged(views: &Views) -> (Vec<(BuildId, Timestamp)>, Option<BuildId>) {
    let row = views.template(&template_id(1)).unwrap().unwrap();
    let first = views.longest_untagged().unwrap();
    let first = first.map(|untagged| {
        assert_eq!(untagged.template_id, row.id);
        assert_eq!(row.untagged[&untagged.build_id], untagged.since);
        untagged.build_id
    });
    (row.untagged.into_iter().collect(), first)
}

fn expired(build: u8) -> TemplateEvent {
    TemplateEvent::ArtifactExpired {
        build: build_id(build),
        artifact: artifact(build),
    }
}

#[test]
fn a_build_is_without_a_tag_from_the_moment_that_the_last_one_left_it() {
    let mut history = two_builds();
    assert_eq!(untagged(&history.views()), (Vec::new(), None));
    // Another tag still points to the first when one is taken away, by hand and by a build.
    history
        .template(1, assigned(&["keep"], 1))
        .ready_build(3, 1, &["v1", "default"]);
    let since = history.last().time;
    let second = (vec![(build_id(2), since)], Some(build_id(2)));
    assert_eq!(untagged(&history.views()), second);
    history.template(
        1,
        TemplateEvent::TagRemoved {
            tag: tag("keep"),
            build: Some(build_id(1)),
        },
    );
    let later = history.last().time;
    let both = vec![(build_id(1), later), (build_id(2), since)];
    assert_eq!(untagged(&history.views()), (both, Some(build_id(2))));
    history.template(1, assigned(&["back"], 2));
    let first = (vec![(build_id(1), later)], Some(build_id(1)));
    assert_eq!(untagged(&history.views()), first);
    history.template(1, TemplateEvent::Deleted {});
    assert_eq!(untagged(&history.views()), (Vec::new(), None));
}

#[test]
fn a_reference_means_no_build_whose_artifact_has_expired() {
    let mut history = two_builds();
    history.template(
        1,
        TemplateEvent::TagRemoved {
            tag: tag("v1"),
            build: Some(build_id(1)),
        },
    );
    let exact = format!("acme/my-app:{}", build_id(1));
    assert_eq!(
        resolved(&history.views(), "acme", &exact),
        Some(build_id(1))
    );
    history.template(1, expired(1));
    let views = history.views();
    assert_eq!(untagged(&views), (Vec::new(), None));
    assert_eq!(resolved(&views, "acme", &exact), None);
    let row = views.build(&build_id(1)).unwrap().unwrap();
    assert_eq!(row.expired_at, Some(history.last().time));
    assert_eq!(resolved(&views, "acme", "acme/my-app"), Some(build_id(2)));
}

#[test]
fn an_expired_artifact_is_listed_until_it_is_gone_or_its_template_is() {
    let purged = |build| TemplateEvent::ArtifactPurged {
        build: build_id(build),
        artifact: artifact(build),
    };
    let of = |history: &History, build| {
        let views = history.views();
        let all = views.expired(None, 10).unwrap();
        let own = views.expired_of(&artifact(build), 10).unwrap();
        assert_eq!(views.expired(own.last(), 10).unwrap().len() + 1, all.len());
        let row = views.template(&template_id(1)).unwrap().unwrap();
        let listed: Vec<_> = all
            .into_iter()
            .map(|one| (one.build_id, one.artifact))
            .collect();
        assert!(
            listed
                .iter()
                .all(|(build, _)| row.expired.contains_key(build))
        );
        listed.len()
    };
    let mut history = two_builds();
    history.template(1, expired(1));
    assert_eq!(of(&history, 1), 1);
    history.template(1, purged(1));
    let row = history.views().build(&build_id(1)).unwrap().unwrap();
    assert_eq!(row.purged_at, Some(history.last().time));
    assert!(row.expired_at < row.purged_at);
    assert_eq!(history.views().expired(None, 10).unwrap(), []);
    history.template(1, expired(2));
    assert_eq!(of(&history, 2), 1);
    history.template(1, TemplateEvent::Deleted {});
    assert_eq!(history.views().expired(None, 10).unwrap(), []);
}
