//! The network of a machine: none, or that of a namespace.

use std::fs;
use std::time::Duration;

use tokio::process::Child;

use super::kit::{Home, eventually, output, run, shell, spec};
use crate::process::Tool;
use crate::vmm::{ExitOutcome, MachineNetwork, MachineSpec};

/// A network namespace in which a process serves a page on its loopback; it goes with the process.
struct Namespace {
    server: Child,
}

impl Namespace {
    async fn new(home: &Home) -> Self {
        let pages = home.folder("pages");
        fs::write(pages.join("page"), "from the namespace\n").unwrap();
        let serve = "busybox ip link set lo up && exec busybox httpd -f -p 127.0.0.1:8081 -h .";
        let server = Tool::new("unshare")
            .args(["--net", "sh", "-c", serve])
            .current_dir(pages)
            .command()
            .spawn()
            .unwrap();
        let namespace = Self { server };
        eventually("the server in the namespace", async || {
            let page = Tool::new("nsenter")
                .arg(format!("--net={}", namespace.path()))
                .args(["busybox", "wget", "-qO-", "http://127.0.0.1:8081/page"])
                .run(Duration::from_secs(5))
                .await;
            page.is_ok_and(|finished| finished.status.success())
        })
        .await;
        namespace
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.server.id().unwrap())
    }
}

#[tokio::test]
async fn a_machine_reaches_what_its_namespace_reaches() {
    let home = Home::new().await;
    let namespace = Namespace::new(&home).await;
    let spec = MachineSpec {
        network: MachineNetwork::Namespace {
            path: namespace.path().into(),
            name_server: std::net::Ipv4Addr::new(10, 0, 88, 3),
        },
        ..spec()
    };
    let machine = home.boot(&spec).await;
    let of_qemu = fs::read_link(format!("/proc/{}/ns/net", machine.pid().unwrap())).unwrap();
    assert_eq!(of_qemu, fs::read_link(namespace.path()).unwrap());
    assert_ne!(of_qemu, fs::read_link("/proc/self/ns/net").unwrap());

    let address = output(&machine, "ip -4 addr show eth0 | grep -o 'inet [0-9./]*'").await;
    assert_eq!(address, "inet 10.0.2.15/24");
    assert_eq!(
        output(&machine, "cat /etc/resolv.conf").await,
        "nameserver 10.0.88.3"
    );
    let route = output(&machine, "ip route show default").await;
    assert!(
        route.starts_with("default via 10.0.2.2 dev eth0"),
        "{route}"
    );
    let page = output(&machine, "wget -qO- http://10.0.2.2:8081/page").await;
    assert_eq!(page, "from the namespace");
}

#[tokio::test]
async fn a_machine_without_network_has_only_loopback() {
    let home = Home::new().await;
    let machine = home.boot(&spec()).await;
    assert_eq!(output(&machine, "ls /sys/class/net").await, "lo");
    let outside = run(&machine, &shell("nc -w 1 10.0.2.2 80 < /dev/null")).await;
    assert_ne!(outside.outcome, ExitOutcome::Code(0));
    assert!(outside.stderr.contains("unreachable"), "{}", outside.stderr);
    let inside = "nc -l -p 9 < /dev/null & sleep 0.2; nc -w 2 127.0.0.1 9 < /dev/null && echo ok";
    assert_eq!(output(&machine, inside).await, "ok");
}
