//! API keys. The log holds their hashes, never the keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::KeyId;
use crate::name::Owner;

/// Something that happened to the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Event {
    /// A key was made.
    KeyCreated(Key),
    /// A key no longer opens anything.
    KeyRevoked {
        /// The key.
        id: KeyId,
    },
}

/// A key, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// Whom it belongs to.
    pub owner: Owner,
    /// What its maker calls it.
    pub label: String,
    /// The SHA-256 of the key: it is random and long, so nothing slower is needed.
    pub hash: Digest,
}

impl Event {
    /// The event's stored and published name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::KeyCreated(_) => "KeyCreated",
            Self::KeyRevoked { .. } => "KeyRevoked",
        }
    }
}

/// The keys that open something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(BTreeMap<KeyId, Key>);

impl Keys {
    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.values()
    }
}

/// What somebody wants to happen to the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make a key.
    Create(Key),
    /// Make a key worthless.
    Revoke(KeyId),
}

/// Why a command makes nothing happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The id is taken.
    #[error("the key `{0}` exists already")]
    Exists(KeyId),
    /// There is no such key.
    #[error("there is no key `{0}`")]
    Unknown(KeyId),
}

/// Decides what `command` makes happen to the keys.
///
/// # Errors
/// The [`Rejection`] says what stands against it; nothing happens then.
pub fn decide(state: &Keys, command: Command) -> Result<Vec<Event>, Rejection> {
    match command {
        Command::Create(key) if state.0.contains_key(&key.id) => Err(Rejection::Exists(key.id)),
        Command::Create(key) => Ok(vec![Event::KeyCreated(key)]),
        Command::Revoke(id) if state.0.contains_key(&id) => Ok(vec![Event::KeyRevoked { id }]),
        Command::Revoke(id) => Err(Rejection::Unknown(id)),
    }
}

/// The keys after `event`.
#[must_use]
pub fn evolve(mut state: Keys, event: &Event) -> Keys {
    match event {
        Event::KeyCreated(key) => {
            state.0.insert(key.id.clone(), key.clone());
        }
        Event::KeyRevoked { id } => {
            state.0.remove(id);
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn a_revoked_key_is_gone_and_cannot_be_revoked_again() {
        let id = KeyId::generate(Timestamp::from_unix_micros(1).unwrap(), [7; 10]);
        let key = Key {
            id: id.clone(),
            owner: "a".parse().unwrap(),
            label: "first".into(),
            hash: Digest::of(b"k"),
        };
        let created = decide(&Keys::default(), Command::Create(key.clone())).unwrap();
        let keys = created.iter().fold(Keys::default(), evolve);
        assert_eq!(keys.iter().collect::<Vec<_>>(), [&key]);
        assert_eq!(
            decide(&keys, Command::Create(key)),
            Err(Rejection::Exists(id.clone()))
        );
        let revoked = decide(&keys, Command::Revoke(id.clone())).unwrap();
        let keys = revoked.iter().fold(keys, evolve);
        assert_eq!(
            decide(&keys, Command::Revoke(id.clone())),
            Err(Rejection::Unknown(id))
        );
    }
}
