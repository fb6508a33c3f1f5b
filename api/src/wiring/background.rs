//! Work that goes on as long as the service does.

use std::error::Error;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use domain::causes::chain;

/// How long work in the background may take to end once it was told to. The worker gives running
/// builds 30 seconds of their own and then stops them.
const PATIENCE: Duration = Duration::from_mins(1);

/// Work in the background. What ends without being told to is a failure.
#[derive(Debug, Default)]
pub struct Background {
    tasks: JoinSet<Ended>,
    first: CancellationToken,
    last: CancellationToken,
    /// How many tasks there are that only stop when the others have.
    last_count: usize,
}

/// How a task ended.
#[derive(Debug)]
struct Ended {
    name: &'static str,
    outcome: Result<(), Box<dyn Error + Send + Sync>>,
}

/// Something in the background has ended that must not.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` has ended")]
pub struct BackgroundError {
    name: &'static str,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Background {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells work to stop as soon as the service stops.
    pub fn first(&self) -> CancellationToken {
        self.first.clone()
    }

    /// Tells work to stop once everything that got [`Background::first`] has stopped.
    pub fn last(&mut self) -> CancellationToken {
        self.last_count += 1;
        self.last.clone()
    }

    /// Starts work.
    pub fn spawn(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send + 'static,
    ) {
        self.tasks.spawn(async move {
            Ended {
                name,
                outcome: work.await,
            }
        });
    }

    /// Waits until something ends by itself.
    pub(super) async fn failed(&mut self) -> BackgroundError {
        match self.tasks.join_next().await {
            None => std::future::pending().await,
            Some(Ok(ended)) => BackgroundError {
                name: ended.name,
                source: ended.outcome.err(),
            },
            Some(Err(err)) => BackgroundError {
                name: "a task",
                source: Some(err.into()),
            },
        }
    }

    /// Stops everything, in order, within a bound.
    pub(super) async fn stop(&mut self) {
        self.first.cancel();
        let stopping = async {
            while self.tasks.len() > self.last_count {
                self.join().await;
            }
            self.last.cancel();
            while !self.tasks.is_empty() {
                self.join().await;
            }
        };
        if tokio::time::timeout(PATIENCE, stopping).await.is_err() {
            tracing::error!(
                task_count = self.tasks.len(),
                "work in the background did not stop in time"
            );
        }
        self.tasks.shutdown().await;
    }

    async fn join(&mut self) {
        match self.tasks.join_next().await {
            None => {}
            Some(Ok(Ended {
                name,
                outcome: Err(err),
            })) => tracing::error!(name, error = chain(err.as_ref()), "stopped badly"),
            Some(Ok(Ended { name, .. })) => tracing::debug!(name, "stopped"),
            Some(Err(err)) => tracing::error!(error = chain(&err), "a task was lost"),
        }
    }
}
