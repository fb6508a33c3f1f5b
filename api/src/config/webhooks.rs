//! Where events may be sent.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Where events may be sent; how often and how many, `[limits]` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhooks {
    /// Whether anything is sent, and webhooks can be registered.
    pub enabled: bool,
    /// Whether URLs may be `http://`; deliveries are signed, but can be read on the way.
    pub plain_http: bool,
    /// The only hosts that URLs may name, for example `hooks.example.com` or `*.example.com`; empty:
    /// any.
    pub allowed_hosts: Vec<String>,
    /// Networks (`a.b.c.d/n`, or of IPv6) that hosts may lead to although they are private, loopback
    /// or link-local. Public addresses need no mention.
    pub allowed_networks: Vec<IpNet>,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            enabled: true,
            plain_http: true,
            allowed_hosts: Vec::new(),
            allowed_networks: Vec::new(),
        }
    }
}
