//! What steps that may use the network get of the host.

use std::collections::BTreeMap;
use std::path::PathBuf;

use executor::native::network::Ipv4Network;
use serde::{Deserialize, Serialize};

/// What steps need to reach package mirrors: proxies, certificates. Not part of any cache key and
/// not kept in the template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuildNetwork {
    /// Variables of every step that may use the network, for example `http_proxy`.
    pub env: BTreeMap<String, String>,
    /// Files of the host that such steps see read-only: `[[build_network.files]]`.
    pub files: Vec<HostFile>,
    /// Networks (`a.b.c.d/n`) that such steps and machines reach although they are private: a
    /// package mirror in the operator's own network, for example.
    pub allowed_networks: Vec<Ipv4Network>,
    /// Further networks that they do not reach.
    pub blocked_networks: Vec<Ipv4Network>,
}

/// A file of the host that steps see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFile {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where steps see it.
    pub target: PathBuf,
}
