//! Commands in a machine: how they end, who runs them, what comes out of them.

use std::time::Duration;

use domain::Digest;

use super::kit::{Home, eventually, output, run, shell, spec};
use crate::vmm::{
    ExecRequest, ExitOutcome, OutputStream, Probe, StartRequest, StartStatus, VmmError,
};

const TRY: Duration = Duration::from_secs(5);

fn start(command: &str) -> StartRequest {
    StartRequest {
        command: command.to_owned(),
        env: vec![("GREETING".to_owned(), "hello".to_owned())],
        user: Some("app".to_owned()),
        cwd: Some("/tmp".to_owned()),
    }
}

#[tokio::test]
async fn a_command_runs_as_asked_and_its_end_is_told() {
    let home = Home::new().await;
    let machine = home.boot(&spec()).await;

    let ran = run(&machine, &shell("echo out; echo err >&2; exit 7")).await;
    assert_eq!(ran.outcome, ExitOutcome::Code(7));
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("out\n", "err\n")
    );
    let killed = run(&machine, &shell("kill -9 $$")).await;
    assert_eq!(killed.outcome, ExitOutcome::Signal(9));
    let overdue = ExecRequest {
        deadline_ms: 200,
        ..shell("echo begun; sleep 60; echo ended")
    };
    let ran = run(&machine, &overdue).await;
    assert_eq!(ran.outcome, ExitOutcome::DeadlineExceeded);
    assert_eq!(ran.stdout, "begun\n");

    let as_app = ExecRequest {
        env: vec![("NAME".to_owned(), "a b\nc".to_owned())],
        user: Some("app".to_owned()),
        cwd: Some("/home/app".to_owned()),
        ..shell("id -un; id -G; pwd; echo \"$HOME $NAME\"; touch /root/x 2>/dev/null || echo no")
    };
    let ran = run(&machine, &as_app).await;
    assert_eq!(
        ran.stdout,
        "app\n1000 29\n/home/app\n/home/app a b\nc\nno\n"
    );
    let numeric = ExecRequest {
        user: Some("4242:77".to_owned()),
        ..shell("id -u; id -g; pwd")
    };
    assert_eq!(run(&machine, &numeric).await.stdout, "4242\n77\n/\n");

    // A background process that keeps the pipes open does not keep the call open.
    let ran = run(&machine, &shell("sleep 50 & echo done")).await;
    assert_eq!(
        (ran.outcome, ran.stdout.as_str()),
        (ExitOutcome::Code(0), "done\n")
    );
    assert_eq!(
        output(&machine, "hostname; ls /sys/class/net").await,
        "box\nlo"
    );
}

#[tokio::test]
async fn a_command_that_cannot_start_is_refused_with_the_reason() {
    let home = Home::new().await;
    let machine = home.boot(&spec()).await;
    for (request, reason) in [
        (
            ExecRequest {
                user: Some("nobody-here".to_owned()),
                ..shell("true")
            },
            "no user `nobody-here`",
        ),
        (
            ExecRequest {
                cwd: Some("/none".to_owned()),
                ..shell("true")
            },
            "working directory `/none`",
        ),
        (
            ExecRequest {
                argv: vec!["/bin/none".to_owned()],
                ..shell("")
            },
            "cannot start `/bin/none`",
        ),
        (
            ExecRequest {
                argv: Vec::new(),
                ..shell("")
            },
            "no command",
        ),
    ] {
        let error = machine.exec(&request, |_, _| {}).await.unwrap_err();
        assert!(matches!(error, VmmError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[tokio::test]
async fn ten_megabytes_of_output_come_whole_and_in_order() {
    let home = Home::new().await;
    let machine = home.boot(&spec()).await;
    let expected = output(
        &machine,
        "head -c 10000000 /dev/urandom > /dev/shm/big; sha256sum < /dev/shm/big",
    )
    .await;
    let mut received = Vec::new();
    let mut errors = 0;
    let script = shell("cat /dev/shm/big; head -c 100000 /dev/zero >&2");
    let outcome = machine
        .exec(&script, |stream, bytes| match stream {
            OutputStream::Stdout => received.extend_from_slice(bytes),
            OutputStream::Stderr => errors += bytes.len(),
        })
        .await
        .unwrap();
    assert_eq!(outcome, ExitOutcome::Code(0));
    assert_eq!((received.len(), errors), (10_000_000, 100_000));
    assert_eq!(expected, format!("{}  -", Digest::of(&received).hex()));

    // A caller that leaves takes its command along, and the channel stays usable.
    let endless = ExecRequest {
        argv: vec!["/bin/yes".to_owned()],
        ..shell("")
    };
    let left = tokio::time::timeout(
        Duration::from_millis(300),
        machine.exec(&endless, |_, _| {}),
    );
    assert!(left.await.is_err(), "`yes` does not end by itself");
    eventually("the end of the abandoned command", async || {
        output(&machine, "pidof yes || echo none").await == "none"
    })
    .await;
}

#[tokio::test]
async fn a_probe_tells_what_is_ready_from_inside() {
    let home = Home::new().await;
    let machine = home.boot(&spec()).await;
    let tcp = Probe::Tcp { port: 8080 };
    let page = |path: &str| Probe::Http {
        port: 8080,
        path: path.to_owned(),
    };
    let refused = machine.probe(&tcp, TRY).await.unwrap();
    assert!(!refused.passed);
    assert!(refused.detail.contains("refused"), "{}", refused.detail);
    assert!(!machine.probe(&page("/"), TRY).await.unwrap().passed);

    output(&machine, "mkdir /www && echo hi > /www/index.html").await;
    let serve = start("exec httpd -f -p 8080 -h /www");
    machine.start(&serve).await.unwrap();
    eventually("the server", async || {
        machine.probe(&tcp, TRY).await.unwrap().passed
    })
    .await;
    let found = machine.probe(&page("/index.html"), TRY).await.unwrap();
    assert!(found.passed, "{}", found.detail);
    let missing = machine.probe(&page("/none"), TRY).await.unwrap();
    assert!(!missing.passed);
    assert!(missing.detail.contains("status 404"), "{}", missing.detail);

    let command = |command: &str| Probe::Command {
        command: command.to_owned(),
        env: vec![("WANTED".to_owned(), "1000".to_owned())],
        user: Some("app".to_owned()),
        cwd: Some("/tmp".to_owned()),
    };
    let good = command("test $(id -u) = $WANTED && test $PWD = /tmp");
    assert!(machine.probe(&good, TRY).await.unwrap().passed);
    let bad = machine
        .probe(&command("echo why; exit 3"), TRY)
        .await
        .unwrap();
    assert!(!bad.passed);
    assert_eq!(bad.detail, "the command ended with exit code 3: why");
    let slow = command("sleep 60");
    let slow = machine
        .probe(&slow, Duration::from_millis(100))
        .await
        .unwrap();
    assert!(!slow.passed);
    assert!(slow.detail.contains("did not end"), "{}", slow.detail);
}

#[tokio::test]
async fn the_long_running_command_tells_its_state_and_its_output() {
    let home = Home::new().await;
    let machine = home.boot(&spec()).await;
    assert_eq!(
        machine.start_state(0).await.unwrap().status,
        StartStatus::Absent
    );
    let command = "echo $GREETING $(id -un) $PWD; while [ ! -e /tmp/go ]; do sleep 0.05; done; \
                   echo last words >&2; exit 5";
    machine.start(&start(command)).await.unwrap();
    let again = machine.start(&start("true")).await.unwrap_err();
    assert!(again.to_string().contains("already"), "{again}");
    eventually("the first line", async || {
        machine.start_state(0).await.unwrap().output.0 == b"hello app /tmp\n"
    })
    .await;
    let state = machine.start_state(0).await.unwrap();
    assert_eq!((state.status, state.end), (StartStatus::Running, 15));
    output(&machine, "touch /tmp/go").await;
    eventually("its end", async || {
        machine.start_state(15).await.unwrap().status != StartStatus::Running
    })
    .await;
    let state = machine.start_state(15).await.unwrap();
    assert_eq!(state.status, StartStatus::Exited(ExitOutcome::Code(5)));
    assert_eq!(state.output.0, b"last words\n");
    // Nothing of it is left as a zombie.
    assert_eq!(
        output(&machine, "ps -o stat | grep -c Z || true").await,
        "0"
    );
}
