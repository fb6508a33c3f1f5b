//! What an attempt tells the log: events at once, lines in batches, both in the order in which
//! they happened.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use commands::dispatch::{DispatchError, Dispatcher, Meta};
use commands::ids::IdSource;
use domain::build::{
    Command, Event, Fence, LogLine, LogStream, Phase, PhaseFinished, PhaseStarted, Rejection,
    StepLogged,
};
use domain::ids::{BuildId, WorkerId};
use domain::ports::Clock;
use domain::recorded::Actor;

use crate::limits::output::OutputLimits;
use crate::output::batch::{BatchError, Batcher, LogSender, StepLines, StepPlace};
use crate::output::budget::LogBudget;
use crate::output::mask::Mask;

/// An attempt that has nobody to report to any more.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The log did not take an event.
    #[error("an event of the build could not be recorded")]
    Event(#[source] DispatchError<Rejection>),
    /// The log did not take a batch of lines; what comes after it is lost too.
    #[error("lines of the build's log could not be recorded")]
    Lines,
}

/// Where in the build lines are written at present.
///
/// The phase changes only between batches: an event that changes it is recorded behind every line that
/// was written before.
#[derive(Clone, Copy, Debug)]
struct Place {
    phase: Phase,
    step: Option<StepPlace>,
}

/// Records what one attempt of a build does. Cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    recorder: Recorder,
    lines: LogSender,
    place: Arc<Mutex<Place>>,
    clock: Arc<dyn Clock>,
    mask: Mask,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter")
            .field("recorder", &self.recorder)
            .finish_non_exhaustive()
    }
}

/// Appends to the stream of one attempt.
#[derive(Clone, Debug)]
struct Recorder {
    dispatcher: Dispatcher,
    ids: Arc<IdSource>,
    worker: WorkerId,
    build: BuildId,
    fence: Fence,
}

/// The other end of a [`Reporter`]: the task that batches its lines.
#[derive(Debug)]
pub struct Reporting {
    batcher: Batcher<DispatchError<Rejection>>,
}

/// A part of the pipeline that is under way.
#[derive(Debug)]
#[must_use = "a phase that is not finished has no duration"]
pub struct PhaseClock {
    phase: Phase,
    since: Instant,
}

impl Recorder {
    async fn record(&self, events: Vec<Event>) -> Result<(), DispatchError<Rejection>> {
        let meta = Meta {
            command_id: self.ids.new_command_id(),
            actor: Actor::Worker {
                id: self.worker.clone(),
            },
        };
        let command = Command::Report {
            fence: self.fence,
            events,
        };
        self.dispatcher
            .build(&self.build, meta, command)
            .await
            .map(|_| ())
    }
}

/// Who reports: the attempt of `build` with this `fence`, by `worker`.
#[derive(Clone, Debug)]
pub struct AttemptId {
    /// The worker.
    pub worker: WorkerId,
    /// The build.
    pub build: BuildId,
    /// The attempt.
    pub fence: Fence,
}

/// Begins to report for `attempt`. Must be called within a tokio runtime.
pub fn begin(
    attempt: AttemptId,
    dispatcher: Dispatcher,
    ids: Arc<IdSource>,
    clock: Arc<dyn Clock>,
    limits: OutputLimits,
) -> (Reporter, Reporting) {
    let AttemptId {
        worker,
        build,
        fence,
    } = attempt;
    let recorder = Recorder {
        dispatcher,
        ids,
        worker,
        build,
        fence,
    };
    let place = Arc::new(Mutex::new(Place {
        phase: Phase::Preparing,
        step: None,
    }));
    let (sink, sink_place) = (recorder.clone(), Arc::clone(&place));
    let budget = Arc::new(LogBudget::new(&limits));
    let batcher = Batcher::spawn(limits, budget, move |batch| {
        let recorder = sink.clone();
        let phase = sink_place
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .phase;
        let logged = |of_step: StepLines| {
            Event::StepLogged(StepLogged {
                phase,
                step: of_step.step,
                first_offset: 0,
                lines: of_step.lines,
            })
        };
        let events = batch.into_iter().map(logged).collect();
        async move { recorder.record(events).await }
    });
    let lines = batcher.sender();
    (
        Reporter {
            recorder,
            lines,
            place,
            clock,
            mask: Mask::nothing(),
        },
        Reporting { batcher },
    )
}

impl Reporting {
    /// Waits until every line that was written is recorded.
    ///
    /// # Errors
    /// [`ReportError`]: lines were lost.
    pub async fn finish(self) -> Result<(), ReportError> {
        match self.batcher.finish().await {
            Ok(_) => Ok(()),
            Err(BatchError::Sink(error)) => Err(ReportError::Event(error)),
            Err(BatchError::Lost(_)) => Err(ReportError::Lines),
        }
    }
}

impl Reporter {
    /// The same, without what `mask` hides in its lines.
    #[must_use]
    pub fn masked(self, mask: Mask) -> Self {
        Self { mask, ..self }
    }

    /// Records an event, behind every line that was written before.
    ///
    /// # Errors
    /// [`ReportError`]: the attempt is over for the log.
    pub async fn event(&self, event: Event) -> Result<(), ReportError> {
        self.lines.flush().await.map_err(|_| ReportError::Lines)?;
        self.move_to(&event);
        self.recorder
            .record(vec![event])
            .await
            .map_err(ReportError::Event)
    }

    /// Records events of the phase under way in one go, behind every line that was written before.
    ///
    /// # Errors
    /// [`ReportError`]: the attempt is over for the log.
    pub async fn events(&self, events: Vec<Event>) -> Result<(), ReportError> {
        self.lines.flush().await.map_err(|_| ReportError::Lines)?;
        self.recorder
            .record(events)
            .await
            .map_err(ReportError::Event)
    }

    fn move_to(&self, event: &Event) {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::PhaseStarted(PhaseStarted { phase }) = event {
            *place = Place {
                phase: *phase,
                step: None,
            };
        } else if let Event::StepStarted(started) = event {
            place.step = Some((started.index, started.total));
        } else if let Event::StepFinished(_) = event {
            place.step = None;
        }
    }

    /// Records that a phase began.
    ///
    /// # Errors
    /// [`ReportError`]: the attempt is over for the log.
    pub async fn begin(&self, phase: Phase) -> Result<PhaseClock, ReportError> {
        self.event(Event::PhaseStarted(PhaseStarted { phase }))
            .await?;
        Ok(PhaseClock {
            phase,
            since: Instant::now(),
        })
    }

    /// Records that a phase ended.
    ///
    /// # Errors
    /// [`ReportError`]: the attempt is over for the log.
    pub async fn end(&self, clock: PhaseClock) -> Result<(), ReportError> {
        self.end_phase(clock, None).await
    }

    /// Records that a phase ended in which so many bytes came from a registry.
    ///
    /// # Errors
    /// [`ReportError`]: the attempt is over for the log.
    pub async fn end_pull(&self, clock: PhaseClock, pulled_bytes: u64) -> Result<(), ReportError> {
        self.end_phase(clock, Some(pulled_bytes)).await
    }

    async fn end_phase(
        &self,
        clock: PhaseClock,
        pulled_bytes: Option<u64>,
    ) -> Result<(), ReportError> {
        let duration_ms = millis(clock.since);
        self.event(Event::PhaseFinished(PhaseFinished {
            phase: clock.phase,
            duration_ms,
            pulled_bytes,
        }))
        .await
    }

    /// Writes a line of the phase and step under way; waits while the log is busy.
    ///
    /// # Errors
    /// [`ReportError::Lines`]: the log takes no more lines.
    pub async fn line(&self, stream: LogStream, text: String) -> Result<(), ReportError> {
        let step = self
            .place
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .step;
        self.line_of(step, stream, text).await
    }

    /// Writes a line of a step, or of none, where several are under way.
    ///
    /// # Errors
    /// [`ReportError::Lines`]: the log takes no more lines.
    pub async fn line_of(
        &self,
        step: Option<StepPlace>,
        stream: LogStream,
        text: String,
    ) -> Result<(), ReportError> {
        let line = LogLine {
            at: self.clock.now(),
            stream,
            text: self.mask.hide(text),
        };
        let sent = self.lines.send(step, line).await;
        sent.map_err(|_| ReportError::Lines)
    }

    /// Writes a line of the builder itself.
    ///
    /// # Errors
    /// [`ReportError::Lines`]: the log takes no more lines.
    pub async fn say(&self, text: impl Into<String>) -> Result<(), ReportError> {
        self.line(LogStream::System, text.into()).await
    }

    /// Writes a line that deserves attention.
    ///
    /// # Errors
    /// [`ReportError::Lines`]: the log takes no more lines.
    pub async fn warn(&self, text: impl Into<String>) -> Result<(), ReportError> {
        self.line(LogStream::Warning, text.into()).await
    }
}

/// Whole milliseconds since `since`.
pub fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
