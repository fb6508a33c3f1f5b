//! Keeps the views up to date: one task that follows the log.

use std::sync::Arc;
use std::time::Duration;

use domain::Event;
use domain::ports::{EventReader, LogError};
use domain::recorded::{Position, Recorded};
use tokio::sync::{Mutex, Notify, watch};

use crate::limits::{Limits, RunnerLimits};
use crate::projection::{apply_batch, revisions};
use crate::store::{Checkpoint, LastEvent, StoreError, ViewStore};
use crate::views::Views;

/// Follows the log and applies its events to the views.
#[derive(Debug)]
pub struct Runner {
    store: Arc<dyn ViewStore>,
    applied: watch::Sender<Position>,
    damage: Arc<Notify>,
    /// Held while something is applied; whoever else holds it holds that up.
    turn: Arc<Mutex<()>>,
    limits: RunnerLimits,
}

/// Why the views are no longer kept up to date.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The log cannot be read.
    #[error("the views cannot follow the event log")]
    Log(#[source] LogError),
    /// The views broke again and again, or cannot be made anew.
    #[error("the views cannot be kept")]
    Store(#[source] StoreError),
}

/// What interrupts following the log.
enum Interruption {
    Log(LogError),
    Store(StoreError),
}

impl From<StoreError> for Interruption {
    fn from(err: StoreError) -> Self {
        Self::Store(err)
    }
}

/// What there is to do next.
enum Next {
    Apply(Vec<Recorded<Event>>),
    Stop,
}

/// The views in `store`, and what keeps them up to date. Blocks.
///
/// # Errors
/// [`StoreError`] if rows of another revision cannot be thrown away.
pub fn over(store: Arc<dyn ViewStore>, limits: &Limits) -> Result<(Views, Runner), StoreError> {
    let position = match store.checkpoint()? {
        Some(checkpoint) if checkpoint.revisions == revisions() => checkpoint.position(),
        Some(checkpoint) => {
            tracing::info!(
                stored = checkpoint.revisions,
                wanted = revisions(),
                "the views were written by another revision and are folded anew"
            );
            store.reset()?;
            Position::START
        }
        None => Position::START,
    };
    let (applied, watched) = watch::channel(position);
    let damage = Arc::new(Notify::new());
    let turn = Arc::new(Mutex::new(()));
    let views = Views::new(
        Arc::clone(&store),
        watched,
        Arc::clone(&damage),
        Arc::clone(&turn),
        limits.query,
    );
    let runner = Runner {
        store,
        applied,
        damage,
        turn,
        limits: limits.runner,
    };
    Ok((views, runner))
}

impl Runner {
    /// Follows `log` until `stop` says `true` or its sender is gone.
    ///
    /// # Errors
    /// [`RunError`]: the views stay as they are, and every wait for them ends.
    pub async fn run<R: EventReader>(
        self,
        log: &R,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), RunError> {
        let mut rebuild_count = 0;
        loop {
            match self.follow(log, &mut stop).await {
                Ok(()) => return self.close().await,
                Err(Interruption::Log(err)) => return Err(RunError::Log(err)),
                Err(Interruption::Store(err)) if rebuild_count >= self.limits.rebuilds_max => {
                    return Err(RunError::Store(err));
                }
                Err(Interruption::Store(err)) => {
                    rebuild_count += 1;
                    tracing::error!(
                        error = crate::as_error(&err),
                        rebuild_count,
                        "the views are damaged and are folded anew"
                    );
                    self.reset().await.map_err(RunError::Store)?;
                }
            }
        }
    }

    async fn follow<R: EventReader>(
        &self,
        log: &R,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Interruption> {
        let mut position = self.check_origin(log, stop).await?;
        let mut catch_up = CatchUp::new(position, log.head(), self.limits.progress_events);
        loop {
            match self.next(log, position, stop).await? {
                Next::Stop => return Ok(()),
                Next::Apply(events) => {
                    let event_count = events.len();
                    let turn = self.turn.lock().await;
                    let last = self
                        .blocking(move |store| apply_batch(store, &events))
                        .await?;
                    position = last.map_or(position, |last| last.position);
                    self.applied.send_replace(position);
                    drop(turn);
                    catch_up.applied(event_count, position);
                }
            }
        }
    }

    /// Where to go on, after making sure that the views were folded from this log: a log that was
    /// restored from a copy gives the same positions to other events.
    async fn check_origin<R: EventReader>(
        &self,
        log: &R,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Position, Interruption> {
        let checkpoint = self.blocking(|store| store.checkpoint()).await?;
        let Some(last) = checkpoint.and_then(|checkpoint: Checkpoint| checkpoint.last) else {
            return Ok(Position::START);
        };
        let Some(stored) = self
            .retrying(stop, || log.read_stream(&last.stream, last.version, 1))
            .await?
        else {
            // Asked to stop; the caller finds that out by itself.
            return Ok(last.position);
        };
        let here = stored.first().is_some_and(|recorded| {
            let found = LastEvent {
                position: recorded.position,
                stream: recorded.stream.clone(),
                version: recorded.version,
                hash: recorded.hash,
            };
            found == last
        });
        if here {
            return Ok(last.position);
        }
        tracing::warn!(
            position = last.position.raw(),
            "the views were folded from another event log and are folded anew"
        );
        self.reset().await?;
        Ok(Position::START)
    }

    /// Waits for events behind `position`.
    async fn next<R: EventReader>(
        &self,
        log: &R,
        position: Position,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Next, Interruption> {
        let count_max = self.limits.batch_events_max;
        loop {
            let Some(events) = self
                .retrying(stop, || log.read_all(position, count_max))
                .await?
            else {
                return Ok(Next::Stop);
            };
            if !events.is_empty() {
                return Ok(Next::Apply(events));
            }
            let waited = tokio::select! {
                () = self.damage.notified() => {
                    return Err(StoreError::Damaged("a read failed".to_owned()).into());
                }
                waited = self.retrying(stop, || log.wait_behind(position)) => waited?,
            };
            if waited.is_none() {
                return Ok(Next::Stop);
            }
        }
    }

    /// Asks the log, again after a pause if it fails. `None`: asked to stop.
    async fn retrying<T, F>(
        &self,
        stop: &mut watch::Receiver<bool>,
        ask: impl Fn() -> F,
    ) -> Result<Option<T>, Interruption>
    where
        F: Future<Output = Result<T, LogError>>,
    {
        let mut pause_ms = self.limits.retry_pause_ms_min;
        let mut failure_count = 0;
        loop {
            let answer = tokio::select! {
                biased;
                () = stopped(stop) => return Ok(None),
                answer = ask() => answer,
            };
            let err = match answer {
                Ok(answer) => return Ok(Some(answer)),
                Err(err) => err,
            };
            failure_count += 1;
            if failure_count >= self.limits.read_failures_max || !may_pass(&err) {
                return Err(Interruption::Log(err));
            }
            tracing::warn!(
                error = crate::as_error(&err),
                failure_count,
                pause_ms,
                "the event log cannot be read, trying again"
            );
            tokio::select! {
                () = stopped(stop) => return Ok(None),
                () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
            }
            pause_ms = pause_ms
                .saturating_mul(2)
                .min(self.limits.retry_pause_ms_max);
        }
    }

    async fn reset(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        self.blocking(|store| store.reset()).await?;
        self.applied.send_replace(Position::START);
        Ok(())
    }

    async fn close(&self) -> Result<(), RunError> {
        // The rows need not be there at the next start; but then they need not be folded anew.
        self.blocking(|store| store.flush())
            .await
            .map_err(RunError::Store)
    }

    /// Does something with the store on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn ViewStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || work(store.as_ref()))
            .await
            .unwrap_or_else(|err| {
                Err(StoreError::Panicked {
                    action: "apply events",
                    message: err.to_string(),
                })
            })
    }
}

/// Whether asking again may help.
fn may_pass(err: &LogError) -> bool {
    match err {
        LogError::Unavailable(_) | LogError::OutcomeUnknown(_) => true,
        LogError::Conflict { .. } | LogError::TooLarge { .. } | LogError::Damaged { .. } => false,
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone cannot say anything any more: that is a stop, too.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Says how far a catch-up is.
struct CatchUp {
    head: Position,
    event_count: u64,
    reported: u64,
    progress_events: u64,
    done: bool,
}

impl CatchUp {
    fn new(position: Position, head: Position, progress_events: u64) -> Self {
        let done = position >= head;
        if !done {
            tracing::info!(
                applied = position.raw(),
                head = head.raw(),
                "the views catch up"
            );
        }
        Self {
            head,
            event_count: 0,
            reported: 0,
            progress_events,
            done,
        }
    }

    fn applied(&mut self, event_count: usize, position: Position) {
        if self.done {
            return;
        }
        let event_count = u64::try_from(event_count).unwrap_or(u64::MAX);
        self.event_count = self.event_count.saturating_add(event_count);
        self.done = position >= self.head;
        if self.done {
            tracing::info!(event_count = self.event_count, "the views are up to date");
        } else if self.event_count - self.reported >= self.progress_events {
            self.reported = self.event_count;
            tracing::info!(
                event_count = self.event_count,
                applied = position.raw(),
                head = self.head.raw(),
                "the views catch up"
            );
        }
    }
}

#[cfg(test)]
mod tests;
