//! A build daemon comes, goes and is killed: what is left of it, and what it finds again.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tests::buildkitd::{Buildkitd, client};
use tests::registry::PrivateRegistry;
use tests::runner::Scenario;
use tests::service::setting;

/// How long anything may take to come or to go.
const PATIENCE: Duration = Duration::from_mins(1);
/// The processes of the step that is in the way, and what they run: nobody else sleeps so long.
const PROCESSES: usize = 5;
const SLEEP: &str = "/bin/busybox sleep 86399.25";

/// Scenarios with a daemon of their own.
pub(crate) fn own() -> Vec<Scenario<'static>> {
    vec![
        Scenario::new(
            "buildkitd::killed_in_a_step_it_leaves_no_process_and_finds_again_what_it_built",
            killed,
        ),
        Scenario::new("buildkitd::stopped_in_a_step_it_leaves_nothing", stopped),
        Scenario::new(
            "buildkitd::it_keeps_no_record_of_what_steps_printed",
            no_records,
        ),
        Scenario::new(
            "buildkitd::it_reaches_a_registry_of_the_host_that_it_is_told_about",
            forwarded,
        ),
        Scenario::new("buildkitd::a_step_installs_packages", packages),
        Scenario::new(
            "buildkitd::it_gives_a_step_no_more_than_a_container",
            entitlements,
        ),
        Scenario::new("buildkitd::it_runs_no_frontend_but_its_own", frontends),
    ]
}

fn context(dockerfile: &str) -> TempDir {
    let folder = TempDir::with_prefix("nullspace-context-").expect("the disk has room");
    fs::write(folder.path().join("Dockerfile"), dockerfile).expect("the disk has room");
    folder
}

/// The smallest system that runs a shell: no daemon need fetch it.
fn small_context(command: &str) -> TempDir {
    let shell = "FROM scratch\nCOPY busybox /bin/\nSHELL [\"/bin/busybox\", \"sh\", \"-c\"]";
    let folder = context(&format!("{shell}\nRUN {command}\n"));
    let busybox = folder.path().join("busybox");
    fs::copy("/bin/busybox", busybox).expect("make setup installs busybox-static");
    folder
}

/// Builds, and gives what the client said.
fn build(daemon: &Buildkitd, context: &Path) -> String {
    let output = daemon.build(context).output();
    let output = output.expect("make setup made the client");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "no build:\n{said}");
    said
}

/// A build in the middle of a step with several processes.
fn sleeping(daemon: &Buildkitd) -> (Child, TempDir) {
    let rest = PROCESSES - 1;
    let context = small_context(&format!(
        "for i in $(/bin/busybox seq {rest}); do {SLEEP} & done; {SLEEP}"
    ));
    let client = daemon
        .build(context.path())
        .stderr(Stdio::null())
        .spawn()
        .expect("make setup made the client");
    until("the step sleeps", || sleepers() == PROCESSES);
    (client, context)
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn command_lines() -> Vec<(String, String)> {
    let entries = fs::read_dir("/proc").expect("Linux has it").flatten();
    entries
        .filter_map(|entry| {
            let words = fs::read(entry.path().join("cmdline")).ok()?;
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            Some((entry.path().display().to_string(), words.trim().to_owned()))
        })
        .collect()
}

fn sleepers() -> usize {
    let lines = command_lines();
    lines.iter().filter(|(_, words)| words == SLEEP).count()
}

/// What the host shows of a daemon: processes, mounts that anyone sees, cgroups.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    processes: Vec<String>,
    mounts: Vec<String>,
    cgroups: Vec<String>,
}

impl Traces {
    fn of(daemon: &Buildkitd) -> Self {
        let folder = daemon.folder().display().to_string();
        let lines = command_lines();
        let processes = lines
            .iter()
            .filter(|(_, words)| words.contains(&folder) || words == SLEEP)
            .map(|(_, words)| words.clone())
            .collect();
        // Each process may see other mounts.
        let mut mounts: Vec<String> = lines
            .iter()
            .filter_map(|(process, _)| fs::read_to_string(format!("{process}/mountinfo")).ok())
            .flat_map(|table| table.lines().map(str::to_owned).collect::<Vec<_>>())
            .filter(|line| line.contains(&folder))
            .collect();
        mounts.sort();
        mounts.dedup();
        Self {
            processes,
            mounts,
            cgroups: cgroups(daemon),
        }
    }
}

/// The cgroups that the daemon's settings name, in any hierarchy.
fn cgroups(daemon: &Buildkitd) -> Vec<String> {
    let settings = fs::read_to_string(daemon.folder().join("buildkitd.toml"));
    let settings: toml::Table = toml::from_str(&settings.expect("it was started")).expect("TOML");
    let worker = settings.get("worker").and_then(|worker| worker.get("oci"));
    let name = worker.and_then(|worker| worker.get("defaultCgroupParent")?.as_str());
    let name = name.expect("a name");
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(top).expect("Linux has it").flatten();
    hierarchies
        .map(|entry| entry.path())
        .chain([top.to_owned()])
        .map(|hierarchy| hierarchy.join(name))
        .filter(|group| group.exists())
        .map(|group| group.display().to_string())
        .collect()
}

/// That there is something to be left.
fn assert_seen(traces: &Traces) {
    assert!(traces.processes.len() > PROCESSES, "{traces:?}");
    assert!(!traces.mounts.is_empty(), "{traces:?}");
    assert!(!traces.cgroups.is_empty(), "{traces:?}");
}

fn assert_nothing_left(daemon: &Buildkitd) {
    let left = Traces::of(daemon);
    let nothing = Traces {
        processes: Vec::new(),
        mounts: Vec::new(),
        cgroups: Vec::new(),
    };
    assert_eq!(left, nothing);
}

fn killed() {
    let mut daemon = Buildkitd::start();
    let built = small_context("echo once");
    assert!(!build(&daemon, built.path()).contains("CACHED"));
    let (mut client, _context) = sleeping(&daemon);
    assert_seen(&Traces::of(&daemon));
    daemon.kill();
    assert_nothing_left(&daemon);
    assert!(!client.wait().expect("it is our child").success());
    daemon.start_again();
    let said = build(&daemon, built.path());
    assert!(said.contains("CACHED"), "{said}");
}

fn stopped() {
    let mut daemon = Buildkitd::start();
    let (mut client, _context) = sleeping(&daemon);
    assert_seen(&Traces::of(&daemon));
    daemon.stop();
    assert_nothing_left(&daemon);
    assert!(!client.wait().expect("it is our child").success());
}

fn no_records() {
    let daemon = Buildkitd::start();
    let context = small_context("echo \"pr1nted-$((1000 + 234))\"");
    let said = build(&daemon, context.path());
    assert!(said.contains("pr1nted-1234"), "{said}");
    let records = client(&daemon.address())
        .args(["debug", "histories", "--format={{json .}}"])
        .output()
        .expect("make setup made the client");
    assert!(records.status.success(), "{records:?}");
    assert_eq!(String::from_utf8_lossy(&records.stdout).trim(), "");
}

fn forwarded() {
    let registry = PrivateRegistry::start("debian:bookworm");
    let daemon = Buildkitd::start();
    let folder = context(&format!("FROM {}\n", registry.image()));
    let refusal = || {
        let output = daemon.build(folder.path()).output();
        let output = output.expect("make setup made the client");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refusal();
    assert!(said.contains("connection refused"), "{said}");
    daemon.forward(registry.host());
    // It wants a password, which is an answer.
    let said = refusal();
    assert!(said.contains("401 Unauthorized"), "{said}");
}

/// The client, about to build the Dockerfile in `context` by the suites' daemon, with no cache.
fn shared(context: &TempDir) -> Command {
    let folder = context.path().display();
    let mut command = client(&setting("NULLSPACE_TEST_BUILDKIT"));
    command
        .args(["build", "--progress=plain", "--no-cache"])
        .arg(format!("--local=context={folder}"))
        .arg(format!("--local=dockerfile={folder}"));
    command
}

fn assert_refused(client: &mut Command, why: &str) {
    let output = client.output().expect("make setup made the client");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it is built:\n{said}");
    assert!(said.contains(why), "{said}");
}

fn entitlements() {
    let asked = [
        ("network.host", "--network=host"),
        ("security.insecure", "--security=insecure"),
    ];
    for (entitlement, flag) in asked {
        let context = context(&format!("FROM debian:bookworm\nRUN {flag} true\n"));
        let mut client = shared(&context);
        client.args(["--frontend=dockerfile.v0", "--allow", entitlement]);
        let why = format!("granting entitlement {entitlement} is not allowed");
        assert_refused(&mut client, &why);
    }
}

fn frontends() {
    let context = context("# syntax=docker/dockerfile:1\nFROM debian:bookworm\n");
    let mut named_in_file = shared(&context);
    named_in_file.arg("--frontend=dockerfile.v0");
    let mut named_by_client = shared(&context);
    named_by_client.args(["--frontend=gateway.v0", "--opt=source=docker/dockerfile:1"]);
    for client in [&mut named_in_file, &mut named_by_client] {
        assert_refused(client, "invalid frontend: gateway.v0");
    }
}

fn packages() {
    let context = context(
        "FROM debian:bookworm\nRUN apt-get update && apt-get install -y --no-install-recommends hello\nRUN hello",
    );
    let output = shared(&context)
        .arg("--frontend=dockerfile.v0")
        .output()
        .expect("make setup made the client");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "no build:\n{said}");
    assert!(said.contains("Hello, world!"), "{said}");
}
