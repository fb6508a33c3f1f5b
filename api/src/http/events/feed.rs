//! An open subscription: a task that reads pages and writes frames, and a short queue between it and
//! the connection.
//!
//! Besides events there are three frames:
//!
//! - `: keepalive`, a comment, when nothing was written for a while;
//! - `event: heartbeat` in its place if more was read meanwhile, and at the end of an answer that does
//!   not follow: its `id` is the position up to which there is nothing more for this reader;
//! - `event: dropped`, the last one, to a reader that did not take a frame in time: its `id` is the
//!   position to go on from.

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Bytes;
use domain::causes::chain;
use domain::recorded::Position;
use futures_util::Stream;
use serde_json::{Value, json};
use tokio::sync::mpsc::error::{SendTimeoutError, TrySendError};
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::http::error::ApiError;
use crate::http::logs::KEEPALIVE;
use crate::service::events::{Filter, Form, Page, Pages};
use crate::wire::position::WirePosition;

/// What is subscribed to.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) pages: Pages,
    pub(super) filter: Filter,
    pub(super) form: Form,
    /// Events behind this position.
    pub(super) from: Position,
    /// Up to this one; none: all that come.
    pub(super) until: Option<Position>,
    pub(super) bounds: Bounds,
    /// Says that the service stops.
    pub(super) stopping: CancellationToken,
}

/// What a subscription may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The longest silence.
    pub(super) keepalive: Duration,
    /// How long a reader may leave a frame.
    pub(super) patience: Duration,
    /// Frames that wait for the reader.
    pub(super) frame_count_max: usize,
}

/// Opens a subscription; `held` is let go of with the connection.
pub(super) fn open<T: Send + 'static>(
    subscription: Subscription,
    held: T,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    // One place more, which is kept for the last frame.
    let (out, frames) = mpsc::channel(subscription.bounds.frame_count_max.max(1) + 1);
    let feed = Feed {
        read: subscription.from,
        told: subscription.from,
        silent_until: Instant::now() + subscription.bounds.keepalive,
        subscription,
        out,
    };
    tokio::spawn(feed.run());
    futures_util::stream::unfold((frames, held), |(mut frames, held)| async move {
        let frame = frames.recv().await?;
        Some((Ok(frame), (frames, held)))
    })
}

/// The task of a subscription.
struct Feed {
    subscription: Subscription,
    /// How far the log was read.
    read: Position,
    /// How far the reader knows that it was read.
    told: Position,
    /// When the reader is to be told something, if there is nothing else to tell.
    silent_until: Instant,
    out: mpsc::Sender<Bytes>,
}

/// Why a subscription ends before it is at its end.
enum Stop {
    /// The reader is too slow.
    Slow,
    /// The reader has gone, or the service stops.
    Gone,
    /// The log cannot be read.
    Broken(ApiError),
}

impl Feed {
    async fn run(mut self) {
        let Ok(last) = self.out.clone().reserve_owned().await else {
            return;
        };
        match self.follow().await {
            Ok(()) | Err(Stop::Gone) => {}
            Err(Stop::Slow) => self.drop_reader(last),
            // The answer has begun, so its end is all that can still be said: the reader asks again
            // from where it is.
            Err(Stop::Broken(err)) => {
                tracing::error!(error = chain(&err), "a stream of events broke");
            }
        }
    }

    async fn follow(&mut self) -> Result<(), Stop> {
        let until = self.subscription.until;
        while until.is_none_or(|until| self.read < until) {
            let page = self.next().await?;
            self.pass_on(&page).await?;
            if Instant::now() >= self.silent_until {
                self.sign_of_life().await?;
            }
            // A long way without anything for this reader is no reason to keep others waiting.
            tokio::task::consume_budget().await;
        }
        self.heartbeat().await
    }

    /// The next page, with signs of life while it is waited for.
    async fn next(&mut self) -> Result<Arc<Page>, Stop> {
        let pages = self.subscription.pages.clone();
        let stopping = self.subscription.stopping.clone();
        let mut page = pin!(pages.behind(self.read, self.subscription.form));
        loop {
            tokio::select! {
                page = &mut page => return page.map_err(Stop::Broken),
                () = tokio::time::sleep_until(self.silent_until) => self.sign_of_life().await?,
                () = self.out.closed() => return Err(Stop::Gone),
                () = stopping.cancelled() => return Err(Stop::Gone),
            }
        }
    }

    async fn pass_on(&mut self, page: &Page) -> Result<(), Stop> {
        for entry in page.entries() {
            if let Some(until) = self.subscription.until
                && entry.position > until
            {
                self.read = until;
                break;
            }
            if self.subscription.filter.lets_through(entry) {
                self.send(entry.frame()).await?;
                self.told = entry.position;
            }
            self.read = entry.position;
        }
        Ok(())
    }

    async fn sign_of_life(&mut self) -> Result<(), Stop> {
        if self.told < self.read {
            self.heartbeat().await
        } else {
            self.send(Bytes::from_static(KEEPALIVE)).await
        }
    }

    /// Says how far the log was read, unless the reader knows.
    async fn heartbeat(&mut self) -> Result<(), Stop> {
        if self.told < self.read {
            let position = WirePosition(self.read);
            let data = json!({"position": position});
            self.send(frame(position, "heartbeat", &data)).await?;
            self.told = self.read;
        }
        Ok(())
    }

    async fn send(&mut self, frame: Bytes) -> Result<(), Stop> {
        let Subscription {
            bounds, stopping, ..
        } = &self.subscription;
        let sent = match self.out.try_send(frame) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(Stop::Gone),
            Err(TrySendError::Full(frame)) => tokio::select! {
                sent = self.out.send_timeout(frame, bounds.patience) => sent.map_err(|err| match err {
                    SendTimeoutError::Timeout(_) => Stop::Slow,
                    SendTimeoutError::Closed(_) => Stop::Gone,
                }),
                () = stopping.cancelled() => Err(Stop::Gone),
            },
        };
        self.silent_until = Instant::now() + bounds.keepalive;
        sent
    }

    /// Puts the last frame behind those that the reader has left.
    fn drop_reader(&self, last: OwnedPermit<Bytes>) {
        let position = WirePosition(self.told);
        tracing::debug!(
            position = %position,
            "a reader of events did not take a frame in time and is dropped"
        );
        let message = "the reader was too slow; ask again from this position";
        let data = json!({"position": position, "reason": "slow_reader", "message": message});
        last.send(frame(position, "dropped", &data));
    }
}

/// A frame that is no event of the log.
fn frame(position: WirePosition, name: &str, data: &Value) -> Bytes {
    Bytes::from(format!("id: {position}\nevent: {name}\ndata: {data}\n\n"))
}
