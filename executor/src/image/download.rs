//! The transfer of one blob: pieces in order, taken up again where a connection broke.

use bytes::Bytes;
use domain::Digest;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;

use super::error::{Answer, ImageError};
use super::source::Source;
use super::wire::unsent;

/// The bytes of a blob from some offset on.
pub(super) type Pieces = BoxStream<'static, Result<Bytes, Answer>>;

/// What goes from the network to the unpacker.
pub(super) enum Piece {
    Data(Bytes),
    /// The blob is complete. A channel that closes without it broke off.
    End,
}

/// The bytes of a blob from `offset` on. A host that did not start in the middle is read from the
/// start.
pub(super) fn pieces(response: Response, offset: u64) -> Result<Pieces, Answer> {
    let starts_at = if response.status() == StatusCode::PARTIAL_CONTENT {
        range_start(&response)
    } else {
        Some(0)
    };
    let pieces = response.bytes_stream().map(|piece| piece.map_err(unsent));
    match starts_at {
        Some(start) if start == offset => Ok(pieces.boxed()),
        Some(0) => Ok(skip(pieces.boxed(), offset)),
        Some(_) | None => Err(Answer::Final(
            "it answered with another part of a layer than was asked for".to_owned(),
        )),
    }
}

/// The first byte of `bytes START-END/SIZE`.
fn range_start(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let (start, _) = range.strip_prefix("bytes ")?.split_once('-')?;
    start.parse().ok()
}

fn skip(pieces: Pieces, bytes: u64) -> Pieces {
    pieces
        .scan(bytes, |left, piece| {
            let piece = piece.map(|mut piece| {
                let skipped =
                    usize::try_from(*left).map_or(piece.len(), |left| left.min(piece.len()));
                *left = left.saturating_sub(length(skipped));
                piece.split_off(skipped)
            });
            std::future::ready(Some(piece))
        })
        .boxed()
}

/// Sends the blob's pieces, then [`Piece::End`]. Ends early, without an error, if nobody takes them.
///
/// The receiver checks the digest: pieces may come from several connections and hosts.
pub(super) async fn transfer(
    source: &Source<'_>,
    digest: &Digest,
    size_bytes: u64,
    pieces: mpsc::Sender<Piece>,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), ImageError> {
    let mut transfer = Transfer {
        size_bytes,
        done_bytes: 0,
        reported_bytes: 0,
        step_bytes: source.limits.progress_step_bytes,
        pieces,
        progress,
    };
    let mut attempt = 1;
    loop {
        let (host, answer) = match source.open(digest, transfer.done_bytes).await {
            Ok((host, stream)) => match transfer.take(stream).await {
                Ok(()) => return Ok(()),
                Err(answer) => (host, answer),
            },
            Err(refusal) => refusal,
        };
        let Some(wait) = source.wait(&answer, attempt) else {
            return Err(source.error(host, answer));
        };
        tracing::debug!(%digest, host, attempt, bytes = transfer.done_bytes, "a layer's transfer broke, taking it up again");
        tokio::time::sleep(wait).await;
        attempt += 1;
    }
}

struct Transfer<'a> {
    size_bytes: u64,
    done_bytes: u64,
    reported_bytes: u64,
    step_bytes: u64,
    pieces: mpsc::Sender<Piece>,
    progress: &'a (dyn Fn(u64) + Send + Sync),
}

impl Transfer<'_> {
    /// Forwards a stream to the end of the blob, or until nobody takes its pieces.
    async fn take(&mut self, mut stream: Pieces) -> Result<(), Answer> {
        while self.done_bytes < self.size_bytes {
            let Some(piece) = stream.next().await else {
                return Err(Answer::failed("the connection ended within a layer"));
            };
            let piece = piece?;
            self.done_bytes += length(piece.len());
            if self.done_bytes > self.size_bytes {
                return Err(Answer::Refused("a layer is larger than stated".to_owned()));
            }
            if self.pieces.send(Piece::Data(piece)).await.is_err() {
                return Ok(());
            }
            if self.done_bytes - self.reported_bytes >= self.step_bytes {
                self.reported_bytes = self.done_bytes;
                (self.progress)(self.done_bytes);
            }
        }
        // Whoever stopped taking pieces says why itself.
        drop(self.pieces.send(Piece::End).await);
        Ok(())
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
