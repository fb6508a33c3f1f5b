//! Recorded events: where and when an event was appended, by whom, and its link in the hash chain.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::ids::{BuildId, CommandId, InvalidId, KeyId, TemplateId, WebhookId, WorkerId};
use crate::name::Namespace;
use crate::time::Timestamp;

/// An ordered sequence of events that is appended to under one expected version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamName {
    /// One build.
    Build(BuildId),
    /// One template: rename, visibility, tag moves made by hand, deletion.
    Template(TemplateId),
    /// One namespace: who holds which name.
    Namespace(Namespace),
    /// All API keys: hashes only.
    Keys,
    /// One webhook: registered, paused, replayed, what it did not take.
    Webhook(WebhookId),
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build(id) => write!(f, "build-{id}"),
            Self::Template(id) => write!(f, "template-{id}"),
            Self::Namespace(slug) => write!(f, "namespace-{slug}"),
            Self::Keys => f.write_str("keys"),
            Self::Webhook(id) => write!(f, "webhook-{id}"),
        }
    }
}

impl FromStr for StreamName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text == "keys" {
            return Ok(Self::Keys);
        }
        match text.split_once('-') {
            Some(("build", id)) => id.parse().map(Self::Build),
            Some(("template", id)) => id.parse().map(Self::Template),
            Some(("namespace", slug)) => slug.parse().map(Self::Namespace),
            Some(("webhook", id)) => id.parse().map(Self::Webhook),
            _ => Err(InvalidId::new(
                text,
                "a stream (`build-…`, `template-…`, `namespace-…`, `webhook-…` or `keys`)",
            )),
        }
    }
}

impl Serialize for StreamName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StreamName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How many events a stream has; equally, the version that the next event will get (0-based).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// The version of a stream without events.
    pub const EMPTY: Self = Self(0);

    /// The version `count` events later.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

/// Where an event stands among all events of the log. Opaque: positions compare, nothing else.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(u64);

impl Position {
    /// Before the first event.
    pub const START: Self = Self(0);

    /// The position that an adapter stands for by `raw`; the first event's is at least 1.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// What the adapter stands for it.
    pub const fn raw(self) -> u64 {
        self.0
    }
}

/// Who caused an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Actor {
    /// A caller of the API.
    Key {
        /// The key that authenticated the request.
        id: KeyId,
    },
    /// A worker that reports an outcome.
    Worker {
        /// The worker.
        id: WorkerId,
    },
    /// The operator at the command line, or the service itself at its first start.
    Operator,
}

/// An event that has its place in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded<E> {
    /// The stream.
    pub stream: StreamName,
    /// The event's number in its stream, from 0, without gaps.
    pub version: Version,
    /// The event's place in the whole log.
    pub position: Position,
    /// When the command that caused it was given.
    pub time: Timestamp,
    /// The stored form's version.
    pub schema_version: u16,
    /// Who caused it.
    pub actor: Actor,
    /// The command that caused it.
    pub command_id: CommandId,
    /// sha256(hash of the stream's previous event, canonical bytes of this one).
    pub hash: Digest,
    /// What happened.
    pub event: E,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_names_round_trip() {
        let ulid = "01arz3ndektsv4rrffq69g5fav";
        for text in [
            format!("build-tb_{ulid}"),
            format!("template-tmpl_{ulid}"),
            "namespace-my-team".into(),
            "keys".into(),
            format!("webhook-wh_{ulid}"),
        ] {
            assert_eq!(
                text.parse::<StreamName>().map(|stream| stream.to_string()),
                Ok(text)
            );
        }
        for text in ["", "build-", "builds-x", "key", "namespace-"] {
            assert!(text.parse::<StreamName>().is_err(), "{text}");
        }
    }
}
