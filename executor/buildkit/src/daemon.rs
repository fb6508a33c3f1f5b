//! The daemons: their addresses, which of them answer, and which has the least to do.

mod address;
pub(crate) mod client;
mod probe;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{FuturesUnordered, StreamExt as _};

pub use address::{Address, InvalidAddress};
pub use probe::{DaemonVersion, ProbeError};

use crate::limits::BuildkitLimits;
use client::Client;
use probe::probe;

/// A daemon that builds may go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    address: Address,
    tls: Option<Tls>,
}

/// How a daemon and we know each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificates that the daemon's must come from, in PEM.
    pub ca: PathBuf,
    /// Our certificate, in PEM.
    pub cert: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
    /// The name in the daemon's certificate, if it is not the host of its address.
    pub server_name: Option<String>,
}

/// An address and its TLS do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDaemon {
    /// TLS is for TCP.
    #[error("{address} is a socket of this host: there is no TLS on it")]
    TlsOnSocket {
        /// The address.
        address: Address,
    },
    /// Secrets and credentials would leave the host in clear text, and anybody could use the daemon.
    #[error("{address} is beyond this host: it needs TLS with certificates on both sides")]
    PlainTcp {
        /// The address.
        address: Address,
    },
}

impl DaemonConfig {
    /// The daemon at `address`.
    ///
    /// # Errors
    /// [`InvalidDaemon`]: the configuration is wrong.
    pub fn new(address: Address, tls: Option<Tls>) -> Result<Self, InvalidDaemon> {
        if tls.is_some() && !address.is_tcp() {
            return Err(InvalidDaemon::TlsOnSocket { address });
        }
        if tls.is_none() && address.leaves_host() {
            return Err(InvalidDaemon::PlainTcp { address });
        }
        Ok(Self { address, tls })
    }

    /// Where it listens.
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Its TLS, if it has any.
    pub const fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }
}

/// The daemons that builds may go to. Clones share the count of what is under way.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clients: Vec<Client>,
    limits: BuildkitLimits,
    /// How many builds of ours are under way at each.
    builds: Mutex<Vec<usize>>,
}

/// A daemon for one build, which is counted until this and every build that runs by it are gone.
#[derive(Debug)]
pub struct Lease(Arc<Place>);

/// The counted part of a lease.
#[derive(Debug)]
pub(crate) struct Place {
    pool: Pool,
    index: usize,
    client: Client,
}

/// No daemon can be used for a build.
#[derive(Debug)]
pub struct NoDaemon {
    /// Those that were asked, and why not.
    pub unusable: Vec<(Address, ProbeError)>,
    /// Those that were not even asked, because the caller wants none of them.
    pub avoided: Vec<Address>,
}

impl Pool {
    /// The daemons, in order of preference, reached by the program `buildctl`.
    pub fn new(buildctl: PathBuf, daemons: Vec<DaemonConfig>, limits: BuildkitLimits) -> Self {
        let buildctl: Arc<Path> = buildctl.into();
        let builds = Mutex::new(vec![0; daemons.len()]);
        let client = |daemon| Client::new(Arc::clone(&buildctl), daemon);
        Self(Arc::new(Shared {
            clients: daemons.into_iter().map(client).collect(),
            limits,
            builds,
        }))
    }

    /// The daemon that answers and has the fewest builds of ours under way, but none of `avoid`.
    ///
    /// All are asked at once. One with fewer builds that has not answered yet is waited for, up to
    /// `probe_ms_max`.
    ///
    /// # Errors
    /// [`NoDaemon`]: the build can be tried again later, by an operator's help or without.
    pub async fn lease(&self, avoid: &[Address]) -> Result<Lease, NoDaemon> {
        let mut none = NoDaemon {
            unusable: Vec::new(),
            avoided: Vec::new(),
        };
        let mut probes = FuturesUnordered::new();
        let (mut pending, mut usable) = (Vec::new(), Vec::new());
        for (index, client) in self.0.clients.iter().enumerate() {
            let address = client.daemon().address();
            if avoid.contains(address) {
                none.avoided.push(address.clone());
                continue;
            }
            pending.push(index);
            probes.push(async move { (index, address, probe(client, &self.0.limits).await) });
        }
        while let Some((index, address, answer)) = probes.next().await {
            pending.retain(|&other| other != index);
            match answer {
                Ok(_) => usable.push(index),
                Err(error) => none.unusable.push((address.clone(), error)),
            }
            if let Some(lease) = self.take_least_loaded(&usable, &pending) {
                return Ok(lease);
            }
        }
        Err(none)
    }

    /// Counts a build at the one of `usable` that has the fewest, unless one of `pending` has fewer.
    fn take_least_loaded(&self, usable: &[usize], pending: &[usize]) -> Option<Lease> {
        let mut builds = self.0.builds.lock().unwrap_or_else(PoisonError::into_inner);
        let load = |index: &usize| builds.get(*index).copied().map(|count| (count, *index));
        let (count, index) = usable.iter().filter_map(load).min()?;
        let least_pending = pending.iter().filter_map(load).min();
        if least_pending.is_some_and(|(pending, _)| pending < count) {
            return None;
        }
        let client = self.0.clients.get(index)?.clone();
        *builds.get_mut(index)? += 1;
        Some(Lease(Arc::new(Place {
            pool: self.clone(),
            index,
            client,
        })))
    }

    /// What every daemon answers, in order.
    pub async fn probe_all(&self) -> Vec<(Address, Result<DaemonVersion, ProbeError>)> {
        let probes = self.0.clients.iter().map(|client| async move {
            let answer = probe(client, &self.0.limits).await;
            (client.daemon().address().clone(), answer)
        });
        futures_util::future::join_all(probes).await
    }
}

impl Lease {
    /// The daemon.
    pub fn address(&self) -> &Address {
        self.0.client.daemon().address()
    }

    /// The place, for what may outlive this value.
    pub(crate) fn place(&self) -> Arc<Place> {
        Arc::clone(&self.0)
    }
}

impl Place {
    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn limits(&self) -> &BuildkitLimits {
        &self.pool.0.limits
    }

    /// Whether the daemon answers, and what it is.
    pub(crate) async fn probe(&self) -> Result<DaemonVersion, ProbeError> {
        probe(&self.client, self.limits()).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let builds = self.pool.0.builds.lock();
        let mut builds = builds.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = builds.get_mut(self.index) {
            *count = count.saturating_sub(1);
        }
    }
}

impl fmt::Display for NoDaemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unusable.is_empty() && self.avoided.is_empty() {
            return f.write_str("no BuildKit daemon is configured; Dockerfiles need one");
        }
        f.write_str("no BuildKit daemon can be used:")?;
        for (address, error) in &self.unusable {
            write!(f, " {address}: {error};")?;
        }
        for address in &self.avoided {
            write!(f, " {address}: passed over, the build was lost there;")?;
        }
        f.write_str(" start buildkitd there, or name other daemons in the configuration")
    }
}

impl std::error::Error for NoDaemon {}

#[cfg(test)]
mod tests;
