//! A running container: passing its output on, and ending it when it must.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::container::{ContainerError, OutputSink, OutputStream};
use super::supervisor::Supervisor;
use crate::limits::native::NativeLimits;

/// How a supervisor ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// Its exit code; none if a signal killed it.
    pub(super) code: Option<i32>,
    /// We ended it, because of its deadline.
    pub(super) timed_out: bool,
    /// We ended it, because we were asked to.
    pub(super) cancelled: bool,
}

/// Passes the output on until the supervisor and everything below it have ended.
///
/// # Errors
/// [`ContainerError::Lost`], and [`ContainerError::NotGone`] for a container that survives its end.
pub(super) async fn follow(
    mut supervisor: Supervisor,
    deadline: Duration,
    limits: &NativeLimits,
    mut output: impl OutputSink,
    cancel: CancellationToken,
) -> Result<Ended, ContainerError> {
    let mut stdout = Source::new(supervisor.child.stdout.take(), limits.read_bytes);
    let mut stderr = Source::new(supervisor.child.stderr.take(), limits.read_bytes);
    let mut status = None;
    let mut ended = Ended {
        code: None,
        timed_out: false,
        cancelled: false,
    };
    // First the end that the step may take; once it was told to go, the end of our patience.
    let mut alarm = Instant::now() + deadline;
    let mut killing = false;
    // The streams end when no process holds them any more: only then is everything gone.
    while status.is_none() || stdout.is_open() || stderr.is_open() {
        tokio::select! {
                    read = stdout.read() => {
         output.write(OutputStream::Stdout, read.map_err(ContainerError::Lost)?).await;
        },
                    read = stderr.read() => {
         output.write(OutputStream::Stderr, read.map_err(ContainerError::Lost)?).await;
        },
                    waited = supervisor.child.wait(), if status.is_none() => {
                        status = Some(waited.map_err(ContainerError::Lost)?);
                        if !killing {
                            killing = true;
                            alarm = Instant::now() + limits.kill_wait;
                        }
                    }
                    () = cancel.cancelled(), if !killing => {
                        ended.cancelled = true;
                        killing = true;
                        alarm = Instant::now() + limits.kill_wait;
                        supervisor.lifeline = None;
                    }
                    () = tokio::time::sleep_until(alarm) => {
                        if killing {
                            return Err(ContainerError::NotGone(limits.kill_wait.as_secs()));
                        }
                        ended.timed_out = true;
                        killing = true;
                        alarm = Instant::now() + limits.kill_wait;
                        supervisor.lifeline = None;
                    }
                }
    }
    ended.code = status.and_then(|status| status.code());
    Ok(ended)
}

/// An output stream and the piece of it that was read last.
struct Source<R> {
    stream: Option<R>,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Source<R> {
    fn new(stream: Option<R>, bytes: usize) -> Self {
        Self {
            stream,
            buffer: vec![0; bytes],
        }
    }

    fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// The next piece; the empty one at the end. After the end there is never anything.
    async fn read(&mut self) -> io::Result<&[u8]> {
        let Some(stream) = &mut self.stream else {
            return std::future::pending().await;
        };
        let count = stream.read(&mut self.buffer).await?;
        if count == 0 {
            self.stream = None;
        }
        Ok(self.buffer.get(..count).unwrap_or_default())
    }
}
