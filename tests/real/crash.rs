//! Twenty kills in the middle of a step: nothing of the step is left, and the service goes on.
//!
//! What is killed: the step's supervisor (the service's own child above the step), the container
//! runtime, the whole service. When: at a random number of the step's processes, from a seed that is
//! printed; `NULLSPACE_TEST_SEED` repeats a run.

pub(crate) mod host;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::runner::Scenario;
use tests::service::{Place, Service};

use host::{Process, Remains};

/// How often each victim is killed: twenty times in all.
const KILLS: [(Victim, usize); 3] = [
    (Victim::Supervisor, 7),
    (Victim::Runtime, 7),
    (Victim::Service, 6),
];
/// The processes of the step, each in a session of its own and deaf to SIGTERM.
const PROCESSES: usize = 30;
/// How long anything may take to come or to go.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a whole build may take: its machine may boot without KVM.
const BUILD_PATIENCE: Duration = Duration::from_secs(150);

/// Scenarios with services of their own.
pub(crate) fn own() -> Vec<Scenario<'static>> {
    vec![Scenario::new(
        "crash::twenty_kills_in_a_step_of_thirty_processes_leave_nothing",
        kills,
    )]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Supervisor,
    Runtime,
    Service,
}

#[expect(clippy::print_stdout, reason = "a failure is repeated from the seed")]
fn kills() {
    let mut random = Random::new();
    println!("crash: seed {}", random.0);
    let mut victims: Vec<Victim> = KILLS
        .iter()
        .flat_map(|(victim, count)| vec![*victim; *count])
        .collect();
    random.shuffle(&mut victims);

    let place = Place::new();
    let mut service = place.start();
    let mut survived = BTreeSet::new();
    for (round, victim) in victims.into_iter().enumerate() {
        let wanted = 1 + random.below(PROCESSES);
        let step = Step::begin(&service, round, wanted);
        println!(
            "crash: kill {} of 20: {victim:?} at {} processes (waited for {wanted})",
            round + 1,
            step.seen
        );
        match victim {
            Victim::Service => {
                service.kill();
                service = place.start();
            }
            Victim::Supervisor => step.supervisor.kill(),
            Victim::Runtime => step.runtime.kill(),
        }
        // Of this attempt: another one of the same build may be under way already.
        until(&service, "the step's processes are gone", || {
            step.remains.processes()
        });
        step.cancel(&service);
        until(&service, "nothing of the step is left", || {
            step.remains.all(&service)
        });
        // One whole build after the first kill of each kind.
        if survived.insert(victim) {
            builds(&service, &format!("after-{round}"));
        }
    }
    assert!(service.terminate().success());
}

/// A step that runs, seen from the host.
struct Step {
    build: String,
    seen: usize,
    supervisor: Process,
    runtime: Process,
    remains: Remains,
}

impl Step {
    /// Starts a build, and waits until at least `wanted` processes of its step are there.
    fn begin(service: &Service, round: usize, wanted: usize) -> Self {
        // An odd time to sleep makes the step's processes known among all of the host.
        let marker = format!("1800.{:07}{round:02}", std::process::id());
        let run = format!(
            "for i in $(seq {PROCESSES}); do \
             setsid sh -c 'trap \"\" TERM HUP INT; exec sleep {marker}' & sleep 0.01; done; wait"
        );
        let build = request(service, &format!("crash-{round}"), &run);
        let mut sleepers = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while sleepers.len() < wanted {
            assert!(
                Instant::now() < deadline,
                "{} of {wanted} processes came:\n{}\n{}",
                sleepers.len(),
                status(service, &build),
                service.log_tail()
            );
            pause();
            sleepers = host::with_argument(&marker);
        }
        let sleeper = sleepers.first().expect("at least one was wanted");
        let above = sleeper.ancestors_up_to(service.pid());
        let supervisor = above.last().expect("a step runs below the service");
        let runtime = above.iter().find(|process| process.name() == "runc");
        Self {
            build,
            seen: sleepers.len(),
            supervisor: supervisor.clone(),
            runtime: runtime.expect("a step runs below the runtime").clone(),
            remains: Remains::expected(service, sleeper, marker),
        }
    }

    /// Cancels the build if it goes on, and waits for its end.
    fn cancel(&self, service: &Service) {
        let path = format!("/v1/templates/builds/{}/cancel", self.build);
        call(service, "POST", &path, &json!({}));
        until(service, "the build has ended", || {
            let status = status(service, &self.build);
            let ended = ["ready", "error", "cancelled"].contains(&status.as_str());
            (!ended).then_some(status).into_iter().collect()
        });
    }
}

/// A small template becomes ready.
pub(crate) fn builds(service: &Service, name: &str) {
    let build = request(service, name, &format!("echo {name} > /made"));
    let deadline = Instant::now() + BUILD_PATIENCE;
    loop {
        match status(service, &build).as_str() {
            "ready" => return,
            "error" | "cancelled" => panic!("{name} failed:\n{}", service.log_tail()),
            _ => assert!(Instant::now() < deadline, "{name} is not ready in time"),
        }
        pause();
    }
}

/// Asks for a build of one step; gives its id.
fn request(service: &Service, name: &str, run: &str) -> String {
    let body = json!({
        "base_image": "debian:bookworm",
        "steps": [{"action": "run", "command": run}],
        "name": name,
    });
    let answer = call(service, "POST", "/v1/templates/builds", &body);
    let id = answer.get("build_id").and_then(Value::as_str);
    id.unwrap_or_else(|| panic!("no build in {answer}"))
        .to_owned()
}

pub(crate) fn status(service: &Service, build: &str) -> String {
    let path = format!("/v1/templates/builds/{build}?offset=0");
    let answer = call(service, "GET", &path, &Value::Null);
    let status = answer.pointer("/build/status").and_then(Value::as_str);
    status
        .unwrap_or_else(|| panic!("no status in {answer}"))
        .to_owned()
}

pub(crate) fn call(service: &Service, method: &str, path: &str, body: &Value) -> Value {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*"])
        .args(["--max-time", "30", "--request", method])
        .args(["--header", "Content-Type: application/json", "--header"])
        .arg(format!("Authorization: Bearer {}", service.key()))
        .arg(format!("{}{path}", service.url()));
    if !body.is_null() {
        curl.args(["--data-binary", &body.to_string()]);
    }
    let output = curl.output().expect("curl is installed by make setup");
    assert!(
        output.status.success(),
        "{method} {path}: {}\n{}",
        String::from_utf8_lossy(&output.stderr),
        service.log_tail()
    );
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

/// Waits until `left` finds nothing more.
fn until(service: &Service, what: &str, left: impl Fn() -> Vec<String>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not true in time: {what}; there is\n{}\nthe service logged last:\n{}",
            left.join("\n"),
            service.log_tail()
        );
        pause();
    }
}

/// Between two looks at the host, which tells nobody when its processes change.
pub(crate) fn pause() {
    std::thread::park_timeout(Duration::from_millis(10));
}

/// The numbers of a seed (splitmix64).
struct Random(u64);

impl Random {
    fn new() -> Self {
        let given = std::env::var_os("NULLSPACE_TEST_SEED").map(|seed| {
            let seed = seed.into_string().ok().and_then(|seed| seed.parse().ok());
            seed.expect("NULLSPACE_TEST_SEED is a number")
        });
        Self(given.unwrap_or_else(|| {
            let mut bytes = [0; 8];
            let mut source = std::fs::File::open("/dev/urandom").expect("Linux has it");
            std::io::Read::read_exact(&mut source, &mut bytes).expect("it never ends");
            u64::from_le_bytes(bytes)
        }))
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let bound = u64::try_from(bound).expect("bounds are small");
        usize::try_from(mixed % bound).expect("less than a bound that was one")
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
