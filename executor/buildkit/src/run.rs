//! One build by `buildctl`, from the private folder to the outcome.
//!
//! ```text
//! run ── reads ── buildctl's progress ── Tracker ── events ── Observer
//!  └── drops or ends ── Supervisor (a task) ── waits, stops, kills ── buildctl ── daemon
//! ```
//!
//! The supervisor is a task of its own, so that what has to happen at the end happens also when nobody
//! waits for the build any more.

mod history;
mod private;
mod supervisor;

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{ChildStderr, Command};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::daemon::client::{self, Client};
use crate::daemon::{Lease, Place, ProbeError};
use crate::event::{Event, Failure, FailureKind};
use crate::invocation::{InvalidInvocation, Invocation};
use crate::progress::{Line, Lines, Tracker};
use private::PrivateFolder;
use supervisor::{Ended, OutputFolder, Supervisor};

/// How many random letters and digits tell one invocation from all others.
const MARK_BYTES: usize = 16;

/// Who is told what happens, in order.
pub trait Observer {
    /// Why it can go on no longer; the build is stopped then.
    type Error;

    /// `buildctl` runs, as the process with this number.
    fn begun(&mut self, buildctl: u32);

    /// `buildctl` was ended before its time, and has been waited for. `is_over`: the daemon says that it
    /// builds nothing of it any more.
    fn stopped(&mut self, is_over: bool);

    /// Something happened. The build waits until the observer is done with it.
    fn event(&mut self, event: Event) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum RunError<E> {
    /// The build failed.
    #[error("the build failed: {}", .0.message)]
    Failed(Box<Failure>),
    /// It was stopped, as the caller wanted.
    #[error("the build was stopped")]
    Stopped,
    /// It took longer than it may, and was stopped.
    #[error("the build did not end within {seconds} s and was stopped")]
    TimedOut {
        /// The bound.
        seconds: u64,
    },
    /// The observer could not go on.
    #[error("nobody could be told what the build does")]
    Observer(E),
    /// It cannot be asked for like this.
    #[error("the build cannot be handed to BuildKit")]
    Invalid(#[source] InvalidInvocation),
    /// This host failed us before or while the build ran.
    #[error("cannot {what}")]
    Setup {
        /// What could not be done.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

impl<E> RunError<E> {
    const fn setup(what: &'static str, source: io::Error) -> Self {
        Self::Setup { what, source }
    }
}

/// Builds by the leased daemon. `scratch` is a folder of the caller's that nobody else can enter; it is
/// as it was afterwards.
///
/// On success there is an OCI layout at `invocation.output`; in every other case there is nothing there.
/// The values of secrets are wiped from this process once they are handed over, and gone from the
/// private folder before this returns. When the future is dropped, the build is stopped all the same.
///
/// # Errors
/// [`RunError`].
pub async fn run<O: Observer>(
    lease: &Lease,
    invocation: Invocation,
    scratch: &Path,
    observer: &mut O,
    stop: &CancellationToken,
) -> Result<(), RunError<O::Error>> {
    let place = lease.place();
    let limits = place.limits();
    invocation.check(limits).map_err(RunError::Invalid)?;
    let end = Bounds {
        stop,
        deadline: Instant::now() + Duration::from_secs(limits.build_seconds_max),
        seconds: limits.build_seconds_max,
    };
    let mut tracker = Tracker::new(&invocation.stages, limits);
    let Started {
        supervisor,
        stderr,
        mark,
    } = start(&place, invocation, scratch).await?;
    if let Some(pid) = supervisor.child.id() {
        observer.begun(pid);
    }
    let mut lines = Lines::new(stderr, limits.progress_line_bytes_max);
    let mut running = Running::new(supervisor);
    let followed = async {
        follow(&place, &mut lines, &mut tracker, observer).await?;
        running.over.cancelled().await;
        Ok(())
    };
    let followed = end.bound(followed).await;
    // Whoever writes its last words is not to wait for a reader.
    drop(lines);
    if followed.is_err() {
        running.end.cancel();
    }
    let ended = running.wait().await;
    if let Err(RunError::Stopped | RunError::Observer(_)) = &followed {
        observer.stopped(history::is_over(place.client(), &mark, limits).await);
    }
    followed?;
    let Ended { status, output } =
        ended.map_err(|source| RunError::setup("see buildctl to its end", source))?;

    let mut events = Vec::new();
    let outcome = tracker.finish(status.code(), &mut events);
    end.bound(tell(observer, &mut events)).await?;
    outcome.map_err(|failure| RunError::Failed(Box::new(failure)))?;
    output.keep();
    Ok(())
}

/// What ends a build before its time.
struct Bounds<'a> {
    stop: &'a CancellationToken,
    deadline: Instant,
    seconds: u64,
}

impl Bounds<'_> {
    /// Does `work`, unless the build has to end first.
    async fn bound<T, E>(
        &self,
        work: impl Future<Output = Result<T, RunError<E>>>,
    ) -> Result<T, RunError<E>> {
        let seconds = self.seconds;
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(RunError::Stopped),
            () = tokio::time::sleep_until(self.deadline) => Err(RunError::TimedOut { seconds }),
            done = work => done,
        }
    }
}

/// A supervised `buildctl`. It is ended when this is dropped.
struct Running {
    /// Ends it.
    end: CancellationToken,
    /// Cancelled once it and its supervisor are done.
    over: CancellationToken,
    supervisor: JoinHandle<io::Result<Ended>>,
    _end_if_dropped: DropGuard,
}

impl Running {
    fn new(supervisor: Supervisor) -> Self {
        let (end, over) = (CancellationToken::new(), CancellationToken::new());
        let ended = supervisor.run(end.clone());
        let tell_over = over.clone().drop_guard();
        let supervised = async move {
            let _told = tell_over;
            ended.await
        };
        Self {
            _end_if_dropped: end.clone().drop_guard(),
            end,
            over,
            supervisor: tokio::spawn(supervised),
        }
    }

    async fn wait(&mut self) -> io::Result<Ended> {
        (&mut self.supervisor).await.map_err(io::Error::other)?
    }
}

/// Tells the observer what `buildctl` says, to the end of what it says.
async fn follow<O: Observer>(
    place: &Place,
    lines: &mut Lines<ChildStderr>,
    tracker: &mut Tracker,
    observer: &mut O,
) -> Result<(), RunError<O::Error>> {
    let silence = Duration::from_millis(place.limits().silence_ms_max);
    let mut events = Vec::new();
    loop {
        let line = tokio::time::timeout(silence, lines.next()).await;
        let Ok(line) = line else {
            // A long silence is taken for a step that works, as long as the daemon answers.
            check_daemon(place).await?;
            continue;
        };
        match line.map_err(|source| RunError::setup("read what buildctl says", source))? {
            Some(Line::Whole(line)) => tracker.line(line, &mut events),
            Some(Line::TooLong { bytes }) => tracker.left_out(bytes, &mut events),
            None => return Ok(()),
        }
        tell(observer, &mut events).await?;
    }
}

async fn tell<O: Observer>(
    observer: &mut O,
    events: &mut Vec<Event>,
) -> Result<(), RunError<O::Error>> {
    for event in events.drain(..) {
        observer.event(event).await.map_err(RunError::Observer)?;
    }
    Ok(())
}

async fn check_daemon<E>(place: &Place) -> Result<(), RunError<E>> {
    let Some(error) = lost(place).await else {
        return Ok(());
    };
    let address = place.client().daemon().address();
    Err(RunError::Failed(Box::new(Failure {
        kind: FailureKind::DaemonUnavailable,
        message: format!("the BuildKit daemon at {address} was lost: {error}"),
        step: None,
        exit_code: None,
        excerpt: None,
        output_tail: Vec::new(),
    })))
}

/// Why the daemon has to be given up; nothing if it answers.
async fn lost(place: &Place) -> Option<ProbeError> {
    let mut unanswered = 0;
    loop {
        let error = place.probe().await.err()?;
        unanswered += 1;
        if unanswered >= place.limits().unanswered_probes_max {
            return Some(error);
        }
    }
}

/// A `buildctl` that was started.
struct Started {
    supervisor: Supervisor,
    stderr: ChildStderr,
    /// By which the daemon's record of the build is found.
    mark: String,
}

/// Prepares what `buildctl` needs and starts it.
async fn start<E>(
    place: &Arc<Place>,
    invocation: Invocation,
    scratch: &Path,
) -> Result<Started, RunError<E>> {
    let prepare = {
        let (client, scratch) = (place.client().clone(), scratch.to_owned());
        move || prepare(&client, invocation, &scratch)
    };
    let prepared = tokio::task::spawn_blocking(prepare).await;
    let Prepared {
        command,
        private,
        output,
        mark,
        forget,
    } = prepared
        .map_err(io::Error::other)
        .flatten()
        .map_err(|source| RunError::setup("prepare a private folder for a build", source))?;
    let started = client::start(command).await.and_then(|mut child| {
        let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok((child, stderr))
    });
    let (child, stderr) = started.map_err(|source| RunError::setup("start buildctl", source))?;
    let place = Arc::clone(place);
    let supervisor = Supervisor {
        child,
        place,
        private,
        output,
        forget: forget.then(|| mark.clone()),
    };
    Ok(Started {
        supervisor,
        stderr,
        mark,
    })
}

struct Prepared {
    command: Command,
    private: TempDir,
    output: OutputFolder,
    mark: String,
    forget: bool,
}

/// Makes the private folder and the command that gets it. Blocking.
fn prepare(client: &Client, invocation: Invocation, scratch: &Path) -> io::Result<Prepared> {
    let private = tempfile::Builder::new()
        .prefix("buildctl-")
        .rand_bytes(MARK_BYTES)
        .tempdir_in(scratch)?;
    let folder = PrivateFolder::new(invocation.private_bytes())?;
    invocation.write_private_files(|name| folder.create(name))?;
    let mark = private.path().file_name().unwrap_or_default();
    let mark = mark.to_string_lossy().into_owned();
    let mut command = client.command();
    command
        .args(invocation.arguments(private.path(), &mark))
        .envs(Invocation::environment(private.path()));
    folder.hand_over(&mut command, private.path())?;
    Ok(Prepared {
        command,
        private,
        output: OutputFolder::create(invocation.output)?,
        mark,
        forget: !invocation.secrets.is_empty(),
    })
}

#[cfg(test)]
mod tests;
