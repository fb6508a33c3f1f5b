//! The filter, tried from inside steps, on a host that is a namespace of the test's own:
//!
//! ```text
//! "internet" 198.51.100.1 ── 203.0.113.1/30 ── 203.0.113.2/30 "host" (lo; 192.0.2.7, 10.9.9.9) ── step
//! ```

use std::fs::File;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use serde_json::Value;

use super::container::StepNetwork;
use super::network::{FilteredNetwork, NetworkPolicy};
use super::testkit::{Kit, Ran, eventually, processes_with};
use crate::holdings::Holdings;
use crate::limits::native::NativeLimits;
use crate::process::Tool;

/// Runs `body` on a thread with a network namespace of its own, as the host of all it starts.
pub(super) fn on_a_host_of_its_own<F: Future<Output = ()>>(
    body: impl FnOnce() -> F + Send + 'static,
) {
    let host = std::thread::spawn(move || {
        enter_new_namespace();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(body());
    });
    if let Err(panic) = host.join() {
        std::panic::resume_unwind(panic);
    }
}

fn enter_new_namespace() {
    #[expect(unsafe_code, reason = "unshare is unsafe for its other flags")]
    // SAFETY: nothing on this fresh thread relies on its network namespace.
    unsafe {
        rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET).unwrap();
    }
}

async fn ip(arguments: &str) {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    Tool::new("ip")
        .args(arguments)
        .run_ok(Duration::from_secs(10))
        .await
        .unwrap();
}

/// Serves `text` to whoever connects to `address` in this thread's namespace, until the test ends.
fn serve(address: &str, text: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let bound = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that is gone does not matter.
            let _sent = stream.and_then(|mut stream| stream.write_all(text.as_bytes()));
        }
    });
    bound
}

/// Makes the internet of the picture; the thread's namespace is the host. The file keeps it alive.
pub(super) async fn make_internet() -> (File, SocketAddr) {
    let (tell_namespace, namespace) = std::sync::mpsc::channel();
    let (connected, wait) = std::sync::mpsc::channel::<()>();
    let internet = std::thread::spawn(move || {
        enter_new_namespace();
        tell_namespace
            .send(File::open("/proc/thread-self/ns/net").unwrap())
            .unwrap();
        wait.recv().unwrap();
        serve("198.51.100.1:0", "beyond")
    });
    let namespace = namespace.recv().unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    ip("link set lo up").await;
    ip("address add 192.0.2.7/32 dev lo").await;
    ip("address add 10.9.9.9/32 dev lo").await;
    ip("link add wan type veth peer name host").await;
    ip(&format!("link set host netns {path}")).await;
    ip("address add 203.0.113.2/30 dev wan").await;
    ip("link set wan up").await;
    ip("route add default via 203.0.113.1").await;
    for line in [
        "link set lo up",
        "address add 198.51.100.1/32 dev lo",
        "address add 203.0.113.1/30 dev host",
        "link set host up",
    ] {
        let inside = Tool::new("nsenter").arg(format!("--net={path}")).arg("ip");
        inside
            .args(line.split(' '))
            .run_ok(Duration::from_secs(10))
            .await
            .unwrap();
    }
    connected.send(()).unwrap();
    (namespace, internet.join().unwrap())
}

/// What a step reads from `address`, or `nothing`.
async fn reach(kit: &Kit, network: StepNetwork, address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    let mut spec = kit.spec(&format!(
        "timeout 5 bash -c 'cat < /dev/tcp/{ip}/{port}' || echo nothing"
    ));
    spec.network = network;
    let Ran { stdout, .. } = kit.run(spec).await.unwrap();
    stdout.trim().to_owned()
}

#[test]
fn a_step_reaches_the_internet_and_no_address_of_the_host() {
    on_a_host_of_its_own(|| async {
        let (_internet, beyond) = make_internet().await;
        let kit = Kit::new().await;
        assert_eq!(reach(&kit, StepNetwork::Internet, beyond).await, "beyond");
        for address in ["127.0.0.1:0", "192.0.2.7:0", "10.9.9.9:0", "203.0.113.2:0"] {
            let host = serve(address, "host");
            // The control: the listener is there for the host itself.
            let mut read = String::new();
            let mut stream = std::net::TcpStream::connect(host).unwrap();
            std::io::Read::read_to_string(&mut stream, &mut read).unwrap();
            assert_eq!(read, "host");
            assert_eq!(
                reach(&kit, StepNetwork::Internet, host).await,
                "nothing",
                "{address}"
            );
            let gateway = SocketAddr::new("10.0.88.2".parse().unwrap(), host.port());
            assert_eq!(
                reach(&kit, StepNetwork::Internet, gateway).await,
                "nothing",
                "gateway"
            );
            assert_eq!(
                reach(&kit, StepNetwork::None, host).await,
                "nothing",
                "{address}, no network"
            );
        }
        assert_eq!(reach(&kit, StepNetwork::None, beyond).await, "nothing");
        kit.assert_nothing_is_left("no-process-has-this");
    });
}

/// Takes a container's network away from it: it has the host's.
fn host_network(mut config: Value) -> Value {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    // The step's user namespace may not mount the `/sys` of the host's network.
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != "/sys");
    config
}

#[test]
fn without_its_own_network_a_step_would_reach_the_host() {
    on_a_host_of_its_own(|| async {
        let (_internet, _) = make_internet().await;
        ip("address add fd00:9::9/128 dev lo nodad").await;
        let kit = Kit::new().await;
        let mut bare = Kit::new().await;
        bare.containers = bare.containers.finished_by(host_network);
        for address in ["127.0.0.1:0", "192.0.2.7:0", "[::1]:0", "[fd00:9::9]:0"] {
            let host = serve(address, "host");
            assert_eq!(
                reach(&bare, StepNetwork::Internet, host).await,
                "host",
                "{address}"
            );
            for network in [StepNetwork::Internet, StepNetwork::None] {
                assert_eq!(
                    reach(&kit, network, host).await,
                    "nothing",
                    "{address} {network:?}"
                );
            }
        }
    });
}

#[test]
fn a_step_reaches_no_abstract_socket_of_the_host() {
    on_a_host_of_its_own(|| async {
        use std::os::linux::net::SocketAddrExt as _;
        use std::os::unix::net::{SocketAddr, UnixListener};

        ip("link set lo up").await;
        let address = SocketAddr::from_abstract_name("isolation-test").unwrap();
        let _listener = UnixListener::bind_addr(&address).unwrap();
        let script =
            "perl -e '$f = syscall(41, 1, 1, 0); $a = pack(\"S\", 1) . \"\\0isolation-test\";
            print syscall(42, $f, $a, length $a) == 0 ? \"connected\" : \"refused\"'";
        let kit = Kit::new().await;
        let mut bare = Kit::new().await;
        bare.containers = bare.containers.finished_by(host_network);
        assert_eq!(bare.sh(script).await.stdout, "connected");
        for network in [StepNetwork::Internet, StepNetwork::None] {
            let mut spec = kit.spec(script);
            spec.network = network;
            assert_eq!(
                kit.run(spec).await.unwrap().stdout,
                "refused",
                "{network:?}"
            );
        }
    });
}

#[test]
fn a_step_has_no_ipv6_address_or_route_but_its_loopbacks() {
    on_a_host_of_its_own(|| async {
        ip("link set lo up").await;
        let kit = Kit::new().await;
        for network in [StepNetwork::Internet, StepNetwork::None] {
            let mut spec =
                kit.spec("cat /proc/net/if_inet6 /proc/net/ipv6_route; ls /sys/class/net");
            spec.network = network;
            let ran = kit.run(spec).await.unwrap();
            assert!(ran.exit.is_success(), "{ran:?}");
            let devices: Vec<&str> = ran
                .stdout
                .lines()
                .filter_map(|line| line.split_whitespace().last())
                .collect();
            let (other, expected): (Vec<&str>, &[&str]) = (
                devices
                    .into_iter()
                    .filter(|device| *device != "lo")
                    .collect(),
                // Of the list of devices.
                match network {
                    StepNetwork::Internet => &["tap0"],
                    StepNetwork::None => &[],
                },
            );
            assert_eq!(other, expected, "{}", ran.stdout);
        }
    });
}

#[test]
fn a_private_address_is_reached_only_when_it_is_allowed() {
    on_a_host_of_its_own(|| async {
        let (_internet, _) = make_internet().await;
        let mirror = serve("10.9.9.9:0", "mirror");
        let limits = NativeLimits::default();
        for (allowed, expected) in [
            (vec![], "nothing"),
            (vec!["10.9.9.9/32".parse().unwrap()], "mirror"),
        ] {
            let policy = NetworkPolicy {
                allowed,
                blocked: vec![],
            };
            let network = FilteredNetwork::create(&policy, &limits, &Holdings::default())
                .await
                .unwrap();
            let script = format!(
                "timeout 5 bash -c 'cat < /dev/tcp/10.9.9.9/{}' || echo nothing",
                mirror.port()
            );
            let inside = Tool::new("nsenter")
                .arg(format!("--net={}", network.path().display()))
                .args(["sh", "-c", &script]);
            let read = inside.run(Duration::from_secs(10)).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), expected);
            network.close().await;
        }
    });
}

#[test]
fn a_network_has_no_ipv6_route_and_ends_with_its_value() {
    on_a_host_of_its_own(|| async {
        ip("link set lo up").await;
        let network = FilteredNetwork::create(
            &NetworkPolicy::default(),
            &NativeLimits::default(),
            &Holdings::default(),
        )
        .await
        .unwrap();
        let path = network.path().display().to_string();
        let inside = Tool::new("nsenter").arg(format!("--net={path}"));
        let addresses = inside
            .args(["ip", "-6", "address", "show", "dev", "tap0"])
            .run_ok(Duration::from_secs(10))
            .await;
        assert_eq!(String::from_utf8_lossy(&addresses.unwrap().stdout), "");
        assert!(!processes_with(&path).is_empty());
        drop(network);
        eventually("the end of slirp4netns", || {
            processes_with(&path).is_empty()
        })
        .await;
    });
}
