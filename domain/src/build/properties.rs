//! The invariants of a build (design, section 3), for random histories.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::definition::{BuildConfig, Definition, RuntimeConfig, Source};
use crate::digest::Digest;
use crate::failure::FailureReason;
use crate::ids::{BuildId, CommandId, WorkerId};
use crate::recorded::{Actor, Recorded, StreamName, Version};
use crate::time::Timestamp;

fn time(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(micros).expect("the calendar reaches that far")
}

fn build_id(number: u8) -> BuildId {
    BuildId::generate(time(0), [number; 10])
}

fn requested(secret_ids: &[&str]) -> Box<Requested> {
    let definition = Definition {
        source: Source::Declarative {
            base_image: "debian:bookworm".into(),
            steps: Vec::new(),
            build_envs: std::collections::BTreeMap::new(),
        },
        context: None,
        start_cmd: None,
        runtime: RuntimeConfig::default(),
        config: BuildConfig {
            vcpus: 1,
            memory_mib: 256,
            disk_mb: None,
            internet_access: true,
        },
        skip_cache: false,
        secret_ids: secret_ids.iter().map(|id| id.parse().unwrap()).collect(),
    };
    Box::new(Requested {
        definition_digest: definition.digest(),
        definition,
        owner: "default".parse().unwrap(),
        namespace: "default".parse().unwrap(),
        name: "app".parse().unwrap(),
        template_id: crate::ids::TemplateId::generate(time(0), [9; 10]),
        tags: vec![crate::name::Tag::default_tag()],
        backend: crate::definition::Backend::Native,
        source_type: crate::definition::SourceType::OciImport,
        base: None,
        registry_auth: std::collections::BTreeMap::new(),
        retry_of: None,
        arrivals: None,
        idempotency_key: None,
        request_digest: None,
        max_attempts: 2,
    })
}

fn snapshotted() -> Box<Snapshotted> {
    let file = FileRecord {
        digest: Digest::ZERO,
        bytes: 1,
    };
    Box::new(Snapshotted {
        artifact: ArtifactId::of(&Digest::ZERO),
        rootfs: file.clone(),
        memory: file.clone(),
        device_state: file,
        vmm: VmmIdentity {
            kind: "qemu".into(),
            version: "7.2".into(),
            accelerator: "tcg".into(),
            cpu_model: "max".into(),
            machine: "microvm".into(),
            kernel_digest: Digest::ZERO,
            agent_digest: Digest::ZERO,
        },
        restore_check: RestoreCheck {
            restore_ms: 1,
            disk_bytes: 1,
        },
        runtime: RuntimeDefaults::default(),
        oci: OciMetadata::default(),
        reused: false,
    })
}

fn lines(count: usize) -> Event {
    let line = LogLine {
        at: time(5),
        stream: LogStream::Stdout,
        text: "x".into(),
    };
    Event::StepLogged(StepLogged {
        phase: Phase::Step,
        step: None,
        // Whatever the worker thinks: decide knows better.
        first_offset: 777,
        lines: vec![line; count],
    })
}

fn grown() -> Event {
    Event::RootfsGrown(RootfsGrown {
        from_bytes: 1,
        to_bytes: 2,
    })
}

fn hit(kind: CacheKind) -> Event {
    Event::CacheHit(CacheSubject {
        kind,
        subject: "s".into(),
        step_index: None,
        key: Digest::ZERO,
    })
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..4_usize).prop_map(lines),
        Just(grown()),
        Just(hit(CacheKind::Layer)),
        Just(hit(CacheKind::FinalArtifact)),
        Just(Event::PhaseStarted(PhaseStarted { phase: Phase::Sync })),
        // Not for workers: decide must refuse it.
        Just(Event::Failed(Failure::new(FailureReason::Timeout, "t"))),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let fence = (0..4_u64).prop_map(Fence);
    prop_oneof![
        1 => Just(Command::Request(requested(&[]))),
        2 => (1..9_u32).prop_map(|place| Command::Queue { place }),
        4 => Just(Command::Start { worker: WorkerId::generate(time(0), [1; 10]) }),
        8 => (fence.clone(), proptest::collection::vec(any_event(), 0..4))
            .prop_map(|(fence, events)| Command::Report { fence, events }),
        4 => fence.clone().prop_map(|fence| Command::Complete { fence, snapshotted: snapshotted() }),
        2 => (fence.clone(), proptest::sample::select(FailureReason::ALL))
            .prop_map(|(fence, reason)| Command::Fail { fence, failure: Failure::new(reason, "f") }),
        1 => Just(Command::Abandon { failure: Failure::new(FailureReason::SecretsLost, "f") }),
        1 => Just(Command::Cancel { by: "me".into(), reason: None }),
        2 => fence.prop_map(|fence| Command::ConfirmCancelled { fence, cancelled: Cancelled::default() }),
    ]
}

/// A command, the state that it met, and how many events it made happen.
type Decision = (Build, Command, Result<usize, Rejection>);

/// Drives a build through `commands`; what happened, and each decision with the state it met.
fn history(commands: Vec<Command>) -> (Vec<Event>, Vec<Decision>) {
    let mut state = Build::Absent;
    let mut events = Vec::new();
    let mut decisions = Vec::new();
    for command in std::iter::once(Command::Request(requested(&[]))).chain(commands) {
        let before = state.clone();
        let decided = decide(&state, command.clone());
        decisions.push((
            before,
            command,
            decided.as_ref().map(Vec::len).map_err(Clone::clone),
        ));
        for event in decided.unwrap_or_default() {
            state = evolve(state, &event);
            events.push(event);
        }
    }
    (events, decisions)
}

fn recorded(events: &[Event]) -> Vec<Recorded<Event>> {
    events
        .iter()
        .zip(0..)
        .map(|(event, version)| Recorded {
            stream: StreamName::Build(build_id(1)),
            version: Version(version),
            position: crate::recorded::Position::from_raw(version + 1),
            time: time(0),
            schema_version: 1,
            actor: Actor::Operator,
            command_id: CommandId::generate(time(0), [0; 10]),
            hash: Digest::ZERO,
            event: event.clone(),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn one_terminal_event_and_nothing_after_it(commands in proptest::collection::vec(any_command(), 0..40)) {
        let (events, _) = history(commands);
        let terminal = events.iter().position(Event::is_terminal);
        prop_assert!(terminal.is_none_or(|at| at + 1 == events.len()), "{events:?}");
    }

    #[test]
    fn log_offsets_are_contiguous(commands in proptest::collection::vec(any_command(), 0..40)) {
        let (events, _) = history(commands);
        let mut offset = 0;
        for event in &events {
            if let Event::StepLogged(logged) = event {
                prop_assert_eq!(logged.first_offset, offset);
            }
            offset += event.log_entry_count();
        }
        let (state, _) = replay(&recorded(&events)).unwrap();
        prop_assert_eq!(state.accepted().map(|accepted| accepted.next_offset), Some(offset));
    }

    #[test]
    fn only_the_current_attempt_is_heard(commands in proptest::collection::vec(any_command(), 0..40)) {
        let (_, decisions) = history(commands);
        for (state, command, decided) in decisions {
            let (Command::Report { fence, .. } | Command::Complete { fence, .. } | Command::Fail { fence, .. }) = command
            else { continue };
            let Build::Building(_, attempt) = state else {
                prop_assert!(decided.is_err());
                continue;
            };
            if fence != attempt.fence {
                prop_assert_eq!(decided, Err(Rejection::StaleFence { reported: fence, current: attempt.fence }));
            }
        }
    }

    #[test]
    fn a_snapshot_follows_growth_in_its_own_attempt(commands in proptest::collection::vec(any_command(), 0..40)) {
        let (events, _) = history(commands);
        let mut sized = false;
        for event in &events {
            sized = !matches!(event, Event::Started(_))
                && (sized
                    || matches!(event, Event::RootfsGrown(_))
                    || matches!(event, Event::CacheHit(hit) if hit.kind == CacheKind::FinalArtifact));
            prop_assert!(sized || !matches!(event, Event::Snapshotted(_)), "{events:?}");
        }
    }

    #[test]
    fn cancel_is_idempotent(commands in proptest::collection::vec(any_command(), 0..20)) {
        let (events, _) = history(commands);
        let cancel = || Command::Cancel { by: "me".into(), reason: Some("r".into()) };
        let state = events.iter().fold(Build::Absent, evolve);
        let once = decide(&state, cancel()).unwrap().iter().fold(state, evolve);
        prop_assert_eq!(decide(&once, cancel()), Ok(Vec::new()));
    }

    #[test]
    fn a_stored_history_replays_to_the_same_state(commands in proptest::collection::vec(any_command(), 0..40)) {
        let (events, _) = history(commands);
        let state = events.iter().fold(Build::Absent, evolve);
        prop_assert_eq!(replay(&recorded(&events)), Ok((state, Version(events.len().try_into().unwrap()))));
    }

    #[test]
    fn attempts_never_exceed_their_bound(commands in proptest::collection::vec(any_command(), 0..60)) {
        let (events, _) = history(commands);
        let started = events.iter().filter(|event| matches!(event, Event::Started(_))).count();
        prop_assert!(started <= 2, "{events:?}");
    }
}

#[test]
fn an_event_out_of_place_is_named() {
    let stream = recorded(&[Event::Requested(requested(&[])), grown()]);
    let corrupt = replay(&stream).unwrap_err();
    assert_eq!(
        corrupt,
        CorruptStream {
            version: Version(1),
            event: "RootfsGrown"
        }
    );
}

#[test]
fn only_a_build_that_waits_has_a_place_in_line() {
    let start = Command::Start {
        worker: WorkerId::generate(time(0), [1; 10]),
    };
    let place = |state: &Build| decide(state, Command::Queue { place: 2 });
    let waiting = history(Vec::new()).0.iter().fold(Build::Absent, evolve);
    let queued = place(&waiting).unwrap();
    assert_eq!(queued, [Event::Queued(Queued { place: 2 })]);
    let still = queued.iter().fold(waiting, evolve);
    assert!(matches!(still, Build::Waiting(_)), "{still:?}");
    let building = history(vec![start]).0.iter().fold(Build::Absent, evolve);
    assert_eq!(place(&building), Err(Rejection::NotWaiting));
    assert_eq!(place(&Build::Absent), Err(Rejection::NotRequested));
}

#[test]
fn a_worker_reports_progress_only() {
    let (events, _) = history(vec![Command::Start {
        worker: WorkerId::generate(time(0), [1; 10]),
    }]);
    let state = events.iter().fold(Build::Absent, evolve);
    let failed = Event::Failed(Failure::new(FailureReason::Timeout, "t"));
    let command = Command::Report {
        fence: Fence(1),
        events: vec![failed],
    };
    assert_eq!(
        decide(&state, command),
        Err(Rejection::NotProgress("Failed"))
    );
}

fn finished(secret_ids: &[&str]) -> Build {
    let events = [
        Event::Requested(requested(secret_ids)),
        Event::Failed(Failure::new(FailureReason::SecretsLost, "f")),
    ];
    events.iter().fold(Build::Absent, evolve)
}

fn retry_with(secret_ids: &[&str]) -> RetryRequest {
    RetryRequest {
        tags: None,
        secret_ids: secret_ids.iter().map(|id| id.parse().unwrap()).collect(),
        registry_auth: std::collections::BTreeMap::new(),
    }
}

#[test]
fn a_retry_brings_credentials_for_the_same_registries_at_least() {
    let auth = |hosts: &[&str]| {
        let hosts = hosts.iter();
        hosts
            .map(|host| ((*host).to_owned(), "basic".to_owned()))
            .collect()
    };
    let mut first = requested(&[]);
    first.registry_auth = auth(&["a.example", "b.example"]);
    let failed = Event::Failed(Failure::new(FailureReason::SecretsLost, "f"));
    let state = [Event::Requested(first), failed]
        .iter()
        .fold(Build::Absent, evolve);
    let retried = |hosts: &[&str]| {
        let registry_auth = auth(hosts);
        let request = RetryRequest {
            registry_auth,
            ..retry_with(&[])
        };
        retry(&build_id(1), &state, request)
    };
    assert_eq!(
        retried(&["a.example"]),
        Err(Rejection::CredentialsMissing {
            hosts: BTreeSet::from(["b.example".to_owned()])
        })
    );
    let all = ["a.example", "b.example", "c.example"];
    assert_eq!(retried(&all).unwrap().registry_auth, auth(&all));
}

#[test]
fn a_retry_names_a_finished_build() {
    let waiting = evolve(Build::Absent, &Event::Requested(requested(&[])));
    assert_eq!(
        retry(&build_id(1), &Build::Absent, retry_with(&[])),
        Err(Rejection::NotRequested)
    );
    assert_eq!(
        retry(&build_id(1), &waiting, retry_with(&[])),
        Err(Rejection::NotFinished)
    );
}

#[test]
fn a_retry_brings_the_same_secret_ids() {
    let differ = |missing: &[&str], extra: &[&str]| {
        let ids = |ids: &[&str]| {
            ids.iter()
                .map(|id| id.parse().unwrap())
                .collect::<BTreeSet<_>>()
        };
        Err(Rejection::SecretsDiffer {
            missing: ids(missing),
            extra: ids(extra),
        })
    };
    let state = finished(&["a", "b"]);
    assert_eq!(
        retry(&build_id(1), &state, retry_with(&["a"])),
        differ(&["b"], &[])
    );
    assert_eq!(
        retry(&build_id(1), &state, retry_with(&["a", "b", "c"])),
        differ(&[], &["c"])
    );
    assert!(retry(&build_id(1), &state, retry_with(&["b", "a"])).is_ok());
}

#[test]
fn a_retry_of_a_retry_keeps_the_first_of_the_line() {
    let second = retry(&build_id(1), &finished(&[]), retry_with(&[])).unwrap();
    assert_eq!(
        second.retry_of,
        Some(RetryOf {
            build: build_id(1),
            original: build_id(1)
        })
    );
    let events = [
        Event::Requested(Box::new(second)),
        Event::Failed(Failure::new(FailureReason::Timeout, "f")),
    ];
    let state = events.iter().fold(Build::Absent, evolve);
    let third = retry(&build_id(2), &state, retry_with(&[])).unwrap();
    assert_eq!(
        third.retry_of,
        Some(RetryOf {
            build: build_id(2),
            original: build_id(1)
        })
    );
}
