//! What may be done to a template.

use proptest::prelude::*;

use super::*;
use crate::digest::Digest;
use crate::time::Timestamp;

fn build(number: u8) -> BuildId {
    BuildId::generate(Timestamp::from_unix_micros(1).unwrap(), [number; 10])
}

fn name(text: &str) -> TemplateName {
    text.parse().unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn acme() -> Namespace {
    "acme".parse().unwrap()
}

fn rename(to: &str, seen: u64) -> Command {
    Command::Rename {
        namespace: acme(),
        first: name("app"),
        to: name(to),
        seen: Version(seen),
    }
}

fn renamed(from: &str, to: &str) -> Event {
    Event::Renamed {
        namespace: acme(),
        from: name(from),
        to: name(to),
    }
}

fn remove_alias(alias: &str) -> Command {
    Command::RemoveAlias {
        namespace: acme(),
        alias: name(alias),
    }
}

fn alias_removed(alias: &str) -> Event {
    Event::AliasRemoved {
        namespace: acme(),
        alias: name(alias),
    }
}

fn show(visibility: Visibility) -> Command {
    Command::SetVisibility { visibility }
}

fn shown(visibility: Visibility) -> Event {
    Event::VisibilityChanged { visibility }
}

fn assign(tags: &[&str], number: u8) -> Command {
    Command::AssignTags {
        tags: tags.iter().map(|text| tag(text)).collect(),
        build: build(number),
    }
}

fn assigned(tags: &[&str], number: u8) -> Event {
    Event::TagsAssigned {
        tags: tags.iter().map(|text| tag(text)).collect(),
        build: build(number),
    }
}

fn remove_tag(text: &str, number: u8) -> Command {
    Command::RemoveTag {
        tag: tag(text),
        build: build(number),
    }
}

fn tag_removed(text: &str, number: u8) -> Event {
    Event::TagRemoved {
        tag: tag(text),
        build: Some(build(number)),
    }
}

fn artifact(number: u8) -> ArtifactId {
    ArtifactId::of(&Digest::of(&[number]))
}

fn expire(number: u8, seen: u64) -> Command {
    Command::ExpireArtifact {
        build: build(number),
        artifact: artifact(number),
        seen: Version(seen),
    }
}

fn expired(number: u8) -> Event {
    Event::ArtifactExpired {
        build: build(number),
        artifact: artifact(number),
    }
}

fn purge(number: u8) -> Command {
    Command::PurgeArtifact {
        build: build(number),
        artifact: artifact(number),
    }
}

fn purged(number: u8) -> Event {
    Event::ArtifactPurged {
        build: build(number),
        artifact: artifact(number),
    }
}

fn delete(seen: u64) -> Command {
    Command::Delete {
        seen: Version(seen),
    }
}

fn given(events: &[Event]) -> Template {
    events.iter().fold(Template::default(), evolve)
}

fn happens(events: &[Event], command: Command, expected: &[Event]) {
    assert_eq!(decide(&given(events), command), Ok(expected.to_vec()));
}

fn is_refused(events: &[Event], command: Command, rejection: Rejection) {
    assert_eq!(decide(&given(events), command), Err(rejection));
}

#[test]
fn the_old_name_becomes_an_alias() {
    happens(&[], rename("new", 0), &[renamed("app", "new")]);
    let history = [renamed("app", "new")];
    happens(&history, rename("newer", 1), &[renamed("new", "newer")]);
    let template = given(&history);
    let standing =
        |text, renaming: Option<u64>| template.standing(&name(text), renaming.map(Version));
    assert_eq!(standing("new", Some(0)), Standing::Name);
    assert_eq!(standing("app", None), Standing::Alias);
    for (text, expected) in [("new", true), ("app", true), ("other", false)] {
        assert_eq!(
            template.goes_by(&name(text), &name("app")),
            expected,
            "{text}"
        );
    }
}

#[test]
fn a_name_that_it_has_is_no_rename_and_one_that_it_had_is() {
    happens(&[], rename("app", 0), &[]);
    let history = [renamed("app", "new")];
    happens(&history, rename("new", 0), &[]);
    happens(&history, rename("app", 1), &[renamed("new", "app")]);
    let back = given(&[renamed("app", "new"), renamed("new", "app")]);
    assert_eq!(back.standing(&name("app"), None), Standing::Name);
    assert_eq!(
        back.standing(&name("new"), Some(Version(0))),
        Standing::Alias
    );
}

#[test]
fn a_rename_is_decided_for_the_version_that_its_name_is_held_for() {
    let history = [shown(Visibility::Public)];
    is_refused(&history, rename("new", 0), Rejection::Changed);
    happens(&history, rename("new", 1), &[renamed("app", "new")]);
}

#[test]
fn aliases_are_bounded_and_leave_room_when_they_are_removed() {
    let names: Vec<String> = (0..=ALIAS_COUNT_MAX)
        .map(|number| format!("n{number}"))
        .collect();
    let mut history: Vec<Event> = names
        .windows(2)
        .map(|pair| renamed(&pair[0], &pair[1]))
        .collect();
    let seen = u64::try_from(ALIAS_COUNT_MAX).unwrap();
    let rename = |to: &str, seen| Command::Rename {
        namespace: acme(),
        first: name("n0"),
        to: name(to),
        seen: Version(seen),
    };
    is_refused(&history, rename("more", seen), Rejection::TooManyAliases);
    // The number stays the same.
    let last = names.last().unwrap();
    happens(&history, rename("n3", seen), &[renamed(last, "n3")]);
    history.push(alias_removed("n0"));
    happens(&history, rename("more", seen + 1), &[renamed(last, "more")]);
}

#[test]
fn only_an_alias_is_removed_as_one() {
    let history = [renamed("app", "new")];
    happens(&history, remove_alias("app"), &[alias_removed("app")]);
    for (history, alias) in [
        (&history[..], "new"),
        (&history, "other"),
        (&[], "app"),
        (&[renamed("app", "new"), alias_removed("app")], "app"),
    ] {
        is_refused(
            history,
            remove_alias(alias),
            Rejection::UnknownAlias(name(alias)),
        );
    }
}

#[test]
fn a_name_is_left_once_nothing_can_make_the_template_go_by_it() {
    let standing = |events: &[Event], text, renaming: Option<u64>| {
        given(events).standing(&name(text), renaming.map(Version))
    };
    // Held for a rename of this version: it may come.
    assert_eq!(standing(&[], "new", Some(0)), Standing::Pending);
    // Somebody did something else at that version: it cannot come any more.
    let changed = [shown(Visibility::Public)];
    assert_eq!(standing(&changed, "new", Some(0)), Standing::Left);
    assert_eq!(standing(&changed, "new", Some(1)), Standing::Pending);
    let removed = [renamed("app", "new"), alias_removed("app")];
    assert_eq!(standing(&removed, "app", None), Standing::Left);
    assert_eq!(standing(&removed, "app", Some(2)), Standing::Pending);
    for (text, renaming) in [("app", None), ("app", Some(9))] {
        assert_eq!(
            standing(&[Event::Deleted {}], text, renaming),
            Standing::Left
        );
    }
}

#[test]
fn visibility_that_is_so_already_does_not_happen() {
    let (private, public) = (Visibility::Private, Visibility::Public);
    happens(&[], show(private), &[]);
    happens(&[], show(public), &[shown(public)]);
    happens(&[shown(public)], show(public), &[]);
    happens(&[shown(public)], show(private), &[shown(private)]);
}

#[test]
fn tags_are_assigned_however_often() {
    let expected = [assigned(&["v1", "x"], 1)];
    happens(&[], assign(&["v1", "x"], 1), &expected);
    // A build may have moved them in between, which is written elsewhere.
    happens(&expected, assign(&["v1", "x"], 1), &expected);
    is_refused(&[], assign(&[], 1), Rejection::NoTags);
}

#[test]
fn a_tag_is_removed_from_a_build_once() {
    let removed = [tag_removed("v1", 1)];
    happens(&[], remove_tag("v1", 1), &removed);
    is_refused(
        &removed,
        remove_tag("v1", 1),
        Rejection::UnknownTag(tag("v1")),
    );
    // By then another build has it, or it was given back.
    happens(&removed, remove_tag("v1", 2), &[tag_removed("v1", 2)]);
    let again = [tag_removed("v1", 1), assigned(&["v1"], 1)];
    happens(&again, remove_tag("v1", 1), &removed);
    // What was recorded before events named the build.
    let old = Event::TagRemoved {
        tag: tag("v1"),
        build: None,
    };
    happens(&[old], remove_tag("v1", 1), &removed);
}

#[test]
fn an_artifact_expires_once_and_its_build_gets_no_tags_any_more() {
    happens(&[], expire(1, 0), &[expired(1)]);
    happens(&[expired(1)], expire(1, 0), &[]);
    let refused = Rejection::Expired(build(1));
    is_refused(&[expired(1)], assign(&["v1"], 1), refused);
    happens(&[expired(1)], assign(&["v1"], 2), &[assigned(&["v1"], 2)]);
}

#[test]
fn an_artifact_is_purged_once_and_only_after_it_has_expired() {
    is_refused(&[], purge(1), Rejection::NotExpired(build(1)));
    is_refused(&[expired(2)], purge(1), Rejection::NotExpired(build(1)));
    // Whatever was done to the template since.
    let history = [expired(1), assigned(&["v1"], 2)];
    happens(&history, purge(1), &[purged(1)]);
    let history = [expired(1), purged(1)];
    happens(&history, purge(1), &[]);
    is_refused(&history, assign(&["v1"], 1), Rejection::Expired(build(1)));
}

#[test]
fn an_artifact_does_not_expire_if_tags_were_moved_since_it_was_looked_at() {
    let history = [assigned(&["v1"], 1)];
    is_refused(&history, expire(1, 0), Rejection::Changed);
    is_refused(&history, expire(2, 0), Rejection::Changed);
}

#[test]
fn a_template_is_deleted_as_it_was_seen() {
    happens(&[], delete(0), &[Event::Deleted {}]);
    let history = [assigned(&["prod"], 1)];
    is_refused(&history, delete(0), Rejection::Changed);
    happens(&history, delete(1), &[Event::Deleted {}]);
}

#[test]
fn nothing_happens_to_a_template_that_is_gone() {
    for command in [
        rename("new", 1),
        remove_alias("app"),
        show(Visibility::Private),
        assign(&["v1"], 1),
        remove_tag("v1", 1),
        expire(1, 1),
        purge(1),
        delete(1),
    ] {
        is_refused(&[Event::Deleted {}], command, Rejection::Deleted);
    }
    let gone = given(&[Event::Deleted {}, renamed("app", "new")]);
    assert_eq!((gone.version(), gone), (None, Template::Deleted));
}

fn tries() -> impl Strategy<Value = Vec<(u8, u8, bool)>> {
    prop::collection::vec((0..14_u8, 0..4_u8, prop::bool::weighted(0.8)), 0..60)
}

fn command(what: u8, which: u8, seen: Version) -> Command {
    let text = ["app", "b", "c", "d"][usize::from(which)];
    match what {
        0..=4 => rename(text, seen.0),
        5..=6 => remove_alias(text),
        7 => show([Visibility::Private, Visibility::Public][usize::from(which % 2)]),
        8..=10 => assign(&[text], which),
        11..=12 => remove_tag(text, which),
        _ => delete(seen.0),
    }
}

/// Where the tags of a template point, as the views know at some moment.
#[derive(Clone, Debug, Default)]
struct Seen {
    version: Version,
    tags: BTreeMap<u8, u8>,
    ready: BTreeSet<u8>,
}

proptest! {
    /// Whatever views the one who lets artifacts expire looks at, however late they are.
    #[test]
    fn no_tag_points_to_a_build_whose_artifact_has_expired(
        tries in prop::collection::vec((0..8_u8, 0..3_u8, 0..5_u8, 0..6_usize), 0..80)
    ) {
        let mut template = Template::default();
        let mut now = Seen::default();
        let mut past = vec![now.clone()];
        let mut gone = BTreeSet::new();
        for (what, tag_number, number, ago) in tries {
            let text = ["a", "b", "c"][usize::from(tag_number)];
            let command = match what {
                // A build is ready, once, and takes its tag.
                0..=1 => {
                    if now.ready.insert(number) {
                        now.tags.insert(tag_number, number);
                        past.push(now.clone());
                    }
                    continue;
                }
                2..=3 if now.ready.contains(&number) => assign(&[text], number),
                4 => match now.tags.get(&tag_number) {
                    Some(to) => remove_tag(text, *to),
                    None => continue,
                },
                5..=7 => {
                    let seen = &past[past.len().saturating_sub(ago + 1)];
                    if !seen.ready.contains(&number) || seen.tags.values().any(|to| *to == number) {
                        continue;
                    }
                    expire(number, seen.version.0)
                }
                _ => continue,
            };
            for event in decide(&template, command).unwrap_or_default() {
                template = evolve(template, &event);
                now.version = template.version().unwrap();
                match &event {
                    Event::TagsAssigned { .. } => drop(now.tags.insert(tag_number, number)),
                    Event::TagRemoved { .. } => drop(now.tags.remove(&tag_number)),
                    Event::ArtifactExpired { .. } => drop(gone.insert(number)),
                    Event::Renamed { .. }
                    | Event::AliasRemoved { .. }
                    | Event::VisibilityChanged { .. }
                    | Event::ArtifactPurged { .. }
                    | Event::Deleted {} => panic!("nobody asked for {event:?}"),
                }
                past.push(now.clone());
            }
            let lost: Vec<_> = now.tags.values().filter(|to| gone.contains(*to)).collect();
            prop_assert!(lost.is_empty(), "{lost:?}");
        }
    }

    #[test]
    fn a_template_goes_by_one_name_and_its_aliases(tries in tries()) {
        let first = name("app");
        let mut template = Template::default();
        let mut events = 0;
        let mut current = first.clone();
        let mut aliases = BTreeSet::new();
        for (what, which, has_seen) in tries {
            let present = template.version().unwrap_or(Version(events));
            let seen = if has_seen { present } else { Version(present.0 + 1) };
            let Ok(happened) = decide(&template, command(what, which, seen)) else { continue };
            for event in happened {
                template = evolve(template, &event);
                events += 1;
                match event {
                    Event::Renamed { from, to, .. } => {
                        prop_assert_eq!(&from, &current);
                        aliases.remove(&to);
                        aliases.insert(from);
                        current = to;
                    }
                    Event::AliasRemoved { alias, .. } => prop_assert!(aliases.remove(&alias)),
                    Event::Deleted {} => {
                        prop_assert_eq!(&template, &Template::Deleted);
                    }
                    Event::VisibilityChanged { .. }
                    | Event::TagsAssigned { .. }
                    | Event::TagRemoved { .. }
                    | Event::ArtifactExpired { .. }
                    | Event::ArtifactPurged { .. } => {}
                }
            }
            let Some(version) = template.version() else { break };
            prop_assert_eq!(version, Version(events));
            for text in ["app", "b", "c", "d"].map(name) {
                let expected = text == current || aliases.contains(&text);
                prop_assert_eq!(template.goes_by(&text, &first), expected);
            }
            prop_assert!(!aliases.contains(&current));
        }
    }
}
