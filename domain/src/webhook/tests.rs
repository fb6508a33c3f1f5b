use super::*;
use crate::ids::BuildId;
use crate::time::Timestamp;

fn registered() -> Registered {
    Registered {
        owner: "acme".parse().unwrap(),
        url: "https://hooks.example/in".into(),
        types: BTreeSet::new(),
        templates: BTreeSet::new(),
        description: String::new(),
        secret_digest: Digest::of(b"secret"),
    }
}

fn letter(position: u64) -> DeadLetter {
    let build = BuildId::generate(Timestamp::from_unix_micros(1).unwrap(), [1; 10]);
    DeadLetter {
        position: Position::from_raw(position),
        stream: StreamName::Build(build),
        version: Version(position),
        kind: "StepStarted".into(),
        attempts: 3,
        failure: DeliveryFailure::Answered { status: 500 },
    }
}

fn dead(position: u64) -> Command {
    Command::DeadLetter {
        letter: letter(position),
        dead_letters_max: 3,
    }
}

fn after(commands: impl IntoIterator<Item = Command>) -> Webhook {
    commands
        .into_iter()
        .fold(Webhook::default(), |state, command| {
            let events = decide(&state, command).unwrap();
            events.iter().fold(state, evolve)
        })
}

fn live(state: &Webhook) -> &Live {
    match state {
        Webhook::Live(live) => live,
        Webhook::Absent | Webhook::Deleted => panic!("{state:?}"),
    }
}

fn positions(state: &Webhook) -> Vec<u64> {
    live(state)
        .dead
        .keys()
        .copied()
        .map(Position::raw)
        .collect()
}

fn resume() -> Command {
    Command::Resume {
        dead_letters_max: 3,
    }
}

#[test]
fn pausing_and_resuming_twice_is_as_once() {
    let hook = after([Command::Register(registered())]);
    assert_eq!(decide(&hook, resume()), Ok(Vec::new()));
    let hook = after([
        Command::Register(registered()),
        Command::Pause(PauseReason::SigningKey),
    ]);
    // The first reason stays.
    assert_eq!(
        decide(&hook, Command::Pause(PauseReason::Asked)),
        Ok(Vec::new())
    );
    assert_eq!(live(&hook).paused, Some(PauseReason::SigningKey));
    assert_eq!(decide(&hook, resume()), Ok(vec![Event::WebhookResumed {}]));
}

#[test]
fn the_dead_letter_that_reaches_the_bound_pauses_and_resuming_needs_room() {
    let hook = after([Command::Register(registered()), dead(1), dead(2)]);
    assert_eq!(live(&hook).paused, None);
    assert_eq!(decide(&hook, dead(2)), Ok(Vec::new()), "it is dead already");
    let hook = after([Command::Register(registered()), dead(1), dead(2), dead(3)]);
    assert_eq!(live(&hook).paused, Some(PauseReason::DeadLetters));
    // One that was under way is still told.
    assert_eq!(
        decide(&hook, dead(4)),
        Ok(vec![Event::DeliveryDeadLettered(letter(4))])
    );
    assert_eq!(
        decide(&hook, resume()),
        Err(Rejection::TooManyDeadLetters(3))
    );
    let requeue = Command::Requeue {
        position: Position::from_raw(2),
    };
    let events = decide(&hook, requeue.clone()).unwrap();
    let hook = events.iter().fold(hook, evolve);
    assert_eq!(positions(&hook), [1, 3]);
    assert_eq!(decide(&hook, requeue), Err(Rejection::NoDeadLetter));
    assert_eq!(decide(&hook, resume()), Ok(vec![Event::WebhookResumed {}]));
}

#[test]
fn a_replay_takes_back_the_dead_letters_that_it_sends_again() {
    let from = Position::from_raw(1);
    let hook = after([
        Command::Register(registered()),
        dead(1),
        dead(2),
        Command::Replay { from },
    ]);
    assert_eq!(positions(&hook), [1]);
}

#[test]
fn nothing_happens_to_a_webhook_that_is_not_there() {
    let deleted = after([Command::Register(registered()), Command::Delete]);
    assert_eq!(deleted, Webhook::Deleted);
    for state in [Webhook::Absent, deleted.clone()] {
        for command in [
            Command::Pause(PauseReason::Asked),
            resume(),
            Command::Replay {
                from: Position::START,
            },
            dead(1),
            Command::Requeue {
                position: Position::START,
            },
            Command::Delete,
        ] {
            assert_eq!(decide(&state, command), Err(Rejection::Unknown));
        }
    }
    let hook = after([Command::Register(registered())]);
    for state in [hook, deleted] {
        let again = decide(&state, Command::Register(registered()));
        assert_eq!(again, Err(Rejection::Exists));
    }
}
