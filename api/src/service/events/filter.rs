//! What of the log a reader wants, and may have.

use std::collections::BTreeSet;

use domain::ids::{BuildId, TemplateId};
use domain::name::Owner;
use domain::recorded::StreamName;

use super::Entry;

/// What a reader wants: everything of its owner, if it names nothing. Of several things of one kind
/// any will do; different kinds must all be met.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Whose events.
    pub owner: Owner,
    /// In these streams.
    pub streams: BTreeSet<StreamName>,
    /// Of these types.
    pub kinds: BTreeSet<&'static str>,
    /// In the streams of these builds.
    pub builds: BTreeSet<BuildId>,
    /// In the streams of these templates, and of their builds.
    pub templates: BTreeSet<TemplateId>,
}

impl Filter {
    /// Everything of `owner`.
    pub fn all_of(owner: Owner) -> Self {
        Self {
            owner,
            streams: BTreeSet::new(),
            kinds: BTreeSet::new(),
            builds: BTreeSet::new(),
            templates: BTreeSet::new(),
        }
    }

    /// Whether the reader gets the event.
    pub fn lets_through(&self, entry: &Entry) -> bool {
        let Some(origin) = &entry.origin else {
            return false;
        };
        let is_wanted_build = || match &entry.stream {
            StreamName::Build(id) => self.builds.contains(id),
            StreamName::Template(_)
            | StreamName::Namespace(_)
            | StreamName::Keys
            | StreamName::Webhook(_) => false,
        };
        let is_of_wanted_template = || {
            let template = origin.template.as_ref();
            template.is_some_and(|id| self.templates.contains(id))
        };
        origin.owner == self.owner
            && (self.streams.is_empty() || self.streams.contains(&entry.stream))
            && (self.kinds.is_empty() || self.kinds.contains(entry.kind))
            && (self.builds.is_empty() || is_wanted_build())
            && (self.templates.is_empty() || is_of_wanted_template())
    }
}
