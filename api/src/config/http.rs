//! The HTTP service.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Where and with what the service listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// The address. Loopback by default: the service speaks plain HTTP, so put a proxy that
    /// speaks TLS before it when others shall reach it.
    pub listen: SocketAddr,
    /// Threads that serve requests.
    pub workers: usize,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
            workers: 2,
        }
    }
}
