//! Who gets a name, and who does not.

use proptest::prelude::*;

use super::*;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(micros).unwrap()
}

fn id(number: u8) -> TemplateId {
    TemplateId::generate(at(1), [number; 10])
}

fn name(text: &str) -> TemplateName {
    text.parse().unwrap()
}

fn owner(text: &str) -> Owner {
    text.parse().unwrap()
}

fn take(by: &str) -> Command {
    Command::Take {
        name: name("app"),
        template_id: id(1),
        owner: owner(by),
        claim: None,
        now: at(10),
    }
}

/// By the claim with the token of this number.
fn take_claimed(by: &str, token: u8) -> Command {
    Command::Take {
        name: name("app"),
        template_id: id(1),
        owner: owner(by),
        claim: Some(Digest::of(&[token])),
        now: at(10),
    }
}

fn take_also(template: u8, renaming: u64) -> Command {
    Command::TakeAlso {
        name: name("app"),
        template_id: id(template),
        owner: owner("a"),
        renaming: Version(renaming),
        now: at(10),
    }
}

/// A claim by an owner with the token of this number, from 10 to `until`.
fn claim(text: &str, by: &str, token: u8, until: i64) -> Command {
    Command::Claim {
        name: name(text),
        owner: owner(by),
        token_digest: Digest::of(&[token]),
        expires_at: at(until),
        claim_count_max: 2,
        now: at(10),
    }
}

fn release_claim(token: u8, by: &str, now: i64) -> Command {
    Command::ReleaseClaim {
        token_digest: Digest::of(&[token]),
        owner: owner(by),
        now: at(now),
    }
}

fn taken(template: u8, renaming: Option<u64>) -> Event {
    Event::NameTaken {
        name: name("app"),
        template_id: id(template),
        owner: owner("a"),
        renaming: renaming.map(Version),
    }
}

fn claimed(text: &str, by: &str, token: u8, until: i64) -> Event {
    Event::NameClaimed {
        name: name(text),
        owner: owner(by),
        token_digest: Digest::of(&[token]),
        expires_at: at(until),
    }
}

fn given(events: &[Event]) -> Names {
    events.iter().fold(Names::default(), evolve)
}

fn is_refused(events: &[Event], command: Command, rejection: Rejection) {
    assert_eq!(decide(&given(events), command), Err(rejection));
}

fn happens(events: &[Event], command: Command, expected: &[Event]) {
    assert_eq!(decide(&given(events), command), Ok(expected.to_vec()));
}

#[test]
fn a_name_is_taken_once() {
    happens(&[], take("a"), &[taken(1, None)]);
    happens(&[taken(1, None)], take("a"), &[]);
    happens(&[taken(2, None)], take("a"), &[]);
    is_refused(&[taken(1, None)], take("b"), Rejection::Taken(name("app")));
}

#[test]
fn a_rename_takes_a_name_for_its_own_template_only() {
    happens(&[], take_also(1, 3), &[taken(1, Some(3))]);
    happens(&[taken(1, Some(3))], take_also(1, 3), &[]);
    let refused = Rejection::Taken(name("app"));
    is_refused(&[taken(2, None)], take_also(1, 3), refused);
}

#[test]
fn a_later_rename_has_a_hold_of_its_own() {
    happens(&[taken(1, Some(3))], take_also(1, 4), &[taken(1, Some(4))]);
    happens(&[taken(1, None)], take_also(1, 4), &[taken(1, Some(4))]);
}

#[test]
fn a_name_is_released_only_if_it_is_still_held_as_it_was_seen() {
    let release = |template, renaming: Option<u64>| Command::Release {
        name: name("app"),
        hold: Hold {
            template_id: id(template),
            owner: owner("a"),
            renaming: renaming.map(Version),
        },
    };
    let released = Event::NameReleased { name: name("app") };
    happens(&[taken(1, Some(3))], release(1, Some(3)), &[released]);
    happens(&[taken(1, Some(4))], release(1, Some(3)), &[]);
    happens(&[taken(1, None)], release(1, Some(3)), &[]);
    happens(&[taken(2, Some(3))], release(1, Some(3)), &[]);
    happens(&[], release(1, None), &[]);
}

#[test]
fn all_names_of_a_template_are_released_and_no_other() {
    let other = |text: &str, template| Event::NameTaken {
        name: name(text),
        template_id: id(template),
        owner: owner("a"),
        renaming: None,
    };
    let history = [taken(1, None), other("second", 1), other("third", 2)];
    let all = Command::ReleaseAll { template_id: id(1) };
    let released = ["app", "second"].map(|text| Event::NameReleased { name: name(text) });
    happens(&history, all.clone(), &released);
    happens(&[], all, &[]);
}

#[test]
fn a_claim_keeps_others_out_until_it_ends() {
    let history = |until| [claimed("app", "a", 1, until)];
    let refused = || Rejection::Claimed(name("app"));
    is_refused(&history(11), take("b"), refused());
    is_refused(&history(11), claim("app", "b", 2, 20), refused());
    assert!(decide(&given(&history(10)), take("b")).is_ok_and(|events| events.len() == 1));
    happens(
        &history(10),
        claim("app", "b", 2, 20),
        &[claimed("app", "b", 2, 20)],
    );
}

#[test]
fn a_claim_is_used_up_by_its_owner() {
    let history = [claimed("app", "a", 1, 11)];
    happens(&history, take("a"), &[taken(1, None)]);
    happens(&history, take_also(1, 3), &[taken(1, Some(3))]);
    let names = given(&[claimed("app", "a", 1, 11), taken(1, None)]);
    let released = decide(&names, release_claim(1, "a", 10));
    assert_eq!(released, Err(Rejection::UnknownClaim));
}

#[test]
fn whoever_shows_a_token_has_the_name_by_that_claim_or_not_at_all() {
    let history = [claimed("app", "a", 1, 20)];
    happens(&history, take_claimed("a", 1), &[taken(1, None)]);
    let unknown = || Rejection::UnknownClaim;
    is_refused(&history, take_claimed("a", 2), unknown());
    is_refused(&[], take_claimed("a", 1), unknown());
    is_refused(
        &[claimed("app", "a", 1, 10)],
        take_claimed("a", 1),
        unknown(),
    );
    is_refused(
        &[claimed("other", "a", 1, 20)],
        take_claimed("a", 1),
        unknown(),
    );
    let used = [claimed("app", "a", 1, 20), taken(1, None)];
    is_refused(&used, take_claimed("a", 1), unknown());
    // A token alone makes nobody the owner of a claim.
    let theirs = Rejection::Claimed(name("app"));
    is_refused(&history, take_claimed("b", 1), theirs);
    is_refused(&used, take_claimed("b", 1), Rejection::Taken(name("app")));
}

#[test]
fn a_claim_keeps_its_own_owner_from_claiming_again() {
    let history = [claimed("app", "a", 1, 20)];
    let refused = Rejection::Claimed(name("app"));
    is_refused(&history, claim("app", "a", 2, 20), refused);
    // The same command, told again.
    happens(&history, claim("app", "a", 1, 20), &[]);
}

#[test]
fn what_is_taken_is_not_reserved() {
    let refused = || Rejection::Taken(name("app"));
    for by in ["a", "b"] {
        is_refused(&[taken(1, None)], claim("app", by, 1, 20), refused());
    }
}

#[test]
fn a_claim_is_given_back_by_its_owner_with_its_token_and_once() {
    let history = [claimed("app", "a", 1, 20)];
    let unknown = || Rejection::UnknownClaim;
    is_refused(&history, release_claim(2, "a", 10), unknown());
    is_refused(&history, release_claim(1, "b", 10), unknown());
    is_refused(&history, release_claim(1, "a", 20), unknown());
    let released = [Event::ClaimReleased { name: name("app") }];
    happens(&history, release_claim(1, "a", 19), &released);
    let [claimed] = history;
    let [released] = released;
    is_refused(&[claimed, released], release_claim(1, "a", 19), unknown());
}

#[test]
fn an_owner_has_a_bounded_number_of_claims_and_ended_ones_are_forgotten() {
    let full = [claimed("one", "a", 1, 20), claimed("two", "a", 2, 20)];
    is_refused(&full, claim("app", "a", 3, 20), Rejection::TooManyClaims(2));
    let expected = [claimed("app", "b", 3, 20)];
    happens(&full, claim("app", "b", 3, 20), &expected);
    let ended = [claimed("one", "a", 1, 20), claimed("two", "a", 2, 10)];
    let released = Event::ClaimReleased { name: name("two") };
    let expected = [released, claimed("app", "a", 3, 20)];
    happens(&ended, claim("app", "a", 3, 20), &expected);
}

/// What somebody tries: who, what, with which name, for which template or token, how much later.
type Try = (u8, u8, u8, u8, i64);

fn command((by, what, text, number, _): Try, now: Timestamp) -> Command {
    let name = name(["one", "two"][usize::from(text)]);
    let owner = owner(["a", "b"][usize::from(by)]);
    // Each owner has templates of its own.
    let template_id = id(by * 10 + number);
    match what {
        0 => Command::Take {
            name,
            template_id,
            owner,
            claim: (number > 2).then(|| Digest::of(&[number])),
            now,
        },
        1 => Command::TakeAlso {
            name,
            template_id,
            owner,
            renaming: Version(u64::from(number)),
            now,
        },
        2 => Command::Release {
            name,
            hold: Hold {
                template_id,
                owner,
                renaming: None,
            },
        },
        3 => Command::ReleaseAll { template_id },
        4..=6 => Command::Claim {
            name,
            owner,
            token_digest: Digest::of(&[number]),
            expires_at: now.plus_millis(5),
            claim_count_max: 1,
            now,
        },
        _ => Command::ReleaseClaim {
            token_digest: Digest::of(&[number]),
            owner,
            now,
        },
    }
}

proptest! {
    #[test]
    fn what_one_has_nobody_else_gets(
        tries in prop::collection::vec((0..2_u8, 0..8_u8, 0..2_u8, 0..3_u8, 0..4_i64), 0..60),
    ) {
        let mut names = Names::default();
        let mut now = at(0);
        for attempt in tries {
            now = now.plus_millis(u64::try_from(attempt.4).unwrap());
            let Ok(events) = decide(&names, command(attempt, now)) else { continue };
            for event in &events {
                match event {
                    Event::NameTaken { name, template_id, owner, .. } => {
                        let before = names.holder(name);
                        prop_assert!(before.is_none_or(|hold| hold.template_id == *template_id));
                        let kept = names.claims.get(name).filter(|claim| claim.is_live(now));
                        prop_assert!(kept.is_none_or(|claim| claim.owner == *owner));
                    }
                    Event::NameClaimed { name, .. } => {
                        prop_assert!(names.holder(name).is_none());
                        let kept = names.claims.get(name);
                        prop_assert!(kept.is_none_or(|claim| !claim.is_live(now)));
                    }
                    Event::NameReleased { name } => prop_assert!(names.holder(name).is_some()),
                    Event::ClaimReleased { name } => prop_assert!(names.claims.contains_key(name)),
                }
                names = evolve(names, event);
            }
            for owner in ["a", "b"].map(owner) {
                let live = names.claims.values().filter(|claim| claim.owner == owner && claim.is_live(now));
                prop_assert!(live.count() <= 1);
            }
            prop_assert!(names.claims.keys().all(|name| !names.taken.contains_key(name)));
        }
    }
}
