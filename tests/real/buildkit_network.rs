//! What Dockerfile builds reach over the network, and what they do not: the filter of
//! `scripts/buildkitd`, tried from inside steps and through what the daemon fetches itself.

mod world;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use tests::runner::{Filter, Scenario, run};

use crate::AT_ONCE;
use world::{BEYOND, World, answers, context, text};

/// Sends raw packets; see there.
const RAW: &str = include_str!("buildkit_network/raw.py");
/// Where a step listens for the steps of other builds.
const STEP_PORT: u16 = 7777;
/// How long a step may take to begin.
const PATIENCE: Duration = Duration::from_mins(1);

type Shown = (&'static str, fn(&World));

/// What is shown, and how.
const SCENARIOS: [Shown; 5] = [
    (
        "buildkit_network::a_step_reaches_the_internet_and_nothing_of_the_host",
        steps,
    ),
    (
        "buildkit_network::a_step_that_makes_its_own_packets_reaches_no_more",
        raw_packets,
    ),
    (
        "buildkit_network::with_the_network_off_a_step_reaches_nothing",
        network_off,
    ),
    (
        "buildkit_network::a_step_reaches_no_step_of_another_build",
        other_steps,
    ),
    (
        "buildkit_network::what_the_daemon_fetches_comes_from_the_internet_and_not_from_the_host",
        fetches,
    ),
];

/// Runs the scenarios that are asked for, which share a daemon; true if none of them failed.
pub(crate) fn run_wanted(filter: &Filter) -> bool {
    let mut wanted = SCENARIOS.to_vec();
    wanted.retain(|(name, _)| filter.wants(name));
    if wanted.is_empty() {
        return true;
    }
    let world = World::new();
    let scenarios: Vec<_> = wanted
        .into_iter()
        .map(|(name, shows)| {
            let world = &world;
            Scenario::new(name, move || shows(world))
        })
        .collect();
    run(&scenarios, AT_ONCE)
}

/// A Dockerfile whose step prints `ADDRESS=BODY` of the server there, or `ADDRESS=nothing`.
fn asking(addresses: impl IntoIterator<Item = SocketAddr>) -> String {
    let mut dockerfile = "FROM debian:bookworm\nRUN bash <<'END'\nask() {\n\
        answer=$(timeout 5 bash -c 'exec 3<>/dev/tcp/$0/$1; printf \"GET / HTTP/1.0\\r\\n\\r\\n\" >&3; \
        cat <&3' \"$1\" \"$2\" 2>/dev/null | tail -n 1)\necho \"$1:$2=${answer:-nothing}\"\n}\n"
        .to_owned();
    for address in addresses {
        let _ = writeln!(dockerfile, "ask {} {}", address.ip(), address.port());
    }
    dockerfile + "END\n"
}

fn steps(world: &World) {
    let closed = world.closed_to_steps();
    let addresses = world.open.keys().chain(&closed).copied();
    let context = context(&asking(addresses), &[]);
    let heard = answers(&world.daemon, context.path(), &[]);
    for (address, says) in &world.open {
        assert_eq!(heard.of(address), *says, "{address}");
    }
    for address in &closed {
        assert_eq!(heard.of(address), "nothing", "{address}");
    }
}

fn raw_packets(world: &World) {
    let closed = world.closed_to_steps();
    let targets: Vec<String> = world
        .open
        .keys()
        .chain(&closed)
        .map(ToString::to_string)
        .collect();
    let dockerfile = format!(
        "FROM python:3.11\nCOPY raw.py /\nRUN python3 /raw.py {}\n",
        targets.join(" ")
    );
    let context = context(&dockerfile, &[("raw.py", RAW)]);
    let heard = answers(&world.daemon, context.path(), &[]);
    for address in world.open.keys() {
        assert_eq!(heard.of(format!("raw:{address}")), "answered", "{address}");
    }
    for address in &closed {
        assert_eq!(heard.of(format!("raw:{address}")), "nothing", "{address}");
    }
}

fn network_off(world: &World) {
    let addresses = world.open.keys().chain(&world.closed).copied();
    let context = context(&asking(addresses), &[]);
    let off = ["--opt=force-network-mode=none"];
    let heard = answers(&world.daemon, context.path(), &off);
    for address in world.open.keys().chain(&world.closed) {
        assert_eq!(heard.of(address), "nothing", "{address}");
    }
}

fn other_steps(world: &World) {
    // A server that answers when the other build has ended keeps the first one running until then.
    let (begun, wait_for_begin) = mpsc::channel();
    let (ended, wait_for_end) = mpsc::channel::<()>();
    let gate = world.internet.serve(BEYOND, move || {
        let _heard = begun.send(());
        let _released = wait_for_end.recv_timeout(PATIENCE);
        "go".to_owned()
    });
    let listening = format!(
        "FROM python:3.11\nRUN python3 -m http.server {STEP_PORT} >/dev/null 2>&1 & \
         curl() {{ python3 -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1]).read()' \"$1\"; }}; \
         for i in $(seq 100); do curl http://127.0.0.1:{STEP_PORT}/ 2>/dev/null && break; sleep 0.1; done; \
         curl http://{gate}/ && echo first=listened\n"
    );
    let first = context(&listening, &[]);
    std::thread::scope(|scope| {
        let listener = scope.spawn(|| answers(&world.daemon, first.path(), &[]));
        wait_for_begin.recv_timeout(PATIENCE).expect("it begins");
        let addresses = [
            "127.0.0.1",
            "10.0.88.2",
            "10.0.88.100",
            "10.0.89.1",
            "10.0.89.2",
        ];
        let addresses =
            addresses.map(|ip| SocketAddr::new(ip.parse().expect("an address"), STEP_PORT));
        let second = context(&asking(addresses), &[]);
        let heard = answers(&world.daemon, second.path(), &[]);
        for address in addresses {
            assert_eq!(heard.of(address), "nothing", "{address}");
        }
        let _heard = ended.send(());
        let first = listener.join().expect("it builds");
        assert_eq!(first.of("first"), "listened");
    });
}

fn fetches(world: &World) {
    let fetching = |address: &SocketAddr| {
        let dockerfile = format!(
            "FROM debian:bookworm\nADD http://{address}/file /\nRUN echo \"got=$(cat /file)\"\n"
        );
        context(&dockerfile, &[])
    };
    for (address, says) in &world.open {
        let context = fetching(address);
        let heard = answers(&world.daemon, context.path(), &[]);
        assert_eq!(heard.of("got"), *says, "{address}");
    }
    for address in &world.closed {
        let context = fetching(address);
        let output = world.daemon.build(context.path()).output();
        let output = output.expect("make setup made the client");
        let said = text(&output);
        assert!(!output.status.success(), "{address} is fetched:\n{said}");
        let why = ["connection refused", "no route to host"];
        assert!(
            why.iter().any(|why| said.contains(why)),
            "{address}:\n{said}"
        );
    }
}
