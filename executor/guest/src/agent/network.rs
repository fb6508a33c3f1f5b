//! The network of a machine: loopback, and the fixed address of the user-mode network.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use guest::protocol::NAME_SERVER_ARGUMENT;

use super::failure::{Doing as _, Failure};
use super::sys;

const INTERFACE: &str = "eth0";
// What QEMU's user-mode network gives its one guest.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const NETMASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
// Asks what the host asks, which a filtered network may not let through.
const QEMU_NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// Whether the machine has a network device.
pub(crate) fn has_interface() -> bool {
    Path::new("/sys/class/net").join(INTERFACE).exists()
}

/// Brings the loopback interface up.
pub(crate) fn loopback_up() -> Result<(), Failure> {
    socket()
        .and_then(|socket| interface_up(&socket, "lo"))
        .doing(|| "bring the loopback interface up".to_owned())
}

/// Gives the network device its address, route and resolver.
pub(crate) fn configure() -> Result<(), Failure> {
    let configured = socket().and_then(|socket| {
        set_address(&socket, libc::SIOCSIFADDR, ADDRESS)?;
        set_address(&socket, libc::SIOCSIFNETMASK, NETMASK)?;
        interface_up(&socket, INTERFACE)?;
        add_default_route(&socket)
    });
    configured.doing(|| format!("configure {INTERFACE}"))?;
    write_resolver().doing(|| "write /etc/resolv.conf".to_owned())
}

fn write_resolver() -> io::Result<()> {
    fs::create_dir_all("/etc")?;
    // Images often have a link into a folder of a service that does not run here.
    match fs::remove_file("/etc/resolv.conf") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let name_server = name_server(&fs::read_to_string("/proc/cmdline")?);
    fs::write("/etc/resolv.conf", format!("nameserver {name_server}\n"))
}

/// The name server that the kernel's arguments name.
fn name_server(arguments: &str) -> Ipv4Addr {
    arguments
        .split_whitespace()
        .filter_map(|argument| argument.split_once('='))
        .find(|(name, _)| *name == NAME_SERVER_ARGUMENT)
        .and_then(|(_, address)| address.parse().ok())
        .unwrap_or(QEMU_NAME_SERVER)
}

fn socket() -> io::Result<OwnedFd> {
    // A UDP socket of the standard library is as good as any for these requests.
    std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map(OwnedFd::from)
}

fn request(name: &str) -> libc::ifreq {
    #[expect(unsafe_code, reason = "ifreq has no constructor")]
    // SAFETY: plain data for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut bytes = [0; 14];
    // In a sockaddr_in the port (2 bytes) comes first, then the address in network order.
    for (to, from) in bytes.iter_mut().skip(2).zip(address.octets()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    libc::sockaddr {
        sa_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
        sa_data: bytes,
    }
}

fn set_address(socket: &OwnedFd, ioctl: libc::c_ulong, address: Ipv4Addr) -> io::Result<()> {
    let mut request = request(INTERFACE);
    request.ifr_ifru.ifru_addr = socket_address(address);
    sys::ioctl_value(socket.as_fd(), ioctl, &mut request)
}

fn interface_up(socket: &OwnedFd, name: &str) -> io::Result<()> {
    let mut request = request(name);
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(up).map_err(io::Error::other)?;
    sys::ioctl_value(socket.as_fd(), libc::SIOCSIFFLAGS, &mut request)
}

fn add_default_route(socket: &OwnedFd) -> io::Result<()> {
    #[expect(unsafe_code, reason = "rtentry has no constructor")]
    // SAFETY: plain data for which zeroes (and a null device name) are valid.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = socket_address(GATEWAY);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    sys::ioctl_value(socket.as_fd(), libc::SIOCADDRT, &mut route)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_arguments_may_name_the_name_server() {
        let named = "console=ttyS0 nullspace.name_server=10.0.88.3 quiet\n";
        assert_eq!(name_server(named), Ipv4Addr::new(10, 0, 88, 3));
        assert_eq!(
            name_server("quiet nullspace.name_server=x"),
            QEMU_NAME_SERVER
        );
    }
}
