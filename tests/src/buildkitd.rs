//! A real build daemon of a test's own, as `scripts/buildkitd` runs it.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::network::Namespace;
use crate::service::setting;

/// A BuildKit daemon with a root, a socket and a network of its own. It is stopped when this is dropped.
#[derive(Debug)]
pub struct Buildkitd {
    /// `scripts/buildkitd run`, while the daemon does.
    script: Option<Child>,
    registry: String,
    /// The network that is the host's for the daemon, and what it may reach although it is private.
    host: Option<(PathBuf, String)>,
    folder: TempDir,
}

impl Buildkitd {
    /// Starts a daemon for which the suites' registry stands for docker.io.
    ///
    /// # Panics
    /// If it does not start; with what it said.
    pub fn start() -> Self {
        Self::begin(setting("NULLSPACE_TEST_REGISTRY"), None)
    }

    /// Starts a daemon on a host that is a namespace of the test's own. The registry at `registry` is on
    /// the loopback of that host; the networks in `allowed` are reached although they are private.
    ///
    /// # Panics
    /// If it does not start; with what it said.
    pub fn start_on(host: &Namespace, registry: &str, allowed: &[&str]) -> Self {
        let host = (host.path().to_owned(), allowed.join(" "));
        Self::begin(registry.to_owned(), Some(host))
    }

    fn begin(registry: String, host: Option<(PathBuf, String)>) -> Self {
        let folder = TempDir::with_prefix("nullspace-buildkitd-").expect("the disk has room");
        let mut daemon = Self {
            script: None,
            registry,
            host,
            folder,
        };
        daemon.start_again();
        daemon
    }

    /// Starts it again, after it was stopped or killed; it finds what it built before.
    ///
    /// # Panics
    /// If it runs, or does not start; with what it said.
    pub fn start_again(&mut self) {
        assert!(self.script.is_none(), "it runs");
        let said = self.folder().join("run.log");
        // The script stops the daemon when the suite is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]);
        if let Some((network, allowed)) = &self.host {
            let network = format!("--net={}", network.display());
            command.args(["nsenter", &network, "--"]);
            command.env("BUILDKITD_ALLOWED_NETWORKS", allowed);
        }
        let mut script = command
            .arg(script_path("buildkitd"))
            .arg("run")
            .arg(self.folder())
            .arg(&self.registry)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&said).expect("the disk has room"))
            .spawn()
            .expect("setpriv is part of util-linux");
        let stdout = script.stdout.take().expect("a pipe");
        self.script = Some(script);
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("addresses are text");
        let said = std::fs::read_to_string(said).unwrap_or_default();
        assert_eq!(line.trim_end(), self.address(), "no build daemon:\n{said}");
    }

    /// Where it answers: `unix:///path`.
    pub fn address(&self) -> String {
        format!("unix://{}", self.folder().join("buildkitd.sock").display())
    }

    /// Its folder: settings, log, root.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The number of its first process, with which all of its processes end.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self) -> u32 {
        let pid = std::fs::read_to_string(self.folder().join("pid")).expect("it runs");
        pid.trim().parse().expect("a number")
    }

    /// Ends it and its steps without warning (SIGKILL), and waits until they are gone.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        signal(self.pid(), Signal::KILL);
        // The script sees it, clears what is left, and complains.
        let ended = self.end_of_script();
        assert_eq!(ended.code(), Some(1), "it ended before");
    }

    /// Stops it (SIGTERM, and SIGKILL when that takes too long), and waits until it is gone.
    ///
    /// # Panics
    /// If it does not run, or something of it is left.
    pub fn stop(&mut self) {
        let script = self.script.as_ref().expect("it runs");
        signal(script.id(), Signal::TERM);
        let ended = self.end_of_script();
        let said = std::fs::read_to_string(self.folder().join("run.log")).unwrap_or_default();
        assert!(ended.success(), "{ended}:\n{said}");
    }

    fn end_of_script(&mut self) -> ExitStatus {
        let mut script = self.script.take().expect("it runs");
        script.wait().expect("it is our child")
    }

    /// Lets it reach one more registry, at `host:port` on the host's loopback.
    ///
    /// # Panics
    /// If that does not work.
    pub fn forward(&self, registry: &str) {
        let output = Command::new(script_path("buildkitd"))
            .arg("forward")
            .arg(self.folder())
            .arg(registry)
            .output()
            .expect("the script was run before");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{registry}: {stderr}");
    }

    /// The client, about to build the Dockerfile in `context`.
    pub fn build(&self, context: &Path) -> Command {
        let mut command = client(&self.address());
        let folder = context.display();
        command
            .args(["build", "--progress=plain", "--frontend=dockerfile.v0"])
            .arg(format!("--local=context={folder}"))
            .arg(format!("--local=dockerfile={folder}"));
        command
    }
}

impl Drop for Buildkitd {
    fn drop(&mut self) {
        if let Some(script) = &mut self.script {
            if script.try_wait().is_ok_and(|ended| ended.is_none()) {
                signal(script.id(), Signal::TERM);
            }
            drop(script.wait());
        }
    }
}

/// BuildKit's client, about to talk to the daemon at `address`.
///
/// # Panics
/// If the suite was not started by `make test`.
pub fn client(address: &str) -> Command {
    let mut command = Command::new(setting("NULLSPACE_BUILDCTL"));
    command.args(["--addr", address]).stdin(Stdio::null());
    command
}

/// A program of the scripts' folder.
pub fn script_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../scripts")
        .join(name)
}

fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    rustix::process::kill_process(pid.expect("processes have numbers"), signal)
        .expect("we started it");
}
