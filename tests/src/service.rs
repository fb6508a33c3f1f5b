//! A real `nullspaced` with a data folder of its own.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

/// How long the service may take to become ready, or to end.
const PATIENCE: Duration = Duration::from_secs(90);

/// A variable that `make test` sets.
///
/// # Panics
/// If it is not set: the suite was started in another way.
pub fn setting(name: &str) -> String {
    std::env::var_os(name)
        .unwrap_or_else(|| panic!("{name} is not set: run the suite by `make test`"))
        .into_string()
        .expect("settings are text")
}

/// The binary `nullspaced`, which cargo puts beside the folder of the test binaries.
///
/// # Panics
/// If it is not there.
pub fn binary() -> PathBuf {
    let suite = std::env::current_exe().expect("a process knows its binary");
    let folder = suite
        .parent()
        .and_then(Path::parent)
        .expect("suites are in target/*/deps");
    let binary = folder.join("nullspaced");
    assert!(
        binary.is_file(),
        "{} is missing: run the suite by `make test`",
        binary.display()
    );
    binary
}

/// Where a service keeps its data, and how it is started again on them.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
    port: u16,
}

/// A running service. Dropping it kills it.
#[derive(Debug)]
pub struct Service {
    child: Child,
    url: String,
    data_dir: PathBuf,
    config: PathBuf,
    log: PathBuf,
}

impl Place {
    /// A fresh data folder and a free port; settings for the registry and mirrors of `make test`.
    ///
    /// # Panics
    /// If the folder cannot be made.
    pub fn new() -> Self {
        Self::with_settings("")
    }

    /// The same, and the registry at `host` is spoken to without TLS.
    ///
    /// # Panics
    /// If the folder cannot be made.
    pub fn with_plain_registry(host: &str) -> Self {
        Self::with_settings(&format!("plain_http_hosts = [\"{host}\"]\n"))
    }

    /// The folder of its data, settings and log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Adds settings, for services that are started from now on.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn add_settings(&mut self, settings: &str) {
        let path = self.folder.path().join("service.toml");
        let mut file = File::options()
            .append(true)
            .open(path)
            .expect("it was written before");
        writeln!(file, "\n{settings}").expect("the disk has room");
    }

    /// Gives a setting a value, for services that are started from now on.
    ///
    /// # Panics
    /// If the settings cannot be changed.
    pub fn set(&mut self, section: &str, key: &str, value: impl Into<toml::Value>) {
        let path = self.folder.path().join("service.toml");
        let settings = std::fs::read_to_string(&path).expect("it was written before");
        let mut settings: toml::Table = settings.parse().expect("it is TOML");
        let section = settings
            .entry(section)
            .or_insert_with(|| toml::Table::new().into());
        let section = section.as_table_mut().expect("sections are tables");
        section.insert(key.to_owned(), value.into());
        std::fs::write(path, settings.to_string()).expect("the disk has room");
    }

    /// Makes these the build daemons, for services that are started from now on.
    ///
    /// # Panics
    /// If the settings cannot be changed.
    pub fn set_build_daemons(&mut self, addresses: &[String]) {
        let daemons = addresses.iter().map(|address| {
            let daemon = toml::Table::from_iter([("address".to_owned(), address.clone().into())]);
            toml::Value::Table(daemon)
        });
        self.set("buildkit", "daemon", daemons.collect::<Vec<_>>());
    }

    /// With more settings of the registry.
    fn with_settings(registry_settings: &str) -> Self {
        let folder = TempDir::with_prefix("nullspace-test-").expect("the disk has room");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener
            .local_addr()
            .expect("a bound socket has an address")
            .port();
        // Bounds of steps that a scenario can reach and that no honest one comes near.
        let mut config = format!(
            "[executor]\nstep_disk_mb_max = 1024\nstep_processes_max = 512\n\n\
             [registry]\nmirrors_only = true\n{registry_settings}\n"
        );
        let registry = setting("NULLSPACE_TEST_REGISTRY");
        let _ = writeln!(
            config,
            "[[registry.mirror]]\nregistry = \"docker.io\"\nhost = \"{registry}\"\nplain_http = true\n"
        );
        config += "[builtins.base]\nimage = \"debian:bookworm\"\n\n";
        let buildctl = setting("NULLSPACE_BUILDCTL");
        let daemon = setting("NULLSPACE_TEST_BUILDKIT");
        let _ = writeln!(
            config,
            "[buildkit]\nbuildctl = \"{buildctl}\"\n\n[[buildkit.daemon]]\naddress = \"{daemon}\"\n"
        );
        let network = setting("NULLSPACE_TEST_BUILD_NETWORK");
        config += &std::fs::read_to_string(network).expect("make setup wrote it");
        std::fs::write(folder.path().join("service.toml"), config).expect("the disk has room");
        Self { folder, port }
    }

    /// Runs an operator command on the data while no service runs on them, and waits for its end.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn operate(&self, args: &[&str]) -> Output {
        let folder = self.folder.path();
        operate(args, &folder.join("data"), &folder.join("service.toml"))
    }

    /// Starts the service and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready; with the end of its log.
    pub fn start(&self) -> Service {
        let folder = self.folder.path();
        let log = folder.join("service.log");
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a new file");
        let (data_dir, config) = (folder.join("data"), folder.join("service.toml"));
        let listen = format!("127.0.0.1:{}", self.port);
        // setpriv ends the service when the suite is killed; the suite's main thread starts it.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(binary())
            .arg("serve")
            .arg("--data-dir")
            .arg(&data_dir)
            .args(["--listen", &listen])
            .arg("--config")
            .arg(&config)
            .env("NULLSPACED_GUEST_AGENT", setting("NULLSPACE_GUEST_AGENT"))
            .stdout(stderr.try_clone().expect("descriptors are left"))
            .stderr(stderr)
            .spawn()
            .expect("setpriv is part of util-linux");
        let mut service = Service {
            child,
            url: format!("http://{listen}"),
            data_dir,
            config,
            log,
        };
        service.wait_until_ready();
        service
    }
}

/// Runs an operator command, and waits for its end.
fn operate(args: &[&str], data_dir: &Path, config: &Path) -> Output {
    Command::new(binary())
        .args(args)
        .arg("--data-dir")
        .arg(data_dir)
        .arg("--config")
        .arg(config)
        .env("NULLSPACED_GUEST_AGENT", setting("NULLSPACE_GUEST_AGENT"))
        .output()
        .expect("the binary was started before")
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Service {
    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                panic!("the service ended ({status}):\n{}", self.log_tail());
            }
            let ready = Command::new("curl")
                .args([
                    "--silent",
                    "--fail",
                    "--max-time",
                    "2",
                    "--output",
                    "/dev/null",
                ])
                .args(["--noproxy", "*", "--retry", "20", "--retry-connrefused"])
                .args(["--retry-delay", "1", &format!("{}/readyz", self.url)])
                .stderr(Stdio::null())
                .status()
                .expect("curl is installed by make setup");
            if ready.success() {
                return;
            }
            assert!(Instant::now() < deadline, "not ready:\n{}", self.log_tail());
        }
    }

    /// The last lines of the service's log.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(60).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// The API key of the owner `default`.
    ///
    /// # Panics
    /// If the service has not written it.
    pub fn key(&self) -> String {
        let path = self.data_dir.join("admin.key");
        std::fs::read_to_string(path)
            .expect("the first start writes it")
            .trim()
            .to_owned()
    }

    /// The number of the service's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it keeps its data.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs an operator command of the same binary on this service's data, and waits for its end.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn operate(&self, args: &[&str]) -> Output {
        operate(args, &self.data_dir, &self.config)
    }

    /// Runs a scenario of a Python script below `tests/real/client` with the published client, and
    /// gives what it printed.
    ///
    /// # Panics
    /// If the scenario fails; with what it printed and the end of the service's log.
    pub fn client(&self, script: &str, scenario: &str) -> String {
        self.client_with(script, scenario, &[])
    }

    /// As [`Service::client`], with more variables in the script's environment.
    ///
    /// # Panics
    /// As [`Service::client`].
    pub fn client_with(&self, script: &str, scenario: &str, envs: &[(&str, &str)]) -> String {
        let output = client_command(script)
            .arg(scenario)
            .env("NULLSPACE_API_URL", &self.url)
            .env("NULLSPACE_API_KEY", self.key())
            .env("NULLSPACE_TEST_DATA_DIR", &self.data_dir)
            .envs(envs.iter().copied())
            .output()
            .expect("make setup made the environment");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{script} {scenario} failed ({}):\n{stdout}{}\nthe service logged last:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.log_tail(),
        );
        stdout
    }

    /// Asks the service to end (SIGTERM) and waits for it.
    ///
    /// # Panics
    /// If it does not end in time; with the end of its log.
    pub fn terminate(mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        rustix::process::kill_process(pid.expect("children have pids"), Signal::TERM)
            .expect("it is our child");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "still running:\n{}",
                self.log_tail()
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Ends the service without warning (SIGKILL).
    ///
    /// # Panics
    /// Never for a child of ours.
    pub fn kill(mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The scenarios that a script below `tests/real/client` lists.
///
/// # Panics
/// If the script does not run, or lists none.
pub fn scenarios(script: &str) -> Vec<String> {
    let output = client_command(script)
        .output()
        .expect("make setup made the environment");
    let listed = String::from_utf8(output.stdout).expect("names are text");
    let names: Vec<String> = listed.lines().map(str::to_owned).collect();
    assert!(
        !names.is_empty(),
        "{script} lists no scenario: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    names
}

fn client_command(script: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("real/client")
        .join(script);
    let mut command = Command::new(setting("NULLSPACE_TEST_PYTHON"));
    command
        .arg(path)
        .env_remove("NULLSPACE_API_URL")
        .env_remove("NULLSPACE_API_KEY");
    command
}
