//! A template as base: a build on top of it starts from the layers that the template was made of,
//! not from the disk that its machine booted and changed.

use std::error::Error;

use domain::build::{BaseResolved, BaseTemplate};
use domain::digest::Hasher;
use domain::failure::{Failure, FailureReason};
use domain::{Digest, causes};

use super::super::settle::Defaults;
use super::super::{Attempt, Interruption, failures};
use super::{Base, Origin};
use crate::artifact::{Artifact, ArtifactError};
use crate::layers::{Layer, LayerStore};

/// Why nothing can be built on an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum NotABase {
    /// An earlier version made it, or it has none.
    #[error("its manifest names no layers")]
    NoLayers,
    /// An operator's hand, or an eviction.
    #[error("its layer {0} is no longer in the store")]
    LayerGone(Digest),
}

/// The layers that an artifact was made of, bottom first; they stay while they are held. Blocking.
pub(in super::super) fn layers_of(
    store: &LayerStore,
    keys: &[Digest],
) -> Result<Vec<Layer>, NotABase> {
    if keys.is_empty() {
        return Err(NotABase::NoLayers);
    }
    let layer = |key: &Digest| store.get(key).ok_or(NotABase::LayerGone(*key));
    let layers: Vec<Layer> = keys.iter().map(layer).collect::<Result<_, _>>()?;
    store.stack(&layers);
    Ok(layers)
}

/// What the files of a chain of layers are known by: templates of the same layers are the same base.
pub(in super::super) fn chain_digest(layers: &[Digest]) -> Digest {
    Hasher::new("template-base/v1")
        .list(layers.iter().map(Digest::as_bytes))
        .finish()
}

impl Attempt<'_> {
    pub(super) async fn resolve_template(
        &self,
        template: &BaseTemplate,
    ) -> Result<Base, Interruption> {
        let reference = template.reference().to_string();
        let services = self.services;
        let artifact = match services.artifacts.get(&template.artifact).await {
            Ok(artifact) => artifact,
            Err(
                error @ (ArtifactError::Missing { .. }
                | ArtifactError::Corrupt { .. }
                | ArtifactError::Schema { .. }),
            ) => return Err(unavailable(&reference, &error).into()),
            Err(error) => return Err(failures::artifact(&error).into()),
        };
        let layers = self.layers_of(&artifact).await?;
        let layers = layers.map_err(|error| unavailable(&reference, &error))?;
        let manifest = &artifact.manifest;
        let digest = artifact.id().digest();
        Ok(Base {
            resolved: Some(BaseResolved {
                reference,
                digest: digest.expect("the id of an artifact is its digest"),
            }),
            key: chain_digest(&manifest.layers),
            defaults: Defaults::of_template(&manifest.runtime),
            oci: manifest.oci.clone(),
            env_keys: Vec::new(),
            origin: Origin::Template {
                layers,
                _artifact: Box::new(artifact),
            },
        })
    }

    /// As [`layers_of`], where it may block.
    pub(in super::super) async fn layers_of(
        &self,
        artifact: &Artifact,
    ) -> Result<Result<Vec<Layer>, NotABase>, Interruption> {
        let (store, keys) = (
            self.services.layers.clone(),
            artifact.manifest.layers.clone(),
        );
        failures::blocking(move || layers_of(&store, &keys)).await
    }
}

fn unavailable(reference: &str, error: &(dyn Error + 'static)) -> Failure {
    let message = format!(
        "The base template `{reference}` cannot be built on: {}.",
        causes::chain(error)
    );
    Failure::new(FailureReason::BaseUnavailable, message).with_detail("base", reference)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::limits::layers::LayerLimits;

    async fn put(store: &LayerStore, name: &str) -> Layer {
        let build = |_| async { Ok::<_, Infallible>(()) };
        let (layer, _) = store
            .get_or_build(Digest::of(name.as_bytes()), build)
            .await
            .unwrap();
        layer
    }

    #[tokio::test]
    async fn a_base_has_all_its_layers_or_says_which_one_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("layers");
        let store = LayerStore::open(root, LayerLimits::default()).unwrap();
        let made = [put(&store, "bottom").await, put(&store, "top").await];
        let keys = made.each_ref().map(|layer| *layer.key());
        let top = made[1].path().to_owned();
        drop(made);

        let layers = layers_of(&store, &keys).unwrap();
        let found: Vec<Digest> = layers.iter().map(|layer| *layer.key()).collect();
        assert_eq!(found, keys);
        store.evict_to(0).await.unwrap();
        assert!(top.is_dir(), "a base that is held was evicted");

        drop(layers);
        std::fs::remove_dir_all(top).unwrap();
        let error = layers_of(&store, &keys).unwrap_err();
        assert_eq!(error, NotABase::LayerGone(keys[1]));
        assert_eq!(layers_of(&store, &[]).unwrap_err(), NotABase::NoLayers);
    }

    #[test]
    fn templates_of_the_same_layers_are_the_same_base_and_others_are_not() {
        let [one, two] = [Digest::of(b"1"), Digest::of(b"2")];
        assert_eq!(chain_digest(&[one, two]), chain_digest(&[one, two]));
        for other in [vec![two, one], vec![one], vec![one, two, two], Vec::new()] {
            assert_ne!(chain_digest(&other), chain_digest(&[one, two]), "{other:?}");
        }
    }
}
