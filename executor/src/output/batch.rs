//! Lines become batches: flushed after a short wait or at a size, whichever comes first, in
//! order, with back-pressure to who writes them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use domain::build::{LogLine, LogStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::budget::{LIMIT_REACHED, LogBudget, Verdict};
use crate::limits::output::OutputLimits;

/// The batcher has ended: it was finished, or its sink failed. [`Batcher::finish`] says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log of this step takes no more lines")]
pub struct LogClosed;

/// Why a batcher did not end well.
#[derive(Debug, thiserror::Error)]
pub enum BatchError<E> {
    /// The sink refused a batch; that batch and what came after it is lost.
    #[error("a batch of log lines could not be stored")]
    Sink(#[source] E),
    /// The batcher's task panicked in its sink, or the runtime is shutting down.
    #[error("the log batcher was lost")]
    Lost(#[source] tokio::task::JoinError),
}

/// What a batcher did in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSummary {
    /// Batches that the sink took.
    pub batches: u64,
    /// Lines in them, the notice of a spent budget included.
    pub lines: u64,
    /// Lines that were dropped because the budget was spent.
    pub dropped_lines: u64,
}

/// A step as lines name it: which, 1-based, and of how many.
pub type StepPlace = (u32, u32);

/// Lines of one step, or of none, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepLines {
    /// The step.
    pub step: Option<StepPlace>,
    /// Its lines; not empty.
    pub lines: Vec<LogLine>,
}

#[derive(Debug)]
enum Message {
    Line(Option<StepPlace>, LogLine),
    Flush(oneshot::Sender<()>),
    Finish,
}

/// Where lines go. Cheap to clone, one clone for each producer.
#[derive(Clone, Debug)]
pub struct LogSender {
    queue: mpsc::Sender<Message>,
}

/// The task that makes batches of lines and hands them to a sink.
#[derive(Debug)]
pub struct Batcher<E> {
    sender: LogSender,
    task: JoinHandle<Result<BatchSummary, E>>,
}

impl<E: Send + 'static> Batcher<E> {
    /// Starts a batcher. `sink` is given one batch at a time, never an empty one, and the next
    /// one only when it is done with the last; meanwhile lines wait in the bounded queue.
    ///
    /// Steps that write at once share a batch, in which the lines of each stay together.
    ///
    /// Must be called within a tokio runtime.
    pub fn spawn<S, F>(limits: OutputLimits, budget: Arc<LogBudget>, sink: S) -> Self
    where
        S: FnMut(Vec<StepLines>) -> F + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let (queue, messages) = mpsc::channel(limits.queue_lines_max.max(1));
        let state = Batching {
            batch: Vec::new(),
            batch_bytes: 0,
            deadline: None,
            limits,
            budget,
            sink,
            summary: BatchSummary::default(),
        };
        Self {
            sender: LogSender { queue },
            task: tokio::spawn(state.run(messages)),
        }
    }

    /// A sender for a producer of lines.
    pub fn sender(&self) -> LogSender {
        self.sender.clone()
    }

    /// Ends the batcher when every line that was sent before is with the sink. Senders that are
    /// still about get [`LogClosed`] from then on.
    ///
    /// # Errors
    /// [`BatchError::Sink`] with the error that ended the batcher, [`BatchError::Lost`] if its
    /// task is gone.
    pub async fn finish(self) -> Result<BatchSummary, BatchError<E>> {
        // A closed queue means that the task has ended; its result says why.
        drop(self.sender.queue.send(Message::Finish).await);
        match self.task.await {
            Ok(Ok(summary)) => Ok(summary),
            Ok(Err(error)) => Err(BatchError::Sink(error)),
            Err(error) => Err(BatchError::Lost(error)),
        }
    }
}

impl LogSender {
    /// Queues a line of a step, or of none; waits while the queue is full.
    ///
    /// # Errors
    /// [`LogClosed`]: the line is lost.
    pub async fn send(&self, step: Option<StepPlace>, line: LogLine) -> Result<(), LogClosed> {
        let message = Message::Line(step, line);
        self.queue.send(message).await.map_err(|_| LogClosed)
    }

    /// Waits until every line that was queued before is with the sink, so that an event which is
    /// recorded next comes after them.
    ///
    /// # Errors
    /// [`LogClosed`]: some of the lines may be lost.
    pub async fn flush(&self) -> Result<(), LogClosed> {
        let (done, flushed) = oneshot::channel();
        let message = Message::Flush(done);
        self.queue.send(message).await.map_err(|_| LogClosed)?;
        flushed.await.map_err(|_| LogClosed)
    }
}

struct Batching<S> {
    batch: Vec<StepLines>,
    batch_bytes: usize,
    /// When the batch goes out; `None` while it is empty.
    deadline: Option<Instant>,
    limits: OutputLimits,
    budget: Arc<LogBudget>,
    sink: S,
    summary: BatchSummary,
}

impl<S, F, E> Batching<S>
where
    S: FnMut(Vec<StepLines>) -> F,
    F: Future<Output = Result<(), E>>,
{
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) -> Result<BatchSummary, E> {
        loop {
            let message = match self.deadline {
                None => messages.recv().await,
                Some(deadline) => tokio::select! {
                    // A full queue must not keep a batch from going out in time.
                    biased;
                    () = sleep_until(deadline) => {
                        self.flush().await?;
                        continue;
                    }
                    message = messages.recv() => message,
                },
            };
            match message {
                Some(Message::Line(step, line)) => self.add(step, line).await?,
                Some(Message::Flush(done)) => {
                    self.flush().await?;
                    // Who asked may have gone meanwhile.
                    let _ = done.send(());
                }
                // What is queued behind this is still taken, new lines are not.
                Some(Message::Finish) => messages.close(),
                None => {
                    self.flush().await?;
                    return Ok(self.summary);
                }
            }
        }
    }

    async fn add(&mut self, step: Option<StepPlace>, mut line: LogLine) -> Result<(), E> {
        match self.budget.take(line.text.len()) {
            Verdict::Keep => {}
            Verdict::Announce => {
                self.summary.dropped_lines += 1;
                line.stream = LogStream::Warning;
                LIMIT_REACHED.clone_into(&mut line.text);
            }
            Verdict::Drop => {
                self.summary.dropped_lines += 1;
                return Ok(());
            }
        }
        let cost = line.text.len() + self.limits.line_overhead_bytes;
        if self.batch_bytes + cost > self.limits.batch_bytes_max {
            self.flush().await?;
        }
        if self.batch.is_empty() {
            let wait = Duration::from_millis(self.limits.batch_wait_ms_max);
            self.deadline = Some(Instant::now() + wait);
        }
        match self.batch.iter_mut().find(|lines| lines.step == step) {
            Some(of_step) => of_step.lines.push(line),
            None => self.batch.push(StepLines {
                step,
                lines: vec![line],
            }),
        }
        self.batch_bytes += cost;
        if self.batch_bytes >= self.limits.batch_bytes_max {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), E> {
        self.deadline = None;
        self.batch_bytes = 0;
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let lines: usize = batch.iter().map(|of_step| of_step.lines.len()).sum();
        let lines = u64::try_from(lines).unwrap_or(u64::MAX);
        (self.sink)(batch).await?;
        self.summary.batches += 1;
        self.summary.lines += lines;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
