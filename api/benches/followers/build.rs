//! The build: lines at a steady pace, in the batches in which the worker reports them.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use api::service::App;
use commands::Meta;
use domain::build::{self, Build, Command, Fence};
use domain::ids::BuildId;
use domain::recorded::Actor;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};

use crate::figures::Delays;

pub(crate) const LINES_A_SECOND: usize = 2_000;
/// How long the worker gathers lines.
const BATCH: Duration = Duration::from_millis(20);
const BATCH_LINE_COUNT: usize = 40;
/// What the first line of a batch begins with; its number follows, in six digits.
pub(crate) const BATCH_MARK: &str = "batch ";
/// What lines are filled up with.
const FILLING: &str = "Get:42 http://deb.debian.org/debian bookworm/main amd64 libc6";
/// Larger than what the kernel takes for a connection that nobody reads.
const FILL_COUNT: usize = 64;
const FILL_LINE_BYTES: usize = 200_000;

pub(crate) fn line_count(batch_count: usize) -> usize {
    batch_count * BATCH_LINE_COUNT
}

/// When the step wrote the last line of each batch; the others came before it at an even pace.
#[derive(Debug)]
pub(crate) struct Written(Vec<OnceLock<Instant>>);

impl Written {
    pub(crate) fn new(batch_count: usize) -> Self {
        Self((0..batch_count).map(|_| OnceLock::new()).collect())
    }

    pub(crate) fn batch_count(&self) -> usize {
        self.0.len()
    }

    /// Counts how long ago each line of the batch was written.
    pub(crate) fn count(&self, batch: usize, delays: &mut Delays) {
        let last = self.0.get(batch).and_then(OnceLock::get).unwrap();
        let gap = Duration::from_secs(1) / u32::try_from(LINES_A_SECOND).unwrap();
        let since = last.elapsed();
        for line in 0..u32::try_from(BATCH_LINE_COUNT).unwrap() {
            delays.add(since + gap * line);
        }
    }
}

/// How it went.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) duration: Duration,
    pub(crate) appends: Delays,
}

/// Where builds are made.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) app: Arc<App>,
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
}

/// A build that is under way.
struct Running<'a> {
    app: &'a App,
    id: BuildId,
    fence: Fence,
}

impl Place {
    /// Fills the log with what no reader takes in at once.
    pub(crate) async fn fill(&self) {
        let build = self.start_build().await;
        for _ in 0..FILL_COUNT {
            build.log(vec!["x".repeat(FILL_LINE_BYTES)]).await;
        }
    }

    /// Makes a build that logs as many batches as `written` has room for.
    pub(crate) async fn run(&self, written: &Written) -> Outcome {
        let build = self.start_build().await;
        let mut appends = Delays::new();
        let since = Instant::now();
        let mut ticks = tokio::time::interval(BATCH);
        // A batch that came late does not move those behind it: the step writes on.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for batch in 0..written.batch_count() {
            let due = ticks.tick().await;
            written.0.get(batch).unwrap().set(due).unwrap();
            let lines = (0..BATCH_LINE_COUNT).map(|line| line_text(batch, line));
            let before = Instant::now();
            build.log(lines.collect()).await;
            appends.add(before.elapsed());
        }
        Outcome {
            duration: since.elapsed(),
            appends,
        }
    }

    async fn start_build(&self) -> Running<'_> {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}/v1/templates/builds", self.address);
        let request = client.post(url).bearer_auth(&self.key);
        let accepted = request.json(&json!({"base_image": "a"})).send().await;
        let accepted: Value = accepted.unwrap().json().await.unwrap();
        let id = accepted.get("build_id").and_then(Value::as_str);
        let id: BuildId = id.unwrap().parse().unwrap();
        let command = Command::Start {
            worker: self.app.ids.new_worker_id(),
        };
        let started = self.app.dispatcher.build(&id, meta(&self.app), command);
        let Build::Building(_, attempt) = started.await.unwrap().state else {
            unreachable!("a build that was started is being built")
        };
        Running {
            app: &self.app,
            id,
            fence: attempt.fence,
        }
    }
}

/// The first line of a batch says which it is.
fn line_text(batch: usize, line: usize) -> String {
    match line {
        0 => format!("{BATCH_MARK}{batch:06} {FILLING}"),
        _ => format!("{line} {FILLING}"),
    }
}

fn meta(app: &App) -> Meta {
    Meta {
        command_id: app.ids.new_command_id(),
        actor: Actor::Worker {
            id: app.ids.new_worker_id(),
        },
    }
}

impl Running<'_> {
    async fn log(&self, lines: Vec<String>) {
        let at = self.app.clock.0.now();
        let lines = lines.into_iter().map(|text| build::LogLine {
            at,
            stream: build::LogStream::Stdout,
            text,
        });
        let logged = build::StepLogged {
            phase: build::Phase::Step,
            step: Some((1, 1)),
            first_offset: 0,
            lines: lines.collect(),
        };
        let command = Command::Report {
            fence: self.fence,
            events: vec![build::Event::StepLogged(logged)],
        };
        let done = self.app.dispatcher.build(&self.id, meta(self.app), command);
        done.await.unwrap();
    }
}
