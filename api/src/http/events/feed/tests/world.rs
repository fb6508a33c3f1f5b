//! A log with the events of two owners, what follows it, and readers that lose their connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};

use commands::AnyLog;
use commands::codec::decode_event;
use commands::limits::LogLimits;
use domain::event::{Category, Event};
use domain::ids::{BuildId, CommandId, TemplateId};
use domain::name::{Namespace, Owner};
use domain::ports::{Append, EventAppender as _, EventReader as _};
use domain::recorded::{Actor, StreamName, Version};
use domain::template::Visibility;
use domain::time::Timestamp;
use domain::{build, namespace, template};
use futures_util::StreamExt as _;
use projections::limits::Limits as ViewLimits;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::*;
use crate::limits::Limits;
use crate::service::owners::Owners;

const OWNERS: [&str; 2] = ["acme", "other"];

pub(super) fn paused_runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

/// A frame of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) id: Option<Position>,
    pub(super) name: Option<String>,
    pub(super) data: Option<String>,
}

impl Frame {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).unwrap();
        let mut frame = Self::default();
        for line in text.strip_suffix("\n\n").expect("frames are whole").lines() {
            match line.split_once(": ").unwrap() {
                ("", "keepalive") => {}
                ("id", id) => frame.id = Some(id.parse::<WirePosition>().unwrap().0),
                ("event", name) => frame.name = Some(name.to_owned()),
                ("data", data) => frame.data = Some(data.to_owned()),
                other => panic!("{other:?}"),
            }
        }
        frame
    }

    /// Where the event stands, if the frame is one.
    pub(super) fn event(&self) -> Option<Position> {
        let name = self.name.as_deref()?;
        (name != "heartbeat" && name != "dropped")
            .then_some(self.id)
            .flatten()
    }
}

/// What happens next; which build or template it happens to is chosen among those that are there.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    Requested { owner: usize, same_template: bool },
    Step(Index),
    Queued(Index),
    Shown(Index),
    Claimed { owner: usize },
}

/// What happens, with pauses of some turns in between.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    happenings: Vec<(Happening, usize)>,
    /// How many builds are there already.
    first_build: u8,
}

impl Plan {
    pub(super) fn any() -> impl Strategy<Value = Self> {
        let happening = prop_oneof![
            (0..2_usize, any::<bool>()).prop_map(|(owner, same_template)| Happening::Requested {
                owner,
                same_template
            }),
            any::<Index>().prop_map(Happening::Step),
            any::<Index>().prop_map(Happening::Step),
            any::<Index>().prop_map(Happening::Queued),
            any::<Index>().prop_map(Happening::Shown),
            (0..2_usize).prop_map(|owner| Happening::Claimed { owner }),
        ];
        vec((happening, 0..4_usize), 0..40).prop_map(|happenings| Self {
            happenings,
            first_build: 0,
        })
    }

    /// The plan for a log in which `earlier` has happened.
    pub(super) fn after(mut self, earlier: &Self) -> Self {
        self.first_build = earlier.build_count();
        self
    }

    fn build_count(&self) -> u8 {
        let requested =
            |(happening, _): &&(Happening, usize)| matches!(happening, Happening::Requested { .. });
        u8::try_from(self.happenings.iter().filter(requested).count()).unwrap()
    }
}

/// What is asked for, by the numbers of things: builds and templates that may not be there, or be
/// somebody else's.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    streams: Vec<u8>,
    kinds: Vec<&'static str>,
    builds: Vec<u8>,
    templates: Vec<u8>,
}

pub(super) fn wanted() -> impl Strategy<Value = Wanted> {
    let some = || prop_oneof![2 => Just(Vec::new()), 1 => vec(0..8_u8, 1..5)];
    let kinds = ["Requested", "StepStarted", "VisibilityChanged", "NameTaken"];
    let kinds = prop_oneof![
        2 => Just(Vec::new()),
        1 => proptest::sample::subsequence(kinds.to_vec(), 1..4),
    ];
    (some(), kinds, some(), some()).prop_map(|(streams, kinds, builds, templates)| Wanted {
        streams,
        kinds,
        builds,
        templates,
    })
}

pub(super) struct World {
    log: AnyLog,
    pub(super) pages: Pages,
    stop: watch::Sender<bool>,
    views: JoinHandle<()>,
    next_build: AtomicU8,
}

/// A build that is there.
#[derive(Clone, Debug)]
pub(super) struct Build {
    id: BuildId,
    template: TemplateId,
    owner: usize,
}

fn time() -> Timestamp {
    Timestamp::from_unix_micros(1_700_000_000_000_000).unwrap()
}

fn build_id(number: u8) -> BuildId {
    BuildId::generate(time(), [number; 10])
}

fn template_id(number: u8) -> TemplateId {
    TemplateId::generate(time(), [number; 10])
}

fn slug(owner: usize) -> StreamName {
    let slug: Namespace = OWNERS[owner].parse().unwrap();
    StreamName::Namespace(slug)
}

async fn append(log: &AnyLog, stream: StreamName, event: Event) {
    let mut version = Version::EMPTY;
    loop {
        let stored = log.read_stream(&stream, version, 1_000).await.unwrap();
        if stored.is_empty() {
            break;
        }
        version = version.plus(u64::try_from(stored.len()).unwrap());
    }
    let append = Append {
        stream,
        expected: version,
        command_id: CommandId::generate(time(), [0; 10]),
        actor: Actor::Operator,
        time: time(),
        events: vec![event],
    };
    log.append(append).await.unwrap();
}

async fn request(log: &AnyLog, number: u8, template: Option<TemplateId>, owner: usize) -> Build {
    let is_new = template.is_none();
    let template_id = template.unwrap_or_else(|| template_id(number));
    if is_new {
        let taken = namespace::Event::NameTaken {
            name: format!("app-{number}").parse().unwrap(),
            template_id: template_id.clone(),
            owner: OWNERS[owner].parse().unwrap(),
            renaming: None,
        };
        append(log, slug(owner), taken.into()).await;
    }
    let golden = include_bytes!("../../../../../../tests/golden/events/v1/build-Requested.json");
    let event = decode_event(Category::Build, "Requested", 1, golden).unwrap();
    let Event::Build(build::Event::Requested(mut requested)) = event else {
        panic!("{event:?}")
    };
    requested.owner = OWNERS[owner].parse().unwrap();
    requested.namespace = OWNERS[owner].parse().unwrap();
    requested.template_id = template_id.clone();
    let stream = StreamName::Build(build_id(number));
    append(log, stream, build::Event::Requested(requested).into()).await;
    Build {
        id: build_id(number),
        template: template_id,
        owner,
    }
}

async fn step(log: &AnyLog, build: &Build) {
    let started = build::Event::StepStarted(build::StepStarted {
        index: 1,
        total: 1,
        name: "x".into(),
    });
    append(log, StreamName::Build(build.id.clone()), started.into()).await;
}

async fn happen(log: &AnyLog, builds: &mut Vec<Build>, number: u8, happening: Happening) {
    let chosen = |at: Index| (!builds.is_empty()).then(|| builds[at.index(builds.len())].clone());
    match happening {
        Happening::Requested {
            owner,
            same_template,
        } => {
            let known = builds.iter().find(|build| build.owner == owner);
            let known = known.filter(|_| same_template);
            let template = known.map(|build| build.template.clone());
            builds.push(request(log, number, template, owner).await);
        }
        Happening::Step(at) => {
            if let Some(build) = chosen(at) {
                step(log, &build).await;
            }
        }
        Happening::Queued(at) => {
            if let Some(build) = chosen(at) {
                let queued = build::Event::Queued(build::Queued { place: 1 });
                append(log, StreamName::Build(build.id), queued.into()).await;
            }
        }
        Happening::Shown(at) => {
            if let Some(build) = chosen(at) {
                let changed = template::Event::VisibilityChanged {
                    visibility: Visibility::Public,
                };
                append(log, StreamName::Template(build.template), changed.into()).await;
            }
        }
        Happening::Claimed { owner } => {
            let claimed = namespace::Event::NameReleased {
                name: "nobodys".parse().unwrap(),
            };
            append(log, slug(owner), claimed.into()).await;
        }
    }
}

impl World {
    pub(super) fn start() -> Self {
        let log = AnyLog::memory(LogLimits::default());
        let (views, runner) = projections::in_memory(&ViewLimits::default()).unwrap();
        // So few that much is forgotten and asked for again.
        let owners = Owners::new(log.clone(), views, 3);
        let limits = Limits {
            event_page_count_max: 3,
            kept_event_page_count_max: 2,
            ..Limits::default()
        };
        let (stop, stopped) = watch::channel(false);
        let followed = log.clone();
        let views = tokio::spawn(async move { runner.run(&followed, stopped).await.unwrap() });
        Self {
            pages: Pages::new(log.clone(), owners, &limits),
            log,
            stop,
            views,
            next_build: AtomicU8::new(0),
        }
    }

    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        self.views.await.unwrap();
    }

    /// A build of `owner`.
    pub(super) async fn request(&self, owner: &str) -> Build {
        let owner = OWNERS.iter().position(|known| *known == owner).unwrap();
        let number = self.next_build.fetch_add(1, Ordering::Relaxed);
        request(&self.log, number, None, owner).await
    }

    /// Something happens to a build.
    pub(super) async fn step(&self, build: &Build) {
        step(&self.log, build).await;
    }

    /// Does what is planned, beside whatever else goes on.
    pub(super) fn append_all(&self, plan: Plan) -> JoinHandle<()> {
        let log = self.log.clone();
        tokio::spawn(async move {
            let (mut builds, mut number) = (Vec::new(), plan.first_build);
            for (happening, turns) in plan.happenings {
                let is_request = matches!(happening, Happening::Requested { .. });
                happen(&log, &mut builds, number, happening).await;
                number += u8::from(is_request);
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }
        })
    }

    pub(super) fn subscription(
        &self,
        filter: Filter,
        from: Position,
        until: Option<Position>,
        bounds: Bounds,
    ) -> Subscription {
        Subscription {
            pages: self.pages.clone(),
            filter,
            form: Form::Record,
            from,
            until,
            bounds,
            stopping: CancellationToken::new(),
        }
    }

    pub(super) fn filter(wanted: &Wanted, plan: &Plan) -> Filter {
        let count = plan.build_count().max(1);
        let streams = wanted.streams.iter().map(|number| match number % 3 {
            0 => StreamName::Template(template_id(number % count)),
            1 => StreamName::Build(build_id(number % count)),
            _ => slug(usize::from(*number) % 2),
        });
        Filter {
            owner: OWNERS[0].parse().unwrap(),
            streams: streams.collect(),
            kinds: wanted.kinds.iter().copied().collect(),
            builds: wanted
                .builds
                .iter()
                .map(|number| build_id(number % count))
                .collect(),
            templates: wanted
                .templates
                .iter()
                .map(|number| template_id(number % count))
                .collect(),
        }
    }

    /// What a reader with this filter must get: found by looking at the whole log.
    pub(super) async fn expected(&self, filter: &Filter) -> Vec<Position> {
        let events = self.log.read_all(Position::START, 10_000).await.unwrap();
        let mut builds: BTreeMap<BuildId, (Owner, TemplateId)> = BTreeMap::new();
        let mut templates: BTreeMap<TemplateId, Owner> = BTreeMap::new();
        let mut positions = Vec::new();
        for recorded in &events {
            match &recorded.event {
                Event::Build(build::Event::Requested(requested)) => {
                    let StreamName::Build(id) = &recorded.stream else {
                        panic!("{recorded:?}")
                    };
                    let origin = (requested.owner.clone(), requested.template_id.clone());
                    builds.insert(id.clone(), origin);
                }
                Event::Namespace(namespace::Event::NameTaken {
                    template_id, owner, ..
                }) => {
                    templates.insert(template_id.clone(), owner.clone());
                }
                Event::Build(_)
                | Event::Namespace(_)
                | Event::Template(_)
                | Event::Keys(_)
                | Event::Webhook(_) => {}
            }
            let (owner, build, template) = match &recorded.stream {
                StreamName::Build(id) => {
                    let (owner, template) = &builds[id];
                    (owner.to_string(), Some(id), Some(template))
                }
                StreamName::Template(id) => (templates[id].to_string(), None, Some(id)),
                StreamName::Namespace(slug) => (slug.to_string(), None, None),
                StreamName::Keys | StreamName::Webhook(_) => continue,
            };
            let is_wanted = owner == filter.owner.as_str()
                && (filter.streams.is_empty() || filter.streams.contains(&recorded.stream))
                && (filter.kinds.is_empty() || filter.kinds.contains(recorded.event.name()))
                && (filter.builds.is_empty() || build.is_some_and(|id| filter.builds.contains(id)))
                && (filter.templates.is_empty()
                    || template.is_some_and(|id| filter.templates.contains(id)));
            if is_wanted {
                positions.push(recorded.position);
            }
        }
        positions
    }
}

/// Somebody who subscribes again from where it was whenever its connection breaks.
pub(super) struct Reader<'a> {
    world: &'a World,
    filter: Filter,
    form: Form,
    bounds: Bounds,
    last: Position,
    /// The events that it got.
    pub(super) positions: Vec<Position>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(world: &'a World, filter: Filter, form: Form, bounds: Bounds) -> Self {
        Self {
            world,
            filter,
            form,
            bounds,
            last: Position::START,
            positions: Vec::new(),
        }
    }

    /// Takes `count` frames of a new connection, which breaks then.
    pub(super) async fn read(&mut self, count: usize) {
        let mut frames = std::pin::pin!(self.connect());
        for _ in 0..count {
            let frame = frames.next().await.expect("it is followed").unwrap();
            self.take(&Frame::parse(&frame));
        }
    }

    /// Reads until it knows that it is at `end`.
    pub(super) async fn read_to(&mut self, end: Position) {
        let mut frames = std::pin::pin!(self.connect());
        while self.last < end {
            let frame = frames.next().await.expect("it is followed").unwrap();
            self.take(&Frame::parse(&frame));
        }
    }

    fn connect(&self) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
        let mut subscription =
            self.world
                .subscription(self.filter.clone(), self.last, None, self.bounds);
        subscription.form = self.form;
        open(subscription, ())
    }

    fn take(&mut self, frame: &Frame) {
        self.positions.extend(frame.event());
        if let Some(id) = frame.id {
            assert!(id > self.last, "{frame:?} after {:?}", self.last);
            self.last = id;
        }
        if let Some(data) = &frame.data {
            let data: Value = serde_json::from_str(data).unwrap();
            let key = match (frame.event(), self.form) {
                (Some(_), Form::Cloud) => "sequence",
                (Some(_), Form::Record) | (None, _) => "position",
            };
            assert_eq!(data[key], WirePosition(self.last).to_string());
        }
    }
}
