//! Tells the log what happens in a build by BuildKit, without the values of its secrets.

use std::collections::BTreeMap;

use buildkit::daemon::Address;
use buildkit::event::{Event as Told, OutputStream, Step};
use domain::Digest;
use domain::build::{
    BypassReason, CacheBypassed, CacheKind, CacheMissed, CacheSubject, Event, LogStream,
    StepFinished, StepStarted,
};

use super::super::Attempt;
use crate::holdings::{Held, Holdings, Thing};
use crate::limits::output::OutputLimits;
use crate::output::feed::Feed;
use crate::output::mask::Mask;
use crate::report::{ReportError, Reporter};

/// Follows one run.
pub(super) struct Observer {
    reporter: Reporter,
    mask: Mask,
    limits: OutputLimits,
    skip_cache: bool,
    /// How many steps there are, as the last one said.
    total: u32,
    /// What steps write that are not over.
    feeds: BTreeMap<(u32, OutputStream), Feed>,
    holdings: Holdings,
    /// The daemon's.
    address: Address,
    /// `buildctl`, on the attempt's list.
    client: Option<Held>,
}

impl Observer {
    pub(super) fn new(attempt: &Attempt<'_>, address: Address) -> Self {
        Self {
            reporter: attempt.reporter.clone(),
            mask: attempt.mask.clone(),
            limits: attempt.services.limits.output,
            skip_cache: attempt.job.requested.definition.skip_cache,
            total: 0,
            feeds: BTreeMap::new(),
            holdings: attempt.holdings.clone(),
            address,
            client: None,
        }
    }

    /// Notes that `buildctl` ended in its own time, unless it was stopped.
    pub(super) fn ended(&self) {
        self.client.iter().for_each(Held::released);
    }

    /// Writes what steps left without an end. Their last lines stay, for a failure.
    pub(super) async fn end_lines(&mut self) -> Result<(), ReportError> {
        let steps: Vec<(u32, OutputStream)> = self.feeds.keys().copied().collect();
        for (step, stream) in steps {
            self.end(step, stream).await?;
        }
        Ok(())
    }

    /// The last lines of a step that is not over: those of its standard error, if it wrote there.
    pub(super) fn tail(&self, step: u32) -> Option<Vec<String>> {
        let tail = |stream| Some(self.feeds.get(&(step, stream))?.tail());
        let tails = [OutputStream::Stderr, OutputStream::Stdout].into_iter();
        let said = tails.filter_map(tail).find(|tail| !tail.is_empty())?;
        Some(said.lines().map(str::to_owned).collect())
    }

    async fn write(
        &self,
        step: u32,
        stream: OutputStream,
        lines: Vec<String>,
    ) -> Result<(), ReportError> {
        let stream = match stream {
            OutputStream::Stdout => LogStream::Stdout,
            OutputStream::Stderr => LogStream::Stderr,
        };
        for line in lines {
            self.reporter
                .line_of(Some((step, self.total)), stream, line)
                .await?;
        }
        Ok(())
    }

    async fn end(&mut self, step: u32, stream: OutputStream) -> Result<(), ReportError> {
        let lines = self.feeds.get_mut(&(step, stream)).map(Feed::end);
        self.write(step, stream, lines.unwrap_or_default()).await
    }

    async fn note(&self, stream: LogStream, text: &str) -> Result<(), ReportError> {
        for line in text.lines() {
            self.reporter.line_of(None, stream, line.to_owned()).await?;
        }
        Ok(())
    }

    async fn start(&mut self, step: Step) -> Result<(), ReportError> {
        self.total = step.total;
        let started = StepStarted {
            index: step.index,
            total: step.total,
            name: self.mask.hide(step.title),
        };
        self.reporter.event(Event::StepStarted(started)).await
    }

    async fn finish(
        &mut self,
        step: &Step,
        duration: std::time::Duration,
        cached: bool,
        vertex: &str,
    ) -> Result<(), ReportError> {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            self.end(step.index, stream).await?;
            self.feeds.remove(&(step.index, stream));
        }
        if let Some(event) = self.cache_event(step, cached, vertex) {
            self.reporter.event(event).await?;
        }
        let finished = StepFinished {
            index: step.index,
            total: step.total,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            exit_code: (!cached && instruction(&step.title) == "RUN").then_some(0),
            cached,
        };
        self.reporter.event(Event::StepFinished(finished)).await
    }

    /// What BuildKit's cache did for the step. It knows a step by the digest of its vertex, which covers
    /// everything that the step is made of. A base image is no result of a step.
    fn cache_event(&self, step: &Step, cached: bool, vertex: &str) -> Option<Event> {
        let key: Digest = vertex.parse().ok()?;
        if instruction(&step.title) == "FROM" {
            return None;
        }
        let entry = CacheSubject {
            kind: CacheKind::Layer,
            subject: self.mask.text(&step.title).into_owned(),
            step_index: Some(step.index),
            key,
        };
        Some(if cached {
            Event::CacheHit(entry)
        } else if self.skip_cache {
            let reason = BypassReason::WholeBuildSkipCache;
            Event::CacheBypassed(CacheBypassed { entry, reason })
        } else {
            let difference = None;
            Event::CacheMissed(CacheMissed { entry, difference })
        })
    }
}

impl buildkit::run::Observer for Observer {
    type Error = ReportError;

    fn begun(&mut self, buildctl: u32) {
        let process = Thing::process("buildctl", buildctl);
        self.client = Some(self.holdings.hold([process]));
    }

    fn stopped(&mut self, is_over: bool) {
        // It stays on the list, as what was cut short.
        self.client = None;
        let what = format!("the build at the BuildKit daemon {}", self.address);
        self.holdings.hold([Thing::Remote { what, is_over }]);
    }

    async fn event(&mut self, event: Told) -> Result<(), ReportError> {
        match event {
            Told::StepStarted(step) => self.start(step).await,
            Told::StepOutput {
                step,
                stream,
                bytes,
            } => {
                let feed = self.feeds.entry((step, stream));
                let feed = feed.or_insert_with(|| Feed::new(&self.mask, &self.limits));
                let lines = feed.push(&bytes);
                self.write(step, stream, lines).await
            }
            Told::StepFinished {
                step,
                duration,
                cached,
                vertex,
            } => self.finish(&step, duration, cached, &vertex).await,
            Told::Note(text) => self.note(LogStream::System, &text).await,
            Told::Warning(text) => self.note(LogStream::Warning, &text).await,
        }
    }
}

/// The instruction that a step is, by its title: `[stage 2/3] RUN make`.
fn instruction(title: &str) -> &str {
    let text = title.split_once("] ").map_or(title, |(_, text)| text);
    text.split_whitespace().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_tells_its_instruction() {
        for (title, expected) in [
            ("[2/3] RUN make", "RUN"),
            ("[build  2/13] COPY --link a b", "COPY"),
            ("RUN x", "RUN"),
            ("", ""),
        ] {
            assert_eq!(instruction(title), expected);
        }
    }
}
