//! The base: from the caller's words to an image by digest, and its layers.

use domain::build::{BaseResolved, Event, Phase};
use domain::definition::Source;
use domain::failure::{Failure, FailureReason};
use tokio::sync::mpsc;

use super::{Attempt, Interruption, failures};
use crate::image::{Credentials, ImageReference, LayerStage, PullProgress, ResolvedImage};
use crate::layers::{Layer, Provenance};

/// How many lines about a pull may wait to be written; more are not worth a wait.
const PROGRESS_LINES_MAX: usize = 256;

/// A base that is known by digest.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) image: ResolvedImage,
    pub(super) resolved: BaseResolved,
}

impl Attempt<'_> {
    pub(super) async fn resolve_base(&self) -> Result<Base, Interruption> {
        let phase = self.reporter.begin(Phase::Preparing).await?;
        let Source::Declarative { base_image, .. } = &self.job.requested.definition.source else {
            let message = "This worker builds no Dockerfiles.";
            return Err(Failure::new(FailureReason::DockerfileInvalid, message).into());
        };
        let reference: ImageReference = base_image.parse().map_err(|error| {
            let message = format!("`{base_image}` is not an image reference: {error}.");
            Failure::new(FailureReason::BadReference, message)
        })?;
        let resolve = self
            .services
            .registry
            .resolve(&reference, &Credentials::Anonymous);
        let image = self
            .unless_stopped("the resolution of the base image", resolve)
            .await?
            .map_err(|error| failures::image(&error))?;
        let resolved = BaseResolved {
            reference: reference.to_string(),
            digest: image.manifest_digest,
        };
        self.reporter
            .event(Event::BaseResolved(resolved.clone()))
            .await?;
        self.reporter.end(phase).await?;
        Ok(Base { image, resolved })
    }

    /// The base's layers, bottom first; what is missing is pulled.
    pub(super) async fn pull_base(&self, base: &Base) -> Result<Vec<Layer>, Interruption> {
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
        let pulled = async move {
            // The sender goes with this future, which ends the lines.
            let tell = move |progress: PullProgress| {
                if let Some(line) = describe(&progress) {
                    // A full queue means that the log is busy: progress is not worth a wait.
                    drop(lines.try_send(line));
                }
            };
            services
                .registry
                .pull(
                    &base.image,
                    &Credentials::Anonymous,
                    &services.layers,
                    &tell,
                )
                .await
                .map_err(|error| Interruption::from(failures::image(&error)))
        };
        let both = async { tokio::try_join!(pulled, told) };
        let (layers, ()) = self
            .unless_stopped("the pull of the base image", both)
            .await??;
        self.reporter.end(phase).await?;
        Ok(layers)
    }
}

/// A line about a pull, for what is worth one: a layer that has arrived or was there.
fn describe(progress: &PullProgress) -> Option<String> {
    let LayerStage::Stored { provenance } = progress.stage else {
        return None;
    };
    let how = match provenance {
        Provenance::Hit => "is in the store",
        Provenance::Built => "pulled",
    };
    let (layer, count) = (progress.layer_index + 1, progress.layer_count);
    Some(format!(
        "Layer {layer} of {count} {how} ({})",
        progress.digest
    ))
}
