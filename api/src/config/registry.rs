//! Where base images come from.

use serde::{Deserialize, Serialize};

/// Registries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// Ask no registry but the mirrors.
    pub mirrors_only: bool,
    /// Hosts (with port, if it is not 443) that speak plain HTTP.
    pub plain_http_hosts: Vec<String>,
    /// Registries, and the storage that they redirect to, whose addresses may be private, loopback
    /// or link-local. Others that lead to such addresses are refused; mirrors and hosts of plain
    /// HTTP are known to be wanted.
    pub private_hosts: Vec<String>,
    /// Where passwords of Amazon's registries are asked for; empty: at the region's endpoint.
    pub ecr_endpoint: String,
    /// Where tokens of Google's registries are asked for; empty: at Google's token service.
    pub gcp_token_endpoint: String,
    /// Hosts that are asked instead of a registry, in order: `[[registry.mirror]]`.
    pub mirror: Vec<Mirror>,
}

/// A host that is asked instead of a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// The registry that it stands for, for example `docker.io`.
    pub registry: String,
    /// Where it is, for example `127.0.0.1:5000`.
    pub host: String,
    /// Whether it speaks plain HTTP.
    #[serde(default)]
    pub plain_http: bool,
}
