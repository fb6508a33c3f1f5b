//! From prepare to the end of a machine, good or bad.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::kit::{self, DISK_BYTES, Home, MIB, eventually, output, shell, spec, tool_output, vmm};
use crate::limits::vmm::VmmLimits;
use crate::process::Tool;
use crate::vmm::{Accelerator, MachineSpec, Vmm, VmmConfig, VmmError};

fn is_alive(pid: u32) -> bool {
    // A zombie that waits to be reaped is not alive.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| !rest.starts_with(" Z"))
    })
}

#[tokio::test]
async fn preparing_twice_gives_one_identity() {
    let vmm = vmm().await;
    let again = Vmm::prepare(kit::config()).await.unwrap();
    assert_eq!(again.identity(), vmm.identity());
    assert_eq!(vmm.identity().kind, "qemu");
    assert!(
        vmm.identity()
            .version
            .starts_with(|digit: char| digit.is_ascii_digit())
    );
    let emulated = vmm.identity().accelerator == Accelerator::Tcg;
    assert_eq!(vmm.accelerator_warning().is_some(), emulated);
}

#[tokio::test]
async fn a_part_that_is_missing_is_named_with_its_remedy() {
    let config = VmmConfig {
        guest_agent: "/nonexistent/agent".into(),
        ..kit::config()
    };
    let error = Vmm::prepare(config).await.unwrap_err();
    assert!(error.to_string().contains("make agent"), "{error}");
    let config = VmmConfig {
        qemu: "/nonexistent/qemu".into(),
        ..kit::config()
    };
    let error = Vmm::prepare(config).await.unwrap_err();
    assert!(error.to_string().contains("qemu-system-x86"), "{error}");
    let config = VmmConfig {
        kernel: Some("/etc/passwd".into()),
        ..kit::config()
    };
    let error = Vmm::prepare(config).await.unwrap_err();
    assert!(matches!(error, VmmError::Kernel { .. }), "{error}");
}

#[tokio::test]
async fn an_impossible_shape_is_refused_before_anything_starts() {
    let home = Home::new().await;
    let run = home.folder("run");
    for (spec, complaint) in [
        (MachineSpec { vcpus: 0, ..spec() }, "0 vCPUs"),
        (
            MachineSpec {
                memory_mib: 1,
                ..spec()
            },
            "1 MiB of memory",
        ),
        (
            MachineSpec {
                hostname: "x".repeat(65),
                ..spec()
            },
            "host name",
        ),
    ] {
        let error = vmm()
            .await
            .boot(&spec, &home.disk(), &run)
            .await
            .unwrap_err();
        assert!(error.to_string().contains(complaint), "{error}");
    }
    assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
}

#[tokio::test]
async fn a_grown_disk_shows_its_size_inside() {
    let home = Home::new().await;
    let grow = |bytes: u64| {
        let disk = fs::OpenOptions::new()
            .write(true)
            .open(home.disk())
            .unwrap();
        disk.set_len(bytes).unwrap();
    };
    grow(512 * MIB);
    let machine = home.boot(&spec()).await;
    let sizes = machine.disk().await.unwrap();
    assert_eq!(sizes.device_bytes, 512 * MIB);
    assert_eq!(sizes.filesystem_bytes, DISK_BYTES, "it was not grown yet");
    machine.shutdown().await.unwrap();
    fs::remove_dir_all(home.path().join("run")).unwrap();

    tool_output("e2fsck", &["-f", "-p"], &home.disk()).await;
    tool_output("resize2fs", &[], &home.disk()).await;
    let machine = home.boot(&spec()).await;
    let sizes = machine.disk().await.unwrap();
    assert_eq!(sizes.filesystem_bytes, 512 * MIB);
    assert!(sizes.usable_bytes > 400 * MIB, "{sizes:?}");
    assert!(sizes.free_bytes <= sizes.usable_bytes, "{sizes:?}");
}

#[tokio::test]
async fn qemu_has_no_privileges_and_dies_with_its_machine() {
    let home = Home::new().await;
    let machine = home.boot(&spec()).await;
    let pid = machine.pid().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    let uids = ["65534"; 4].join(" ");
    assert_eq!((field("Uid:"), field("Gid:")), (uids.clone(), uids));
    assert_eq!(field("Groups:"), "");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(
        (field("NoNewPrivs:"), field("Seccomp:")),
        ("1".into(), "2".into())
    );
    assert!(is_alive(pid));
    drop(machine);
    eventually("QEMU's end", async || !is_alive(pid)).await;
}

#[tokio::test]
async fn an_orderly_end_leaves_a_clean_disk() {
    let home = Home::new().await;
    let machine = home.boot(&spec()).await;
    let pid = machine.pid().unwrap();
    output(&machine, "echo kept > /file").await;
    machine.shutdown().await.unwrap();
    assert!(!is_alive(pid));
    tool_output("e2fsck", &["-f", "-n"], &home.disk()).await;
    let kept = tool_output("debugfs", &["-R", "cat /file"], &home.disk()).await;
    assert_eq!(kept, "kept\n");
}

#[tokio::test]
async fn a_frozen_file_system_waits_with_its_changes() {
    let home = Home::new().await;
    let machine = home.boot(&spec()).await;
    machine.freeze().await.unwrap();
    let request = shell("echo x > /file");
    let mut write = Box::pin(machine.exec(&request, |_, _| {}));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut write).await;
    assert!(early.is_err(), "{early:?}");
    machine.thaw().await.unwrap();
    assert!(write.await.unwrap().is_success());
}

#[tokio::test]
async fn a_machine_that_cannot_boot_says_why_at_once() {
    let home = Home::new().await;
    fs::write(home.disk(), vec![0_u8; 8 * 1024 * 1024]).unwrap();
    let run = home.folder("run");
    let begun = Instant::now();
    let error = vmm()
        .await
        .boot(&spec(), &home.disk(), &run)
        .await
        .unwrap_err();
    assert!(matches!(error, VmmError::Ended { .. }), "{error}");
    let console = &error.last_words().unwrap().console;
    assert!(console.contains("cannot mount /dev/vda"), "{console}");
    // The deadline of a boot is for machines that hang.
    let limits = kit::config().limits;
    assert!(begun.elapsed() < Duration::from_secs(limits.boot_emulated_seconds_max));
}

#[tokio::test]
async fn a_boot_that_takes_too_long_is_given_up() {
    let home = Home::new().await;
    let limits = VmmLimits {
        boot_emulated_seconds_max: 0,
        boot_virtualised_seconds_max: 0,
        ..VmmLimits::default()
    };
    let config = VmmConfig {
        limits,
        ..kit::config()
    };
    let vmm = Vmm::prepare(config).await.unwrap();
    let run = home.folder("run");
    let error = vmm.boot(&spec(), &home.disk(), &run).await.unwrap_err();
    assert!(
        matches!(error, VmmError::Deadline { seconds: 0, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_machine_that_goes_away_fails_its_calls_with_its_last_words() {
    let home = Home::new().await;
    let machine = home.boot(&spec()).await;
    let request = shell("echo b > /proc/sysrq-trigger; sleep 60");
    let error = machine.exec(&request, |_, _| {}).await.unwrap_err();
    assert!(matches!(error, VmmError::Ended { .. }), "{error}");
    let error = machine.disk().await.unwrap_err();
    assert!(matches!(error, VmmError::Ended { .. }), "{error}");
}

/// Names the folder of a machine to the process that this test starts: itself.
const ROLE: &str = "NULLSPACE_TEST_SERVICE";

#[tokio::test]
async fn qemu_dies_with_the_service() {
    if let Some(folder) = std::env::var_os(ROLE) {
        let folder = Path::new(&folder);
        let (disk, run) = (folder.join("disk.ext4"), folder.join("run"));
        let machine = vmm().await.boot(&spec(), &disk, &run).await.unwrap();
        println!("\npid {}", machine.pid().unwrap());
        std::future::pending::<()>().await;
    }
    let home = Home::new().await;
    home.folder("run");
    let mut service = Tool::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("vmm::tests::lifecycle::qemu_dies_with_the_service")
        .env(ROLE, home.path())
        .env("NULLSPACE_GUEST_AGENT", kit::guest_agent())
        .command()
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(service.stdout.take().unwrap()).lines();
    let pid = loop {
        let line = lines.next_line().await.unwrap().expect("it boots");
        if let Some(pid) = line.strip_prefix("pid ") {
            break pid.parse().unwrap();
        }
    };
    assert!(is_alive(pid));
    // SIGKILL: the service gets no chance to clean up.
    service.kill().await.unwrap();
    eventually("QEMU's end", async || !is_alive(pid)).await;
}
