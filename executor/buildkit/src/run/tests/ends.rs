//! How a build ends before its time.

use std::convert::Infallible;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use super::*;
use crate::daemon::{DaemonConfig, Pool};
use crate::limits::BuildkitLimits;
use crate::testkit::{Bench, IsolatedDaemon, is_empty, shared_daemon, unique, until, watch};

/// A build that says `ready` and goes on for longer than any test, and what finds its processes.
fn endless() -> (String, String) {
    let token = unique("endless");
    let dockerfile = format!("FROM debian:bookworm\nRUN : {token}; echo rea''dy; sleep 10000\n");
    (dockerfile, token)
}

fn limits() -> BuildkitLimits {
    BuildkitLimits {
        silence_ms_max: 200,
        probe_ms_max: 1_000,
        unanswered_probes_max: 2,
        // What would go on for ever fails in another way.
        build_seconds_max: 60,
        ..BuildkitLimits::default()
    }
}

#[tokio::test]
async fn a_stopped_build_ends_and_so_does_its_step() {
    let bench = Bench::new();
    let (dockerfile, token) = endless();
    let invocation = bench.invocation(&dockerfile);
    let output = invocation.output.clone();
    let (mut heard, ended) = bench.start(invocation);
    let stop_when_ready = async {
        heard.output("ready").await;
        let step = watch(&token);
        bench.stop.cancel();
        step
    };
    let (outcome, step) = tokio::join!(ended, stop_when_ready);
    assert!(matches!(outcome, Err(RunError::Stopped)), "{outcome:?}");
    step.gone();
    assert_eq!(bench.over.get(), Some(&true));
    assert!(!output.exists() && is_empty(&bench.scratch()));
}

#[tokio::test]
async fn a_build_that_is_stopped_before_it_begins_does_not_begin() {
    let bench = Bench::new();
    bench.stop.cancel();
    let outcome = bench.outcome("FROM debian:bookworm\nRUN exit 1\n").await;
    assert!(matches!(outcome, Err(RunError::Stopped)), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_nobody_waits_for_any_more_ends_and_so_does_its_step() {
    let bench = Bench::new();
    let (dockerfile, token) = endless();
    let invocation = bench.invocation(&dockerfile);
    let output = invocation.output.clone();
    let (mut heard, ended) = bench.start(invocation);
    let step = tokio::select! {
        outcome = ended => panic!("{outcome:?}"),
        step = async { heard.output("ready").await; watch(&token) } => step,
    };
    let client = watch(&output.file_name().unwrap().to_string_lossy());
    client.gone();
    step.gone();
    until("nothing is left", || {
        !output.exists() && is_empty(&bench.scratch())
    });
}

#[tokio::test]
async fn a_build_that_takes_too_long_is_stopped() {
    // Enough for a daemon that has to fetch the image first: the step must have begun.
    const SECONDS: u64 = 20;
    let limits = BuildkitLimits {
        build_seconds_max: SECONDS,
        ..BuildkitLimits::default()
    };
    let bench = Bench::at([shared_daemon()], limits);
    let (dockerfile, token) = endless();
    let (mut heard, ended) = bench.start(bench.invocation(&dockerfile));
    let step = async {
        heard.output("ready").await;
        watch(&token)
    };
    let (outcome, step) = tokio::join!(ended, step);
    assert!(
        matches!(outcome, Err(RunError::TimedOut { seconds: SECONDS })),
        "{outcome:?}"
    );
    step.gone();
}

/// Cannot go on after the first output.
struct Full;

impl Observer for Full {
    type Error = &'static str;

    fn begun(&mut self, _: u32) {}

    fn stopped(&mut self, is_over: bool) {
        assert!(is_over, "the daemon goes on");
    }

    async fn event(&mut self, event: Event) -> Result<(), &'static str> {
        match event {
            Event::StepOutput { .. } => Err("full"),
            Event::StepStarted(_)
            | Event::StepFinished { .. }
            | Event::Note(_)
            | Event::Warning(_) => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_build_whose_observer_cannot_go_on_is_stopped() {
    let bench = Bench::new();
    let (dockerfile, _) = endless();
    let lease = bench.pool.lease(&[]).await.unwrap();
    let invocation = bench.invocation(&dockerfile);
    let outcome = run(&lease, invocation, &bench.scratch(), &mut Full, &bench.stop).await;
    assert!(
        matches!(outcome, Err(RunError::Observer("full"))),
        "{outcome:?}"
    );
    assert!(is_empty(&bench.scratch()));
}

/// Is told something and never done with it.
struct Stuck(CancellationToken);

impl Observer for Stuck {
    type Error = Infallible;

    fn begun(&mut self, _: u32) {}

    fn stopped(&mut self, is_over: bool) {
        assert!(is_over, "the daemon goes on");
    }

    async fn event(&mut self, _: Event) -> Result<(), Infallible> {
        self.0.cancel();
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_build_can_be_stopped_while_its_observer_is_stuck() {
    let bench = Bench::new();
    let (dockerfile, _) = endless();
    let lease = bench.pool.lease(&[]).await.unwrap();
    let mut observer = Stuck(bench.stop.clone());
    let invocation = bench.invocation(&dockerfile);
    let outcome = run(
        &lease,
        invocation,
        &bench.scratch(),
        &mut observer,
        &bench.stop,
    )
    .await;
    assert!(matches!(outcome, Err(RunError::Stopped)), "{outcome:?}");
}

/// How a build fails whose daemon gets this signal while a step runs.
async fn when_the_daemon_gets(signal: Signal) -> Failure {
    let daemon = IsolatedDaemon::start();
    let bench = Bench::at([daemon.address()], limits());
    let (mut heard, ended) = bench.start(bench.endless_without_image(&unique("endless")));
    let act = async {
        heard.output("ready").await;
        daemon.signal(signal);
    };
    let (outcome, ()) = tokio::join!(ended, act);
    assert!(is_empty(&bench.scratch()));
    failure(outcome)
}

#[tokio::test]
async fn a_daemon_that_dies_fails_the_build() {
    let failure = when_the_daemon_gets(Signal::KILL).await;
    assert_eq!(failure.kind, FailureKind::DaemonUnavailable, "{failure:?}");
}

#[tokio::test]
async fn a_daemon_that_stands_still_fails_the_build() {
    let failure = when_the_daemon_gets(Signal::STOP).await;
    assert_eq!(failure.kind, FailureKind::DaemonUnavailable);
    assert!(
        failure.message.contains("did not answer within 1000 ms"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_silent_step_of_a_daemon_that_answers_goes_on() {
    let bench = Bench::at([shared_daemon()], limits());
    let dockerfile = format!(
        "FROM debian:bookworm\nRUN : {}; sleep 1\n",
        unique("silent")
    );
    bench.outcome(&dockerfile).await.unwrap();
}

/// A client that has an answer to a probe, and else says one thing and heeds no request to end.
const DEAF: &str = r#"#!/bin/sh
case "$*" in
    *workers*) echo '[{"buildkitVersion":{"version":"v0"}}]' ;;
    *) trap '' TERM PIPE; echo ready >&2; read -r _ < "${0%/*}/never" ;;
esac
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_heeds_no_request_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let buildctl = folder.path().join("buildctl");
    std::fs::write(&buildctl, DEAF).unwrap();
    std::fs::set_permissions(&buildctl, Permissions::from_mode(0o700)).unwrap();
    let fifo = FileType::Fifo;
    mknodat(CWD, folder.path().join("never"), fifo, Mode::RUSR, 0).unwrap();
    let limits = BuildkitLimits {
        stop_ms_max: 100,
        ..BuildkitLimits::default()
    };
    let mut bench = Bench::at([shared_daemon()], limits.clone());
    let daemon = DaemonConfig::new(shared_daemon(), None).unwrap();
    bench.pool = Pool::new(buildctl, vec![daemon], limits);
    let invocation = bench.invocation("");
    let name = invocation
        .output
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let (_heard, ended) = bench.start(invocation);
    let stop = async {
        let client = tokio::task::spawn_blocking(move || watch(&name))
            .await
            .unwrap();
        bench.stop.cancel();
        client
    };
    let both = async { tokio::join!(ended, stop) };
    let both = tokio::time::timeout(Duration::from_secs(30), both).await;
    let (outcome, client) = both.expect("the client is killed");
    assert!(matches!(outcome, Err(RunError::Stopped)), "{outcome:?}");
    client.gone();
    // Nobody says that the daemon is done, so nothing does.
    assert_eq!(bench.over.get(), Some(&false));
}
