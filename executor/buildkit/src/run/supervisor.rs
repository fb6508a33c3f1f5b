//! The end of `buildctl`, and what is to be done then, whoever still waits for it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use super::history;
use crate::daemon::Place;

/// A running `buildctl` and what it leaves behind.
#[derive(Debug)]
pub(super) struct Supervisor {
    pub(super) child: Child,
    /// The daemon, counted as busy until the end.
    pub(super) place: Arc<Place>,
    /// Where the private folder is mounted, for the child only.
    pub(super) private: TempDir,
    pub(super) output: OutputFolder,
    /// The mark by which the daemon's record of the build is found, if it is to be removed.
    pub(super) forget: Option<String>,
}

/// A `buildctl` that has ended, and what it made.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) output: OutputFolder,
}

/// The folder of the OCI layout. Dropping it removes it and all that is in it: a result that nobody
/// takes is none.
#[derive(Debug)]
pub(super) struct OutputFolder(Option<PathBuf>);

impl OutputFolder {
    /// Makes the folder, for its owner only. Blocking.
    ///
    /// # Errors
    /// There is something there already, or nothing to put it in.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(Some(path)))
    }

    /// Leaves it where it is, for the caller.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for OutputFolder {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = std::fs::remove_dir_all(&path)
        {
            tracing::warn!(path = %path.display(), %error, "a folder of a build is left behind");
        }
    }
}

impl Supervisor {
    /// Waits for the end, or brings it about once `end` is cancelled. Nothing is left then but the
    /// output, and that only if the build succeeded and nobody wanted it to end.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub(super) async fn run(mut self, end: CancellationToken) -> io::Result<Ended> {
        let status = tokio::select! {
            status = self.child.wait() => status,
            () = end.cancelled() => self.stop().await,
        };
        let succeeded = status.as_ref().is_ok_and(ExitStatus::success) && !end.is_cancelled();
        let (private, mut output) = (self.private, self.output);
        let cleaned = tokio::task::spawn_blocking(move || {
            drop(private);
            if !succeeded {
                drop(std::mem::replace(&mut output, OutputFolder(None)));
            }
            output
        });
        let output = cleaned.await.map_err(io::Error::other)?;
        if let Some(mark) = self.forget {
            history::forget(self.place.client(), &mark, self.place.limits()).await;
        }
        Ok(Ended {
            status: status?,
            output,
        })
    }

    /// Asks the process to end, which makes the daemon end the step too, and kills it when it does not.
    async fn stop(&mut self) -> io::Result<ExitStatus> {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // It has ended already: then waiting tells.
            let _gone = kill_process(pid, Signal::TERM);
        }
        let patience = Duration::from_millis(self.place.limits().stop_ms_max);
        if let Ok(status) = tokio::time::timeout(patience, self.child.wait()).await {
            return status;
        }
        self.child.start_kill()?;
        self.child.wait().await
    }
}
