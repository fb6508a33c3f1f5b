//! `buildctl`, pointed at one daemon: how it is started, and how it is asked a short question.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, mpsc};
use std::time::Duration;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::DaemonConfig;

/// `buildctl`, pointed at one daemon.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    buildctl: Arc<Path>,
    daemon: Arc<DaemonConfig>,
}

/// What `buildctl` left behind when it was asked something.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// `buildctl` could not be started.
    #[error("cannot start buildctl")]
    Start(#[source] io::Error),
    /// It was lost while it ran.
    #[error("lost buildctl while it ran")]
    Lost(#[source] io::Error),
    /// It took too long and was killed.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
}

impl Client {
    pub(crate) fn new(buildctl: Arc<Path>, daemon: DaemonConfig) -> Self {
        Self {
            buildctl,
            daemon: Arc::new(daemon),
        }
    }

    pub(crate) fn daemon(&self) -> &DaemonConfig {
        &self.daemon
    }

    /// `buildctl` with what says where the daemon is, and with nothing of the host's environment: no
    /// address, no proxy, no credentials and no helper of theirs can come from there.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&*self.buildctl);
        command
            .env_clear()
            .arg("--addr")
            .arg(self.daemon.address().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A Ctrl-C at the service's terminal is the service's to handle.
            .process_group(0)
            .kill_on_drop(true);
        if let Some(tls) = self.daemon.tls() {
            command
                .arg("--tlscacert")
                .arg(&tls.ca)
                .arg("--tlscert")
                .arg(&tls.cert)
                .arg("--tlskey")
                .arg(&tls.key);
            if let Some(name) = &tls.server_name {
                command.arg("--tlsservername").arg(name);
            }
        }
        command
    }

    /// Asks the daemon something that is answered at once: runs `buildctl` with `args`, and kills it
    /// when it takes longer than `deadline` or says more than `bytes_max`.
    pub(crate) async fn ask<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
        deadline: Duration,
        bytes_max: usize,
    ) -> Result<Answer, Unanswered> {
        let mut command = self.command();
        command.args(args).stdout(Stdio::piped());
        let answered = async {
            let mut child = start(command).await.map_err(Unanswered::Start)?;
            let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
            let (stdout, stderr, status) = tokio::try_join!(
                read_bounded(stdout, bytes_max),
                read_bounded(stderr, bytes_max),
                child.wait()
            )
            .map_err(Unanswered::Lost)?;
            Ok(Answer {
                status,
                stdout,
                stderr,
            })
        };
        tokio::time::timeout(deadline, answered)
            .await
            .unwrap_or(Err(Unanswered::Late(deadline)))
    }
}

async fn read_bounded(
    stream: Option<impl AsyncRead + Unpin>,
    bytes_max: usize,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(mut stream) = stream else {
        return Ok(bytes);
    };
    while stream.read_buf(&mut bytes).await? > 0 {
        if bytes.len() > bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
    Ok(bytes)
}

type Job = Box<dyn FnOnce() + Send>;

/// The thread that starts every `buildctl`. What is to die with its parent dies with the *thread* that
/// started it, so that has to be one that lasts as long as the process.
static STARTER: LazyLock<io::Result<mpsc::Sender<Job>>> = LazyLock::new(|| {
    let (sender, jobs) = mpsc::channel::<Job>();
    std::thread::Builder::new()
        .name("buildctl-starter".to_owned())
        .spawn(move || jobs.into_iter().for_each(|job| job()))?;
    Ok(sender)
});

/// Starts a program that is killed when this process dies, however it dies.
pub(crate) async fn start(mut command: Command) -> io::Result<Child> {
    let service = getpid();
    let die_with_service = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It died before the kernel knew of the wish.
        if getppid() != Some(service) {
            return Err(rustix::io::Errno::SRCH.into());
        }
        Ok(())
    };
    #[expect(
        unsafe_code,
        reason = "code between fork and exec is unsafe for what it may call"
    )]
    // SAFETY: system calls and nothing else: no memory is allocated and no lock is taken.
    unsafe {
        command.pre_exec(die_with_service);
    }
    let runtime = Handle::current();
    let (sender, child) = oneshot::channel();
    let job: Job = Box::new(move || {
        let _entered = runtime.enter();
        // Nobody waits any more: what was started is dropped, and so killed.
        let _unheard = sender.send(command.spawn());
    });
    let thread = STARTER
        .as_ref()
        .map_err(|error| io::Error::from(error.kind()))?;
    thread
        .send(job)
        .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    child.await.map_err(io::Error::other)?
}
