//! One attempt of a build: started in the log, run, and ended in the log, whatever happens.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use commands::dispatch::{DispatchError, Meta};
use domain::build::{Build, Cancelled, Command, Fence, Rejection};
use domain::failure::{Failure, FailureReason};
use domain::ids::{BuildId, WorkerId};
use domain::ports::LogError;
use domain::recorded::Actor;
use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::holdings::Holdings;
use crate::pipeline::{self, Ended, Job};
use crate::report::{self, AttemptId};
use crate::services::Services;
use domain::causes::chain;

/// One attempt of one build, from its start to its end in the log.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) scribe: Scribe,
    pub(super) stop: CancellationToken,
    pub(super) seconds_max: u64,
}

impl Attempt {
    /// Runs it; the build, when nothing of the attempt runs any more.
    pub(super) async fn run(self) -> BuildId {
        let build = self.scribe.build.clone();
        let worker = self.scribe.worker.clone();
        match self.scribe.clone().give(Command::Start { worker }).await {
            Ok(Build::Building(accepted, attempt)) => {
                info!(attempt = accepted.attempt_count, "building");
                Box::pin(self.build(Job::new(&build, &accepted), attempt.fence)).await;
            }
            Ok(_) => error!("a started build is not building"),
            // Cancelled, or taken meanwhile: the log tells the plan.
            Err(DispatchError::Rejected(rejection)) => debug!(%rejection, "not started"),
            Err(error) => error!(error = %chain(&error), "could not start the build"),
        }
        build
    }

    async fn build(self, job: Job, fence: Fence) {
        let Scribe {
            services,
            worker,
            build,
        } = self.scribe.clone();
        let id = AttemptId {
            worker,
            build,
            fence,
        };
        let (reporter, reporting) = report::begin(
            id,
            services.dispatcher.clone(),
            Arc::clone(&services.ids),
            Arc::clone(&services.clock),
            services.limits.output,
        );
        // The pipeline is told to stop and then awaited, never dropped: it leaves nothing behind.
        let timed_out = CancellationToken::new();
        let watchdog = tokio::spawn(stop_after(
            Duration::from_secs(self.seconds_max),
            self.stop.clone(),
            timed_out.clone(),
        ));
        let holdings = Holdings::new();
        let told = tokio::spawn(moment_of(self.stop.clone()));
        let (stop, held) = (self.stop.clone(), holdings.clone());
        let pipeline = Box::pin(pipeline::run(&services, job, reporter, stop, held));
        let ended = AssertUnwindSafe(pipeline)
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                Ended::Failed(Failure::new(
                    FailureReason::Internal,
                    "The builder ran into a defect.",
                ))
            });
        watchdog.abort();
        if let Err(error) = reporting.finish().await {
            warn!(error = %chain(&error), "the end of the build's log is lost");
        }
        let timed_out = timed_out.is_cancelled();
        let lease = match &ended {
            Ended::Ready(_, artifact) => Some(artifact.clone()),
            Ended::Failed(_) | Ended::Stopped { .. } => None,
        };
        let stopped = Stopped {
            holdings,
            since: if told.is_finished() {
                told.await.unwrap_or_else(|_| Instant::now())
            } else {
                // The log told the pipeline before it told the worker.
                told.abort();
                Instant::now()
            },
        };
        let command = self.last_word(ended, fence, timed_out, &stopped).await;
        self.scribe.clone().conclude(command, &stopped).await;
        // Whoever asks the log for what needs the artifact finds the build in it now.
        drop(lease);
        keep_within(&services).await;
    }

    /// What the log is told at the end of an attempt.
    async fn last_word(
        &self,
        ended: Ended,
        fence: Fence,
        timed_out: bool,
        stopped: &Stopped,
    ) -> Command {
        match ended {
            Ended::Ready(snapshotted, _) => Command::Complete { fence, snapshotted },
            Ended::Stopped { .. } if timed_out => {
                let message = format!("The build took longer than {} s.", self.seconds_max);
                Command::Fail {
                    fence,
                    failure: Failure::new(FailureReason::Timeout, message),
                }
            }
            Ended::Failed(failure) => {
                if failure.reason.retried_by_itself() {
                    // Nothing that whoever asked for the build could have done better.
                    warn!(
                        failure.reason = failure.reason.as_str(),
                        failure.message, "the attempt failed"
                    );
                }
                Command::Fail { fence, failure }
            }
            Ended::Stopped { killed } => {
                // Stopped by a cancellation, or by the shutdown of the service: the log knows.
                match self
                    .scribe
                    .services
                    .dispatcher
                    .load_build(&self.scribe.build)
                    .await
                {
                    Ok((Build::Cancelling(..), _)) => Command::ConfirmCancelled {
                        fence,
                        cancelled: self.scribe.look(killed, stopped).await,
                    },
                    _ => Command::Fail {
                        fence,
                        failure: unfinished(self.stop.is_cancelled()),
                    },
                }
            }
        }
    }
}

/// What an attempt that has ended held, and since when it was to end.
#[derive(Debug)]
pub(super) struct Stopped {
    holdings: Holdings,
    since: Instant,
}

/// When it was told to stop.
async fn moment_of(stop: CancellationToken) -> Instant {
    stop.cancelled().await;
    Instant::now()
}

/// Makes room in the layer store; what is needed stays, whatever the bounds say.
async fn keep_within(services: &Services) {
    let limits = &services.limits.worker;
    let (bytes_max, free_bytes_min) = (limits.layer_bytes_max, limits.layer_free_bytes_min);
    match services.layers.keep_within(bytes_max, free_bytes_min).await {
        Ok(evicted) => {
            if !evicted.layers.is_empty() {
                info!(
                    layer_count = evicted.layers.len(),
                    freed_bytes = evicted.content_bytes,
                    left_bytes = evicted.left_bytes,
                    "evicted layers"
                );
            }
            if evicted.left_bytes > bytes_max {
                warn!(
                    left_bytes = evicted.left_bytes,
                    bytes_max,
                    pinned_bytes = evicted.pinned_bytes,
                    used_bytes = evicted.used_bytes,
                    "the layer store is above its bound: the rest is needed by templates and builds"
                );
            }
        }
        Err(error) => {
            warn!(error = %chain(&error), "the layer store could not be kept within its bounds");
        }
    }
}

/// Tells a build to stop when its time is over.
async fn stop_after(time: Duration, stop: CancellationToken, timed_out: CancellationToken) {
    tokio::time::sleep(time).await;
    timed_out.cancel();
    stop.cancel();
}

/// Who tells the log about a build.
///
/// Owned, because the compiler cannot show that futures which borrow it across a dispatch may
/// change threads ("implementation of `Send` is not general enough").
#[derive(Clone, Debug)]
pub(super) struct Scribe {
    pub(super) services: Arc<Services>,
    pub(super) worker: WorkerId,
    pub(super) build: BuildId,
}

impl Scribe {
    async fn give(self, command: Command) -> Result<Build, DispatchError<Rejection>> {
        let meta = Meta {
            command_id: self.services.ids.new_command_id(),
            actor: Actor::Worker { id: self.worker },
        };
        let done = self
            .services
            .dispatcher
            .build(&self.build, meta, command)
            .await?;
        Ok(done.state)
    }

    /// Looks for what a stopped attempt held: what the log is told of its cancellation.
    async fn look(&self, mut killed: Vec<String>, stopped: &Stopped) -> Cancelled {
        if killed.is_empty() {
            killed = stopped.holdings.running();
        }
        let limits = &self.services.limits.worker;
        let aftermath = stopped.holdings.settle(stopped.since, limits).await;
        let left = aftermath.iter().flat_map(|aftermath| &aftermath.left);
        for thing in left {
            error!(build.id = %self.build, thing, "a cancelled build has left something behind");
        }
        Cancelled { killed, aftermath }
    }

    /// Tells the log how an attempt ended, or what can be said instead if the log does not take it.
    async fn conclude(self, command: Command, stopped: &Stopped) {
        let fence = match &command {
            Command::Complete { fence, .. } | Command::Fail { fence, .. } => *fence,
            Command::Request(_)
            | Command::Queue { .. }
            | Command::Start { .. }
            | Command::Report { .. }
            | Command::Abandon { .. }
            | Command::Cancel { .. }
            | Command::ConfirmCancelled { .. } => return self.record(command).await,
        };
        let outcome = self.clone().give(command).await;
        let instead = match &outcome {
            Ok(_) => None,
            Err(DispatchError::Rejected(Rejection::CancelRequested)) => {
                let cancelled = self.look(Vec::new(), stopped).await;
                Some(Command::ConfirmCancelled { fence, cancelled })
            }
            Err(error) => instead(error, fence),
        };
        match instead {
            Some(command) => self.record(command).await,
            None => self.told(outcome),
        }
    }

    /// Gives a command about a build; that the log does not take it is the end of the matter.
    pub(super) async fn record(self, command: Command) {
        let outcome = self.clone().give(command).await;
        self.told(outcome);
    }

    fn told(&self, outcome: Result<Build, DispatchError<Rejection>>) {
        match outcome {
            Ok(_) => {}
            Err(DispatchError::Rejected(rejection)) => {
                info!(build.id = %self.build, %rejection, "outcome refused");
            }
            Err(error) => {
                error!(build.id = %self.build, error = %chain(&error), "outcome could not be recorded");
            }
        }
    }
}

/// Why an attempt that nobody cancelled stopped before its end.
fn unfinished(shut_down: bool) -> Failure {
    if shut_down {
        let message = "The service was shut down while it built.";
        Failure::new(FailureReason::WorkerLost, message)
    } else {
        let message = "The build's log could not be written.";
        Failure::new(FailureReason::Internal, message)
    }
}

/// What an attempt says when its outcome was not taken because of `error`: a build must not stay
/// under way for ever. `None`: nothing that would be taken.
fn instead(error: &DispatchError<Rejection>, fence: Fence) -> Option<Command> {
    if let DispatchError::Log(error @ LogError::TooLarge { .. }) = error {
        let message = format!("The build's outcome could not be recorded: {error}.");
        let failure = Failure::new(FailureReason::Internal, message);
        return Some(Command::Fail { fence, failure });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_that_the_log_finds_too_large_fails_the_build() {
        let error = DispatchError::Log(LogError::TooLarge {
            bytes: 300_000,
            bytes_max: 262_144,
        });
        let Some(Command::Fail { fence, failure }) = instead(&error, Fence(1)) else {
            panic!("the build would stay under way")
        };
        assert_eq!((fence, failure.reason), (Fence(1), FailureReason::Internal));
        assert!(failure.message.contains("300000"), "{}", failure.message);
    }

    #[test]
    fn a_late_outcome_stays_refused() {
        let error = DispatchError::Rejected(Rejection::Finished);
        assert_eq!(instead(&error, Fence(1)), None);
    }
}
