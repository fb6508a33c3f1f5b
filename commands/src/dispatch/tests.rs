//! What dispatching promises, on the log in memory.

use std::collections::VecDeque;
use std::sync::Mutex;

use domain::build::{
    Build, Cancelled, Command, Fence, LogLine, LogStream, Phase, Rejection, StepLogged,
};
use domain::digest::Digest;
use domain::event::Category;
use domain::ids::{KeyId, WorkerId};
use domain::recorded::Position;
use domain::time::Timestamp;

use super::*;
use crate::clock::ManualClock;
use crate::codec::decode_event;
use crate::ids::IdSource;
use crate::limits::LogLimits;

struct World {
    log: AnyLog,
    clock: Arc<ManualClock>,
    ids: IdSource,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        Self {
            log: AnyLog::memory(LogLimits::default()),
            ids: IdSource::seeded(clock.clone(), 1),
            clock,
        }
    }

    fn dispatcher(&self, limits: DispatchLimits) -> Dispatcher {
        Dispatcher::new(self.log.clone(), self.clock.clone(), limits)
    }

    fn meta(&self) -> Meta {
        Meta {
            command_id: self.ids.new_command_id(),
            actor: Actor::Operator,
        }
    }

    fn worker(&self) -> WorkerId {
        self.ids.new_worker_id()
    }
}

fn small_pages() -> DispatchLimits {
    DispatchLimits {
        page_events: 2,
        ..DispatchLimits::default()
    }
}

fn golden(kind: &str, json: &[u8]) -> build::Event {
    match decode_event(Category::Build, kind, 1, json).unwrap() {
        Event::Build(event) => event,
        other @ (Event::Template(_) | Event::Namespace(_) | Event::Keys(_) | Event::Webhook(_)) => {
            panic!("{other:?}")
        }
    }
}

fn request() -> Command {
    let json = include_bytes!("../../../tests/golden/events/v1/build-Requested.json");
    let build::Event::Requested(requested) = golden("Requested", json) else {
        panic!("it is another event");
    };
    Command::Request(requested)
}

fn snapshotted() -> Box<build::Snapshotted> {
    let json = include_bytes!("../../../tests/golden/events/v1/build-Snapshotted.json");
    let build::Event::Snapshotted(snapshotted) = golden("Snapshotted", json) else {
        panic!("it is another event");
    };
    snapshotted
}

fn report(lines: usize) -> Command {
    let line = LogLine {
        at: Timestamp::from_unix_micros(1).unwrap(),
        stream: LogStream::Stdout,
        text: "x".into(),
    };
    Command::Report {
        fence: Fence(1),
        events: vec![build::Event::StepLogged(StepLogged {
            phase: Phase::Step,
            step: None,
            first_offset: 0,
            lines: vec![line; lines],
        })],
    }
}

fn cancel() -> Command {
    Command::Cancel {
        by: "somebody".into(),
        reason: None,
    }
}

fn rejection<S: fmt::Debug, R: fmt::Debug>(outcome: Result<Done<S>, DispatchError<R>>) -> R {
    match outcome {
        Err(DispatchError::Rejected(rejection)) => rejection,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_command_becomes_events_with_their_command_actor_and_time() {
    let world = World::new();
    let dispatcher = world.dispatcher(small_pages());
    let id = world.ids.new_build_id();
    world.clock.advance_millis(5);
    let meta = world.meta();
    let done = dispatcher
        .build(&id, meta.clone(), request())
        .await
        .unwrap();
    assert!(matches!(done.state, Build::Waiting(_)));
    assert_eq!((done.version, done.events), (Version(1), 1));
    let appended = done.appended.unwrap();
    assert_eq!(appended.version, Version(1));

    let all = world.log.read_all(Position::START, 10).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].position, appended.position);
    assert_eq!(all[0].command_id, meta.command_id);
    assert_eq!(all[0].actor, meta.actor);
    assert_eq!(all[0].time, world.clock.now());

    let again = dispatcher.build(&id, world.meta(), request()).await;
    assert_eq!(rejection(again), Rejection::AlreadyRequested);
    let worker = world.worker();
    let start = Command::Start { worker };
    dispatcher.build(&id, world.meta(), start).await.unwrap();
    for lines in 1..=6 {
        dispatcher
            .build(&id, world.meta(), report(lines))
            .await
            .unwrap();
    }
    let fail = Command::Complete {
        fence: Fence(2),
        snapshotted: snapshotted(),
    };
    assert_eq!(
        rejection(dispatcher.build(&id, world.meta(), fail).await),
        Rejection::StaleFence {
            reported: Fence(2),
            current: Fence(1)
        }
    );
    // A dispatcher that has seen nothing of it reads the same, page by page.
    let (state, version) = world
        .dispatcher(small_pages())
        .load_build(&id)
        .await
        .unwrap();
    assert_eq!(
        (&state, version),
        (&dispatcher.load_build(&id).await.unwrap().0, Version(8))
    );
    assert_eq!(state.accepted().unwrap().next_offset, 2 + 21);
}

#[tokio::test]
async fn what_is_so_already_appends_nothing_and_final_states_are_not_kept() {
    let world = World::new();
    let dispatcher = world.dispatcher(DispatchLimits::default());
    let id = world.ids.new_build_id();
    dispatcher
        .build(&id, world.meta(), request())
        .await
        .unwrap();
    assert_eq!(dispatcher.builds.len(), 1);
    let done = dispatcher.build(&id, world.meta(), cancel()).await.unwrap();
    assert_eq!((done.version, done.events), (Version(3), 2));
    assert_eq!(dispatcher.builds.len(), 0);
    let head = world.log.head();
    let done = dispatcher.build(&id, world.meta(), cancel()).await.unwrap();
    assert!(matches!(done.state, Build::Cancelled(_)));
    assert_eq!(
        (done.version, done.events, done.appended),
        (Version(3), 0, None)
    );
    assert_eq!(world.log.head(), head);
}

#[tokio::test]
async fn an_outdated_state_neither_refuses_nor_shrugs() {
    let world = World::new();
    let ours = world.dispatcher(DispatchLimits::default());
    let theirs = world.dispatcher(DispatchLimits::default());
    let id = world.ids.new_build_id();
    ours.build(&id, world.meta(), request()).await.unwrap();
    let worker = world.worker();
    let start = Command::Start { worker };
    theirs
        .build(&id, world.meta(), start.clone())
        .await
        .unwrap();
    // Kept as waiting, which would refuse the report.
    let done = ours.build(&id, world.meta(), report(1)).await.unwrap();
    assert_eq!(done.version, Version(3));
    // Kept as building, which would take the start for a mistake of another kind.
    theirs.build(&id, world.meta(), cancel()).await.unwrap();
    let confirm = Command::ConfirmCancelled {
        fence: Fence(1),
        cancelled: Cancelled::default(),
    };
    theirs.build(&id, world.meta(), confirm).await.unwrap();
    let refused = ours.build(&id, world.meta(), start).await;
    assert_eq!(rejection(refused), Rejection::Finished);
    let (state, version) = ours.load_build(&id).await.unwrap();
    assert!(matches!(state, Build::Cancelled(_)));
    assert_eq!(version, Version(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_gets_through_at_last_and_offsets_stay_contiguous() {
    let world = World::new();
    let limits = DispatchLimits {
        attempts_max: 1_000,
        ..small_pages()
    };
    let dispatchers = [world.dispatcher(limits), world.dispatcher(limits)];
    let id = world.ids.new_build_id();
    let [first, _] = &dispatchers;
    first.build(&id, world.meta(), request()).await.unwrap();
    let worker = world.worker();
    first
        .build(&id, world.meta(), Command::Start { worker })
        .await
        .unwrap();
    let reports: Vec<_> = (0..40)
        .map(|number: usize| {
            let dispatcher = dispatchers[number % 2].clone();
            let (id, meta) = (id.clone(), world.meta());
            tokio::spawn(async move { dispatcher.build(&id, meta, report(3)).await })
        })
        .collect();
    for report in reports {
        report.await.unwrap().unwrap();
    }
    let (state, version) = first.load_build(&id).await.unwrap();
    assert_eq!(version, Version(42));
    assert_eq!(state.accepted().unwrap().next_offset, 2 + 40 * 3);
}

#[tokio::test]
async fn whoever_is_always_second_is_told_so() {
    let world = World::new();
    let ours = world.dispatcher(DispatchLimits {
        attempts_max: 1,
        ..DispatchLimits::default()
    });
    let theirs = world.dispatcher(DispatchLimits::default());
    let id = world.ids.new_build_id();
    ours.build(&id, world.meta(), request()).await.unwrap();
    let worker = world.worker();
    theirs
        .build(&id, world.meta(), Command::Start { worker })
        .await
        .unwrap();
    let outcome = ours.build(&id, world.meta(), cancel()).await;
    let Err(DispatchError::Contended {
        stream,
        attempts: 1,
    }) = outcome
    else {
        panic!("{outcome:?}");
    };
    assert_eq!(stream, StreamName::Build(id.clone()));
    // It has learned of it.
    let done = ours.build(&id, world.meta(), cancel()).await.unwrap();
    assert!(matches!(done.state, Build::Cancelling(..)));
}

#[tokio::test]
async fn a_stream_that_makes_no_sense_is_no_state() {
    let world = World::new();
    let id = world.ids.new_build_id();
    let started = build::Event::Started(build::Started {
        worker: world.worker(),
        attempt: 1,
        max_attempts: 1,
        fence: Fence(1),
    });
    let append = Append {
        stream: StreamName::Build(id.clone()),
        expected: Version::EMPTY,
        command_id: world.ids.new_command_id(),
        actor: Actor::Operator,
        time: world.clock.now(),
        events: vec![started.into()],
    };
    world.log.append(append).await.unwrap();
    let outcome = world.dispatcher(small_pages()).load_build(&id).await;
    let Err(DispatchError::Corrupt { stream, source }) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(stream, StreamName::Build(id));
    assert_eq!((source.version, source.event), (Version(0), "Started"));
}

#[tokio::test]
async fn of_two_who_want_a_name_one_gets_it() {
    let world = World::new();
    let dispatcher = world.dispatcher(DispatchLimits::default());
    let namespace: Namespace = "team".parse().unwrap();
    let take = |owner: &str| {
        let command = namespace::Command::Take {
            name: "app".parse().unwrap(),
            template_id: world.ids.new_template_id(),
            owner: owner.parse().unwrap(),
            claim: None,
            now: world.clock.now(),
        };
        dispatcher.names(&namespace, world.meta(), command)
    };
    let (one, other) = tokio::join!(take("a"), take("b"));
    let done = one.unwrap();
    assert_eq!(done.version, Version(1));
    let taken = namespace::Rejection::Taken("app".parse().unwrap());
    assert_eq!(rejection(other), taken);
    let (names, version) = dispatcher.load_names(&namespace).await.unwrap();
    assert_eq!((names, version), (done.state, Version(1)));
}

#[tokio::test]
async fn what_is_done_to_a_template_is_decided_on_its_own_stream() {
    let world = World::new();
    let ours = world.dispatcher(DispatchLimits::default());
    let theirs = world.dispatcher(DispatchLimits::default());
    let id = world.ids.new_template_id();
    let public = template::Command::SetVisibility {
        visibility: template::Visibility::Public,
    };
    let delete = |seen| template::Command::Delete {
        seen: Version(seen),
    };
    let done = ours.template(&id, world.meta(), public.clone()).await;
    assert_eq!(done.unwrap().version, Version(1));
    let again = ours.template(&id, world.meta(), public).await.unwrap();
    assert_eq!((again.version, again.appended), (Version(1), None));
    let refused = theirs.template(&id, world.meta(), delete(0)).await;
    assert_eq!(rejection(refused), template::Rejection::Changed);
    theirs.template(&id, world.meta(), delete(1)).await.unwrap();
    // What is over is not kept, and what was kept is not believed.
    assert_eq!((ours.templates.len(), theirs.templates.len()), (1, 0));
    let refused = ours.template(&id, world.meta(), delete(1)).await;
    assert_eq!(rejection(refused), template::Rejection::Deleted);
    let (state, version) = ours.load_template(&id).await.unwrap();
    assert_eq!((state, version), (template::Template::Deleted, Version(2)));
}

#[tokio::test]
async fn keys_are_made_and_revoked() {
    let world = World::new();
    let dispatcher = world.dispatcher(DispatchLimits::default());
    let id: KeyId = world.ids.new_key_id();
    let key = keys::Key {
        id: id.clone(),
        owner: "a".parse().unwrap(),
        label: "first".into(),
        hash: Digest::of(b"key"),
    };
    let create = keys::Command::Create(key.clone());
    dispatcher.keys(world.meta(), create).await.unwrap();
    let (found, _) = dispatcher.load_keys().await.unwrap();
    assert_eq!(found.iter().collect::<Vec<_>>(), [&key]);
    let revoke = keys::Command::Revoke(id.clone());
    dispatcher.keys(world.meta(), revoke.clone()).await.unwrap();
    let refused = dispatcher.keys(world.meta(), revoke).await;
    assert_eq!(rejection(refused), keys::Rejection::Unknown(id));
}

#[tokio::test]
async fn the_cache_stays_within_its_bound() {
    let world = World::new();
    let dispatcher = world.dispatcher(DispatchLimits {
        cached_states_max: 3,
        ..DispatchLimits::default()
    });
    for _ in 0..10 {
        let id = world.ids.new_build_id();
        dispatcher
            .build(&id, world.meta(), request())
            .await
            .unwrap();
    }
    assert_eq!(dispatcher.builds.len(), 3);
}

/// An appender that answers as it is told, and remembers what it was asked.
struct Scripted {
    answers: Mutex<VecDeque<Result<Appended, LogError>>>,
    asked: Mutex<Vec<Append>>,
}

impl EventAppender for Scripted {
    async fn append(&self, append: Append) -> Result<Appended, LogError> {
        self.asked.lock().unwrap().push(append);
        self.answers.lock().unwrap().pop_front().unwrap()
    }
}

#[tokio::test]
async fn an_append_whose_outcome_is_unknown_is_repeated_as_it_was() {
    let unknown = || Err(LogError::OutcomeUnknown(Arc::new(fmt::Error)));
    let down = || Err(LogError::Unavailable(Arc::new(fmt::Error)));
    let appended = Appended {
        version: Version(1),
        position: Position::from_raw(1),
    };
    let limits = DispatchLimits {
        repeats_max: 2,
        repeat_pause_ms: 0,
        ..DispatchLimits::default()
    };
    let world = World::new();
    let append = Append {
        stream: StreamName::Keys,
        expected: Version::EMPTY,
        command_id: world.ids.new_command_id(),
        actor: Actor::Operator,
        time: world.clock.now(),
        events: Vec::new(),
    };
    let run = async |answers: Vec<Result<Appended, LogError>>| {
        let log = Scripted {
            answers: Mutex::new(answers.into()),
            asked: Mutex::default(),
        };
        let outcome = append_known(&log, append.clone(), &limits).await;
        let asked = log.asked.into_inner().unwrap();
        assert!(asked.iter().all(|asked| *asked == append));
        (outcome, asked.len())
    };
    let (outcome, asked) = run(vec![unknown(), unknown(), Ok(appended)]).await;
    assert_eq!((outcome.unwrap(), asked), (appended, 3));
    let (outcome, asked) = run(vec![unknown(), unknown(), unknown()]).await;
    assert!(matches!(outcome, Err(LogError::OutcomeUnknown(_))) && asked == 3);
    // Down from the start: nothing was written. Down later: the first time may have been.
    let (outcome, asked) = run(vec![down()]).await;
    assert!(matches!(outcome, Err(LogError::Unavailable(_))) && asked == 1);
    let (outcome, asked) = run(vec![unknown(), down(), down()]).await;
    assert!(matches!(outcome, Err(LogError::OutcomeUnknown(_))) && asked == 3);
}
