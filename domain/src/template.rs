//! What happens to a template apart from its builds: everything that is done to it by hand.
//!
//! Its first name is taken in the namespace's stream and its builds have streams of their own, so
//! a template's stream begins with the first thing that somebody does to it. What a rule needs of
//! the others comes in with the command.

#[cfg(test)]
mod artifacts;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{ArtifactId, BuildId};
use crate::name::{Namespace, Tag, TemplateName};
use crate::recorded::Version;

/// How many names a template may have had that still mean it.
pub const ALIAS_COUNT_MAX: usize = 100;

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
        /// Where it pointed to when that was wanted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        build: Option<BuildId>,
    },
    /// No tag has pointed to a build for long enough: its artifact may go.
    ArtifactExpired {
        /// The build, which no tag will point to any more.
        build: BuildId,
        /// What it made, or found made; other builds may still need it.
        artifact: ArtifactId,
    },
    /// The files of a build's expired artifact are gone, and with them what it made.
    ArtifactPurged {
        /// The build.
        build: BuildId,
        /// What it had made, or found made.
        artifact: ArtifactId,
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
            Self::ArtifactExpired { .. } => "ArtifactExpired",
            Self::ArtifactPurged { .. } => "ArtifactPurged",
            Self::Deleted {} => "Deleted",
        }
    }
}

/// What was done to a template by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template {
    /// It is there, as far as its own stream knows.
    Live(Live),
    /// It is gone, and nothing happens to it any more.
    Deleted,
}

/// What a template has while it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// How often something was done to it.
    version: Version,
    /// What it is called; none if it was never renamed.
    name: Option<TemplateName>,
    /// What it was called before.
    aliases: BTreeSet<TemplateName>,
    visibility: Visibility,
    /// Tags that were removed, with the build that each of them pointed to then.
    removed: BTreeMap<Tag, BuildId>,
    /// Builds whose artifacts have expired.
    expired: BTreeSet<BuildId>,
    /// Those of them whose artifacts are gone.
    purged: BTreeSet<BuildId>,
}

impl Default for Template {
    /// One that nobody has touched.
    fn default() -> Self {
        Self::Live(Live::default())
    }
}

/// What a name that a template holds is to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is called so.
    Name,
    /// It was called so, and is still meant by it.
    Alias,
    /// It will be called so, if a rename that is under way gets to its end.
    Pending,
    /// Nothing, and it will not be: the name may be released.
    Left,
}

impl Template {
    /// How often something was done to the template; none if it is gone.
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Live(live) => Some(live.version),
            Self::Deleted => None,
        }
    }

    /// What `name`, which the template holds since a rename at the version `renaming` was begun or
    /// (none) since it was made, is to the template.
    ///
    /// [`Standing::Left`] is for good as long as that hold stands: a rename goes to a name that the
    /// template goes by, or takes it anew, at the version it has then.
    pub fn standing(&self, name: &TemplateName, renaming: Option<Version>) -> Standing {
        let Self::Live(live) = self else {
            return Standing::Left;
        };
        let is_name = match &live.name {
            Some(current) => current == name,
            None => renaming.is_none(),
        };
        if is_name {
            Standing::Name
        } else if live.aliases.contains(name) {
            Standing::Alias
        } else if renaming.is_some_and(|version| live.version <= version) {
            Standing::Pending
        } else {
            Standing::Left
        }
    }

    /// Whether the template, which was made with the name `first`, goes by `name`.
    pub fn goes_by(&self, name: &TemplateName, first: &TemplateName) -> bool {
        match self {
            Self::Live(live) => live.called(first) == name || live.aliases.contains(name),
            Self::Deleted => false,
        }
    }
}

impl Live {
    fn called<'a>(&'a self, first: &'a TemplateName) -> &'a TemplateName {
        self.name.as_ref().unwrap_or(first)
    }
}

/// What somebody wants to do to a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Call it `to`; what it is called now becomes an alias.
    Rename {
        /// Where it lives.
        namespace: Namespace,
        /// The name that it was made with.
        first: TemplateName,
        /// The new name, which the namespace holds for it.
        to: TemplateName,
        /// The version of its stream for which the namespace holds the name.
        seen: Version,
    },
    /// Let an alias no longer mean it.
    RemoveAlias {
        /// Where it lives.
        namespace: Namespace,
        /// The alias.
        alias: TemplateName,
    },
    /// Show it to others, or to nobody else.
    SetVisibility {
        /// Who may see it.
        visibility: Visibility,
    },
    /// Point tags to a build.
    AssignTags {
        /// The tags; not empty.
        tags: Vec<Tag>,
        /// A build of the template that is ready: both are so for good.
        build: BuildId,
    },
    /// Take a tag away.
    RemoveTag {
        /// The tag.
        tag: Tag,
        /// The build that it was seen to point to.
        build: BuildId,
    },
    /// Let the artifact of a build go to which no tag points.
    ExpireArtifact {
        /// The build.
        build: BuildId,
        /// What it made.
        artifact: ArtifactId,
        /// The version of the template's stream at which no tag pointed to the build. A build moves
        /// tags to itself once, when it is ready; later only this stream does.
        seen: Version,
    },
    /// Say that the expired artifact of a build is gone.
    PurgeArtifact {
        /// The build.
        build: BuildId,
        /// What it had made.
        artifact: ArtifactId,
    },
    /// Delete it with all that belongs to it.
    Delete {
        /// The version of its stream that whoever wants it has seen.
        seen: Version,
    },
}

/// Why a command makes nothing happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It is gone.
    #[error("the template was deleted")]
    Deleted,
    /// Something was done to it that whoever gave the command has not seen.
    #[error("the template was changed at the same time")]
    Changed,
    /// It does not have this alias.
    #[error("the template has no alias `{0}`")]
    UnknownAlias(TemplateName),
    /// It has had too many names.
    #[error("a template has at most {ALIAS_COUNT_MAX} aliases; remove one first")]
    TooManyAliases,
    /// An assignment of nothing.
    #[error("at least one tag is needed")]
    NoTags,
    /// The build's artifact has gone, or is about to.
    #[error("the artifact of the build `{0}` has expired; build it again")]
    Expired(BuildId),
    /// The build's artifact is to be had, and stays.
    #[error("the artifact of the build `{0}` has not expired")]
    NotExpired(BuildId),
    /// Somebody else was faster.
    #[error("the template has no tag `{0}`")]
    UnknownTag(Tag),
}

/// Decides what `command` makes happen to the template in `state`.
///
/// An empty list means that what the command wants is so already.
///
/// # Errors
/// The [`Rejection`] says what stands against it; nothing happens then.
pub fn decide(state: &Template, command: Command) -> Result<Vec<Event>, Rejection> {
    let Template::Live(live) = state else {
        return Err(Rejection::Deleted);
    };
    match command {
        Command::Rename {
            namespace,
            first,
            to,
            seen,
        } => rename(live, namespace, &first, to, seen),
        Command::RemoveAlias { namespace, alias } => {
            if live.aliases.contains(&alias) {
                Ok(vec![Event::AliasRemoved { namespace, alias }])
            } else {
                Err(Rejection::UnknownAlias(alias))
            }
        }
        Command::SetVisibility { visibility } if live.visibility == visibility => Ok(Vec::new()),
        Command::SetVisibility { visibility } => Ok(vec![Event::VisibilityChanged { visibility }]),
        Command::AssignTags { tags, .. } if tags.is_empty() => Err(Rejection::NoTags),
        Command::AssignTags { build, .. } if live.expired.contains(&build) => {
            Err(Rejection::Expired(build))
        }
        // Also if the tags point there: a build may have moved them in between, and that somebody
        // decided it is worth knowing.
        Command::AssignTags { tags, build } => Ok(vec![Event::TagsAssigned { tags, build }]),
        // A build gets its tags once, when it is ready. So a tag that was removed from a build
        // comes back to the same one by hand only, and that would be known here.
        Command::RemoveTag { tag, build } if live.removed.get(&tag) == Some(&build) => {
            Err(Rejection::UnknownTag(tag))
        }
        Command::RemoveTag { tag, build } => {
            let build = Some(build);
            Ok(vec![Event::TagRemoved { tag, build }])
        }
        Command::ExpireArtifact { build, .. } if live.expired.contains(&build) => Ok(Vec::new()),
        Command::ExpireArtifact { seen, .. } if seen != live.version => Err(Rejection::Changed),
        Command::ExpireArtifact {
            build, artifact, ..
        } => Ok(vec![Event::ArtifactExpired { build, artifact }]),
        Command::PurgeArtifact { build, .. } if live.purged.contains(&build) => Ok(Vec::new()),
        Command::PurgeArtifact { build, .. } if !live.expired.contains(&build) => {
            Err(Rejection::NotExpired(build))
        }
        Command::PurgeArtifact { build, artifact } => {
            Ok(vec![Event::ArtifactPurged { build, artifact }])
        }
        Command::Delete { seen } if seen != live.version => Err(Rejection::Changed),
        Command::Delete { .. } => Ok(vec![Event::Deleted {}]),
    }
}

fn rename(
    live: &Live,
    namespace: Namespace,
    first: &TemplateName,
    to: TemplateName,
    seen: Version,
) -> Result<Vec<Event>, Rejection> {
    let from = live.called(first).clone();
    if from == to {
        return Ok(Vec::new());
    }
    // The name is held for a rename at this version: at another one the hold may be gone.
    if seen != live.version {
        return Err(Rejection::Changed);
    }
    let kept = live.aliases.iter().filter(|alias| **alias != to).count();
    if kept >= ALIAS_COUNT_MAX {
        return Err(Rejection::TooManyAliases);
    }
    Ok(vec![Event::Renamed {
        namespace,
        from,
        to,
    }])
}

/// The template after `event`. Nothing follows its deletion.
#[must_use]
pub fn evolve(state: Template, event: &Event) -> Template {
    let Template::Live(mut live) = state else {
        return Template::Deleted;
    };
    live.version = live.version.plus(1);
    match event {
        Event::Renamed { from, to, .. } => {
            live.aliases.remove(to);
            live.aliases.insert(from.clone());
            live.name = Some(to.clone());
        }
        Event::AliasRemoved { alias, .. } => {
            live.aliases.remove(alias);
        }
        Event::VisibilityChanged { visibility } => live.visibility = *visibility,
        Event::TagsAssigned { tags, .. } => {
            for tag in tags {
                live.removed.remove(tag);
            }
        }
        Event::TagRemoved { tag, build } => match build {
            Some(build) => drop(live.removed.insert(tag.clone(), build.clone())),
            None => drop(live.removed.remove(tag)),
        },
        Event::ArtifactExpired { build, .. } => {
            live.expired.insert(build.clone());
        }
        Event::ArtifactPurged { build, .. } => {
            live.purged.insert(build.clone());
        }
        Event::Deleted {} => return Template::Deleted,
    }
    Template::Live(live)
}
