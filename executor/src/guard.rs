//! Which addresses a caller's words may lead to: public ones, unless the operator named the host or
//! the network.
//!
//! A base image's name, a redirect, a token service and a webhook are all somebody else's choice.
//! Names are checked when a connection is made, by the resolver that the connector asks, so that a
//! name cannot mean one address while it is looked at and another when it is used.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use ipnet::IpNet;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// How names become addresses.
pub trait Names: Send + Sync {
    /// The addresses of `host`; port 0 stands for the scheme's.
    fn addresses(&self, host: String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>>;
}

/// The names that this host knows.
#[derive(Clone, Copy, Debug)]
pub struct SystemNames;

impl Names for SystemNames {
    fn addresses(&self, host: String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) })
    }
}

/// A host leads to an address that is not public.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{host}` leads to {address}, {what}")]
pub struct AddressRefused {
    host: String,
    address: IpAddr,
    what: &'static str,
}

impl AddressRefused {
    /// The refusal among the causes of `error`, if that is what it came from.
    pub fn in_causes<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        let mut causes = std::iter::successors(Some(error), |error| error.source());
        causes.find_map(|cause| cause.downcast_ref())
    }
}

/// How far connections may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To public addresses, and to these networks.
    Public(Vec<IpNet>),
    /// Anywhere.
    Anywhere,
}

impl Reach {
    /// Checks that a connection may go to `address`, to which `host` leads.
    ///
    /// # Errors
    /// [`AddressRefused`].
    pub fn check(&self, host: &str, address: IpAddr) -> Result<(), AddressRefused> {
        match self {
            Self::Anywhere => Ok(()),
            Self::Public(besides) => {
                // The address that is reached, however it is written.
                let reached = address.to_canonical();
                let is_named = besides.iter().any(|network| network.contains(&reached));
                if is_named {
                    Ok(())
                } else {
                    check(host, address)
                }
            }
        }
    }

    /// Checks the host of `url` if it is an address: a connector does not resolve what is one
    /// already, so nobody else looks at it.
    ///
    /// # Errors
    /// [`AddressRefused`].
    pub fn check_literal(&self, url: &Url) -> Result<(), AddressRefused> {
        let host = url.host_str().unwrap_or_default();
        match host.trim_matches(['[', ']']).parse() {
            Ok(address) => self.check(host, address),
            Err(_) => Ok(()),
        }
    }
}

/// Resolves names for connections.
pub struct Resolver {
    names: Arc<dyn Names>,
    reach: Reach,
}

impl Resolver {
    /// Gives those of the addresses that `names` knows to which `reach` lets connections go.
    pub fn new(names: Arc<dyn Names>, reach: Reach) -> Self {
        Self { names, reach }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("reach", &self.reach)
            .finish_non_exhaustive()
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let (looking, reach) = (self.names.addresses(host.clone()), self.reach.clone());
        Box::pin(async move {
            let found = looking.await?;
            let mut refused = None;
            let mut taken = Vec::new();
            for address in found {
                match reach.check(&host, address.ip()) {
                    Err(error) => refused = Some(error),
                    Ok(()) => taken.push(address),
                }
            }
            match refused {
                Some(error) if taken.is_empty() => Err(error.into()),
                Some(_) | None => {
                    let addresses: Addrs = Box::new(taken.into_iter());
                    Ok(addresses)
                }
            }
        })
    }
}

/// Checks that `address`, to which `host` leads, is a public one.
fn check(host: &str, address: IpAddr) -> Result<(), AddressRefused> {
    let what = match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    };
    match what {
        None => Ok(()),
        Some(what) => Err(AddressRefused {
            host: host.to_owned(),
            address,
            what,
        }),
    }
}

const LOOPBACK: &str = "a loopback address";
const PRIVATE: &str = "a private address";
const LINK_LOCAL: &str = "a link-local address";
const SPECIAL: &str = "an address with a special purpose";

/// What kind of special address it is (the IANA registry of special-purpose addresses).
fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let within = |a: u8, b: u8, c: u8, prefix: u32| {
        let mask = u32::MAX << (32 - prefix);
        u32::from(address) & mask == u32::from(Ipv4Addr::new(a, b, c, 0)) & mask
    };
    if address.is_loopback() {
        return Some(LOOPBACK);
    }
    if address.is_private() || within(100, 64, 0, 10) {
        return Some(PRIVATE);
    }
    if address.is_link_local() {
        return Some(LINK_LOCAL);
    }
    let special = within(0, 0, 0, 8)
        || within(192, 0, 0, 24)
        || within(192, 0, 2, 24)
        || within(192, 88, 99, 24)
        || within(198, 18, 0, 15)
        || within(198, 51, 100, 24)
        || within(203, 0, 113, 24)
        || within(224, 0, 0, 3);
    special.then_some(SPECIAL)
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_loopback() {
        return Some(LOOPBACK);
    }
    // Mapped, or behind the well-known translator: the IPv4 address is what is reached.
    if let Some(mapped) = address.to_ipv4_mapped().or_else(|| translated(address)) {
        return special_v4(mapped);
    }
    if address.is_unique_local() {
        return Some(PRIVATE);
    }
    if address.is_unicast_link_local() {
        return Some(LINK_LOCAL);
    }
    let within = |a: u16, b: u16, prefix: u32| {
        let start = u128::from(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0));
        let mask = u128::MAX << (128 - prefix);
        u128::from(address) & mask == start & mask
    };
    // Global unicast, less protocol assignments, documentation and 6to4.
    let global = within(0x2000, 0, 3)
        && !within(0x2001, 0, 23)
        && !within(0x2001, 0xdb8, 32)
        && !within(0x2002, 0, 16)
        && !within(0x3fff, 0, 20);
    (!global).then_some(SPECIAL)
}

/// The IPv4 address in `64:ff9b::/96`.
fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = u128::from(address);
    let prefix = u128::from(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0));
    let low = bits & u128::from(u32::MAX);
    (bits - low == prefix).then(|| u32::try_from(low).ok().map(Ipv4Addr::from))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_named_is_reached_however_its_addresses_are_written() {
        let reach = Reach::Public(vec!["10.1.0.0/16".parse().unwrap()]);
        for (text, is_reached) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("127.0.0.1", false),
            ("1.1.1.1", true),
        ] {
            let checked = reach.check("h", text.parse().unwrap());
            assert_eq!(checked.is_ok(), is_reached, "{text}");
        }
        for (url, is_reached) in [
            ("http://10.1.2.3/", true),
            ("http://[::ffff:10.2.0.1]/", false),
            ("http://0x7f.1/", false),
            ("http://2130706433/", false),
            ("http://name.example/", true),
        ] {
            let checked = reach.check_literal(&url.parse().unwrap());
            assert_eq!(checked.is_ok(), is_reached, "{url}");
        }
    }

    #[test]
    fn special_addresses_are_told_from_public_ones() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert!(check("h", address).is_err(), "{text}");
        }
        for text in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "126.1.1.1",
            "128.0.0.1",
            "169.253.1.1",
            "172.15.1.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.1.1",
            "198.17.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2001:200::1",
            "2606:4700::1",
            "2a00::1",
            "3ffe::1",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(check("h", address), Ok(()), "{text}");
        }
    }
}
