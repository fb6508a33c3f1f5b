//! A network namespace that reaches the Internet and nothing of the host.
//!
//! slirp4netns translates at the level of sockets, as an ordinary process of the host: no forwarding,
//! no bridge, no firewall rule outside the namespace. Its door to the host's loopback is shut
//! (`--disable-host-loopback`); routes inside the namespace refuse every address of the host and every
//! private network, unless the configuration allows one. IPv6 is off, but for the loopback. Whoever is
//! inside without `CAP_NET_ADMIN` cannot undo any of that.
//!
//! The namespace lives as long as the file descriptor we hold, slirp4netns as long as a pipe we hold:
//! both go when the value is dropped and when the service dies.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::process::Child;

use crate::holdings::{Held, Holdings, Thing};
use crate::limits::native::NativeLimits;
use crate::process::{ProcessError, Tool};
use crate::vmm::MachineNetwork;

/// The network inside; slirp4netns gives its third address to the name server.
const INSIDE: &str = "10.0.88.0/24";
/// The gateway inside.
const GATEWAY: &str = "10.0.88.2";
/// The name server inside.
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 88, 3);
/// The device inside.
const DEVICE: &str = "tap0";
/// The device's packet size in bytes: large, because nothing of it ever meets a wire.
const MTU_BYTES: u32 = 65_520;

/// The most that is repeated of what slirp4netns said when it failed, in bytes.
const MESSAGE_BYTES_MAX: u64 = 4096;

/// Networks that are private, local to a host or a link, shared with a carrier, or multicast
/// (RFC 1122, 1918, 3927, 6598, 5771): services of the host and its surroundings live there.
const PRIVATE_NETWORKS: [&str; 7] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "224.0.0.0/4",
];

/// Which addresses a filtered network lets through, beyond the rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Networks (`a.b.c.d/n`) that are reachable although they are private: package mirrors.
    pub allowed: Vec<Ipv4Network>,
    /// Further networks that are not reachable.
    pub blocked: Vec<Ipv4Network>,
}

/// An IPv4 network. Its text form is an address, `/` and the number of leading bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Network {
    address: Ipv4Addr,
    prefix: u8,
}

/// The text is not an IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an IPv4 network is an address, `/` and a number from 0 to 32")]
pub struct InvalidNetwork;

impl Ipv4Network {
    /// The network of `prefix` bits that `address` lies in; nothing if there are no such networks.
    pub fn containing(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let host_bits = 32_u32.checked_sub(u32::from(prefix))?;
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        let address = Ipv4Addr::from(u32::from(address) & mask);
        Some(Self { address, prefix })
    }
}

impl TryFrom<String> for Ipv4Network {
    type Error = InvalidNetwork;

    fn try_from(text: String) -> Result<Self, InvalidNetwork> {
        text.parse()
    }
}

impl From<Ipv4Network> for String {
    fn from(network: Ipv4Network) -> Self {
        network.to_string()
    }
}

impl std::str::FromStr for Ipv4Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let address = address.parse().map_err(|_| InvalidNetwork)?;
        let prefix = prefix.parse().map_err(|_| InvalidNetwork)?;
        Self::containing(address, prefix).ok_or(InvalidNetwork)
    }
}

impl std::fmt::Display for Ipv4Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Why there is no filtered network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The kernel gave no new namespace.
    #[error("cannot make a network namespace")]
    Namespace(#[source] io::Error),
    /// The host's addresses are not known, so they cannot be kept out.
    #[error("cannot list the addresses of the host")]
    HostAddresses(#[source] ProcessError),
    /// What `ip` printed is no list of addresses.
    #[error("cannot read the list of the host's addresses")]
    HostAddressList(#[source] serde_json::Error),
    /// A route could not be set.
    #[error("cannot set the routes of the network")]
    Routes(#[source] ProcessError),
    /// slirp4netns could not be started.
    #[error("cannot start `slirp4netns`")]
    Start(#[source] io::Error),
    /// slirp4netns did not bring the network up.
    #[error("`slirp4netns` did not bring the network up: {0}")]
    NotReady(String),
}

/// A running filtered network.
#[derive(Debug)]
pub struct FilteredNetwork {
    namespace: File,
    slirp: Child,
    held: Held,
}

impl FilteredNetwork {
    /// Makes a namespace and connects it, for whoever keeps the list `holdings`.
    ///
    /// # Errors
    /// [`NetworkError`]; nothing is left of it then.
    pub async fn create(
        policy: &NetworkPolicy,
        limits: &NativeLimits,
        holdings: &Holdings,
    ) -> Result<Self, NetworkError> {
        let namespace = new_namespace().await.map_err(NetworkError::Namespace)?;
        let path = namespace_path(&namespace);
        // Before the network is up: what is not to be reached never was.
        let blocked = blocked(policy, &host_networks(limits).await?);
        let lines: Vec<String> = blocked
            .iter()
            .map(|network| format!("route replace unreachable {network}"))
            .collect();
        ip_batch(&path, &lines, limits).await?;
        let slirp = start_slirp(&path, limits).await?;
        let lines: Vec<String> = policy
            .allowed
            .iter()
            .map(|network| format!("route replace {network} via {GATEWAY} dev {DEVICE}"))
            .collect();
        ip_batch(&path, &lines, limits).await?;
        let number = namespace.metadata().map_err(NetworkError::Namespace)?.ino();
        let process = slirp.id().map(|pid| Thing::process("slirp4netns", pid));
        let held = holdings.hold(process.into_iter().chain([Thing::Network(number)]));
        Ok(Self {
            namespace,
            slirp,
            held,
        })
    }

    /// Where a process of the host finds the namespace (for `nsenter --net=`), while this value lives.
    pub fn path(&self) -> PathBuf {
        namespace_path(&self.namespace)
    }

    /// The name server inside; it answers what the host's own name server answers.
    pub const fn name_server(&self) -> Ipv4Addr {
        NAME_SERVER
    }

    /// This network as a machine's.
    pub fn for_machine(&self) -> MachineNetwork {
        MachineNetwork::Namespace {
            path: self.path(),
            name_server: self.name_server(),
        }
    }

    /// Whether packets still flow: slirp4netns has not ended.
    pub fn is_up(&mut self) -> bool {
        matches!(self.slirp.try_wait(), Ok(None))
    }

    /// What stands for it on the list of whoever it was made for.
    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// Takes the network down and waits until slirp4netns is gone.
    pub async fn close(mut self) {
        // Gone or killed: both are the end of it, and dropping kills it again.
        let _gone = self.slirp.kill().await;
    }
}

fn namespace_path(namespace: &File) -> PathBuf {
    PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        namespace.as_raw_fd()
    ))
}

/// A new network namespace, with IPv6 off for devices that come into it.
async fn new_namespace() -> io::Result<File> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread of its own, because entering the namespace is for the rest of the thread's life.
    std::thread::Builder::new()
        .name("new-netns".to_owned())
        .spawn(move || {
            // The receiver is gone only if nobody waits any more.
            let _unheard = sender.send(unshare_network());
        })?;
    receiver.await.map_err(io::Error::other)?
}

fn unshare_network() -> io::Result<File> {
    #[expect(unsafe_code, reason = "unshare is unsafe for its other flags")]
    // SAFETY: the network namespace of this thread is no state that any code relies on; the flags
    // that could pull memory or file descriptors from under other code (FILES, FS) are not given.
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)?;
    }
    match std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") {
        Ok(()) => {}
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    File::open("/proc/thread-self/ns/net")
}

/// An entry of `ip -json addr`, of which only the addresses matter.
#[derive(Deserialize)]
struct Link {
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(default)]
    local: Option<Ipv4Addr>,
    #[serde(default)]
    prefixlen: u8,
}

/// The networks that the host is part of.
async fn host_networks(limits: &NativeLimits) -> Result<Vec<Ipv4Network>, NetworkError> {
    let listed = Tool::new("ip")
        .args(["-4", "-json", "addr", "show"])
        .run_ok(limits.tool_wait)
        .await
        .map_err(NetworkError::HostAddresses)?;
    parse_host_networks(&listed.stdout).map_err(NetworkError::HostAddressList)
}

fn parse_host_networks(json: &[u8]) -> serde_json::Result<Vec<Ipv4Network>> {
    let links: Vec<Link> = serde_json::from_slice(json)?;
    let addresses = links.into_iter().flat_map(|link| link.addr_info);
    Ok(addresses
        .filter_map(|address| Some((address.local?, address.prefixlen)))
        // Loopback addresses mean the namespace's own loopback inside it.
        .filter(|(address, _)| !address.is_loopback())
        .flat_map(|(address, prefix)| {
            [
                Ipv4Network::containing(address, prefix),
                Ipv4Network::containing(address, 32),
            ]
        })
        .flatten()
        .collect())
}

/// What is not to be reached, each network once.
fn blocked(policy: &NetworkPolicy, host: &[Ipv4Network]) -> BTreeSet<Ipv4Network> {
    PRIVATE_NETWORKS
        .iter()
        .filter_map(|text| text.parse().ok())
        .chain(policy.blocked.iter().copied())
        .chain(host.iter().copied())
        // A host with a route to everything must not lose the default route inside.
        .filter(|network| network.prefix > 0)
        .collect()
}

/// Runs lines of `ip` inside the namespace at `path`.
async fn ip_batch(
    path: &Path,
    lines: &[String],
    limits: &NativeLimits,
) -> Result<(), NetworkError> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut net = OsString::from("--net=");
    net.push(path);
    // The lines are numbers and names of ours: nothing in them is for the shell.
    let script = format!("ip -batch - <<'END'\n{}\nEND\n", lines.join("\n"));
    Tool::new("nsenter")
        .arg(net)
        .args(["sh", "-c"])
        .arg(script)
        .run_ok(limits.tool_wait)
        .await
        .map_err(NetworkError::Routes)?;
    Ok(())
}

/// Starts slirp4netns for the namespace at `path` and waits until the network is up.
async fn start_slirp(path: &Path, limits: &NativeLimits) -> Result<Child, NetworkError> {
    // Standard input is the lifeline: slirp4netns ends when it is closed. Readiness comes on the
    // original standard output, which its messages must not reach.
    let tool = Tool::new("sh")
        .args([
            "-c",
            "exec 3>&1 1>&2; exec slirp4netns \"$@\"",
            "sh",
            "--configure",
        ])
        .arg(format!("--mtu={MTU_BYTES}"))
        .args([
            "--disable-host-loopback",
            "--enable-sandbox",
            "--enable-seccomp",
        ])
        .arg(format!("--cidr={INSIDE}"))
        .args(["--ready-fd=3", "--exit-fd=0", "--netns-type=path"])
        .arg(path)
        .arg(DEVICE);
    let mut slirp = tool
        .command()
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NetworkError::Start)?;
    let (Some(mut ready), Some(mut said)) = (slirp.stdout.take(), slirp.stderr.take()) else {
        return Err(NetworkError::Start(io::ErrorKind::BrokenPipe.into()));
    };
    let mut byte = [0_u8];
    let is_ready = tokio::time::timeout(limits.network_ready_wait, ready.read(&mut byte)).await;
    if matches!(is_ready, Ok(Ok(1))) {
        // A full pipe would stop the network in the middle of a step.
        let _drained_until_it_ends =
            tokio::spawn(async move { tokio::io::copy(&mut said, &mut tokio::io::sink()).await });
        return Ok(slirp);
    }
    let _killed = slirp.kill().await;
    let mut message = Vec::new();
    let _read = said.take(MESSAGE_BYTES_MAX).read_to_end(&mut message).await;
    Err(NetworkError::NotReady(
        String::from_utf8_lossy(&message).trim().to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Ipv4Network {
        text.parse().unwrap()
    }

    #[test]
    fn every_network_of_the_host_is_kept_out_but_its_loopback() {
        let json = br#"[
            {"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8},
                                         {"family":"inet","local":"198.51.100.7","prefixlen":32}]},
            {},
            {"ifname":"eth0","addr_info":[{"family":"inet","local":"203.0.113.9","prefixlen":24}]}
        ]"#;
        let found = parse_host_networks(json).unwrap();
        let expected = [
            "198.51.100.7/32",
            "198.51.100.7/32",
            "203.0.113.0/24",
            "203.0.113.9/32",
        ];
        assert_eq!(found, expected.map(network));
        let blocked = blocked(&NetworkPolicy::default(), &found);
        assert!(blocked.contains(&network("203.0.113.0/24")));
        assert!(blocked.contains(&network("10.0.0.0/8")));
    }

    #[test]
    fn a_network_is_an_address_and_a_length() {
        assert_eq!(network("10.1.2.3/8").to_string(), "10.0.0.0/8");
        assert_eq!(network("10.1.2.3").to_string(), "10.1.2.3/32");
        assert_eq!(network("1.2.3.4/0").to_string(), "0.0.0.0/0");
        for text in ["", "10.0.0.0/33", "::/0", "10.0.0.0/-1", "x/8"] {
            assert_eq!(text.parse::<Ipv4Network>(), Err(InvalidNetwork), "{text}");
        }
    }
}
