//! Which sources a build may fetch: BuildKit's source policy.
//!
//! The daemon fetches base images, URLs and repositories itself, on its own network and with what its
//! store already holds, whatever the network mode of the steps is. So everything is denied that is not
//! named here:
//!
//! * an image only under the very names that were allowed. A daemon that once pulled a private image
//!   gives it to whoever knows its name and digest, without asking the registry; only a policy keeps
//!   one tenant's images from another. Names that a base image brings along (`ONBUILD`) are no
//!   exception.
//! * a URL or a repository only with the network on, and then only of a public host. That is not the
//!   wall: names can lead anywhere, and servers can redirect. The daemon's own network has to be one
//!   that reaches nothing private.
//!
//! What no policy stops: `ADD git@host:path` makes the frontend, inside the daemon, ask `host` for its
//! SSH key before any policy is looked at. Dockerfiles with such a source are refused before.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Network;

/// The images that a build may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagePolicy {
    images: BTreeMap<String, Option<String>>,
}

impl ImagePolicy {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows one image, by its whole name as BuildKit writes it: registry, repository, and the tag
    /// (`latest` if the Dockerfile has none), the digest or both that the Dockerfile has. The default
    /// registry is `docker.io`, and its official images are in `library/`. A name in another form
    /// allows nothing.
    ///
    /// With a `pin` (`sha256:…`), the name means that image, whatever the registry says now. Without
    /// one it means what the daemon finds; and since a Dockerfile may put any digest behind the name,
    /// every image of that repository that the daemon ever pulled can be had so.
    ///
    /// The daemon asks a registry for nothing that it holds already. So whoever allows a name must have
    /// asked, with the tenant's own login, whether the registry lets the tenant have the image.
    pub fn allow(&mut self, name: impl Into<String>, pin: Option<String>) {
        self.images.insert(name.into(), pin);
    }
}

/// A policy in the form that `buildctl` reads.
#[derive(Debug, Serialize)]
pub(super) struct Policy {
    version: u32,
    rules: Vec<Rule>,
}

#[derive(Debug, Serialize)]
struct Rule {
    action: Action,
    selector: Selector,
    #[serde(skip_serializing_if = "Option::is_none")]
    updates: Option<Updates>,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Action {
    Allow,
    Deny,
    Convert,
}

#[derive(Debug, Serialize)]
struct Selector {
    identifier: String,
    // Exactly so: an unknown key, like `matchType`, is passed over, and the match is a wildcard then.
    match_type: Match,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Match {
    Exact,
    Regex,
    Wildcard,
}

#[derive(Debug, Serialize)]
struct Updates {
    identifier: String,
}

/// Everything, also what has line breaks in it, which a wildcard would pass over.
const EVERYTHING: &str = "^";

/// What every build gets from us.
const OURS: [&str; 2] = ["local://context", "local://dockerfile"];

/// URLs and repositories of hosts whose names have a dot and do not end in a number, of IPv4 addresses
/// in the usual form, and of global IPv6 addresses. (Repositories are `git://` whatever their protocol
/// is.) Other ways to write an address, as a number or in parts, match nothing.
const PUBLIC_HOSTS: [&str; 3] = [
    r"(?i)^(https?|git)://([^/?#@\\]*@)?([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)+[a-z]([a-z0-9-]*[a-z0-9])?\.?(:[0-9]*)?([/?#]|$)",
    r"(?i)^(https?|git)://([^/?#@\\]*@)?((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])){3})(:[0-9]*)?([/?#]|$)",
    r"(?i)^(https?|git)://([^/?#@\\]*@)?\[[23][0-9a-f]{3}:[0-9a-f:]*\](:[0-9]*)?([/?#]|$)",
];

/// Of these, the names that mean the host itself or its surroundings, and the IPv4 networks that are
/// private, local, shared, reserved or multicast (RFC 1122, 1918, 3927, 5771, 6598).
const PRIVATE_HOSTS: [&str; 2] = [
    r"(?i)^(https?|git)://([^/?#@\\]*@)?[^/?#@:]*\.(localhost|localdomain|local|internal|lan|home\.arpa)\.?(:[0-9]*)?([/?#]|$)",
    r"(?i)^(https?|git)://([^/?#@\\]*@)?(0|10|127|169\.254|172\.(1[6-9]|2[0-9]|3[01])|192\.168|100\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])|22[4-9]|2[3-5][0-9])\.[0-9.]+(:[0-9]*)?([/?#]|$)",
];

impl Policy {
    /// The policy for a build. The last rule that fits a source decides; a conversion starts over with
    /// the new name.
    pub(super) fn new(images: &ImagePolicy, network: Network) -> Self {
        let mut rules = vec![rule(Action::Deny, Match::Regex, EVERYTHING)];
        rules.extend(OURS.map(|source| rule(Action::Allow, Match::Exact, source)));
        if network == Network::Default {
            rules.extend(PUBLIC_HOSTS.map(|hosts| rule(Action::Allow, Match::Regex, hosts)));
            rules.extend(PRIVATE_HOSTS.map(|hosts| rule(Action::Deny, Match::Regex, hosts)));
        }
        for (name, pin) in &images.images {
            rules.extend(image_rules(name, pin.as_deref()));
        }
        Self { version: 1, rules }
    }
}

fn image_rules(name: &str, pin: Option<&str>) -> Vec<Rule> {
    let source = format!("docker-image://{name}");
    if name.contains('@') {
        return vec![rule(Action::Allow, Match::Exact, source)];
    }
    let Some(pin) = pin else {
        // First the name is asked for alone, then with the digest that was found.
        return vec![
            rule(Action::Allow, Match::Wildcard, format!("{source}@sha256:*")),
            rule(Action::Allow, Match::Exact, source),
        ];
    };
    let pinned = format!("{source}@{pin}");
    vec![
        Rule {
            updates: Some(Updates {
                identifier: pinned.clone(),
            }),
            ..rule(Action::Convert, Match::Exact, source)
        },
        rule(Action::Allow, Match::Exact, pinned),
    ]
}

fn rule(action: Action, match_type: Match, identifier: impl Into<String>) -> Rule {
    Rule {
        action,
        selector: Selector {
            identifier: identifier.into(),
            match_type,
        },
        updates: None,
    }
}

#[cfg(test)]
mod tests;
