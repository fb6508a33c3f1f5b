//! The secret values of builds that are not over: in memory only, and wiped when they go.
//!
//! Whoever accepts a build puts its values here before the build is recorded, so that a worker that
//! reads the record finds them; the worker removes them when it reads the build's end. The values
//! have no stored form and no text form: a restart loses them, and a build that needs them fails
//! with `secrets_lost`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::ids::BuildId;
use domain::name::SecretId;
use domain::recorded::{Recorded, StreamName};
use secrecy::{ExposeSecret as _, SecretSlice};

use crate::image::Credentials;
use crate::limits::vault::VaultLimits;

/// The secret values of one build. Its text form names registries and ids, never values.
#[derive(Debug, Default)]
pub struct Secrets {
    registries: BTreeMap<String, Credentials>,
    values: BTreeMap<SecretId, SecretSlice<u8>>,
}

impl Secrets {
    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        self.registries.is_empty() && self.values.is_empty()
    }

    /// Adds the credentials for a registry's host, in place of those that were there.
    pub fn add_registry(&mut self, host: String, credentials: Credentials) {
        self.registries.insert(host, credentials);
    }

    /// Adds a named value, in place of the one that was there.
    pub fn add_value(&mut self, id: SecretId, value: SecretSlice<u8>) {
        self.values.insert(id, value);
    }

    /// The credentials for a registry's host, if there are any.
    pub fn registry(&self, host: &str) -> Option<&Credentials> {
        self.registries.get(host)
    }

    /// The value of a secret, if there is one.
    pub fn value(&self, id: &SecretId) -> Option<&SecretSlice<u8>> {
        self.values.get(id)
    }

    /// The named values.
    pub fn values(&self) -> impl Iterator<Item = (&SecretId, &SecretSlice<u8>)> {
        self.values.iter()
    }

    /// What may be told about them: hosts, and the kind of credentials for each.
    pub fn registry_kinds(&self) -> BTreeMap<String, String> {
        let kinds = self.registries.iter();
        kinds
            .map(|(host, credentials)| (host.clone(), credentials.kind().to_owned()))
            .collect()
    }

    fn value_bytes(&self) -> usize {
        let credentials = self.registries.values().map(Credentials::secret_bytes);
        let values = self
            .values
            .values()
            .map(|value| value.expose_secret().len());
        credentials.chain(values).sum()
    }
}

/// No room is left for the values of another build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many builds with secret values wait")]
pub struct VaultFull;

/// Where secret values are while their builds are not over. Clones share it.
#[derive(Clone)]
pub struct Vault(Arc<Shared>);

struct Shared {
    limits: VaultLimits,
    kept: Mutex<BTreeMap<BuildId, Arc<Secrets>>>,
}

impl Default for Vault {
    fn default() -> Self {
        Self::new(VaultLimits::default())
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault")
            .field("builds", &self.kept().len())
            .finish_non_exhaustive()
    }
}

impl Vault {
    /// An empty vault.
    pub fn new(limits: VaultLimits) -> Self {
        Self(Arc::new(Shared {
            limits,
            kept: Mutex::default(),
        }))
    }

    /// Keeps the values of a build until they are removed.
    ///
    /// # Errors
    /// [`VaultFull`]: the build should not be accepted now.
    pub fn put(&self, build: BuildId, secrets: Secrets) -> Result<(), VaultFull> {
        let limits = self.0.limits;
        let mut kept = self.kept();
        let bytes: usize = kept.values().map(|secrets| secrets.value_bytes()).sum();
        let is_full = kept.len() >= limits.builds_max
            || bytes.saturating_add(secrets.value_bytes()) > limits.value_bytes_max;
        if is_full {
            return Err(VaultFull);
        }
        kept.insert(build, Arc::new(secrets));
        Ok(())
    }

    /// The values of a build, if they are here. They stay until they are removed: an attempt that
    /// fails may be followed by another.
    pub fn get(&self, build: &BuildId) -> Option<Arc<Secrets>> {
        self.kept().get(build).cloned()
    }

    /// Forgets the values of a build. They are wiped when nobody uses them any more.
    pub fn remove(&self, build: &BuildId) {
        self.kept().remove(build);
    }

    /// Takes note of an event: a build that is over needs its values no more, however it ended. An
    /// attempt that failed and will be followed by another still needs them.
    pub fn observe(&self, recorded: &Recorded<domain::Event>) {
        if let (StreamName::Build(build), domain::Event::Build(event)) =
            (&recorded.stream, &recorded.event)
            && event.is_terminal()
        {
            self.remove(build);
        }
    }

    /// The builds whose values are here.
    pub fn builds(&self) -> BTreeSet<BuildId> {
        self.kept().keys().cloned().collect()
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<BuildId, Arc<Secrets>>> {
        // No holder leaves the map half changed.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use domain::build::{Cancelled, Event, RetryScheduled};
    use domain::failure::{Failure, FailureReason};
    use domain::ids::CommandId;
    use domain::recorded::{Actor, Position, Version};
    use domain::time::Timestamp;

    use super::*;

    const PLANTED: &str = "pl4nted-value";

    fn build(number: u8) -> BuildId {
        BuildId::generate(Timestamp::from_unix_micros(0).unwrap(), [number; 10])
    }

    fn secrets() -> Secrets {
        let mut secrets = Secrets::default();
        secrets.add_registry(
            "r.example".to_owned(),
            Credentials::basic("user".to_owned(), PLANTED.to_owned()),
        );
        let id = "token".parse().unwrap();
        secrets.add_value(id, PLANTED.as_bytes().to_vec().into());
        secrets
    }

    #[test]
    fn values_stay_until_they_are_removed() {
        let vault = Vault::default();
        vault.put(build(1), secrets()).unwrap();
        for _attempt in 1..=2 {
            let found = vault.get(&build(1)).unwrap();
            assert!(found.registry("r.example").is_some());
            assert!(found.registry("other.example").is_none());
            let value = found.value(&"token".parse().unwrap()).unwrap();
            assert_eq!(value.expose_secret(), PLANTED.as_bytes());
        }
        assert!(vault.get(&build(2)).is_none());
        assert_eq!(vault.builds(), [build(1)].into());
        let clone = vault.clone();
        clone.remove(&build(1));
        assert!(vault.get(&build(1)).is_none());
    }

    #[test]
    fn the_end_of_a_build_removes_its_values_and_a_failed_attempt_does_not() {
        let failure = || Failure::new(FailureReason::ImagePull, "f");
        let scheduled = Event::RetryScheduled(RetryScheduled {
            attempt: 1,
            max_attempts: 2,
            failure: failure(),
        });
        let cancelled = Event::Cancelled(Cancelled::default());
        for (event, kept) in [
            (scheduled, true),
            (Event::Failed(failure()), false),
            (cancelled, false),
        ] {
            let vault = Vault::default();
            vault.put(build(1), secrets()).unwrap();
            vault.put(build(2), secrets()).unwrap();
            vault.observe(&Recorded {
                stream: StreamName::Build(build(1)),
                version: Version::EMPTY,
                position: Position::from_raw(1),
                time: Timestamp::from_unix_micros(0).unwrap(),
                schema_version: 1,
                actor: Actor::Operator,
                command_id: CommandId::generate(Timestamp::from_unix_micros(0).unwrap(), [0; 10]),
                hash: domain::Digest::ZERO,
                event: event.into(),
            });
            assert_eq!(vault.get(&build(1)).is_some(), kept);
            assert!(vault.get(&build(2)).is_some());
        }
    }

    #[test]
    fn no_text_form_shows_a_value() {
        let vault = Vault::default();
        let shown = format!("{:?} {:?}", secrets(), secrets().registry_kinds());
        vault.put(build(1), secrets()).unwrap();
        let shown = format!("{shown} {vault:?} {:?}", vault.get(&build(1)));
        assert!(
            shown.contains("r.example") && shown.contains("token"),
            "{shown}"
        );
        assert!(!shown.contains(PLANTED), "{shown}");
        let bytes = format!("{:?}", PLANTED.as_bytes());
        assert!(!shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
    }

    #[test]
    fn it_holds_so_much_and_no_more() {
        let one = secrets().value_bytes();
        for limits in [
            VaultLimits {
                builds_max: 2,
                ..VaultLimits::default()
            },
            VaultLimits {
                value_bytes_max: 2 * one,
                ..VaultLimits::default()
            },
        ] {
            let vault = Vault::new(limits);
            vault.put(build(1), secrets()).unwrap();
            vault.put(build(2), secrets()).unwrap();
            assert_eq!(vault.put(build(3), secrets()), Err(VaultFull));
            vault.remove(&build(1));
            vault.put(build(3), secrets()).unwrap();
        }
    }
}
