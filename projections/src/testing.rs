//! What the tests of this crate share: a log in memory, events in few words, stores on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use domain::build::{
    self, CacheKind, CacheSubject, Fence, FileRecord, LogLine, LogStream, Phase, Requested,
    RestoreCheck, RootfsGrown, RuntimeDefaults, Snapshotted, Started, StepLogged, VmmIdentity,
};
use domain::definition::{
    Backend, BuildConfig, Definition, RuntimeConfig, Source, SourceType, Step,
};
use domain::failure::{Failure, FailureReason};
use domain::ids::{ArtifactId, BuildId, CommandId, KeyId, TemplateId, WebhookId, WorkerId};
use domain::name::{Namespace, Owner, Tag, TemplateName, TemplateRef};
use domain::ports::{EventReader, LogError};
use domain::recorded::{Actor, Position, Recorded, StreamName, Version};
use domain::time::Timestamp;
use domain::{Digest, Event, namespace, template, webhook};
use tokio::sync::watch;

use crate::limits::Limits;
use crate::projection::apply_batch;
use crate::runner::over;
use crate::store::memory::Memory;
use crate::store::{Row, Scan, ViewStore};
use crate::views::Views;

pub(crate) fn at(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(1_700_000_000_000_000 + micros).unwrap()
}

pub(crate) fn build_id(number: u8) -> BuildId {
    BuildId::generate(at(0), [number; 10])
}

pub(crate) fn template_id(number: u8) -> TemplateId {
    TemplateId::generate(at(0), [number; 10])
}

pub(crate) fn webhook_id(number: u8) -> WebhookId {
    WebhookId::generate(at(0), [number; 10])
}

pub(crate) fn key_id() -> KeyId {
    KeyId::generate(at(0), [9; 10])
}

pub(crate) fn owner(text: &str) -> Owner {
    text.parse().unwrap()
}

pub(crate) fn name(text: &str) -> TemplateName {
    text.parse().unwrap()
}

pub(crate) fn slug(text: &str) -> Namespace {
    text.parse().unwrap()
}

pub(crate) fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

pub(crate) fn reference(text: &str) -> TemplateRef {
    text.parse().unwrap()
}

/// A sequence of recorded events.
#[derive(Default)]
pub(crate) struct History {
    events: Vec<Recorded<Event>>,
    versions: BTreeMap<StreamName, Version>,
}

impl History {
    /// Records an event one millisecond after the last one, with gaps between positions: nothing
    /// may do arithmetic on them.
    pub(crate) fn record(&mut self, stream: StreamName, event: Event) -> &mut Self {
        let version = self.versions.entry(stream.clone()).or_default();
        let number = u64::try_from(self.events.len()).unwrap() + 1;
        let recorded = Recorded {
            stream,
            version: *version,
            position: Position::from_raw(number * 3),
            time: at(i64::try_from(number).unwrap() * 1_000),
            schema_version: 1,
            actor: Actor::Key { id: key_id() },
            command_id: CommandId::generate(at(0), [1; 10]),
            hash: Digest::of(&number.to_be_bytes()),
            event,
        };
        *version = version.plus(1);
        self.events.push(recorded);
        self
    }

    pub(crate) fn build(&mut self, number: u8, event: build::Event) -> &mut Self {
        self.record(StreamName::Build(build_id(number)), event.into())
    }

    pub(crate) fn template(&mut self, number: u8, event: template::Event) -> &mut Self {
        self.record(StreamName::Template(template_id(number)), event.into())
    }

    pub(crate) fn namespace(&mut self, slug: &str, event: namespace::Event) -> &mut Self {
        self.record(StreamName::Namespace(slug.parse().unwrap()), event.into())
    }

    pub(crate) fn webhook(&mut self, number: u8, event: webhook::Event) -> &mut Self {
        self.record(StreamName::Webhook(webhook_id(number)), event.into())
    }

    /// A template of an owner, in the owner's namespace.
    pub(crate) fn name_taken(&mut self, slug: &str, text: &str, number: u8) -> &mut Self {
        let event = namespace::Event::NameTaken {
            name: name(text),
            template_id: template_id(number),
            owner: owner(slug),
            renaming: None,
        };
        self.namespace(slug, event)
    }

    /// A build of a template, from its request to its end.
    pub(crate) fn ready_build(&mut self, number: u8, template: u8, tags: &[&str]) -> &mut Self {
        self.build(number, requested(template, tags))
            .build(number, started(1))
            .build(number, grown())
            .build(number, snapshotted(number))
    }

    pub(crate) fn events(&self) -> &[Recorded<Event>] {
        &self.events
    }

    pub(crate) fn last(&self) -> &Recorded<Event> {
        self.events.last().unwrap()
    }

    /// Views of all of it.
    pub(crate) fn views(&self) -> Views {
        let store = Arc::new(Memory::default());
        apply_batch(store.as_ref(), &self.events).unwrap();
        let (views, _runner) = over(store, &Limits::default()).unwrap();
        views
    }
}

/// A webhook for all events of an owner.
pub(crate) fn webhook_registration(text: &str) -> webhook::Registered {
    webhook::Registered {
        owner: owner(text),
        url: "https://hooks.example/in".into(),
        types: BTreeSet::new(),
        templates: BTreeSet::new(),
        description: String::new(),
        secret_digest: Digest::of(b"secret"),
    }
}

pub(crate) fn webhook_registered(text: &str) -> webhook::Event {
    webhook::Event::WebhookRegistered(webhook_registration(text))
}

/// An event of a build that a webhook did not take.
pub(crate) fn dead_letter(position: u64) -> webhook::DeadLetter {
    webhook::DeadLetter {
        position: Position::from_raw(position),
        stream: StreamName::Build(build_id(1)),
        version: Version(position),
        kind: "StepStarted".into(),
        attempts: 3,
        failure: webhook::DeliveryFailure::TimedOut,
    }
}

/// The request of a build of a template that belongs to `acme` and is called `my-app`.
pub(crate) fn request(template: u8, tags: &[&str]) -> Requested {
    let definition = Definition {
        source: Source::Declarative {
            base_image: "python:3.11".into(),
            steps: vec![Step::Run {
                command: "true".into(),
                user: None,
            }],
            build_envs: BTreeMap::new(),
        },
        context: None,
        start_cmd: None,
        runtime: RuntimeConfig::default(),
        config: BuildConfig {
            vcpus: 2,
            memory_mib: 512,
            disk_mb: None,
            internet_access: true,
        },
        skip_cache: false,
        secret_ids: Vec::new(),
    };
    Requested {
        definition_digest: definition.digest(),
        definition,
        owner: owner("acme"),
        namespace: slug("acme"),
        name: name("my-app"),
        template_id: template_id(template),
        tags: tags.iter().map(|text| tag(text)).collect(),
        backend: Backend::Native,
        source_type: SourceType::Declarative,
        base: None,
        registry_auth: BTreeMap::new(),
        retry_of: None,
        arrivals: None,
        idempotency_key: None,
        request_digest: None,
        max_attempts: 2,
    }
}

pub(crate) fn requested(template: u8, tags: &[&str]) -> build::Event {
    build::Event::Requested(Box::new(request(template, tags)))
}

pub(crate) fn worker() -> WorkerId {
    WorkerId::generate(at(0), [2; 10])
}

pub(crate) fn started(attempt: u32) -> build::Event {
    build::Event::Started(Started {
        worker: worker(),
        attempt,
        max_attempts: 2,
        fence: Fence(u64::from(attempt)),
    })
}

pub(crate) fn grown() -> build::Event {
    build::Event::RootfsGrown(RootfsGrown {
        from_bytes: 1_181_116_006,
        to_bytes: 2 << 30,
    })
}

pub(crate) fn logged(first_offset: u64, texts: &[&str]) -> build::Event {
    let line = |text: &&str| LogLine {
        at: at(7),
        stream: LogStream::Stdout,
        text: (*text).to_owned(),
    };
    build::Event::StepLogged(StepLogged {
        phase: Phase::Step,
        step: Some((1, 2)),
        first_offset,
        lines: texts.iter().map(line).collect(),
    })
}

pub(crate) fn layer(step_index: u32, title: &str) -> CacheSubject {
    CacheSubject {
        kind: CacheKind::Layer,
        subject: title.to_owned(),
        step_index: Some(step_index),
        key: Digest::of(title.as_bytes()),
    }
}

pub(crate) fn artifact(number: u8) -> ArtifactId {
    ArtifactId::of(&Digest::of(&[number]))
}

pub(crate) fn snapshot(number: u8) -> Box<Snapshotted> {
    let file = || FileRecord {
        digest: Digest::of(&[number]),
        bytes: 1,
    };
    Box::new(Snapshotted {
        artifact: artifact(number),
        rootfs: file(),
        memory: file(),
        device_state: file(),
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
            disk_bytes: 2 << 30,
        },
        runtime: RuntimeDefaults {
            env_keys: vec!["A".into()],
            ..RuntimeDefaults::default()
        },
        oci: build::OciMetadata::default(),
        reused: false,
    })
}

pub(crate) fn snapshotted(number: u8) -> build::Event {
    build::Event::Snapshotted(snapshot(number))
}

pub(crate) fn step_failure() -> Failure {
    Failure {
        step_index: Some(2),
        exit_code: Some(3),
        ..Failure::new(FailureReason::StepFailed, "step 2 exited with code 3")
    }
}

/// Every row of a store.
pub(crate) fn dump(store: &dyn ViewStore) -> Vec<Row> {
    let everything = Scan {
        from: vec![1],
        to: vec![u8::MAX; 64],
        backwards: false,
        count_max: usize::MAX,
    };
    store.scan(&everything).unwrap()
}

/// A log in memory that can be told to fail.
pub(crate) struct VecLog {
    events: Mutex<Vec<Recorded<Event>>>,
    head: watch::Sender<Position>,
    failures_left: AtomicU32,
    failure: fn() -> LogError,
}

impl VecLog {
    pub(crate) fn new(events: &[Recorded<Event>]) -> Self {
        let log = Self {
            events: Mutex::default(),
            head: watch::Sender::new(Position::START),
            failures_left: AtomicU32::new(0),
            failure: || LogError::Unavailable(Arc::new(std::io::Error::other("away"))),
        };
        log.append(events);
        log
    }

    /// The log whose next `count` reads fail.
    pub(crate) fn failing(self, count: u32, failure: fn() -> LogError) -> Self {
        self.failures_left.store(count, Ordering::SeqCst);
        Self { failure, ..self }
    }

    pub(crate) fn append(&self, events: &[Recorded<Event>]) {
        self.events.lock().unwrap().extend_from_slice(events);
        if let Some(last) = events.last() {
            self.head.send_replace(last.position);
        }
    }

    pub(crate) fn failures_left(&self) -> u32 {
        self.failures_left.load(Ordering::SeqCst)
    }

    fn answer<T>(&self, answer: impl FnOnce(&[Recorded<Event>]) -> T) -> Result<T, LogError> {
        let failing = self
            .failures_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        match failing {
            Ok(_) => Err((self.failure)()),
            Err(_) => Ok(answer(&self.events.lock().unwrap())),
        }
    }
}

impl EventReader for VecLog {
    async fn read_stream(
        &self,
        stream: &StreamName,
        from: Version,
        count_max: usize,
    ) -> Result<Vec<Recorded<Event>>, LogError> {
        self.answer(|events| {
            events
                .iter()
                .filter(|recorded| recorded.stream == *stream && recorded.version >= from)
                .take(count_max)
                .cloned()
                .collect()
        })
    }

    async fn read_all(
        &self,
        after: Position,
        count_max: usize,
    ) -> Result<Vec<Recorded<Event>>, LogError> {
        self.answer(|events| {
            events
                .iter()
                .filter(|recorded| recorded.position > after)
                .take(count_max)
                .cloned()
                .collect()
        })
    }

    async fn read_at(&self, positions: &[Position]) -> Result<Vec<Recorded<Event>>, LogError> {
        // Fewer than are asked for, as a log may.
        let positions = &positions[..positions.len().min(3)];
        self.answer(|events| {
            events
                .iter()
                .filter(|recorded| positions.contains(&recorded.position))
                .cloned()
                .collect()
        })
    }

    async fn position_at(&self, time: Timestamp) -> Result<Position, LogError> {
        self.answer(|events| {
            let last = events.iter().rev().find(|recorded| recorded.time <= time);
            last.map_or(Position::START, |recorded| recorded.position)
        })
    }

    fn head(&self) -> Position {
        *self.head.borrow()
    }

    async fn wait_behind(&self, after: Position) -> Result<(), LogError> {
        let mut head = self.head.subscribe();
        head.wait_for(|head| *head > after)
            .await
            .map(|_| ())
            .map_err(|err| LogError::Unavailable(Arc::new(err)))
    }
}
