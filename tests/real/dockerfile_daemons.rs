//! Builds from Dockerfiles and the daemons that build them: a daemon that dies under a build, another
//! one that takes over, none at all; and two tenants of one warm daemon.

use std::process::Command;

use tests::buildkitd::Buildkitd;
use tests::registry::{PASSWORD, PrivateRegistry, USER};
use tests::runner::Scenario;
use tests::service::{Place, Service};

const SCRIPT: &str = "dockerfile_daemons.py";

/// Scenarios with services and daemons of their own.
pub(crate) fn own() -> Vec<Scenario<'static>> {
    vec![
        Scenario::new(
            "dockerfile_daemons::a_build_goes_on_at_another_daemon_when_its_own_is_killed",
            another_takes_over,
        ),
        Scenario::new(
            "dockerfile_daemons::a_build_whose_only_daemon_is_killed_ends_and_may_be_retried",
            none_is_left,
        ),
        Scenario::new(
            "dockerfile_daemons::what_one_tenant_pulled_is_closed_to_another_at_a_warm_daemon",
            tenants,
        ),
    ]
}

/// A place whose service knows exactly these daemons.
fn place(daemons: &[&Buildkitd]) -> Place {
    let mut place = Place::new();
    let addresses: Vec<String> = daemons.iter().map(|daemon| daemon.address()).collect();
    place.set_build_daemons(&addresses);
    place
}

/// The daemon that runs a step of the build: the one whose cgroup or client shows `marker`.
fn busy<'a>(daemons: &'a mut [Buildkitd], marker: &str) -> &'a mut Buildkitd {
    let is_busy = |daemon: &Buildkitd| {
        let pid = daemon.pid().to_string();
        let lines = Command::new("pgrep")
            .args(["--full", "--", marker])
            .output();
        let lines =
            String::from_utf8_lossy(&lines.expect("procps is installed").stdout).into_owned();
        lines.lines().any(|step| is_below(step, &pid))
    };
    let found = daemons.iter_mut().find(|daemon| is_busy(daemon));
    found.expect("a daemon runs the step")
}

/// Whether process `pid` is `top` or descends from it.
fn is_below(pid: &str, top: &str) -> bool {
    let mut pid = pid.to_owned();
    for _ in 0..32 {
        if pid == top {
            return true;
        }
        let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
            return false;
        };
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        parent.unwrap_or("0").trim().clone_into(&mut pid);
    }
    false
}

fn another_takes_over() {
    let mut daemons = [Buildkitd::start(), Buildkitd::start()];
    let place = place(&daemons.each_ref());
    let service = place.start();
    let begun = service.client(SCRIPT, "begun");
    busy(&mut daemons, "sleep 7.31").kill();
    let envs = [("NULLSPACE_TEST_BUILD", begun.trim())];
    service.client_with(SCRIPT, "ready", &envs);
    assert!(service.terminate().success());
}

fn none_is_left() {
    let mut daemon = Buildkitd::start();
    let place = place(&[&daemon]);
    let service = place.start();
    let begun = service.client(SCRIPT, "begun");
    daemon.kill();
    let envs = [("NULLSPACE_TEST_BUILD", begun.trim())];
    service.client_with(SCRIPT, "failed_for_want_of_a_daemon", &envs);
    daemon.start_again();
    service.client_with(SCRIPT, "retried", &envs);
    assert!(service.terminate().success());
}

fn tenants() {
    let registry = PrivateRegistry::start("debian:bookworm");
    let daemon = Buildkitd::start();
    daemon.forward(registry.host());
    let mut place = Place::with_plain_registry(registry.host());
    place.set_build_daemons(&[daemon.address()]);
    let service = place.start();
    let image = registry.image();
    let other = key_of(&service, "another");
    let envs = [
        ("NULLSPACE_TEST_PRIVATE_IMAGE", image.as_str()),
        ("NULLSPACE_TEST_PRIVATE_USER", USER),
        ("NULLSPACE_TEST_PRIVATE_PASSWORD", PASSWORD),
        ("NULLSPACE_TEST_OTHER_KEY", other.as_str()),
    ];
    service.client_with(SCRIPT, "a_private_image_is_closed_to_other_tenants", &envs);
    assert!(service.terminate().success());
}

fn key_of(service: &Service, owner: &str) -> String {
    let output = service.operate(&["key", "create", "--owner", owner, "--label", owner]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let key = printed
        .split_whitespace()
        .find(|word| word.starts_with("ns_live_"));
    key.unwrap_or_else(|| panic!("no key in {printed}"))
        .to_owned()
}
