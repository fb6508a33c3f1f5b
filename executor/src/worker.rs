//! The worker: it reads the log, plans, performs, and waits for the log, a build or the shutdown.
//!
//! It learns of its own past only from the log, so a restart is the normal path.

mod attempt;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use domain::build::{Cancelled, Command};
use domain::failure::{Failure, FailureReason};
use domain::ids::{BuildId, WorkerId};
use domain::ports::{EventReader, LogError};
use domain::recorded::Position;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, warn};

use self::attempt::{Attempt, Scribe};
use crate::limits::WorkerLimits;
use crate::plan::{Action, Hands, Known, plan};
use crate::services::Services;

/// Why the worker ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[error("the worker cannot read the event log")]
pub struct WorkerError(#[from] LogError);

/// Builds what the log asks for, a bounded number at a time.
#[derive(Debug)]
pub struct Worker {
    services: Arc<Services>,
    id: WorkerId,
    limits: WorkerLimits,
    known: Known,
    position: Position,
    running: BTreeMap<BuildId, Running>,
    tasks: JoinSet<BuildId>,
    ready: watch::Sender<bool>,
}

/// A build that this worker builds.
#[derive(Debug)]
struct Running {
    stop: CancellationToken,
}

impl Worker {
    /// A worker with its own id. The receiver turns true when it has read the log once.
    pub fn new(services: Arc<Services>, limits: WorkerLimits) -> (Self, watch::Receiver<bool>) {
        let (ready, is_ready) = watch::channel(false);
        let worker = Self {
            id: services.ids.new_worker_id(),
            services,
            limits,
            known: Known::default(),
            position: Position::START,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            ready,
        };
        (worker, is_ready)
    }

    /// Works until `shutdown`; then gives running builds the drain time, stops the rest, and
    /// returns when nothing of any build runs.
    ///
    /// # Errors
    /// [`WorkerError`]: the log is gone. Running builds have been stopped.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), WorkerError> {
        info!(worker.id = %self.id, "worker started");
        let outcome = loop {
            match self.observe().await {
                Ok(()) => {}
                Err(error) => break Err(error),
            }
            self.ready.send_replace(true);
            for action in self.planned() {
                self.perform(action).await;
            }
            let log = self.services.log.clone();
            tokio::select! {
                () = shutdown.cancelled() => break Ok(()),
                behind = log.wait_behind(self.position) => if let Err(error) = behind {
                    break Err(error);
                },
                Some(ended) = self.tasks.join_next() => self.forget(ended),
            }
        };
        self.drain().await;
        info!(worker.id = %self.id, "worker stopped");
        outcome.map_err(WorkerError)
    }

    /// Reads the log up to its end.
    async fn observe(&mut self) -> Result<(), LogError> {
        loop {
            let events = self
                .services
                .log
                .read_all(self.position, self.limits.read_events_max)
                .await?;
            let Some(last) = events.last() else {
                return Ok(());
            };
            self.position = last.position;
            for recorded in &events {
                self.known.apply(recorded);
                self.services.vault.observe(recorded);
            }
        }
    }

    fn planned(&self) -> Vec<Action> {
        let secrets = self.services.vault.builds();
        let running: BTreeSet<BuildId> = self.running.keys().cloned().collect();
        let stopping = self
            .running
            .iter()
            .filter(|(_, running)| running.stop.is_cancelled())
            .map(|(id, _)| id.clone())
            .collect();
        let hands = Hands {
            worker: &self.id,
            running: &running,
            stopping: &stopping,
            secrets: &secrets,
            concurrent_builds_max: self.limits.concurrent_builds_max,
            owner_concurrent_builds_max: self.limits.owner_concurrent_builds_max,
            told_places_max: self.limits.told_places_max,
        };
        plan(&self.known, &hands)
    }

    async fn perform(&mut self, action: Action) {
        match action {
            Action::Start(build) => self.start(build),
            Action::Queue { build, place } => {
                self.record(&build, Command::Queue { place }).await;
            }
            Action::Stop(build) => {
                if let Some(running) = self.running.get(&build) {
                    running.stop.cancel();
                }
            }
            Action::RecordLost {
                build,
                fence,
                secrets_lost,
            } => {
                let failure = if secrets_lost {
                    Failure::new(
                        FailureReason::SecretsLost,
                        "The service restarted while it built; the secret values of the request \
                         lived in its memory only.",
                    )
                } else {
                    Failure::new(
                        FailureReason::WorkerLost,
                        "The service restarted while it built.",
                    )
                };
                self.record(&build, Command::Fail { fence, failure }).await;
            }
            Action::RecordCancelled { build, fence } => {
                let cancelled = Cancelled {
                    killed: vec!["the worker that built it".to_owned()],
                    aftermath: Some(self.services.swept.clone()),
                };
                let confirm = Command::ConfirmCancelled { fence, cancelled };
                self.record(&build, confirm).await;
            }
            Action::Abandon(build) => {
                let failure = Failure::new(
                    FailureReason::SecretsLost,
                    "The service restarted before it built; the secret values of the request \
                     lived in its memory only.",
                );
                self.record(&build, Command::Abandon { failure }).await;
            }
        }
    }

    async fn record(&self, build: &BuildId, command: Command) {
        let scribe = Scribe {
            services: Arc::clone(&self.services),
            worker: self.id.clone(),
            build: build.clone(),
        };
        scribe.record(command).await;
    }

    fn start(&mut self, build: BuildId) {
        let stop = CancellationToken::new();
        self.running
            .insert(build.clone(), Running { stop: stop.clone() });
        let attempt = Attempt {
            scribe: Scribe {
                services: Arc::clone(&self.services),
                worker: self.id.clone(),
                build: build.clone(),
            },
            stop,
            seconds_max: self.limits.build_seconds_max,
        };
        let span = tracing::info_span!("attempt", build.id = %build);
        self.tasks.spawn(attempt.run().instrument(span));
    }

    fn forget(&mut self, ended: Result<BuildId, tokio::task::JoinError>) {
        match ended {
            Ok(build) => {
                self.running.remove(&build);
            }
            // Attempts catch their own panics, and nobody aborts them.
            Err(error) => error!(%error, "an attempt was lost"),
        }
    }

    async fn drain(&mut self) {
        let deadline = Duration::from_secs(self.limits.drain_seconds_max);
        if tokio::time::timeout(deadline, self.joined()).await.is_err() {
            for (build, running) in &self.running {
                warn!(build.id = %build, "stopped by the shutdown; it goes on after the next start");
                running.stop.cancel();
            }
            self.joined().await;
        }
    }

    async fn joined(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            self.forget(ended);
        }
    }
}
