//! The choice among daemons.

use std::time::Instant;

use rustix::process::Signal;
use tokio::process::Command;

use super::*;
use crate::testkit::{IsolatedDaemon, pool, shared_daemon};

fn limits() -> BuildkitLimits {
    BuildkitLimits {
        probe_ms_max: 1_000,
        ..BuildkitLimits::default()
    }
}

fn nowhere() -> Address {
    "unix:///nowhere/buildkitd.sock".parse().unwrap()
}

#[test]
fn tls_is_for_tcp_and_tcp_beyond_the_host_is_for_tls() {
    let tls = Tls {
        ca: "/ca".into(),
        cert: "/cert".into(),
        key: "/key".into(),
        server_name: None,
    };
    let daemon = |address: &str, tls| DaemonConfig::new(address.parse().unwrap(), tls);
    for (address, with_tls) in [
        ("unix:///sock", false),
        ("tcp://127.0.0.1:1", false),
        ("tcp://127.0.0.1:1", true),
        ("tcp://builder:1", true),
    ] {
        assert!(
            daemon(address, with_tls.then(|| tls.clone())).is_ok(),
            "{address}"
        );
    }
    let error = daemon("unix:///sock", Some(tls)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unix:///sock is a socket of this host: there is no TLS on it"
    );
    let error = daemon("tcp://builder:1", None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tcp://builder:1 is beyond this host: it needs TLS with certificates on both sides"
    );
}

#[test]
fn the_command_line_says_where_the_daemon_is_and_nothing_comes_from_the_host() {
    let tls = Tls {
        ca: "/ca".into(),
        cert: "/cert".into(),
        key: "/key".into(),
        server_name: Some("name".to_owned()),
    };
    let daemon = DaemonConfig::new("tcp://builder:1".parse().unwrap(), Some(tls)).unwrap();
    let command = Client::new(Path::new("/bin/buildctl").into(), daemon).command();
    let args: Vec<_> = command.as_std().get_args().collect();
    assert_eq!(
        args.join(" ".as_ref()),
        "--addr tcp://builder:1 --tlscacert /ca --tlscert /cert --tlskey /key --tlsservername name"
    );
    assert_eq!(command.as_std().get_envs().count(), 0);
}

#[tokio::test]
async fn the_daemon_with_the_fewest_builds_is_taken() {
    let second = IsolatedDaemon::start();
    let pool = pool([shared_daemon(), second.address()], limits());
    let one = pool.lease(&[]).await.unwrap();
    let other = pool.clone().lease(&[]).await.unwrap();
    assert_ne!(one.address(), other.address());
    let freed = other.address().clone();
    drop(other);
    let third = pool.lease(&[]).await.unwrap();
    assert_eq!(*third.address(), freed);
    let fourth = pool.lease(&[freed]).await.unwrap();
    assert_eq!(fourth.address(), one.address());
    // What still winds down counts.
    let still_busy = third.place();
    drop(third);
    drop((one, fourth));
    let fifth = pool.lease(&[]).await.unwrap();
    assert_ne!(fifth.address(), still_busy.client().daemon().address());
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_passed_over() {
    let pool = pool([nowhere(), shared_daemon()], limits());
    let lease = pool.lease(&[]).await.unwrap();
    assert_eq!(*lease.address(), shared_daemon());
    let answers = pool.probe_all().await;
    let [(first, Err(error)), (second, Ok(version))] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert_eq!((first, second), (&nowhere(), &shared_daemon()));
    assert!(
        error.to_string().contains("no such file or directory"),
        "{error}"
    );
    assert!(version.buildkit.starts_with('v'), "{version:?}");
}

#[tokio::test]
async fn without_a_daemon_the_error_names_each_and_says_what_to_do() {
    let pool = pool([nowhere(), shared_daemon()], limits());
    let error = pool
        .lease(&[shared_daemon()])
        .await
        .unwrap_err()
        .to_string();
    for part in [
        "no BuildKit daemon can be used: unix:///nowhere/buildkitd.sock: ",
        "no such file or directory\";",
        &format!(
            "{}: passed over, the build was lost there;",
            shared_daemon()
        ),
        "start buildkitd there, or name other daemons in the configuration",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let none = Pool::new("/bin/buildctl".into(), Vec::new(), limits());
    assert_eq!(
        none.lease(&[]).await.unwrap_err().to_string(),
        "no BuildKit daemon is configured; Dockerfiles need one"
    );
}

#[tokio::test]
async fn a_client_that_cannot_be_run_is_told_from_a_daemon_that_cannot_be_reached() {
    let daemon = DaemonConfig::new(nowhere(), None).unwrap();
    let pool = Pool::new("/nowhere/buildctl".into(), vec![daemon], limits());
    let error = pool.lease(&[]).await.unwrap_err();
    let [(_, ProbeError::Buildctl(_))] = error.unusable.as_slice() else {
        panic!("{error:?}");
    };
}

#[tokio::test]
async fn a_daemon_that_stands_still_holds_nobody_up() {
    let daemon = IsolatedDaemon::start();
    let pool = pool([daemon.address(), shared_daemon()], limits());
    let kept = pool.lease(&[shared_daemon()]).await.unwrap();
    assert_eq!(*kept.address(), daemon.address());
    drop(kept);

    daemon.signal(Signal::STOP);
    let start = Instant::now();
    let error = pool.lease(&[shared_daemon()]).await.unwrap_err();
    let [
        (
            address,
            ProbeError::Silent {
                milliseconds: 1_000,
            },
        ),
    ] = error.unusable.as_slice()
    else {
        panic!("{error:?}");
    };
    assert_eq!(*address, daemon.address());
    // Twice the deadline, for a machine that is busy.
    assert!(start.elapsed().as_millis() < 2_000, "{:?}", start.elapsed());
    let lease = pool.lease(&[]).await.unwrap();
    assert_eq!(*lease.address(), shared_daemon());

    daemon.signal(Signal::CONT);
    pool.lease(&[shared_daemon()]).await.unwrap();
}

#[tokio::test]
async fn what_was_started_outlives_the_thread_that_wanted_it() {
    let mut command = Command::new("sh");
    command
        .args(["-c", "read -r _; echo alive"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let runtime = tokio::runtime::Handle::current();
    let wanted = std::thread::spawn(move || runtime.block_on(client::start(command)));
    let mut child = tokio::task::spawn_blocking(|| wanted.join().unwrap().unwrap())
        .await
        .unwrap();
    drop(child.stdin.take());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.stdout, b"alive\n");
}
