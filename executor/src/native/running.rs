//! A running container: passing its output on, and ending it when it must.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::container::{ContainerError, OutputSink, OutputStream};
use super::disk::{DiskFull, DiskWatch};
use super::supervisor::Supervisor;
use crate::limits::native::NativeLimits;

/// How a supervisor ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// Its exit code; none if a signal killed it.
    pub(super) code: Option<i32>,
    /// We ended it.
    pub(super) killed: bool,
    /// It, or the host, was out of disk space.
    pub(super) disk_full: Option<DiskFull>,
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
    disk: Option<DiskWatch>,
    mut output: impl OutputSink,
    cancel: CancellationToken,
) -> Result<Ended, ContainerError> {
    let mut stdout = Source::new(supervisor.child.stdout.take(), limits.read_bytes);
    let mut stderr = Source::new(supervisor.child.stderr.take(), limits.read_bytes);
    let (mut status, mut disk) = (None, disk);
    let mut ended = Ended {
        code: None,
        killed: false,
        disk_full: None,
        timed_out: false,
        cancelled: false,
    };
    // First the end that the step may take; once it was told to go, the end of our patience.
    let mut alarm = Instant::now() + deadline;
    let mut ending = false;
    // The streams end when no process holds them any more: only then is everything gone.
    while status.is_none() || stdout.is_open() || stderr.is_open() {
        let kill = tokio::select! {
            read = stdout.read() => {
                let read = read.map_err(ContainerError::Lost)?;
                output.write(OutputStream::Stdout, read).await;
                false
            }
            read = stderr.read() => {
                let read = read.map_err(ContainerError::Lost)?;
                output.write(OutputStream::Stderr, read).await;
                false
            }
            waited = supervisor.child.wait(), if status.is_none() => {
                status = Some(waited.map_err(ContainerError::Lost)?);
                if !ending {
                    ending = true;
                    alarm = Instant::now() + limits.kill_wait;
                }
                false
            }
            () = cancel.cancelled(), if !ending => {
                ended.cancelled = true;
                true
            }
            full = filled(&mut disk), if !ending => {
                ended.disk_full = Some(full);
                true
            }
            () = tokio::time::sleep_until(alarm) => {
                if ending {
                    return Err(ContainerError::NotGone(limits.kill_wait.as_secs()));
                }
                ended.timed_out = true;
                true
            }
        };
        if kill {
            (ending, ended.killed) = (true, true);
            alarm = Instant::now() + limits.kill_wait;
            supervisor.lifeline = None;
        }
    }
    ended.code = status.and_then(|status| status.code());
    if let (Some(mut disk), false) = (disk, ended.killed) {
        ended.disk_full = disk.verdict(ended.code == Some(0)).await;
    }
    Ok(ended)
}

/// Waits until the disk is full for the step; for ever if nobody watches.
async fn filled(disk: &mut Option<DiskWatch>) -> DiskFull {
    match disk {
        Some(disk) => disk.filled().await,
        None => std::future::pending().await,
    }
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
