//! Taking entries away: one, or all that nobody needs.

use std::collections::BTreeSet;

use commands::{DispatchError, Meta};
use domain::Digest;
use domain::ids::ArtifactId;
use domain::ports::EventReader as _;
use domain::recorded::Actor;
use domain::template::{Command, Rejection};
use executor::artifact::ArtifactError;
use executor::layers::{Evicted, Refused};
use projections::builds::BuildStatus;

use super::find::Entry;
use super::{CacheDesk, CacheError, PAGE_COUNT, each_build};
use crate::wire::cache::{Collect, Collected, Eviction, Kind, Line, Outcome, Removed};

/// Why an artifact stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stays {
    /// It is not there.
    Unknown,
    /// A build or a machine uses it.
    InUse,
    /// These templates need it.
    Needed(BTreeSet<String>),
}

impl CacheDesk {
    /// Removes one entry, unless it is needed.
    ///
    /// # Errors
    /// [`CacheError`]; that it is needed or unknown is none.
    pub async fn evict(&self, key: &str, kind: Option<Kind>) -> Result<Eviction, CacheError> {
        match self.find(key, kind).await? {
            None => Ok(unknown(key.to_owned())),
            Some(Entry::Layer(layer)) => self.evict_layer(layer).await,
            Some(Entry::Artifact(id)) => self.evict_artifact(id).await,
            Some(Entry::Blob(digest)) => self.evict_blob(digest).await,
        }
    }

    async fn evict_layer(&self, layer: Digest) -> Result<Eviction, CacheError> {
        let sizes = self.layer_lines(&self.templates().await?).await?;
        Ok(match self.cache.layers.evict(&layer).await? {
            Ok(evicted) => removed(layer.to_string(), layers(&evicted, &sizes)),
            Err(Refused::Unknown) => unknown(layer.to_string()),
            Err(Refused::Needed { owners, in_use }) => {
                let mut reasons = Vec::new();
                if in_use {
                    reasons.push("a running build uses it, or a layer that lies on it".to_owned());
                }
                if !owners.is_empty() {
                    let by = self.with_templates(&owners).await?;
                    reasons.push(format!("it is needed by {}", by.join(", ")));
                }
                needed(layer.to_string(), reasons.join("; "))
            }
        })
    }

    async fn with_templates(&self, artifacts: &[String]) -> Result<Vec<String>, CacheError> {
        let templates = self.templates().await?;
        let name = |artifact: &String| {
            let needed = artifact.parse().ok();
            let needed = needed.and_then(|id: ArtifactId| templates.get(&id));
            match needed {
                None => format!("the artifact {artifact}"),
                Some(references) => {
                    let references: Vec<&str> = references.iter().map(String::as_str).collect();
                    format!("the artifact {artifact} ({})", references.join(", "))
                }
            }
        };
        Ok(artifacts.iter().map(name).collect())
    }

    async fn evict_artifact(&self, id: ArtifactId) -> Result<Eviction, CacheError> {
        let lines = self.artifact_lines(&self.templates().await?).await?;
        let bytes = lines.iter().find(|line| line.key == id.as_str());
        let bytes = bytes.map_or(0, |line| line.bytes);
        Ok(match self.remove_artifact(&id).await? {
            Ok(()) => {
                let one = Removed {
                    kind: Kind::Artifact,
                    key: id.to_string(),
                    bytes,
                };
                removed(id.to_string(), vec![one])
            }
            Err(Stays::Unknown) => unknown(id.to_string()),
            Err(Stays::InUse) => needed(id.to_string(), "a build or a machine uses it".to_owned()),
            Err(Stays::Needed(references)) => {
                let references: Vec<_> = references.into_iter().collect();
                let reason = format!("it is needed by {}", references.join(", "));
                needed(id.to_string(), reason)
            }
        })
    }

    /// Artifacts of builds that have expired, of which something is still there, or may be as far as
    /// the log says.
    ///
    /// # Errors
    /// [`CacheError`].
    pub async fn expired_artifacts(&self) -> Result<BTreeSet<ArtifactId>, CacheError> {
        self.catch_up().await?;
        let views = self.views.clone();
        let looking = tokio::task::spawn_blocking(move || {
            // Those of templates that were deleted since, too, of which nothing more is said.
            let mut expired = BTreeSet::new();
            each_build(&views, BuildStatus::Ready, |row| {
                expired.extend(row.artifact.filter(|_| row.expired_at.is_some()));
            })?;
            let mut unsaid = BTreeSet::new();
            let mut page = views.expired(None, PAGE_COUNT)?;
            while let Some(last) = page.last().cloned() {
                unsaid.extend(page.into_iter().map(|expired| expired.artifact));
                page = views.expired(Some(&last), PAGE_COUNT)?;
            }
            Ok::<_, CacheError>((expired, unsaid))
        });
        let (mut expired, unsaid) = looking.await??;
        let stored: BTreeSet<_> = self.cache.artifacts.list().await?.into_iter().collect();
        expired.retain(|id| stored.contains(id));
        expired.extend(unsaid);
        Ok(expired)
    }

    /// Removes an artifact and has the log say so of the builds that had expired, or says why it stays.
    ///
    /// # Errors
    /// [`CacheError`].
    pub async fn remove_artifact(&self, id: &ArtifactId) -> Result<Result<(), Stays>, CacheError> {
        // First the claim, then the look at the log: a build lets go of its artifact only when the
        // log names it, so whoever needs it can be seen from here on.
        let claim = match self.cache.artifacts.claim(id).await {
            Ok(claim) => claim,
            Err(ArtifactError::InUse { .. }) => {
                return Ok(Err(Stays::InUse));
            }
            Err(ArtifactError::Missing { .. }) => {
                // A crash may have been between the two.
                self.record_purged(id).await?;
                return Ok(Err(Stays::Unknown));
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(references) = self.templates().await?.remove(id) {
            return Ok(Err(Stays::Needed(references)));
        }
        self.cache.remove(claim).await?;
        self.record_purged(id).await?;
        Ok(Ok(()))
    }

    /// Records that nothing is left of an artifact, for every build that it had expired of.
    async fn record_purged(&self, id: &ArtifactId) -> Result<(), CacheError> {
        loop {
            self.catch_up().await?;
            let builds = self.views.expired_of(id, PAGE_COUNT)?;
            if builds.is_empty() {
                return Ok(());
            }
            for expired in builds {
                let meta = Meta {
                    command_id: self.ids.new_command_id(),
                    actor: Actor::Operator,
                };
                let command = Command::PurgeArtifact {
                    build: expired.build_id,
                    artifact: expired.artifact,
                };
                let recorded = self
                    .dispatcher
                    .template(&expired.template_id, meta, command);
                match recorded.await {
                    // Whoever deletes a template wants to hear no more of its builds.
                    Ok(_) | Err(DispatchError::Rejected(Rejection::Deleted)) => {}
                    Err(error) => return Err(CacheError::Record(error)),
                }
            }
        }
    }

    async fn evict_blob(&self, digest: Digest) -> Result<Eviction, CacheError> {
        let looked = self.log.head();
        let lines = self.blob_lines().await?;
        // What the log got meanwhile is looked at again.
        let _alone = self.uploads.alone().await;
        let needed_since = self.needed_since(looked).await?;
        let key = digest.to_string();
        let Some(line) = lines.into_iter().find(|line| line.key == key) else {
            return Ok(unknown(key));
        };
        if line.is_needed() {
            let builds: Vec<String> = line.needed_by.iter().map(super::explain::need).collect();
            let reason = format!("it is needed by {}", builds.join(", "));
            return Ok(needed(key, reason));
        }
        if needed_since.contains(&digest) {
            return Ok(needed(
                key,
                "a build needs it that has just been asked for".to_owned(),
            ));
        }
        self.blobs.remove(&digest).await?;
        let one = Removed {
            kind: Kind::Blob,
            key: key.clone(),
            bytes: line.bytes,
        };
        Ok(removed(key, vec![one]))
    }

    /// Removes the artifacts that no template needs, layers until the others take no more than their
    /// bound, and the files that no build needs which is under way or may be retried.
    ///
    /// # Errors
    /// [`CacheError`]; what went before it is gone.
    pub async fn collect(&self, wanted: Collect) -> Result<Collected, CacheError> {
        let bytes_max = wanted.bytes_max.unwrap_or(self.layer_bytes_max);
        let templates = self.templates().await?;
        let sizes = self.layer_lines(&templates).await?;
        let mut gone = self.collect_artifacts(wanted.dry_run).await?;
        let leaving: BTreeSet<String> = gone.iter().map(|gone| gone.key.clone()).collect();
        let evicted = if wanted.dry_run {
            self.cache.layers.plan_eviction(bytes_max, &leaving)
        } else {
            self.cache.layers.evict_to(bytes_max).await?
        };
        if evicted.left_bytes > bytes_max {
            tracing::warn!(
                left_bytes = evicted.left_bytes,
                bytes_max,
                "layers take more than they may: the rest is needed by templates and builds"
            );
        }
        gone.extend(layers(&evicted, &sizes));
        gone.extend(self.collect_files(wanted.dry_run).await?);
        let keys: BTreeSet<&str> = gone.iter().map(|gone| gone.key.as_str()).collect();
        let templates = self.templates().await?;
        let mut kept = self.layer_lines(&templates).await?;
        kept.extend(self.artifact_lines(&templates).await?);
        kept.retain(|line| line.is_needed() && !keys.contains(line.key.as_str()));
        Ok(Collected {
            dry_run: wanted.dry_run,
            freed_bytes: gone.iter().map(|gone| gone.bytes).sum(),
            removed: gone,
            layer_bytes_max: bytes_max,
            layer_bytes: evicted.left_bytes,
            within_bound: evicted.left_bytes <= bytes_max,
            kept,
        })
    }
}

impl CacheDesk {
    /// Removes the artifacts that no template needs: those of templates that were deleted, of builds
    /// that have expired, and what a crash left before the log named it.
    ///
    /// # Errors
    /// [`CacheError`]; what went before it is gone.
    pub async fn collect_artifacts(&self, dry_run: bool) -> Result<Vec<Removed>, CacheError> {
        let templates = self.templates().await?;
        let artifacts = self.artifact_lines(&templates).await?;
        let mut gone = Vec::new();
        for line in artifacts.into_iter().filter(|line| !line.is_needed()) {
            let is_gone = match line.key.parse::<ArtifactId>() {
                Ok(_) if dry_run => true,
                Ok(id) => self.remove_artifact(&id).await?.is_ok(),
                Err(_) => false,
            };
            if is_gone {
                gone.push(Removed {
                    kind: Kind::Artifact,
                    key: line.key,
                    bytes: line.bytes,
                });
            }
        }
        Ok(gone)
    }
}

/// The layers that went, with the sizes that they had.
fn layers(evicted: &Evicted, sizes: &[Line]) -> Vec<Removed> {
    let size = |key: &str| {
        let line = sizes.iter().find(|line| line.key == key);
        line.map_or(0, |line| line.bytes)
    };
    let keys = evicted.layers.iter().map(ToString::to_string);
    keys.map(|key| Removed {
        kind: Kind::Layer,
        bytes: size(&key),
        key,
    })
    .collect()
}

fn removed(key: String, removed: Vec<Removed>) -> Eviction {
    Eviction {
        outcome: Outcome::Removed,
        key,
        freed_bytes: removed.iter().map(|one| one.bytes).sum(),
        removed,
        reason: None,
    }
}

fn needed(key: String, reason: String) -> Eviction {
    Eviction {
        outcome: Outcome::Needed,
        key,
        removed: Vec::new(),
        freed_bytes: 0,
        reason: Some(reason),
    }
}

fn unknown(key: String) -> Eviction {
    Eviction {
        outcome: Outcome::Unknown,
        key,
        removed: Vec::new(),
        freed_bytes: 0,
        reason: None,
    }
}
