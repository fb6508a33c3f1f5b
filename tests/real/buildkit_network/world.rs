//! A host and an internet of namespaces, with a build daemon on that host:
//!
//! ```text
//! "internet" 198.51.100.1, 10.7.7.7, 10.8.8.8 ── 203.0.113.1/30 ── 203.0.113.2/30 "host" (lo; 192.0.2.7, 10.9.9.9)
//! ```
//!
//! On the host's loopback is the suites' registry. Networks that the daemon lets through although they
//! are private: 10.7.7.7/32.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;
use tests::buildkitd::{Buildkitd, script_path};
use tests::network::Namespace;
use tests::service::setting;

/// An address that anyone may reach.
pub(super) const BEYOND: &str = "198.51.100.1:0";
/// A private address that the operator lets through.
const ALLOWED: &str = "10.7.7.7:0";
/// Addresses that no build may reach: private ones elsewhere, and all of the host.
const CLOSED: [&str; 5] = [
    "10.8.8.8:0",
    "127.0.0.1:0",
    "192.0.2.7:0",
    "10.9.9.9:0",
    "203.0.113.2:0",
];

pub(super) struct World {
    pub(super) daemon: Buildkitd,
    pub(super) internet: Namespace,
    /// Servers that a build may reach, and what they say.
    pub(super) open: BTreeMap<SocketAddr, &'static str>,
    /// Servers that no build may reach.
    pub(super) closed: Vec<SocketAddr>,
    /// Where the daemon fetches images, and no step anything.
    pub(super) registry: SocketAddr,
    // In the order in which they must end: the daemon first.
    _door: Door,
    _host: Namespace,
}

impl World {
    pub(super) fn new() -> Self {
        let (host, internet) = (Namespace::new(), Namespace::new());
        host.ip("link add wan type veth peer name lan");
        host.ip(&format!("link set lan netns {}", internet.path().display()));
        for line in [
            "address add 192.0.2.7/32 dev lo",
            "address add 10.9.9.9/32 dev lo",
            "address add 203.0.113.2/30 dev wan",
            "link set wan up",
            "route add default via 203.0.113.1",
        ] {
            host.ip(line);
        }
        for line in [
            "address add 198.51.100.1/32 dev lo",
            "address add 10.7.7.7/32 dev lo",
            "address add 10.8.8.8/32 dev lo",
            "address add 203.0.113.1/30 dev lan",
            "link set lan up",
        ] {
            internet.ip(line);
        }
        let open = [(BEYOND, "beyond"), (ALLOWED, "allowed")];
        let open = open.map(|(address, says)| (internet.serve(address, || says.to_owned()), says));
        let [elsewhere, of_host @ ..] = CLOSED;
        let mut closed = vec![internet.serve(elsewhere, || "closed".to_owned())];
        closed.extend(of_host.map(|address| host.serve(address, || "closed".to_owned())));
        // The control: for the host itself they are all there.
        for (address, says) in &open {
            assert_eq!(host.get(*address), *says);
        }
        for address in &closed {
            assert_eq!(host.get(*address), "closed");
        }
        let registry = setting("NULLSPACE_TEST_REGISTRY");
        let door = Door::to(&registry, &host);
        Self {
            daemon: Buildkitd::start_on(&host, &registry, &["10.7.7.7/32"]),
            internet,
            open: BTreeMap::from(open),
            closed,
            registry: registry.parse().expect("an address and a port"),
            _door: door,
            _host: host,
        }
    }

    /// What no step may reach: the registry too, and what listens on the host's loopback under none of the
    /// addresses that a step's network gives to its own parts.
    pub(super) fn closed_to_steps(&self) -> Vec<SocketAddr> {
        let closed = [self.closed.as_slice(), &[self.registry]].concat();
        let of_network = ["10.0.88.2", "10.0.88.3", "10.0.88.100", "10.0.89.1"];
        let on_loopback = closed.iter().filter(|address| address.ip().is_loopback());
        let aliases = on_loopback.flat_map(|address| {
            of_network.map(|ip| SocketAddr::new(ip.parse().expect("an address"), address.port()))
        });
        closed.iter().copied().chain(aliases).collect()
    }
}

/// What brings the suites' registry to the loopback of another host.
struct Door(Child);

impl Door {
    fn to(registry: &str, host: &Namespace) -> Self {
        let mut door = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(script_path("forward.py"))
            .arg(host.path())
            .arg(registry)
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv is part of util-linux");
        let mut line = String::new();
        BufReader::new(door.stdout.take().expect("a pipe"))
            .read_line(&mut line)
            .expect("it speaks text");
        assert_eq!(line, "ready\n", "{registry} is not forwarded");
        Self(door)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A folder with this Dockerfile and these files.
pub(super) fn context(dockerfile: &str, files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::with_prefix("nullspace-context-").expect("the disk has room");
    for (name, text) in files.iter().chain(&[("Dockerfile", dockerfile)]) {
        std::fs::write(folder.path().join(name), text).expect("the disk has room");
    }
    folder
}

/// The lines `NAME=VALUE` that steps printed.
#[derive(Debug)]
pub(super) struct Answers(BTreeMap<String, String>);

impl Answers {
    pub(super) fn of(&self, name: impl ToString) -> &str {
        let name = name.to_string();
        let value = self.0.get(&name);
        value.unwrap_or_else(|| panic!("no step printed {name}: {self:?}"))
    }
}

/// Builds what must build, and gives what its steps printed.
pub(super) fn answers(daemon: &Buildkitd, context: &Path, more: &[&str]) -> Answers {
    let output = daemon.build(context).args(more).output();
    let output = output.expect("make setup made the client");
    let said = text(&output);
    assert!(output.status.success(), "no build:\n{said}");
    let answers = said
        .lines()
        // `#7 0.123 NAME=VALUE`
        .filter_map(|line| line.splitn(3, ' ').nth(2)?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_end().to_owned()));
    Answers(answers.collect())
}

/// What the client said.
pub(super) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
