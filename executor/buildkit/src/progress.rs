//! From the lines of `buildctl --progress=rawjson` to events.
//!
//! ```text
//! lines ─┬─ JSON ─► wire ─┬─ vertexes ─► graph ─► steps ──────────► StepStarted, StepFinished
//!        │                ├─ logs ─────► output ──────────────────► StepOutput
//!        │                └─ vertexes that are no steps, warnings ► Note, Warning
//!        └─ text ────────────────────────────────────► outcome ──► Failure
//! ```
//!
//! Within a line, what happened is put in order by the daemon's clock: a line holds what came together,
//! sorted by kind. A line with more than 1 MiB of output goes on in the next one,
//! which holds the rest of the output only.

mod graph;
mod lines;
mod name;
mod notes;
mod output;
mod pending;
mod place;
mod steps;
mod tail;
mod text;
mod wire;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::event::{Event, Failure, OutputStream};
use crate::limits::BuildkitLimits;
use crate::outcome::{self, Ending, FailedStep};
use graph::{Graph, Met, Run, VertexId};
pub use lines::{Line, Lines};
use notes::{Notes, is_export};
use pending::{Happening, Pending, What};
use steps::{Announced, Steps};
use text::Text;
use wire::{Status, Time, VertexWarning};

pub(crate) use text::shorten;

/// Beyond this many bytes of output the daemon begins a new line.
const LINE_OUTPUT_BYTES_MAX: usize = 1024 * 1024;

/// How many lines may wait for the last step to be announced.
const ANNOUNCEMENT_LINES_MAX: u32 = 8;

/// What is known of a build from what `buildctl` has said so far.
///
/// Each step starts once and ends at most once. Within a stage steps start in order. The output of a
/// step comes while it is under way, but for one case: BuildKit may call a step cached for one that
/// builds on it, and do it after all for another.
#[derive(Debug)]
pub struct Tracker {
    limits: BuildkitLimits,
    graph: Graph,
    steps: Steps,
    notes: Notes,
    text: Text,
    /// What happened after what the lines so far have told to the end.
    pending: Pending,
    /// How many lines have waited for the last step to be announced.
    waited: u32,
}

impl Tracker {
    /// A build of a Dockerfile whose stages have these names, in order; none if they are not known.
    pub fn new(stages: &[Option<String>], limits: &BuildkitLimits) -> Self {
        Self {
            limits: limits.clone(),
            graph: Graph::new(limits.progress_vertexes_max),
            steps: Steps::new(stages, limits),
            notes: Notes::new(limits),
            text: Text::new(limits.text_tail_bytes_max),
            pending: Pending::default(),
            waited: 0,
        }
    }

    /// Takes one line without its end, and appends what it tells to `events`.
    pub fn line(&mut self, line: &[u8], events: &mut Vec<Event>) {
        let status = line.starts_with(b"{").then(|| serde_json::from_slice(line));
        if let Some(Ok(status)) = status {
            self.status(&status, events);
        } else if let Some(warning) = self.text.line(line) {
            self.notes.warning(&warning, events);
        }
    }

    /// A line of `bytes` bytes was too long to be read.
    pub fn left_out(&mut self, bytes: u64, events: &mut Vec<Event>) {
        let warning = format!("BuildKit's progress had a line of {bytes} bytes, which is left out");
        self.notes.warning(&warning, events);
    }

    /// `buildctl` has ended, with this exit code unless a signal killed it: what was held back, and how
    /// the build ended.
    ///
    /// # Errors
    /// The build failed.
    #[expect(
        clippy::result_large_err,
        reason = "a build ends once, and whoever asks wants all of it"
    )]
    pub fn finish(mut self, exit: Option<i32>, events: &mut Vec<Event>) -> Result<(), Failure> {
        self.happen(Time::MAX, events);
        for id in self.graph.ids() {
            self.end_output(id, exit != Some(0), events);
        }
        if exit == Some(0) {
            self.number();
            self.steps.end_all(&self.graph, events);
            return Ok(());
        }
        let error = self.text.error().unwrap_or_default();
        let step = self.graph.failed(error);
        self.steps.end_done(&self.graph, step, events);
        let lines_max = self.limits.output_tail_lines_max;
        let failed = step.map(|step| FailedStep {
            output_tail: self.steps.take_lines(step, lines_max),
            step: self.steps.step(step),
        });
        Err(outcome::failure(Ending {
            exit,
            error: self.text.error(),
            last_line: self.text.last(),
            excerpt: self.text.excerpt(),
            failed,
            message_bytes_max: self.limits.message_bytes_max,
        }))
    }

    fn status(&mut self, status: &Status<'_>, events: &mut Vec<Event>) {
        let met: Vec<Option<Met>> = status
            .vertexes
            .iter()
            .map(|told| self.graph.meet(told))
            .collect();
        if met.contains(&None) {
            let warning = "the build has too many vertexes: some are left out of its progress";
            self.notes.warn_once(warning, events);
        }
        let announced: Vec<VertexId> = met
            .iter()
            .flatten()
            .filter(|met| met.is_new && self.graph[met.id].step_name.is_some())
            .map(|met| met.id)
            .collect();
        if self.steps.are_numbered() {
            for &id in &announced {
                self.steps.adopt(&mut self.graph, id);
            }
        }
        for status in &status.statuses {
            self.progress(&status.id, &status.vertex, status.current);
        }
        for warning in &status.warnings {
            self.warn(warning, events);
        }
        for (told, met) in status.vertexes.iter().zip(met) {
            if let Some(met) = met {
                self.pending.vertex(met.id, told);
            }
        }
        let until = self.wrote(status, events);
        if self.may_announce_more(!announced.is_empty()) {
            self.waited += 1;
        } else {
            self.happen(until, events);
        }
    }

    /// Whether steps may still be announced that have to be counted before the first one is told: one
    /// that another build is at may come before the last of ours is announced.
    fn may_announce_more(&mut self, is_announcing: bool) -> bool {
        if self.steps.are_numbered() || self.waited >= ANNOUNCEMENT_LINES_MAX {
            return false;
        }
        match self.steps.announced(&self.graph) {
            Announced::Partly => true,
            Announced::Perhaps => is_announcing,
            Announced::Wholly => false,
        }
    }

    /// Part of a vertex's work goes on.
    fn progress(&mut self, work: &str, digest: &str, current: i64) {
        let Some(id) = self.graph.find(digest) else {
            return;
        };
        if work.starts_with("sha256:") || work.starts_with("extracting ") {
            self.graph[id].pulled = true;
        } else if work == "transferring context:" {
            self.graph[id].sent = current;
        }
    }

    fn warn(&mut self, warning: &VertexWarning<'_>, events: &mut Vec<Event>) {
        let Some(Ok(text)) = warning.short.map(|short| BASE64_STANDARD.decode(short)) else {
            return;
        };
        let text = String::from_utf8_lossy(&text);
        let file = warning.source_info.as_ref().map(|source| &source.filename);
        let line = warning.range.first().map(|range| range.start.line);
        if let (Some(file), Some(line)) = (file, line) {
            let rule = text.strip_suffix(&format!(" (line {line})"));
            let rule = rule.unwrap_or(&text);
            self.notes
                .warning(&format!("{rule} ({file}:{line})"), events);
        } else {
            self.notes.warning(&text, events);
        }
    }

    /// Takes the output in a line, and gives the time until which the line tells all that happened.
    fn wrote(&mut self, status: &Status<'_>, events: &mut Vec<Event>) -> Time {
        let mut total = 0;
        for log in &status.logs {
            let Ok(bytes) = BASE64_STANDARD.decode(log.data.unwrap_or_default()) else {
                let warning = "BuildKit's progress had output that cannot be read";
                self.notes.warning(warning, events);
                continue;
            };
            total += bytes.len();
            let vertex = self.graph.find(&log.vertex);
            if let Some(vertex) = vertex.filter(|_| !bytes.is_empty()) {
                let stream = match log.stream {
                    2 => OutputStream::Stderr,
                    _ => OutputStream::Stdout,
                };
                let at = log.timestamp.unwrap_or_default();
                self.pending.push(at, vertex, What::Wrote { stream, bytes });
            }
        }
        let last = status.logs.iter().filter_map(|log| log.timestamp).max();
        match last {
            Some(last) if total > LINE_OUTPUT_BYTES_MAX => last,
            Some(_) | None => Time::MAX,
        }
    }

    /// Lets happen what is pending up to a time.
    fn happen(&mut self, until: Time, events: &mut Vec<Event>) {
        if self.pending.concerns_steps(&self.graph) {
            self.number();
        }
        for Happening { vertex, what, .. } in self.pending.take(until, &self.graph) {
            match what {
                What::Started { at } => self.started(vertex, at, events),
                What::Completed {
                    started,
                    at,
                    cached,
                    error,
                } => {
                    let times = (started, at);
                    self.completed(vertex, times, cached, error, events);
                }
                What::Wrote { stream, bytes } => {
                    let mut news = Vec::new();
                    self.graph[vertex].output(stream).push(bytes, &mut news);
                    self.tell_output(vertex, stream, news, events);
                }
            }
        }
    }

    fn number(&mut self) {
        if !self.steps.are_numbered() {
            self.steps.number(&mut self.graph);
        }
    }

    fn started(&mut self, id: VertexId, at: Time, events: &mut Vec<Event>) {
        let vertex = &mut self.graph[id];
        // A vertex comes whole whenever anything of it changes, and in a line in any order.
        if vertex.run.is_some_and(|run| run.started >= at) {
            return;
        }
        vertex.run = Some(Run {
            started: at,
            completed: None,
        });
        vertex.error.clear();
        if let Some(step) = vertex.step {
            self.steps.begin(&mut self.graph, step, id, events);
        } else if vertex.step_name.is_none() {
            if is_export(&vertex.name) {
                self.number();
                self.steps.end_all(&self.graph, events);
            }
            self.notes.started(&self.graph[id].name, events);
        }
    }

    fn completed(
        &mut self,
        id: VertexId,
        (started, at): (Time, Time),
        cached: bool,
        error: String,
        events: &mut Vec<Event>,
    ) {
        let vertex = &mut self.graph[id];
        let Some(run) = &mut vertex.run else {
            return;
        };
        if run.started != started || run.completed.is_some() {
            return;
        }
        run.completed = Some(at);
        vertex.worked |= !cached;
        vertex.error = error;
        let has_failed = !vertex.error.is_empty();
        if let Some(step) = vertex.step {
            self.steps.worked(step, started, at);
        } else if vertex.step_name.is_none() {
            self.notes
                .completed(&vertex.name, vertex.sent, &vertex.error, events);
        }
        self.end_output(id, has_failed, events);
    }

    /// A vertex's process has ended.
    fn end_output(&mut self, id: VertexId, has_failed: bool, events: &mut Vec<Event>) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let mut news = Vec::new();
            self.graph[id].output(stream).end(has_failed, &mut news);
            self.tell_output(id, stream, news, events);
        }
    }

    fn tell_output(
        &mut self,
        id: VertexId,
        stream: OutputStream,
        news: Vec<Vec<u8>>,
        events: &mut Vec<Event>,
    ) {
        // What no step wrote is about BuildKit's own work.
        if let Some(step) = self.graph[id].step {
            for bytes in news {
                self.steps.write(step, stream, bytes, events);
            }
        }
    }
}

#[cfg(test)]
mod tests;
