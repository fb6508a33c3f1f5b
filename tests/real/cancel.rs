//! A build that is cancelled, in each of its phases: when its log says that it is over, nothing of it is
//! on the host, and the log says what was looked for.

mod phases;
mod slow_registry;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::runner::Scenario;
use tests::service::{Place, Service};

use crate::crash::host::{self, Process, Remains};
use crate::crash::{builds, call, pause, status};
use phases::{Phase, Seen, of_images, of_machines, pull, step};
use slow_registry::SlowRegistry;

/// How long a build may take to come to a phase: its machine may boot without KVM.
const PATIENCE: Duration = Duration::from_mins(4);
/// How long a cancelled build may take to be gone, on a host that does other things too.
const GONE: Duration = Duration::from_secs(20);

/// How often a build may be cancelled before the service that is to be killed dies.
const KILLS_MAX: usize = 5;

/// Scenarios with services of their own.
pub(crate) fn own() -> Vec<Scenario<'static>> {
    vec![
        Scenario::new(
            "cancel::in_every_phase_nothing_of_the_build_is_left_when_its_log_ends",
            every_phase,
        ),
        Scenario::new(
            "cancel::a_service_that_dies_on_the_way_ends_the_build_when_it_is_back",
            killed_on_the_way,
        ),
    ]
}

fn every_phase() {
    // An odd time to sleep makes a build's processes known among all of the host.
    let marker = format!("1700.{:07}", std::process::id());
    let registry = SlowRegistry::start();
    let place = Place::with_plain_registry(registry.host());
    let service = place.start();

    // First of all: what was pulled once is not pulled again.
    let pull = pull(&registry);
    let pulling = begin(&service, &marker, &pull);
    cancelled(&service, &pulling, |report| report.check(&pull));
    let remains = waiting(&service, &marker);
    gone_now(&service, &remains);
    for phase in of_images(&marker).into_iter().chain(of_machines()) {
        let running = begin(&service, &marker, &phase);
        cancelled(&service, &running, |report| report.check(&phase));
        gone_now(&service, &remains);
    }
    builds(&service, "after-all");
    assert!(service.terminate().success());
}

/// The service is killed between the wish and its fulfilment.
#[expect(
    clippy::print_stdout,
    reason = "what was found is a result of the suite"
)]
fn killed_on_the_way() {
    let marker = format!("1701.{:07}", std::process::id());
    let place = Place::new();
    let mut service = place.start();
    let step = begin(&service, &marker, &step("first", &marker));
    let remains = remains(&service, &marker);
    cancelled(&service, &step, |_| {});

    let mut phases = of_images(&marker);
    phases.extend(of_machines());
    phases.retain(|phase| ["step", "BuildKit", "ext4", "readiness"].contains(&phase.name));
    assert_eq!(phases.len(), 4, "phases have other names");
    for phase in &phases {
        let mut tries = 0..KILLS_MAX;
        loop {
            let again = tries.next();
            assert!(again.is_some(), "{}: never killed in time", phase.name);
            let running = begin(&service, &marker, phase);
            let below = host::below(service.pid());
            call(&service, "POST", &running.cancel(), &Value::Null);
            service.kill();
            service = place.start();
            let message = end(&service, &running);
            let left: Vec<&Process> = below.iter().filter(|process| process.is_alive()).collect();
            assert!(left.is_empty(), "{}: {left:?} after {message}", phase.name);
            gone_now(&service, &remains);
            // Else it was cancelled before the service was killed.
            if message.contains("stopped the worker that built it") {
                println!("cancel: {}, service killed: {message}", phase.name);
                assert!(message.contains("seen to be gone"), "{message}");
                assert!(!message.contains("still there"), "{message}");
                break;
            }
        }
    }
    builds(&service, "after-all");
    assert!(service.terminate().success());
}

/// A build that has come to its phase.
struct Running {
    phase: &'static str,
    build: String,
}

impl Running {
    fn cancel(&self) -> String {
        format!("/v1/templates/builds/{}/cancel", self.build)
    }
}

/// Starts a build and waits until it is in its phase.
fn begin(service: &Service, marker: &str, phase: &Phase) -> Running {
    let build = request(service, &phase.body);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let messages = messages(service, &build);
        let seen = Seen {
            service,
            marker,
            messages: &messages,
        };
        if (phase.reached)(&seen) {
            break;
        }
        let status = status(service, &build);
        assert!(
            Instant::now() < deadline && ["waiting", "building"].contains(&status.as_str()),
            "{}: {status}, and did not come to its phase:\n{}\nthe service logged last:\n{}",
            phase.name,
            messages.join("\n"),
            service.log_tail()
        );
        pause();
    }
    Running {
        phase: phase.name,
        build,
    }
}

/// Cancels a build that waits for two in a step, which is as many as are built at once, and then those.
/// What the service would have left behind.
fn waiting(service: &Service, marker: &str) -> Remains {
    let steps = ["one", "two"].map(|name| begin(service, marker, &step(name, marker)));
    let remains = remains(service, marker);
    let waits = Phase {
        name: "waiting",
        body: json!({"base_image": "debian:bookworm", "name": "waits"}),
        reached: |seen| seen.says("Waiting for a worker"),
        stopped: &["nothing of it was running"],
        gone: &[],
    };
    let third = begin(service, marker, &waits);
    cancelled(service, &third, |report| {
        assert_eq!(report.message, "Build cancelled; nothing of it was running");
    });
    for step in &steps {
        cancelled(service, step, |_| {});
    }
    remains
}

/// What a step that runs would leave behind.
fn remains(service: &Service, marker: &str) -> Remains {
    let sleeper = host::with_argument(marker);
    let sleeper: &Process = sleeper.first().expect("the step runs");
    Remains::expected(service, sleeper, marker.to_owned())
}

/// What the last entry of a cancelled build's log says.
struct Report {
    message: String,
}

impl Report {
    fn check(&self, phase: &Phase) {
        let message = &self.message;
        let stopped = phase
            .stopped
            .iter()
            .any(|what| message.contains(&format!("stopped {what}")));
        assert!(stopped, "{}: {message}", phase.name);
        for thing in phase.gone {
            assert!(
                message.contains(thing),
                "{} and {thing}: {message}",
                phase.name
            );
        }
        assert!(
            !message.contains("still there"),
            "{}: {message}",
            phase.name
        );
    }
}

/// Cancels a build and waits for the end of its log.
#[expect(clippy::print_stdout, reason = "the times are a result of the suite")]
fn cancelled(service: &Service, running: &Running, check: impl Fn(&Report)) {
    let since = Instant::now();
    let reason = json!({"reason": running.phase});
    call(service, "POST", &running.cancel(), &reason);
    let message = end(service, running);
    let took = since.elapsed().as_millis();
    println!("cancel: {} gone within {took} ms: {message}", running.phase);
    check(&Report { message });
}

/// Waits until a build counts as cancelled; gives the last entry of its log.
fn end(service: &Service, running: &Running) -> String {
    let since = Instant::now();
    while status(service, &running.build) != "cancelled" {
        assert!(
            since.elapsed() < GONE,
            "{}: {} {:?} after its cancellation:\n{}",
            running.phase,
            status(service, &running.build),
            since.elapsed(),
            service.log_tail()
        );
        pause();
    }
    let message = messages(service, &running.build).pop();
    let message = message.expect("a log ends with an entry");
    assert!(message.starts_with("Build cancelled; "), "{message}");
    message
}

/// That nothing is left at this moment, and not a while later.
fn gone_now(service: &Service, remains: &Remains) {
    let left = remains.all(service);
    assert!(
        left.is_empty(),
        "left behind:\n{}\nthe service logged last:\n{}",
        left.join("\n"),
        service.log_tail()
    );
}

fn request(service: &Service, body: &Value) -> String {
    let answer = call(service, "POST", "/v1/templates/builds", body);
    let id = answer.get("build_id").and_then(Value::as_str);
    id.unwrap_or_else(|| panic!("no build in {answer}"))
        .to_owned()
}

/// What a build's log says so far.
fn messages(service: &Service, build: &str) -> Vec<String> {
    let path = format!("/v1/templates/builds/{build}?offset=0");
    let answer = call(service, "GET", &path, &Value::Null);
    let entries = answer.get("entries").or_else(|| answer.get("logs"));
    let entries = entries.and_then(Value::as_array);
    let entries = entries.unwrap_or_else(|| panic!("no log in {answer}"));
    let message = |entry: &Value| Some(entry.get("message")?.as_str()?.to_owned());
    entries.iter().filter_map(message).collect()
}
