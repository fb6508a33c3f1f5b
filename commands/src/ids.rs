//! Where new identifiers come from: a clock and entropy.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::ids::{BuildId, CommandId, Entropy, KeyId, TemplateId, UploadId, WebhookId, WorkerId};
use domain::ports::Clock;
use sha2::{Digest as _, Sha256};

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoEntropy(#[source] getrandom::Error);

/// Draws identifiers. Clones draw from the same source and never the same bytes.
///
/// Each draw is a part of sha256(seed, number of the draw): as unpredictable as the seed, and
/// drawing cannot fail. Identifiers are public; keys and guest entropy are not drawn here.
#[derive(Clone)]
pub struct IdSource {
    clock: Arc<dyn Clock>,
    seed: [u8; 32],
    drawn: Arc<AtomicU64>,
}

impl fmt::Debug for IdSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdSource").finish_non_exhaustive()
    }
}

impl IdSource {
    /// A source that is seeded by the operating system.
    ///
    /// # Errors
    /// [`NoEntropy`], at start only: the process cannot do without.
    pub fn new(clock: Arc<dyn Clock>) -> Result<Self, NoEntropy> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(NoEntropy)?;
        Ok(Self::with_seed(clock, seed))
    }

    /// A source that draws the same identifiers again from the same seed and times: for tests.
    pub fn seeded(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self::with_seed(clock, Sha256::digest(seed.to_le_bytes()).into())
    }

    fn with_seed(clock: Arc<dyn Clock>, seed: [u8; 32]) -> Self {
        Self {
            clock,
            seed,
            drawn: Arc::default(),
        }
    }

    fn entropy(&self) -> Entropy {
        let draw = self.drawn.fetch_add(1, Ordering::Relaxed);
        let block: [u8; 32] = Sha256::new()
            .chain_update(self.seed)
            .chain_update(draw.to_le_bytes())
            .finalize()
            .into();
        *block
            .first_chunk()
            .expect("a SHA-256 has more bytes than an identifier needs")
    }

    /// An identifier for a new build.
    pub fn new_build_id(&self) -> BuildId {
        BuildId::generate(self.clock.now(), self.entropy())
    }

    /// An identifier for a new template.
    pub fn new_template_id(&self) -> TemplateId {
        TemplateId::generate(self.clock.now(), self.entropy())
    }

    /// An identifier for a new webhook.
    pub fn new_webhook_id(&self) -> WebhookId {
        WebhookId::generate(self.clock.now(), self.entropy())
    }

    /// An identifier for a new command.
    pub fn new_command_id(&self) -> CommandId {
        CommandId::generate(self.clock.now(), self.entropy())
    }

    /// An identifier for a new API key.
    pub fn new_key_id(&self) -> KeyId {
        KeyId::generate(self.clock.now(), self.entropy())
    }

    /// An identifier for a worker that starts.
    pub fn new_worker_id(&self) -> WorkerId {
        WorkerId::generate(self.clock.now(), self.entropy())
    }

    /// An identifier for an upload that is asked for anew.
    pub fn new_upload_id(&self) -> UploadId {
        UploadId::generate(self.clock.now(), self.entropy())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn the_same_seed_draws_the_same_ids_and_clones_draw_others() {
        let clock = Arc::new(ManualClock::default());
        let one = IdSource::seeded(clock.clone(), 7);
        let other = IdSource::seeded(clock.clone(), 7);
        let first = one.new_build_id();
        assert_eq!(first, other.new_build_id());
        let clone = one.clone();
        assert_ne!(clone.new_build_id(), one.new_build_id());
        assert_ne!(first, IdSource::seeded(clock, 8).new_build_id());
    }

    #[test]
    fn ids_of_the_system_source_do_not_repeat() {
        let clock = Arc::new(ManualClock::default());
        let sources = [
            IdSource::new(clock.clone()).unwrap(),
            IdSource::new(clock).unwrap(),
        ];
        let ids: BTreeSet<_> = (0..500)
            .flat_map(|_| sources.iter().map(IdSource::new_command_id))
            .collect();
        assert_eq!(ids.len(), 1_000);
    }
}
