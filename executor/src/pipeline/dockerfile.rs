//! A Dockerfile: from its text to layers that machines are made of, by BuildKit.
//!
//! ```text
//! text ──prepare──► images, proven ──run──► image in a folder ──take──► layers, searched ──► Base
//!                   secrets, there          (events to the log)         settings
//! ```
//!
//! BuildKit does the work and we trust it with what it is given and nothing else: images are resolved with
//! the caller's credentials here and handed over by digest, and what it made is unpacked and searched as
//! if a stranger had sent it.

mod context;
mod failure;
mod folders;
mod observer;
mod prepare;
mod run;
mod settings;
mod take;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use domain::build::{Event, Phase};

use super::base::template::chain_digest;
use super::base::{Base, Origin, base_resolved};
use super::{Attempt, Interruption, failures};
use crate::holdings::Thing;

/// The name of a Dockerfile that has none.
pub(super) const NAME: &str = "Dockerfile";

/// A Dockerfile as the request has it.
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    /// Where it is in the context.
    pub(super) path: &'a str,
    pub(super) build_args: &'a BTreeMap<String, String>,
    pub(super) target: Option<&'a str>,
}

impl Attempt<'_> {
    /// Builds a Dockerfile; what a template's machine is made of.
    pub(super) async fn build_dockerfile(&self, source: &Source<'_>) -> Result<Base, Interruption> {
        let phase = self.reporter.begin(Phase::Preparing).await?;
        let prepared = self.prepare_dockerfile(source).await?;
        let resolved = prepared.base().map(base_resolved);
        if let Some(resolved) = &resolved {
            let event = Event::BaseResolved(resolved.clone());
            self.reporter.event(event).await?;
        }
        self.tell_dockerfile(&prepared).await?;
        let context = self.context().await?;
        if let Some(context) = &context {
            self.tell_context(context).await?;
        }
        self.reporter.end(phase).await?;

        let phase = self.reporter.begin(Phase::Step).await?;
        let scratch = self.private_folder().await?;
        self.lay_out(source, context.as_ref(), scratch.path())
            .await?;
        self.run_buildkit(source, &prepared, scratch.path()).await?;
        let (image, layers) = self.take_image(&prepared, scratch.path()).await?;
        failures::blocking(move || scratch.close())
            .await?
            .map_err(|error| failures::io("remove the folder of a build", &error))?;
        let made = settings::of(self, &prepared, &image.config);
        let layers = self
            .complete_folders(layers, &image.config, &made.defaults)
            .await?;
        self.reporter.end(phase).await?;

        let keys: Vec<_> = layers.iter().map(|layer| *layer.key()).collect();
        Ok(Base {
            resolved,
            key: chain_digest(&keys),
            defaults: made.defaults,
            oci: made.oci,
            env_keys: made.env_keys,
            origin: Origin::Dockerfile { layers },
        })
    }

    /// A folder for one build that nobody else can enter.
    async fn private_folder(&self) -> Result<tempfile::TempDir, Interruption> {
        let work_dir = self.services.work_dir.clone();
        let folder = failures::blocking(move || work_dir.scratch("dockerfile-")).await?;
        let folder = folder.map_err(|error| failures::io("make a folder for a build", &error))?;
        self.holdings
            .hold([Thing::Folder(folder.path().to_owned())]);
        Ok(folder)
    }
}
