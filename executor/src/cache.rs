//! Everything that is kept to be used again: layers and artifacts, and what needs what.
//!
//! An artifact keeps the layers that it was made of, so that a template can be the base of others. A
//! [`Cache`] knows nothing of templates: which artifacts they need, its callers know.

use std::path::Path;

use crate::artifact::{Artifact, ArtifactError, ArtifactStore, Claim};
use crate::layers::{LayerStore, StoreError};
use crate::limits::Limits;
use crate::services::Settings;

/// The layers and the artifacts of one data folder. Clones share them.
#[derive(Clone, Debug)]
pub struct Cache {
    /// What steps changed.
    pub layers: LayerStore,
    /// Finished templates.
    pub artifacts: ArtifactStore,
}

/// Why the stores could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The layer store.
    #[error("cannot open the layer store")]
    Layers(#[from] StoreError),
    /// The artifact store.
    #[error("cannot open the artifact store")]
    Artifacts(#[from] ArtifactError),
    /// The thread that opened them was lost.
    #[error("the stores were not opened")]
    Lost(#[source] tokio::task::JoinError),
}

impl Cache {
    /// Opens the stores of a data folder, for as long as no worker uses it.
    ///
    /// # Errors
    /// [`CacheError`].
    pub async fn open(data_dir: &Path, limits: &Limits) -> Result<Self, CacheError> {
        let (folder, layer_limits) = (Settings::layers_dir(data_dir), limits.layers.clone());
        let layers = tokio::task::spawn_blocking(move || LayerStore::open(folder, layer_limits))
            .await
            .map_err(CacheError::Lost)??;
        let artifacts =
            ArtifactStore::open(Settings::artifacts_dir(data_dir), limits.artifact).await?;
        Ok(Self::over(layers, artifacts).await?)
    }

    /// Both stores; the layers that artifacts name are kept from now on.
    ///
    /// # Errors
    /// [`ArtifactError::Io`]: it is not known what must be kept.
    pub async fn over(layers: LayerStore, artifacts: ArtifactStore) -> Result<Self, ArtifactError> {
        let cache = Self { layers, artifacts };
        for id in cache.artifacts.list().await? {
            match cache.artifacts.peek(&id).await {
                Ok(artifact) => cache.keep(&artifact),
                // Nothing can be made of it any more.
                Err(
                    error @ (ArtifactError::Corrupt { .. }
                    | ArtifactError::Schema { .. }
                    | ArtifactError::Missing { .. }),
                ) => tracing::warn!(artifact.id = %id, %error, "an artifact keeps no layers"),
                Err(error) => return Err(error),
            }
        }
        Ok(cache)
    }

    /// Keeps the layers of an artifact for as long as it is there.
    pub fn keep(&self, artifact: &Artifact) {
        let layers = artifact.manifest.layers.iter().copied();
        self.layers.pin(artifact.id().as_str(), layers);
    }

    /// Removes a claimed artifact, and lets go of its layers.
    ///
    /// # Errors
    /// [`ArtifactError::Io`]; its layers stay then.
    pub async fn remove(&self, claim: Claim) -> Result<(), ArtifactError> {
        let id = claim.id().clone();
        claim.remove().await?;
        self.layers.unpin(id.as_str());
        Ok(())
    }
}
