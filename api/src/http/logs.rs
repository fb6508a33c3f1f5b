//! Logs as streams: contract/behaviour.md section 4.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use futures_util::Stream;
use projections::builds::BuildRow;
use projections::logs::LogEntry;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use domain::causes::chain;

use super::error::ApiError;
use super::query::Parameters;
use super::{builds, reply};
use crate::service::keys::Caller;
use crate::service::{App, present};
use crate::wire::ascii;

/// A line that every client passes over, so that it does not take the silence for a broken
/// connection.
pub(super) const KEEPALIVE: &[u8] = b": keepalive\n\n";

/// `GET /v1/templates/builds/{id}/logs`: the log from an offset; with `follow`, until it ends.
///
/// # Errors
/// [`ApiError::BuildNotFound`], [`ApiError::Invalid`] or [`ApiError::Busy`].
pub fn get(
    app: &Arc<App>,
    caller: &Caller,
    id: &str,
    parameters: &Parameters,
) -> Result<HttpResponse, ApiError> {
    let row = builds::own(app, caller, id)?;
    let cursor = parameters.number("cursor")?;
    let offset = parameters.number("offset")?;
    let from = cursor.or(offset).unwrap_or(0);
    let follow = parameters.switch("follow")?;
    let room = room(app)?;
    Ok(stream(app, row, from, follow, room))
}

/// Room for one more stream.
///
/// # Errors
/// [`ApiError::Busy`].
pub fn room(app: &App) -> Result<OwnedSemaphorePermit, ApiError> {
    let streams = Arc::clone(&app.streams);
    streams
        .try_acquire_owned()
        .map_err(|_| ApiError::Busy("too many streams are open"))
}

/// The log of the build `row` from offset `from` as a stream of events.
pub fn stream(
    app: &Arc<App>,
    row: BuildRow,
    from: u64,
    follow: bool,
    room: OwnedSemaphorePermit,
) -> HttpResponse {
    let feed = Feed {
        keepalive: Duration::from_millis(app.config.limits.keepalive_ms),
        app: Arc::clone(app),
        row,
        next: from,
        follow,
        ended: false,
        _room: room,
        _open: app.open.token(),
    };
    reply::event_stream(feed.into_stream())
}

/// What there is to send next.
#[derive(Debug)]
enum Next {
    Piece(Bytes),
    End,
}

/// An open stream.
struct Feed {
    app: Arc<App>,
    row: BuildRow,
    next: u64,
    follow: bool,
    ended: bool,
    keepalive: Duration,
    _room: OwnedSemaphorePermit,
    _open: TaskTrackerToken,
}

impl Feed {
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        futures_util::stream::unfold(self, |mut feed| async move {
            let piece = match feed.next().await {
                Ok(Next::Piece(piece)) => piece,
                Ok(Next::End) => return None,
                // The answer has begun, so its end is all that can still be said: the client
                // asks again from the offset that it has.
                Err(err) => {
                    tracing::error!(
                        build.id = feed.row.build_id.as_str(),
                        error = chain(&err),
                        "a log stream broke"
                    );
                    return None;
                }
            };
            Some((Ok(piece), feed))
        })
    }

    async fn next(&mut self) -> Result<Next, ApiError> {
        if self.ended {
            return Ok(Next::End);
        }
        let silent_until = Instant::now() + self.keepalive;
        loop {
            // Before the look: what is committed meanwhile ends the wait at once.
            let seen = self.app.views.applied();
            let entries = self.read().await?;
            if !entries.is_empty() {
                return self.encode(entries).map(Next::Piece);
            }
            if !self.follow || self.is_over()? {
                return Ok(Next::End);
            }
            tokio::select! {
                changed = self.app.views.changed(seen) => {
                    changed.map_err(|err| ApiError::unavailable("the views have stopped", err))?;
                }
                () = tokio::time::sleep_until(silent_until) => {
                    return Ok(Next::Piece(Bytes::from_static(KEEPALIVE)));
                }
                () = self.app.stopping.cancelled() => return Ok(Next::End),
            }
        }
    }

    /// The next entries, a bounded number of them. Looks for nothing where there is nothing: most
    /// commits that wake a stream are of other builds.
    async fn read(&self) -> Result<Vec<LogEntry>, ApiError> {
        let id = self.row.build_id.clone();
        if self.app.views.next_offset(&id)? <= self.next {
            return Ok(Vec::new());
        }
        let (views, from) = (self.app.views.clone(), self.next);
        let count_max = self.app.config.limits.stream_entry_count_max;
        let reading = tokio::task::spawn_blocking(move || views.entries(&id, from, count_max));
        Ok(reading.await??)
    }

    /// Whether the build has ended, so that nothing follows: the last entry and the status become
    /// visible at once, and all entries before this were read.
    fn is_over(&self) -> Result<bool, ApiError> {
        let row = self.app.views.build(&self.row.build_id)?;
        // No row: the views are being folded anew, and it comes back.
        Ok(row.is_some_and(|row| row.status.is_terminal() && row.next_offset <= self.next))
    }

    fn encode(&mut self, entries: Vec<LogEntry>) -> Result<Bytes, ApiError> {
        let mut bytes = Vec::new();
        let mut template = None;
        for entry in entries {
            self.next = entry.offset.saturating_add(1);
            if entry.kind.is_terminal() {
                self.ended = true;
                // What was made became known with the last entry.
                if let Some(row) = self.app.views.build(&self.row.build_id)? {
                    self.row = row;
                }
                template = builds::template_of(&self.app, &self.row)?;
            }
            let entry = present::entry(&self.row, template.as_ref(), entry);
            bytes.extend_from_slice(b"data: ");
            ascii::write(&mut bytes, &entry).map_err(ApiError::internal)?;
            bytes.extend_from_slice(b"\n\n");
        }
        Ok(Bytes::from(bytes))
    }
}
