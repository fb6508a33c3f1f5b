//! What happens to a template apart from its builds: everything that is done to it by hand.

use serde::{Deserialize, Serialize};

use crate::ids::BuildId;
use crate::name::{Namespace, Tag, TemplateName};

/// Who may see and use a template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Its owner.
    #[default]
    Private,
    /// Everybody with a key.
    Public,
}

/// Something that was done to a template by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Event {
    /// It has another name; the old one stays as an alias.
    Renamed {
        /// Where it lives.
        namespace: Namespace,
        /// The old name.
        from: TemplateName,
        /// The new name.
        to: TemplateName,
    },
    /// An alias was removed.
    AliasRemoved {
        /// Where it lives.
        namespace: Namespace,
        /// The alias.
        alias: TemplateName,
    },
    /// Other people may see it, or no longer.
    VisibilityChanged {
        /// Who may see it now.
        visibility: Visibility,
    },
    /// Tags point to a build.
    TagsAssigned {
        /// The tags.
        tags: Vec<Tag>,
        /// The build.
        build: BuildId,
    },
    /// A tag is gone.
    TagRemoved {
        /// The tag.
        tag: Tag,
    },
    /// The template is gone.
    Deleted {},
}

impl Event {
    /// The event's stored and published name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Renamed { .. } => "Renamed",
            Self::AliasRemoved { .. } => "AliasRemoved",
            Self::VisibilityChanged { .. } => "VisibilityChanged",
            Self::TagsAssigned { .. } => "TagsAssigned",
            Self::TagRemoved { .. } => "TagRemoved",
            Self::Deleted {} => "Deleted",
        }
    }
}
