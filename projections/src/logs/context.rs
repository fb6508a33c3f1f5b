//! What the rendering of an event needs of the events before it. Kept small: it is written at each.

use std::collections::BTreeMap;

use domain::build::Event;
use domain::definition::Source;
use serde::{Deserialize, Serialize};

use super::units::headline;

/// What the rendering of an event needs of the events before it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Context {
    /// What is built.
    #[serde(default)]
    pub(super) name: String,
    /// The base, unless a Dockerfile names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) base_image: Option<String>,
    /// Whether the current attempt knows its base by digest.
    #[serde(default)]
    pub(super) base_resolved: bool,
    /// The current attempt; 0 before the first.
    #[serde(default)]
    pub(super) attempt: u32,
    /// Of how many.
    #[serde(default)]
    pub(super) max_attempts: u32,
    /// How many steps there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) total_steps: Option<u32>,
    /// The titles of the steps that are under way.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) open_steps: BTreeMap<u32, String>,
}

impl Context {
    /// Takes from an event what later ones need.
    pub(super) fn observe(&mut self, event: &Event) {
        if event.is_terminal() {
            *self = Self::default();
            return;
        }
        match event {
            Event::Requested(requested) => {
                self.name = requested.name.to_string();
                self.max_attempts = requested.max_attempts;
                self.base_image = match &requested.definition.source {
                    Source::Declarative { base_image, .. } => Some(headline(base_image)),
                    Source::Dockerfile { .. } => None,
                };
            }
            Event::Started(started) => {
                self.attempt = started.attempt;
                self.base_resolved = false;
                self.max_attempts = started.max_attempts;
            }
            Event::BaseResolved(_) => self.base_resolved = true,
            Event::RetryScheduled(_) => self.open_steps.clear(),
            Event::StepStarted(step) => {
                self.total_steps = Some(step.total);
                self.open_steps.insert(step.index, headline(&step.name));
            }
            Event::StepFinished(step) => {
                self.open_steps.remove(&step.index);
            }
            Event::Queued(_)
            | Event::PhaseStarted(_)
            | Event::PhaseFinished(_)
            | Event::CacheHit(_)
            | Event::CacheMissed(_)
            | Event::CacheBypassed(_)
            | Event::CacheStored(_)
            | Event::FilesCounted(_)
            | Event::StepLogged(_)
            | Event::RootfsBuilt(_)
            | Event::RootfsGrown(_)
            | Event::VmBooted(_)
            | Event::StartCommandRan(_)
            | Event::ReadinessPassed(_)
            | Event::Snapshotted(_)
            | Event::CancelRequested(_)
            | Event::Cancelled(_)
            | Event::Failed(_) => {}
        }
    }
}
