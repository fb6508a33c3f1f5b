//! Real containers: what a step sees, what it cannot do, and that nothing of it stays.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::container::ContainerError;
use super::testkit::{Kit, eventually, processes_with, shared_output};
use crate::limits::native::NativeLimits;

#[tokio::test]
async fn output_and_exit_code_are_the_commands_own() {
    let kit = Kit::new().await;
    let ran = kit.sh("echo out; echo err >&2; exit 3").await;
    assert_eq!(
        (ran.exit.code, ran.exit.signal, ran.exit.out_of_memory),
        (Some(3), None, false)
    );
    assert_eq!(
        (ran.stdout.as_str(), ran.stderr.as_str()),
        ("out\n", "err\n")
    );
    assert!(kit.sh("true").await.exit.is_success());
    kit.assert_nothing_is_left("no-process-has-this");
}

#[tokio::test]
async fn a_signal_shows_in_the_exit() {
    let kit = Kit::new().await;
    let ran = kit.sh("sh -c 'kill -SEGV $$'; exit $?").await;
    assert_eq!((ran.exit.code, ran.exit.signal), (Some(139), Some(11)));
}

#[tokio::test]
async fn five_megabytes_of_output_arrive_intact() {
    let kit = Kit::new().await;
    let ran = kit.sh("seq 1 720000").await;
    let expected: String = (1..=720_000)
        .flat_map(|number| [number.to_string(), "\n".to_owned()])
        .collect();
    assert!(expected.len() > 4_900_000);
    assert!(
        ran.stdout == expected,
        "{} bytes of {}",
        ran.stdout.len(),
        expected.len()
    );
}

#[tokio::test]
async fn a_step_sees_only_the_environment_that_it_is_given() {
    let kit = Kit::new().await;
    // Cargo sets this one in every test: it stands for the secrets of the service.
    assert!(std::env::vars_os().any(|(name, _)| name == "CARGO_MANIFEST_DIR"));
    let mut spec = kit.spec("env");
    spec.env.insert("GIVEN".to_owned(), "a b".to_owned());
    let ran = kit.run(spec).await.unwrap();
    let mut lines: Vec<&str> = ran
        .stdout
        .lines()
        .filter(|line| !line.starts_with("_="))
        .collect();
    lines.sort_unstable();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(lines, ["GIVEN=a b", "HOME=/root", path, "PWD=/"]);
}

#[tokio::test]
async fn user_groups_home_and_working_folder_come_from_the_image() {
    let kit = Kit::new().await;
    let mut spec = kit.spec("id -u; id -G; pwd; echo $HOME; cat /proc/self/status");
    spec.user = "app".to_owned();
    spec.workdir = "/made/new".to_owned();
    let ran = kit.run(spec).await.unwrap();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[..4], ["1000", "1001 50", "/made/new", "/home/app"]);
    assert!(lines.contains(&"CapEff:\t0000000000000000"), "{lines:?}");

    let mut spec = kit.spec("true");
    spec.user = "nobody-here".to_owned();
    let error = kit.run(spec).await.unwrap_err();
    assert!(matches!(error, ContainerError::User { .. }), "{error}");
    kit.assert_nothing_is_left("no-process-has-this");
}

#[tokio::test]
async fn a_missing_program_is_an_error_that_names_it() {
    let kit = Kit::new().await;
    let mut spec = kit.spec("");
    spec.argv = vec!["/no/such/program".to_owned()];
    let error = kit.run(spec).await.unwrap_err();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    kit.assert_nothing_is_left("no-process-has-this");
}

#[tokio::test]
async fn a_step_sees_no_process_of_the_host_and_its_layer_gets_no_trace_of_the_mounts() {
    let kit = Kit::new().await;
    for dir in ["proc", "sys", "dev"] {
        std::fs::remove_dir(kit.root.path().join(dir)).unwrap();
    }
    let ran = kit
        .sh("ls -d /proc/[0-9]*; cat /etc/hosts; ls /sys/class/net; ls /dev/null")
        .await;
    assert!(ran.exit.is_success(), "{ran:?}");
    assert!(ran.stdout.starts_with("/proc/1\n"), "{}", ran.stdout);
    assert!(
        !ran.stdout.contains("eth0") && ran.stdout.contains("localhost build"),
        "{}",
        ran.stdout
    );
    for path in ["proc", "sys", "dev", "etc/hosts", "etc/resolv.conf"] {
        assert!(!kit.root.path().join(path).exists(), "{path}");
    }
}

/// Tries a system call by number in perl, and prints what it answered.
fn probe(call: &str) -> String {
    format!("perl -e '$! = 0; $r = syscall({call}); print $r < 0 ? $! + 0 : \"allowed\"'")
}

#[tokio::test]
async fn the_kernels_dangerous_doors_are_shut() {
    let kit = Kit::new().await;
    for (what, script, expected) in [
        ("user namespace by unshare", probe("272, 0x10000000"), "38"),
        (
            "user namespace by clone",
            probe("56, 0x10000011, 0, 0, 0, 0"),
            "38",
        ),
        ("clone3", probe("435, 0, 0"), "38"),
        ("setns", probe("308, 0, 0"), "1"),
        ("mount", probe("165, 0, 0, 0, 0, 0"), "1"),
        ("fsopen", probe("430, 0, 0"), "1"),
        ("keyctl", probe("250, 0, -3, 1"), "1"),
        ("add_key", probe("248, 0, 0, 0, 0, 0"), "1"),
        ("bpf", probe("321, 0, 0, 0"), "1"),
        ("perf_event_open", probe("298, 0, 0, 0, 0, 0"), "1"),
        ("userfaultfd", probe("323, 0"), "1"),
        ("init_module", probe("175, 0, 0, 0"), "1"),
        ("kexec_load", probe("246, 0, 0, 0, 0"), "1"),
        ("io_uring_setup", probe("425, 0, 0"), "38"),
        ("raw socket", probe("41, 2, 3, 1"), "1"),
        ("packet socket", probe("41, 17, 3, 0"), "38"),
        ("vsock", probe("41, 40, 1, 0"), "38"),
        ("netlink to the packet filter", probe("41, 16, 3, 12"), "38"),
        ("netlink to the routes", probe("41, 16, 3, 0"), "allowed"),
        ("open_by_handle_at", probe("304, 0, 0, 0"), "1"),
    ] {
        let ran = kit.sh(&script).await;
        assert_eq!(ran.stdout, expected, "{what}: {}", ran.stderr);
    }
    let doors = "unshare -m true || unshare -rm true || mount -t tmpfs x /tmp || id -u";
    assert_eq!(kit.sh(doors).await.stdout, "0\n");
}

#[tokio::test]
async fn devices_kernel_settings_and_the_hosts_name_are_out_of_reach() {
    let kit = Kit::new().await;
    for script in [
        "mknod /disk b 254 0 && head -c 1 /disk",
        "echo 1 > /proc/sys/kernel/panic",
        "echo x > /sys/kernel/uevent_helper",
        "echo h > /proc/sysrq-trigger",
        "perl -e 'exit(syscall(170, \"x\", 1) < 0)'",
    ] {
        let ran = kit.sh(script).await;
        assert!(!ran.exit.is_success(), "{script}: {ran:?}");
    }
}

#[tokio::test]
async fn a_step_that_eats_memory_is_killed_and_the_exit_says_so() {
    let kit = Kit::new().await;
    let mut spec = kit.spec("head -c 300m /dev/zero | tail -c 299m > /dev/null");
    spec.memory_mib = 64;
    let ran = kit.run(spec).await.unwrap();
    assert!(ran.exit.out_of_memory, "{ran:?}");
    let ran = kit.sh("exit 137").await;
    assert!(!ran.exit.out_of_memory, "{ran:?}");
}

#[tokio::test]
async fn a_fork_bomb_meets_its_limit() {
    let limits = NativeLimits {
        pids_max: 20,
        ..NativeLimits::default()
    };
    let kit = Kit::with_limits(limits).await;
    let ran = kit
        .sh("for i in $(seq 40); do sleep 30 & done; exit 0")
        .await;
    assert!(
        !ran.exit.is_success() && ran.stderr.contains("fork"),
        "{ran:?}"
    );
    kit.assert_nothing_is_left("no-process-has-this");
}

/// Thirty processes that leave their session and ignore SIGTERM, then one that waits.
fn stubborn(marker: &str) -> String {
    let one = format!("trap \"\" TERM INT HUP; echo up; sleep 600; : {marker}");
    format!("for i in $(seq 30); do setsid sh -c '{one}' & done; sleep 600; : {marker}")
}

/// A marker that only this test's processes carry.
fn marker(test: &str) -> String {
    format!("{test}-{}", std::process::id())
}

#[tokio::test]
async fn a_cancelled_step_leaves_nothing() {
    let kit = Kit::new().await;
    let (marker, cancel) = (marker("cancelled"), CancellationToken::new());
    let (output, on_output) = shared_output();
    let run = kit
        .containers
        .run(kit.spec(&stubborn(&marker)), on_output, cancel.clone());
    let watch = async {
        eventually("thirty processes", || {
            output.lock().unwrap().len() == 30 * 3
        })
        .await;
        assert!(processes_with(&marker).len() > 30);
        cancel.cancel();
    };
    let (exit, ()) = tokio::join!(run, watch);
    let exit = exit.unwrap();
    assert!(
        exit.cancelled && !exit.timed_out && exit.code.is_none(),
        "{exit:?}"
    );
    kit.assert_nothing_is_left(&marker);
}

#[tokio::test]
async fn a_step_beyond_its_deadline_leaves_nothing() {
    let kit = Kit::new().await;
    let marker = marker("deadline");
    let mut spec = kit.spec(&stubborn(&marker));
    spec.deadline = Duration::from_millis(700);
    let ran = kit.run(spec).await.unwrap();
    assert!(
        ran.exit.timed_out && !ran.exit.cancelled && ran.exit.code.is_none(),
        "{ran:?}"
    );
    kit.assert_nothing_is_left(&marker);
}

#[tokio::test]
async fn killing_the_supervisor_kills_the_step() {
    let kit = Kit::new().await;
    let marker = marker("supervisor");
    let (output, on_output) = shared_output();
    let run = kit.containers.run(
        kit.spec(&stubborn(&marker)),
        on_output,
        CancellationToken::new(),
    );
    let state = kit.state.path().canonicalize().unwrap();
    let watch = async {
        eventually("thirty processes", || {
            output.lock().unwrap().len() == 30 * 3
        })
        .await;
        let outer: Vec<i32> = processes_with(state.to_str().unwrap())
            .into_iter()
            .filter(|pid| {
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
                name.is_ok_and(|name| name.trim() == "unshare")
            })
            .collect();
        let [pid] = outer[..] else {
            panic!("{outer:?}")
        };
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    let (exit, ()) = tokio::join!(run, watch);
    assert!(
        matches!(exit, Err(ContainerError::SupervisorLost)),
        "{exit:?}"
    );
    kit.assert_nothing_is_left(&marker);
}

#[tokio::test]
async fn a_dropped_run_leaves_nothing() {
    let kit = Kit::new().await;
    let marker = marker("dropped");
    let (output, on_output) = shared_output();
    let run = kit.containers.run(
        kit.spec(&stubborn(&marker)),
        on_output,
        CancellationToken::new(),
    );
    let up = eventually("thirty processes", || {
        output.lock().unwrap().len() == 30 * 3
    });
    tokio::select! {
        exit = run => panic!("{exit:?}"),
        () = up => {}
    }
    eventually("the end of its processes", || {
        processes_with(&marker).is_empty()
    })
    .await;
    eventually("the end of its groups", || kit.control_groups().is_empty()).await;
    let bundles = kit.state.path().join("bundles");
    eventually("the end of its files", || {
        std::fs::read_dir(&bundles).unwrap().count() == 0
    })
    .await;
}

#[tokio::test]
async fn a_start_takes_away_what_a_crash_left() {
    let kit = Kit::new().await;
    // As after a crash: a group with a process in it, a bundle, a state.
    let name = format!("{}0123", kit.containers.prefix());
    let group = std::path::Path::new("/sys/fs/cgroup/pids").join(&name);
    std::fs::create_dir(&group).unwrap();
    let mut child = crate::process::Tool::new("sleep")
        .arg("600")
        .command()
        .spawn()
        .unwrap();
    std::fs::write(group.join("cgroup.procs"), child.id().unwrap().to_string()).unwrap();
    for dir in ["bundles", "runtime"] {
        std::fs::create_dir_all(kit.state.path().join(dir).join(&name)).unwrap();
    }
    let recovered = tokio::join!(kit.containers.recover(), child.wait())
        .0
        .unwrap();
    assert_eq!(recovered.containers, 1);
    kit.assert_nothing_is_left("no-process-has-this");
    assert!(!group.exists());
    assert_eq!(kit.containers.recover().await.unwrap().containers, 0);
}
