//! Snapshots and their clones: what a clone keeps, what it gets anew, what it can never change.

use std::fs;
use std::path::Path;
use std::time::Duration;

use domain::Digest;
use rustix::time::{ClockId, clock_gettime};

use super::kit::{Home, MIB, eventually, output, spec, tool_output, vmm};
use crate::vmm::{
    Captured, Machine, MachineSpec, Probe, SnapshotFiles, StartRequest, StartStatus, VmmError,
};

/// The bits of a descriptor's flags that say whether it can be written to (`O_ACCMODE`).
const ACCESS_MODE: u32 = 3;

/// Writes a line of fresh random bytes again and again, and serves HTTP.
const SERVICE: &str = "httpd -p 8080 -h / & \
    while :; do head -c 8 /dev/urandom | hexdump -e '8/1 \"%02x\" \"\\n\"' >> /log; \
    sleep 0.01; done";

fn service() -> StartRequest {
    StartRequest {
        command: SERVICE.to_owned(),
        env: Vec::new(),
        user: None,
        cwd: None,
    }
}

fn big_spec() -> MachineSpec {
    MachineSpec {
        vcpus: 2,
        memory_mib: 256,
        ..spec()
    }
}

/// Boots a machine with its service and captures it.
async fn snapshot(home: &Home) -> (SnapshotFiles, Captured) {
    let machine = home.boot(&big_spec()).await;
    output(&machine, "echo before > /who").await;
    machine.start(&service()).await.unwrap();
    eventually("the service", async || {
        let probe = Probe::Tcp { port: 8080 };
        let try_once = machine.probe(&probe, Duration::from_secs(5)).await;
        try_once.unwrap().passed && output(&machine, "wc -l < /log || echo 0").await != "0"
    })
    .await;
    let captured = machine.capture(&home.folder("snapshot")).await.unwrap();
    let files = SnapshotFiles {
        memory: captured.memory.clone(),
        device_state: captured.device_state.clone(),
        disk: home.disk(),
    };
    (files, captured)
}

fn digests(files: &SnapshotFiles) -> [Digest; 3] {
    [&files.memory, &files.device_state, &files.disk]
        .map(|path| Digest::of(&fs::read(path).unwrap()))
}

async fn restore(home: &Home, files: &SnapshotFiles, name: &str) -> Machine {
    let spec = MachineSpec {
        hostname: name.to_owned(),
        ..big_spec()
    };
    let run = home.folder(name);
    vmm().await.restore(&spec, files, &run).await.unwrap()
}

/// Whether every descriptor that QEMU has of `path` is for reading only, and how many there are.
fn read_only_descriptors(pid: u32, path: &Path) -> (bool, usize) {
    let (mut read_only, mut count) = (true, 0);
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let entry = entry.unwrap();
        // A descriptor may be closed while the list is read.
        if fs::read_link(entry.path()).is_ok_and(|link| link == path) {
            let number = entry.file_name().into_string().unwrap();
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
            let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
            read_only &= flags & ACCESS_MODE == 0;
            count += 1;
        }
    }
    (read_only, count)
}

async fn check_clone(machine: &Machine, name: &str, files: &SnapshotFiles) {
    let now = u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap();
    let guest: u64 = output(machine, "date +%s").await.parse().unwrap();
    assert!(guest.abs_diff(now) < 2, "the clock says {guest}, not {now}");
    assert_eq!(
        output(machine, "hostname; cat /who").await,
        format!("{name}\nbefore")
    );
    assert_eq!(
        machine.start_state(0).await.unwrap().status,
        StartStatus::Running
    );
    let http = Probe::Http {
        port: 8080,
        path: "/who".to_owned(),
    };
    let answer = machine.probe(&http, Duration::from_secs(5)).await.unwrap();
    assert!(answer.passed, "{}", answer.detail);
    output(machine, &format!("echo {name} > /who; sync")).await;

    let pid = machine.pid().unwrap();
    for path in [&files.memory, &files.disk] {
        let (read_only, count) = read_only_descriptors(pid, path);
        assert!(read_only && count > 0, "{}: {count}", path.display());
    }
}

#[tokio::test]
async fn clones_of_a_snapshot_are_alive_apart_and_leave_it_unchanged() {
    let home = Home::new().await;
    let (files, captured) = snapshot(&home).await;
    assert_eq!(captured.memory_bytes, 256 * MIB);
    assert!(captured.memory_allocated_bytes < 200 * MIB, "{captured:?}");
    assert!(captured.device_state_bytes > 0);
    let before = digests(&files);

    let (one, two) = tokio::join!(restore(&home, &files, "one"), restore(&home, &files, "two"));
    let draw = "head -c 16 /dev/urandom | hexdump -e '16/1 \"%02x\"'";
    let (first, second) = tokio::join!(output(&one, draw), output(&two, draw));
    assert_eq!((first.len(), second.len()), (32, 32));
    assert_ne!(first, second);
    check_clone(&one, "one", &files).await;
    check_clone(&two, "two", &files).await;
    assert_eq!(output(&one, "cat /who").await, "one");
    assert_eq!(output(&two, "cat /who").await, "two");

    // The log of the snapshot is on its disk. A line that follows it was written by a clone, and
    // if the clone ran before it had its own entropy, both have written the same.
    let old = tool_output("debugfs", &["-R", "cat /log"], &files.disk).await;
    assert!(!old.is_empty());
    let mut following = Vec::new();
    for clone in [&one, &two] {
        eventually("a line of the clone", async || {
            output(clone, "wc -c < /log")
                .await
                .parse::<usize>()
                .unwrap()
                > old.len()
        })
        .await;
        let log = output(clone, "cat /log").await;
        let new = log.strip_prefix(&old).expect("the log goes on");
        following.push(new.lines().next().unwrap().to_owned());
    }
    assert_ne!(following[0], following[1]);

    one.kill().await.unwrap();
    two.shutdown().await.unwrap();
    assert_eq!(digests(&files), before);
}

#[tokio::test]
async fn a_snapshot_restores_only_whole_and_in_its_shape() {
    let home = Home::new().await;
    let (files, _) = snapshot(&home).await;
    tool_output("e2fsck", &["-f", "-n"], &files.disk).await;

    let larger = MachineSpec {
        memory_mib: 512,
        ..big_spec()
    };
    let run = home.folder("larger");
    let error = vmm()
        .await
        .restore(&larger, &files, &run)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the machine is not possible: the snapshot has 256 MiB of memory, not 512"
    );

    let cut = home.path().join("cut");
    let state = fs::read(&files.device_state).unwrap();
    fs::write(&cut, &state[..state.len() / 2]).unwrap();
    let broken = SnapshotFiles {
        device_state: cut,
        ..files.clone()
    };
    let run = home.folder("broken");
    let error = vmm()
        .await
        .restore(&big_spec(), &broken, &run)
        .await
        .unwrap_err();
    assert!(
        matches!(error, VmmError::Ended { .. } | VmmError::Monitor { .. }),
        "{error}"
    );

    let clone = restore(&home, &files, "whole").await;
    let error = clone.capture(&home.folder("again")).await.unwrap_err();
    assert!(error.to_string().contains("restored"), "{error}");
}
