//! Keys: made, looked up, kept up to date.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use commands::{AnyLog, Dispatcher};
use domain::Digest;
use domain::ids::KeyId;
use domain::keys::{Key, Keys};
use domain::name::{Namespace, Owner, TemplateRef};
use domain::ports::EventReader as _;
use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use domain::causes::chain;

/// What every key begins with.
const KEY_PREFIX: &str = "ns_live_";

/// Random bytes of a key, and of other texts that open something.
const ENTROPY_BYTES: usize = 32;

/// Whoever calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Whose key it is.
    pub owner: Owner,
    /// The key, by its id.
    pub key: KeyId,
    /// Where templates are whose names are written without a namespace: the owner's default one.
    pub namespace: Namespace,
}

impl Caller {
    /// The reference with its namespace written out.
    pub fn qualified(&self, reference: TemplateRef) -> TemplateRef {
        match reference {
            TemplateRef::Named {
                namespace: None,
                name,
                qualifier,
            } => TemplateRef::Named {
                namespace: Some(self.namespace.clone()),
                name,
                qualifier,
            },
            TemplateRef::Named { .. } | TemplateRef::Id(_) => reference,
        }
    }
}

/// Bytes that nobody can guess, in hex.
///
/// # Errors
/// [`NoEntropy`].
pub(super) fn unguessable() -> Result<Zeroizing<String>, NoEntropy> {
    let mut bytes = Zeroizing::new([0_u8; ENTROPY_BYTES]);
    getrandom::fill(bytes.as_mut_slice()).map_err(NoEntropy)?;
    // The bytes as they are, in hex: a digest's text form is just that.
    Ok(Zeroizing::new(Digest::from_bytes(*bytes).hex()))
}

/// The text of a key: shown once, wiped when dropped, never logged.
#[derive(Clone)]
pub struct KeyText(Zeroizing<String>);

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText(…)")
    }
}

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoEntropy(#[source] getrandom::Error);

impl KeyText {
    /// A new key.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn generate() -> Result<Self, NoEntropy> {
        let text = format!("{KEY_PREFIX}{}", *unguessable()?);
        Ok(Self(Zeroizing::new(text)))
    }

    /// A key that was kept somewhere.
    pub fn from_text(text: &str) -> Self {
        Self(Zeroizing::new(text.trim().to_owned()))
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The text itself, given away.
    pub(super) fn into_text(self) -> Zeroizing<String> {
        self.0
    }

    /// What is stored of it.
    pub fn hash(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

/// Who has which key: a copy of the keys' stream in memory. Clones are the same table.
#[derive(Clone, Debug, Default)]
pub struct KeyTable(Arc<RwLock<HashMap<Digest, Caller>>>);

impl KeyTable {
    /// Whose key `text` is.
    pub fn find(&self, text: &str) -> Option<Caller> {
        let hash = Digest::of(text.as_bytes());
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        // The map compares hashes of long random texts, which tell nothing about the texts; the
        // last word has a comparison that takes the same time for all.
        let (stored, caller) = table.get_key_value(&hash)?;
        let same: bool = stored.as_bytes().ct_eq(hash.as_bytes()).into();
        same.then(|| caller.clone())
    }

    /// Makes the table what `keys` says.
    pub fn replace(&self, keys: &Keys) {
        let table = keys.iter().map(|key: &Key| {
            let caller = Caller {
                owner: key.owner.clone(),
                key: key.id.clone(),
                namespace: Namespace::of(&key.owner),
            };
            (key.hash, caller)
        });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = table.collect();
    }

    /// Follows the log and keeps the table what the keys' stream says, until `stop`. Looks at most
    /// every `pause`: the stream changes rarely, the log all the time.
    pub async fn follow(
        self,
        log: AnyLog,
        dispatcher: Dispatcher,
        pause: Duration,
        stop: CancellationToken,
    ) {
        loop {
            let seen = log.head();
            match dispatcher.load_keys().await {
                Ok((keys, _)) => self.replace(&keys),
                Err(err) => tracing::error!(error = chain(&err), "the keys cannot be read"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                waited = log.wait_behind(seen) => {
                    if let Err(err) = waited {
                        tracing::debug!(error = chain(&err), "the log has ended");
                        return;
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_and_differ() {
        let one = KeyText::generate().unwrap();
        let other = KeyText::generate().unwrap();
        assert_ne!(one.reveal(), other.reveal());
        assert!(one.reveal().starts_with("ns_live_"));
        assert_eq!(one.reveal().len(), 8 + 64);
        assert!(!format!("{one:?}").contains(one.reveal()));
    }
}
