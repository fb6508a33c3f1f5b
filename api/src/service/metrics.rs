//! Figures about the service for whoever watches it, in the format of OpenMetrics.
//!
//! What happened to builds is counted from the event log, from its first event: these counters go on
//! where they were when the service restarts. What requests did is counted since the service started.
//! No label holds what a caller chose, so figures tell nothing about anybody's builds and there is a
//! bounded number of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::build::{CacheKind, Event};
use domain::definition::Backend;
use domain::ids::BuildId;
use domain::recorded::{Position, Recorded, StreamName};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the classes in which requests are counted by their duration, in seconds.
const REQUEST_SECONDS: [f64; 9] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 600.0];
/// The same for phases of builds.
const PHASE_SECONDS: [f64; 9] = [0.01, 0.05, 0.2, 1.0, 5.0, 20.0, 60.0, 300.0, 1800.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendLabels {
    backend: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    backend: &'static str,
    outcome: &'static str,
    /// Why a build failed; empty if it did not.
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    kind: &'static str,
    outcome: &'static str,
}

type PhaseSeconds = Family<PhaseLabels, Histogram, fn() -> Histogram>;
type RequestSeconds = Family<RouteLabels, Histogram, fn() -> Histogram>;

/// What is counted. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<RequestLabels, Counter>,
    request_seconds: RequestSeconds,
    builds: BuildMetrics,
    fold: Arc<Mutex<Fold>>,
}

/// What is counted of builds.
#[derive(Clone, Debug)]
struct BuildMetrics {
    requested: Family<BackendLabels, Counter>,
    finished: Family<OutcomeLabels, Counter>,
    retried: Counter,
    phase_seconds: PhaseSeconds,
    cache: Family<CacheLabels, Counter>,
    waiting: Gauge,
    building: Gauge,
    log_bytes: Counter,
}

/// How far the log was counted, and the builds that are not over.
#[derive(Debug, Default)]
struct Fold {
    position: Position,
    open: BTreeMap<BuildId, Open>,
}

#[derive(Debug)]
struct Open {
    backend: &'static str,
    is_building: bool,
}

/// A figure that is asked for when it is shown.
struct Asked {
    name: &'static str,
    help: &'static str,
    ask: Box<dyn Fn() -> i64 + Send + Sync>,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Collector for Asked {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let gauge: Gauge = Gauge::default();
        gauge.set((self.ask)());
        let metric = encoder.encode_descriptor(self.name, self.help, None, gauge.metric_type())?;
        gauge.encode(metric)
    }
}

fn phase_histogram() -> Histogram {
    Histogram::new(PHASE_SECONDS)
}

fn request_histogram() -> Histogram {
    Histogram::new(REQUEST_SECONDS)
}

/// What is asked for when figures are shown.
pub struct Levels {
    /// How many events the log holds beyond those that the views show.
    pub view_lag_events: Box<dyn Fn() -> u64 + Send + Sync>,
    /// How many streams are open.
    pub open_streams: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl std::fmt::Debug for Levels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Levels")
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new(levels: Levels) -> Self {
        let mut registry = Registry::with_prefix("nullspaced");
        let requests = Family::default();
        let name = "http_requests";
        registry.register(name, "Requests answered since the start", requests.clone());
        let request_seconds = RequestSeconds::new_with_constructor(request_histogram);
        registry.register_with_unit(
            "http_request_duration",
            "Time to the head of the answer; streams go on after it",
            Unit::Seconds,
            request_seconds.clone(),
        );
        let builds = BuildMetrics::register(&mut registry);
        let asked = |name, help, ask: Box<dyn Fn() -> u64 + Send + Sync>| {
            let ask = Box::new(move || i64::try_from(ask()).unwrap_or(i64::MAX));
            Box::new(Asked { name, help, ask })
        };
        let lag = "Events of the log that the views do not show yet";
        registry.register_collector(asked("nullspaced_view_lag", lag, levels.view_lag_events));
        let streams = "Streams that are open";
        registry.register_collector(asked(
            "nullspaced_open_streams",
            streams,
            levels.open_streams,
        ));
        Self {
            registry: Arc::new(registry),
            requests,
            request_seconds,
            builds,
            fold: Arc::default(),
        }
    }

    /// Counts a request that was answered.
    pub fn answered(&self, route: &'static str, status: u16, took: Duration) {
        let labels = RequestLabels { route, status };
        self.requests.get_or_create(&labels).inc();
        let histogram = self.request_seconds.get_or_create(&RouteLabels { route });
        histogram.observe(took.as_secs_f64());
    }

    /// Counts events of the log. Those that were counted before are passed over.
    pub fn count(&self, events: &[Recorded<domain::Event>]) {
        let mut fold = self.fold.lock().unwrap_or_else(PoisonError::into_inner);
        for recorded in events {
            if recorded.position <= fold.position {
                continue;
            }
            fold.position = recorded.position;
            if let (StreamName::Build(id), domain::Event::Build(event)) =
                (&recorded.stream, &recorded.event)
            {
                self.builds.count(&mut fold.open, id, event);
            }
        }
        let building = fold.open.values().filter(|open| open.is_building).count();
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.builds.building.set(count(building));
        let waiting = fold.open.len().saturating_sub(building);
        self.builds.waiting.set(count(waiting));
    }

    /// How far the log was counted.
    pub fn position(&self) -> Position {
        self.fold
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .position
    }

    /// The figures as text.
    ///
    /// # Errors
    /// Never: a text takes whatever is written to it.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl BuildMetrics {
    fn register(registry: &mut Registry) -> Self {
        let made = Self {
            requested: Family::default(),
            finished: Family::default(),
            retried: Counter::default(),
            phase_seconds: PhaseSeconds::new_with_constructor(phase_histogram),
            cache: Family::default(),
            waiting: Gauge::default(),
            building: Gauge::default(),
            log_bytes: Counter::default(),
        };
        let requested = made.requested.clone();
        registry.register("builds_requested", "Builds that were accepted", requested);
        let finished = made.finished.clone();
        registry.register("builds_finished", "Builds that are over", finished);
        let retried = "Attempts that failed and were followed by another";
        registry.register("build_attempts_retried", retried, made.retried.clone());
        registry.register_with_unit(
            "build_phase_duration",
            "Phases of builds that ended",
            Unit::Seconds,
            made.phase_seconds.clone(),
        );
        let cache = "What was looked up in the cache";
        registry.register("cache_lookups", cache, made.cache.clone());
        let waiting = "Builds that wait for a worker";
        registry.register("builds_waiting", waiting, made.waiting.clone());
        let building = "Builds that are under way";
        registry.register("builds_building", building, made.building.clone());
        registry.register_with_unit(
            "build_log",
            "Text in the logs of builds",
            Unit::Bytes,
            made.log_bytes.clone(),
        );
        made
    }

    fn count(&self, open: &mut BTreeMap<BuildId, Open>, id: &BuildId, event: &Event) {
        match event {
            Event::Requested(requested) => {
                let backend = backend(requested.backend);
                self.requested
                    .get_or_create(&BackendLabels { backend })
                    .inc();
                let is_building = false;
                open.insert(
                    id.clone(),
                    Open {
                        backend,
                        is_building,
                    },
                );
            }
            Event::Started(_) => set_building(open, id, true),
            Event::RetryScheduled(_) => {
                self.retried.inc();
                set_building(open, id, false);
            }
            Event::Snapshotted(_) => self.finish(open, id, "ready", ""),
            Event::Cancelled(_) => self.finish(open, id, "cancelled", ""),
            Event::Failed(failure) => self.finish(open, id, "failed", failure.reason.as_str()),
            Event::PhaseFinished(finished) => {
                let phase = finished.phase.as_str();
                let histogram = self.phase_seconds.get_or_create(&PhaseLabels { phase });
                histogram.observe(Duration::from_millis(finished.duration_ms).as_secs_f64());
            }
            Event::CacheHit(entry) => self.looked_up(entry.kind, "hit", 1),
            Event::CacheMissed(missed) => self.looked_up(missed.entry.kind, "miss", 1),
            Event::CacheBypassed(bypassed) => self.looked_up(bypassed.entry.kind, "bypass", 1),
            Event::FilesCounted(files) => {
                self.looked_up(CacheKind::FileBlob, "hit", files.hits);
                self.looked_up(CacheKind::FileBlob, "miss", files.misses);
                self.looked_up(CacheKind::FileBlob, "bypass", files.bypasses);
            }
            Event::StepLogged(logged) => {
                let bytes: usize = logged.lines.iter().map(|line| line.text.len()).sum();
                self.log_bytes
                    .inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
            }
            Event::PhaseStarted(_)
            | Event::BaseResolved(_)
            | Event::CacheStored(_)
            | Event::StepStarted(_)
            | Event::StepFinished(_)
            | Event::RootfsBuilt(_)
            | Event::RootfsGrown(_)
            | Event::VmBooted(_)
            | Event::StartCommandRan(_)
            | Event::ReadinessPassed(_)
            | Event::CancelRequested(_) => {}
        }
    }

    fn finish(
        &self,
        open: &mut BTreeMap<BuildId, Open>,
        id: &BuildId,
        outcome: &'static str,
        reason: &'static str,
    ) {
        let Some(Open { backend, .. }) = open.remove(id) else {
            return;
        };
        let labels = OutcomeLabels {
            backend,
            outcome,
            reason,
        };
        self.finished.get_or_create(&labels).inc();
    }

    fn looked_up(&self, kind: CacheKind, outcome: &'static str, count: u64) {
        let kind = match kind {
            CacheKind::FileBlob => "file_blob",
            CacheKind::Layer => "layer",
            CacheKind::FinalArtifact => "final_artifact",
        };
        let labels = CacheLabels { kind, outcome };
        self.cache.get_or_create(&labels).inc_by(count);
    }
}

fn set_building(open: &mut BTreeMap<BuildId, Open>, id: &BuildId, is_building: bool) {
    if let Some(open) = open.get_mut(id) {
        open.is_building = is_building;
    }
}

const fn backend(backend: Backend) -> &'static str {
    match backend {
        Backend::Native => "native",
        Backend::Buildkit => "buildkit",
    }
}
