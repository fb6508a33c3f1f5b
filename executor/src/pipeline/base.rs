//! The base: from the caller's words to an image or a template by digest, and its layers.

pub(super) mod template;

use std::sync::atomic::{AtomicU64, Ordering};

use domain::Digest;
use domain::build::{BaseResolved, Event, OciMetadata, Phase, PinnedBase};
use domain::failure::{Failure, FailureReason};
use tokio::sync::mpsc;

use super::settle::{self, Defaults};
use super::{Attempt, Interruption, failures};
use crate::artifact::Artifact;
use crate::image::{Credentials, ImageReference, LayerStage, PullProgress, ResolvedImage};
use crate::layers::{Layer, Provenance};

/// How many lines about a pull may wait to be written; more are not worth a wait.
const PROGRESS_LINES_MAX: usize = 256;

/// What a template's own steps stand on, known by digest: an image, a template, or what BuildKit made.
#[derive(Debug)]
pub(super) struct Base {
    /// What that was made from; nothing if it was made from scratch.
    pub(super) resolved: Option<BaseResolved>,
    /// What its files are known by: a digest of content, never a tag.
    pub(super) key: Digest,
    /// What steps on it, and machines, start with.
    pub(super) defaults: Defaults,
    /// What the image says about itself that no machine needs.
    pub(super) oci: OciMetadata,
    /// The names of the variables that a Dockerfile sets.
    pub(super) env_keys: Vec<String>,
    pub(super) origin: Origin,
}

/// Where the layers come from.
#[derive(Debug)]
pub(super) enum Origin {
    Image(Box<ResolvedImage>),
    Template {
        /// In use from now on, so that nothing evicts them.
        layers: Vec<Layer>,
        _artifact: Box<Artifact>,
    },
    /// A Dockerfile made them; in use as well.
    Dockerfile {
        layers: Vec<Layer>,
    },
}

impl Base {
    /// How many layers it has.
    pub(super) fn layer_count(&self) -> usize {
        match &self.origin {
            Origin::Image(image) => image.layers.len(),
            Origin::Template { layers, .. } | Origin::Dockerfile { layers } => layers.len(),
        }
    }
}

impl Attempt<'_> {
    /// The base of declarative steps.
    pub(super) async fn resolve_base(&self, base_image: &str) -> Result<Base, Interruption> {
        let phase = self.reporter.begin(Phase::Preparing).await?;
        let base = match &self.job.requested.base {
            None => self.resolve_image(base_image).await?,
            Some(PinnedBase::Builtin { image }) => self.resolve_image(image).await?,
            Some(PinnedBase::Template(template)) => self.resolve_template(template).await?,
        };
        if let Some(resolved) = &base.resolved {
            let event = Event::BaseResolved(resolved.clone());
            self.reporter.event(event).await?;
        }
        self.reporter.end(phase).await?;
        Ok(base)
    }

    async fn resolve_image(&self, name: &str) -> Result<Base, Interruption> {
        let reference: ImageReference = name.parse().map_err(|error| {
            let message = format!("`{name}` is not an image reference: {error}.");
            Failure::new(FailureReason::BadReference, message)
        })?;
        let image = self.resolve_reference(&reference).await?;
        Ok(Base {
            resolved: Some(base_resolved(&image)),
            key: image.manifest_digest,
            defaults: Defaults::of_image(&image.config),
            oci: settle::oci_metadata(&image.config),
            env_keys: Vec::new(),
            origin: Origin::Image(Box::new(image)),
        })
    }

    /// Asks the image's registry for it, with what the request brought for that registry.
    pub(super) async fn resolve_reference(
        &self,
        reference: &ImageReference,
    ) -> Result<ResolvedImage, Interruption> {
        let credentials = self.credentials(reference)?;
        let resolve = self.services.registry.resolve(reference, &credentials);
        let image = self
            .unless_stopped("the resolution of the base image", resolve)
            .await?;
        Ok(image.map_err(|error| failures::image(&error))?)
    }

    /// The base's layers, bottom first; what is missing of an image is pulled.
    pub(super) async fn base_layers(&self, base: &Base) -> Result<Vec<Layer>, Interruption> {
        match &base.origin {
            Origin::Image(image) => self.pull_image(image).await,
            Origin::Template { layers, .. } | Origin::Dockerfile { layers } => Ok(layers.clone()),
        }
    }

    async fn pull_image(&self, image: &ResolvedImage) -> Result<Vec<Layer>, Interruption> {
        let phase = self.reporter.begin(Phase::Preparing).await?;
        let (lines, mut progress) = mpsc::channel(PROGRESS_LINES_MAX);
        let reporter = self.reporter.clone();
        let told = async move {
            while let Some(line) = progress.recv().await {
                reporter.say(line).await?;
            }
            Ok::<_, Interruption>(())
        };
        let services = self.services;
        let credentials = self.credentials(&image.reference)?;
        let layers = services.layers.held_by(&self.holdings);
        let pulled_bytes = AtomicU64::new(0);
        let count = &pulled_bytes;
        let pulled = async move {
            // The sender goes with this future, which ends the lines.
            let tell = move |progress: PullProgress| {
                count.fetch_add(transferred_bytes(image, &progress), Ordering::Relaxed);
                if let Some(line) = describe(&progress) {
                    // A full queue means that the log is busy: progress is not worth a wait.
                    drop(lines.try_send(line));
                }
            };
            services
                .registry
                .pull(image, &credentials, &layers, &tell)
                .await
                .map_err(|error| Interruption::from(failures::image(&error)))
        };
        let both = async { tokio::try_join!(pulled, told) };
        let (layers, ()) = self
            .unless_stopped("the pull of the base image", both)
            .await??;
        let pulled_bytes = pulled_bytes.into_inner();
        self.reporter.end_pull(phase, pulled_bytes).await?;
        Ok(layers)
    }

    /// What the image's registry is shown: what the request brought for it, if it brought anything.
    pub(super) fn credentials(&self, image: &ImageReference) -> Result<Credentials, Failure> {
        if self.job.requested.registry_auth.is_empty() {
            return Ok(Credentials::Anonymous);
        }
        let Some(secrets) = &self.secrets else {
            let message = "The credentials of the request are gone: they lived in the memory of a \
                           service that has ended.";
            return Err(Failure::new(FailureReason::SecretsLost, message));
        };
        let credentials = secrets.registry(image.registry());
        Ok(credentials.cloned().unwrap_or(Credentials::Anonymous))
    }
}

/// What is told of an image that something is built on.
pub(super) fn base_resolved(image: &ResolvedImage) -> BaseResolved {
    BaseResolved {
        reference: image.reference.to_string(),
        digest: image.manifest_digest,
    }
}

/// How much was transferred for a layer that has arrived: nothing if it was there.
fn transferred_bytes(image: &ResolvedImage, progress: &PullProgress) -> u64 {
    let arrived = LayerStage::Stored {
        provenance: Provenance::Built,
    };
    let layer = image.layers.get(progress.layer_index);
    let layer = layer.filter(|_| progress.stage == arrived);
    layer.map_or(0, |layer| layer.size_bytes)
}

/// A line about a pull, for what is worth one: a layer that has arrived or was there.
fn describe(progress: &PullProgress) -> Option<String> {
    let LayerStage::Stored { provenance } = progress.stage else {
        return None;
    };
    let how = match provenance {
        Provenance::Hit => "is in the store",
        Provenance::Joined => "was pulled by a concurrent build",
        Provenance::Built => "pulled",
    };
    let (layer, count) = (progress.layer_index + 1, progress.layer_count);
    Some(format!(
        "Layer {layer} of {count} {how} ({})",
        progress.digest
    ))
}
