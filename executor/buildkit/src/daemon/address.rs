//! Where a daemon listens.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The longest path of a socket, in bytes: the kernel's bound, less its final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Where a daemon listens: a socket of this host (`unix:///path`) or a TCP port (`tcp://host:port`).
///
/// `buildctl` knows more kinds, which run other programs or other hosts' shells to get there; none of
/// them is accepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    text: String,
    tcp_host: Option<String>,
}

/// A text is not the address of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not the address of a BuildKit daemon ({reason}); \
     write unix:///path/to/socket or tcp://host:port"
)]
pub struct InvalidAddress {
    text: String,
    reason: &'static str,
}

impl Address {
    /// Whether it is a TCP port.
    pub const fn is_tcp(&self) -> bool {
        self.tcp_host.is_some()
    }

    /// Whether what is sent there leaves this host.
    pub fn leaves_host(&self) -> bool {
        let Some(host) = &self.tcp_host else {
            return false;
        };
        let loopback = host.eq_ignore_ascii_case("localhost")
            || host
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback());
        !loopback
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let host = if let Some(path) = text.strip_prefix("unix://") {
            check_path(path).map(|()| None)
        } else if let Some(rest) = text.strip_prefix("tcp://") {
            tcp_host(rest).map(Some)
        } else {
            Err("its scheme is neither unix nor tcp")
        };
        match host {
            Ok(tcp_host) => Ok(Self {
                text: text.to_owned(),
                tcp_host,
            }),
            Err(reason) => Err(InvalidAddress {
                text: text.to_owned(),
                reason,
            }),
        }
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        return Err("the path of a socket begins with /");
    }
    if path.len() > SOCKET_PATH_BYTES_MAX {
        return Err("the path of a socket has at most 107 bytes");
    }
    // What buildctl would take for parts of a URL.
    if path.contains(['?', '#', '%']) || path.contains(char::is_control) {
        return Err("the path of a socket has no ?, #, % and control characters");
    }
    Ok(())
}

fn tcp_host(rest: &str) -> Result<String, &'static str> {
    let (host, port) = rest.rsplit_once(':').ok_or("it has no port")?;
    if port.starts_with('+') || port.parse().is_ok_and(|port: u16| port == 0) {
        return Err("its port is not a number from 1 to 65535");
    }
    let _: u16 = port
        .parse()
        .map_err(|_| "its port is not a number from 1 to 65535")?;
    if let Some(inside) = host.strip_prefix('[') {
        let address = inside.strip_suffix(']').ok_or("its host is not whole")?;
        let _: Ipv6Addr = address
            .parse()
            .map_err(|_| "there is no IPv6 address between the brackets")?;
        return Ok(address.to_owned());
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if host.is_empty() || !host.bytes().all(is_name) {
        return Err("its host is neither a name nor an address");
    }
    Ok(host.to_owned())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_ports_are_addresses_and_keep_their_text() {
        for text in [
            "unix:///run/buildkit/buildkitd.sock",
            "tcp://builder.example.com:1234",
            "tcp://127.0.0.1:1234",
            "tcp://[::1]:65535",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.is_tcp(), text.starts_with("tcp"));
        }
    }

    #[test]
    fn nothing_else_is_an_address() {
        let long = format!("unix:///{}", "a".repeat(107));
        for text in [
            "",
            "/run/buildkit/buildkitd.sock",
            "docker-container://name",
            "podman-container://name",
            "kube-pod://name",
            "ssh://host",
            "npipe:////./pipe/buildkitd",
            "http://host:1",
            "UNIX:///run/sock",
            "unix://relative",
            "unix:///a?b",
            "unix:///a\nb",
            &long,
            "tcp://host",
            "tcp://:1234",
            "tcp://host:0",
            "tcp://host:65536",
            "tcp://host:+1",
            "tcp://host:1/path",
            "tcp://user@host:1",
            "tcp://::1:1234",
            "tcp://[::1:1234",
            "tcp://[name]:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_error_says_what_to_write() {
        let error = "ssh://host".parse::<Address>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`ssh://host` is not the address of a BuildKit daemon (its scheme is neither unix nor \
             tcp); write unix:///path/to/socket or tcp://host:port"
        );
    }

    #[test]
    fn only_tcp_beyond_the_loopback_leaves_the_host() {
        let leaves = |text: &str| text.parse::<Address>().unwrap().leaves_host();
        for text in [
            "unix:///a",
            "tcp://127.0.0.9:1",
            "tcp://[::1]:1",
            "tcp://localhost:1",
        ] {
            assert!(!leaves(text), "{text}");
        }
        for text in [
            "tcp://10.0.0.1:1",
            "tcp://[2001:db8::1]:1",
            "tcp://builder:1",
        ] {
            assert!(leaves(text), "{text}");
        }
    }
}
