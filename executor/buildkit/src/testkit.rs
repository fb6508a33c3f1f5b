//! What the tests share: the daemon of `make test`, one of their own without a network, builds.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::daemon::{Address, DaemonConfig, Pool};
use crate::event::Event;
use crate::invocation::{ImagePolicy, Invocation, Network};
use crate::limits::BuildkitLimits;
use crate::run::{Observer, RunError, run};

/// The base image that the daemon of `make test` can pull.
pub(crate) const BASE: &str = "docker.io/library/debian:bookworm";

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// A variable that `make test` sets.
pub(crate) fn setting(name: &str) -> String {
    std::env::var_os(name)
        .unwrap_or_else(|| panic!("{name} is not set: run the suite by `make test`"))
        .into_string()
        .expect("settings are text")
}

/// The daemon of `make test`: it can pull [`BASE`], and its steps have a network.
pub(crate) fn shared_daemon() -> Address {
    setting("NULLSPACE_TEST_BUILDKIT").parse().unwrap()
}

pub(crate) fn buildctl() -> PathBuf {
    setting("NULLSPACE_BUILDCTL").into()
}

pub(crate) fn pool(daemons: impl IntoIterator<Item = Address>, limits: BuildkitLimits) -> Pool {
    let config = |address| DaemonConfig::new(address, None).unwrap();
    Pool::new(
        buildctl(),
        daemons.into_iter().map(config).collect(),
        limits,
    )
}

/// A text that no other test uses, nor this one in another run.
pub(crate) fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let now = Instant::now();
    let mut text = format!("{prefix}-{process}-{count}-{now:?}");
    text.retain(|character| character.is_ascii_alphanumeric() || character == '-');
    text
}

/// A daemon without a network and without images, which records what it builds.
pub(crate) struct IsolatedDaemon {
    folder: TempDir,
    process: Child,
}

impl IsolatedDaemon {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("buildkitd.toml");
        std::fs::write(&config, "[cdi]\ndisabled = true\n").unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let address = address_in(folder.path());
        let process = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--mount-proc"])
            .args(["--kill-child=KILL", "--"])
            .arg(setting("NULLSPACE_BUILDKITD"))
            .arg("--config")
            .arg(&config)
            .arg("--root")
            .arg(folder.path().join("root"))
            .args(["--addr", &address.to_string()])
            .args(["--containerd-worker=false", "--oci-worker-net=host"])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let daemon = Self { folder, process };
        until("the daemon listens", || {
            std::os::unix::net::UnixStream::connect(daemon.socket()).is_ok()
        });
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    pub(crate) fn address(&self) -> Address {
        address_in(self.folder.path())
    }

    /// Sends a signal to the daemon itself, below what started it.
    pub(crate) fn signal(&self, signal: Signal) {
        let root = self.folder.path().join("root");
        let daemon = processes_with(&root.to_string_lossy())
            .into_iter()
            .find(|pid| pid.as_raw_nonzero().get().cast_unsigned() != self.process.id())
            .expect("the daemon runs");
        kill_process(daemon, signal).unwrap();
    }

    /// What `buildctl` prints for these arguments.
    pub(crate) fn ask(&self, args: &[&str]) -> String {
        let output = Command::new(buildctl())
            .args(["--addr", &self.address().to_string()])
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn address_in(folder: &Path) -> Address {
    format!("unix://{}/sock", folder.display()).parse().unwrap()
}

impl Drop for IsolatedDaemon {
    fn drop(&mut self) {
        // What is below dies with it, and its mounts with them.
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Waits for a state that nothing announces.
#[track_caller]
pub(crate) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let (_never, pause) = std::sync::mpsc::channel::<()>();
    let start = Instant::now();
    while !reached() {
        assert!(
            start.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}"
        );
        let _elapsed = pause.recv_timeout(Duration::from_millis(20));
    }
}

/// The processes of this machine whose command line has this text.
pub(crate) fn processes_with(text: &str) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(text) {
            found.extend(Pid::from_raw(pid));
        }
    }
    found
}

/// Processes that are to end.
pub(crate) struct Watched(Vec<(Pid, OwnedFd)>);

/// The processes whose command line has this text; there is at least one, now or soon.
#[track_caller]
pub(crate) fn watch(text: &str) -> Watched {
    let mut watched = Vec::new();
    until(text, || {
        let open = |pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?));
        watched = processes_with(text).into_iter().filter_map(open).collect();
        !watched.is_empty()
    });
    Watched(watched)
}

impl Watched {
    pub(crate) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.0.iter().map(|(pid, _)| *pid)
    }

    /// Waits until they are gone.
    #[track_caller]
    pub(crate) fn gone(&self) {
        let patience = Timespec::try_from(PATIENCE).unwrap();
        for (pid, process) in &self.0 {
            let mut polled = [PollFd::new(process, PollFlags::IN)];
            assert_eq!(
                poll(&mut polled, Some(&patience)).unwrap(),
                1,
                "{pid:?} goes on"
            );
        }
    }
}

/// Builds of one tenant, with a folder of their own.
pub(crate) struct Bench {
    folder: TempDir,
    tenant: String,
    pub(crate) pool: Pool,
    pub(crate) stop: CancellationToken,
    /// What the daemon said of a build that was stopped: whether it is over.
    pub(crate) over: Arc<OnceLock<bool>>,
}

/// Passes events on, and what the daemon said of a build that was stopped.
pub(crate) struct Teller(UnboundedSender<Event>, Arc<OnceLock<bool>>);

impl Observer for Teller {
    type Error = Infallible;

    fn begun(&mut self, _: u32) {}

    fn stopped(&mut self, is_over: bool) {
        self.1.set(is_over).expect("a build is stopped once");
    }

    async fn event(&mut self, event: Event) -> Result<(), Infallible> {
        // A test that only wants the end listens to nothing.
        let _unheard = self.0.send(event);
        Ok(())
    }
}

/// What a build said, to be read while it runs.
pub(crate) struct Heard(UnboundedReceiver<Event>);

impl Heard {
    /// Waits until a step wrote this.
    pub(crate) async fn output(&mut self, text: &str) {
        let mut written = Vec::new();
        while !String::from_utf8_lossy(&written).contains(text) {
            match self.0.recv().await {
                Some(Event::StepOutput { bytes, .. }) => written.extend(bytes),
                Some(_) => {}
                None => panic!("the build ended without `{text}`"),
            }
        }
    }

    /// All that is still to come, as text.
    pub(crate) async fn rest(mut self) -> String {
        let mut text = String::new();
        while let Some(event) = self.0.recv().await {
            writeln!(text, "{event:?}").unwrap();
        }
        text
    }
}

pub(crate) type Outcome = Result<(), RunError<Infallible>>;

impl Bench {
    /// At the daemon of `make test`.
    pub(crate) fn new() -> Self {
        Self::at([shared_daemon()], BuildkitLimits::default())
    }

    pub(crate) fn at(daemons: impl IntoIterator<Item = Address>, limits: BuildkitLimits) -> Self {
        // A name with all that could end a path too early.
        let folder = tempfile::Builder::new()
            .prefix("a ,\"b=")
            .tempdir()
            .unwrap();
        for name in ["context", "scratch"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self {
            folder,
            tenant: unique("tenant"),
            pool: pool(daemons, limits),
            stop: CancellationToken::new(),
            over: Arc::default(),
        }
    }

    pub(crate) fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.folder.path().join("context")
    }

    /// The build of a Dockerfile by the tenant, who may use [`BASE`].
    pub(crate) fn invocation(&self, dockerfile: &str) -> Invocation {
        std::fs::write(self.context().join("Dockerfile"), dockerfile).unwrap();
        let mut images = ImagePolicy::new();
        images.allow(BASE, None);
        Invocation {
            context: self.context(),
            dockerfile_dir: self.context(),
            dockerfile_name: "Dockerfile".to_owned(),
            build_args: [].into(),
            target: None,
            no_cache: false,
            stages: vec![None],
            network: Network::Default,
            images,
            cache_namespace: self.tenant.clone(),
            secrets: Vec::new(),
            registries: Vec::new(),
            output: self.folder.path().join(unique("output")),
        }
    }

    /// A build by a daemon without images that says `ready`, and whose step has `token` on its command
    /// line and does not end.
    pub(crate) fn endless_without_image(&self, token: &str) -> Invocation {
        for (name, file) in [
            ("load", "/lib64/ld-linux-x86-64.so.2"),
            ("libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6"),
            ("sh", "/bin/sh"),
            ("sleep", "/bin/sleep"),
        ] {
            std::fs::copy(file, self.context().join(name)).unwrap();
        }
        let script = format!(": {token}; echo rea''dy; exec /load --argv0 {token} /sleep 10000");
        self.invocation(&format!(
            "FROM scratch\nCOPY load libc.so.6 sh sleep /\nENV LD_LIBRARY_PATH=/\n\
             RUN --mount=type=secret,id=token [\"/load\", \"/sh\", \"-c\", \"{script}\"]\n"
        ))
    }

    /// Starts a build: what it says, and how it ends.
    pub(crate) fn start(&self, invocation: Invocation) -> (Heard, impl Future<Output = Outcome>) {
        let (sender, receiver) = unbounded_channel();
        let ended = async move {
            let lease = self.pool.lease(&[]).await.unwrap();
            let mut teller = Teller(sender, Arc::clone(&self.over));
            run(&lease, invocation, &self.scratch(), &mut teller, &self.stop).await
        };
        (Heard(receiver), ended)
    }

    /// Builds, and nothing is left beside the output.
    pub(crate) async fn build(&self, invocation: Invocation) -> (Outcome, String) {
        let output = invocation.output.clone();
        let (heard, ended) = self.start(invocation);
        let outcome = ended.await;
        assert_eq!(output.exists(), outcome.is_ok());
        assert!(is_empty(&self.scratch()));
        (outcome, heard.rest().await)
    }

    /// Builds a Dockerfile.
    pub(crate) async fn outcome(&self, dockerfile: &str) -> Outcome {
        self.build(self.invocation(dockerfile)).await.0
    }
}

pub(crate) fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}
