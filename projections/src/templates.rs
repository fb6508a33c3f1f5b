//! The templates: what they are called, which builds their tags point to, who may see them.
//!
//! A template has its row from the moment it has a name, but is seen by others and in lists only
//! once a build of it is ready. Tags move in the order of the log: by hand, or because a build
//! that was asked for with them is ready.

mod expired;
mod resolve;
mod tag_moves;
mod untagged;

use std::collections::BTreeMap;

use domain::build::{self, Requested};
use domain::ids::{ArtifactId, BuildId, TemplateId};
use domain::name::{Namespace, Owner, Tag, TemplateName};
use domain::recorded::{Recorded, StreamName, Version};
use domain::template::Visibility;
use domain::time::Timestamp;
use domain::{Event, namespace, template};
use serde::{Deserialize, Serialize};

pub use expired::Expired;
pub use resolve::Resolved;
pub use tag_moves::{TagCause, TagMove};
pub use untagged::Untagged;

use crate::key::Key;
use crate::projection::{ApplyError, Projection};
use crate::rows::Rows;
use crate::store::StoreError;

/// A template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TemplateRow {
    /// Its id.
    pub id: TemplateId,
    /// Whose it is.
    pub owner: Owner,
    /// Where it lives.
    pub namespace: Namespace,
    /// What it is called there.
    pub name: TemplateName,
    /// Who may see it.
    pub visibility: Visibility,
    /// Its tags.
    pub tags: BTreeMap<Tag, TagRow>,
    /// What it was called before, and since when it no longer is.
    pub aliases: BTreeMap<TemplateName, Timestamp>,
    /// Its builds that are ready and that no tag points to, and since when; without those that have
    /// expired.
    pub untagged: BTreeMap<BuildId, Timestamp>,
    /// Its builds whose artifacts have expired and are not known to be gone.
    pub expired: BTreeMap<BuildId, ArtifactId>,
    /// When it got its first name.
    pub created_at: Timestamp,
    /// When something happened to it last.
    pub updated_at: Timestamp,
    /// Its latest build that is ready, if there is one.
    pub ready: Option<ReadyBuild>,
    /// Since when it is gone, if it is.
    pub deleted_at: Option<Timestamp>,
    /// How often something was done to it by hand.
    pub version: Version,
}

/// Where a tag points to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRow {
    /// The build.
    pub build_id: BuildId,
    /// Since when.
    pub since: Timestamp,
}

/// A build that is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyBuild {
    /// The build.
    pub build_id: BuildId,
    /// Since when.
    pub at: Timestamp,
}

/// What a build that is under way will do to its template.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pending {
    template_id: TemplateId,
    tags: Vec<Tag>,
}

/// The projection.
#[derive(Clone, Copy, Debug)]
pub struct Templates;

fn row_key(id: &TemplateId) -> Key {
    Key::table("templates/row").text(id.as_str())
}

fn name_key(namespace: &Namespace, name: &TemplateName) -> Key {
    Key::table("templates/name")
        .text(namespace.as_str())
        .text(name.as_str())
}

fn owned_key(owner: &Owner) -> Key {
    Key::table("templates/owned").text(owner.as_str())
}

fn public_key() -> Key {
    Key::table("templates/public")
}

fn public_in_key(namespace: &Namespace) -> Key {
    Key::table("templates/public-in").text(namespace.as_str())
}

fn pending_key(build: &BuildId) -> Key {
    Key::table("templates/pending").text(build.as_str())
}

impl Projection for Templates {
    const NAME: &'static str = "templates";
    const REVISION: u32 = 4;

    fn apply(rows: &mut Rows<'_>, recorded: &Recorded<Event>) -> Result<(), ApplyError> {
        match (&recorded.stream, &recorded.event) {
            (StreamName::Build(id), Event::Build(event)) => apply_build(rows, recorded, id, event),
            (StreamName::Namespace(slug), Event::Namespace(event)) => {
                apply_namespace(rows, recorded, slug, event)
            }
            (StreamName::Template(id), Event::Template(event)) => {
                apply_template(rows, recorded, id, event)
            }
            (
                StreamName::Build(_)
                | StreamName::Template(_)
                | StreamName::Namespace(_)
                | StreamName::Keys
                | StreamName::Webhook(_),
                Event::Build(_)
                | Event::Template(_)
                | Event::Namespace(_)
                | Event::Keys(_)
                | Event::Webhook(_),
            ) => Ok(()),
        }
    }
}

fn apply_build(
    rows: &mut Rows<'_>,
    recorded: &Recorded<Event>,
    id: &BuildId,
    event: &build::Event,
) -> Result<(), ApplyError> {
    if let build::Event::Requested(requested) = event {
        let Requested {
            template_id, tags, ..
        } = requested.as_ref();
        let pending = Pending {
            template_id: template_id.clone(),
            tags: tags.clone(),
        };
        rows.put(pending_key(id), &pending)?;
        return Ok(());
    }
    if !event.is_terminal() {
        return Ok(());
    }
    let pending: Option<Pending> = rows.get(&pending_key(id))?;
    let pending = pending.ok_or(ApplyError::OutOfPlace("nothing was requested"))?;
    rows.delete(pending_key(id));
    if !matches!(event, build::Event::Snapshotted(_)) {
        return Ok(());
    }
    change(rows, recorded, &pending.template_id, |row, moves| {
        row.ready = Some(ReadyBuild {
            build_id: id.clone(),
            at: recorded.time,
        });
        for tag in pending.tags {
            point(row, moves, recorded, tag, id);
        }
    })
}

fn apply_namespace(
    rows: &mut Rows<'_>,
    recorded: &Recorded<Event>,
    slug: &Namespace,
    event: &namespace::Event,
) -> Result<(), ApplyError> {
    match event {
        namespace::Event::NameTaken {
            name,
            template_id,
            owner,
            ..
        } => {
            // A further name belongs to a rename, which says so in the template's own stream: until
            // then the template does not go by it.
            if rows.bytes(&row_key(template_id))?.is_none() {
                rows.put(name_key(slug, name), template_id)?;
                let row = TemplateRow {
                    id: template_id.clone(),
                    owner: owner.clone(),
                    namespace: slug.clone(),
                    name: name.clone(),
                    visibility: Visibility::default(),
                    tags: BTreeMap::new(),
                    aliases: BTreeMap::new(),
                    untagged: BTreeMap::new(),
                    expired: BTreeMap::new(),
                    created_at: recorded.time,
                    updated_at: recorded.time,
                    ready: None,
                    deleted_at: None,
                    version: Version::EMPTY,
                };
                put(rows, &row)?;
            }
        }
        namespace::Event::NameReleased { name } => rows.delete(name_key(slug, name)),
        namespace::Event::NameClaimed { .. } | namespace::Event::ClaimReleased { .. } => {}
    }
    Ok(())
}

fn apply_template(
    rows: &mut Rows<'_>,
    recorded: &Recorded<Event>,
    id: &TemplateId,
    event: &template::Event,
) -> Result<(), ApplyError> {
    match event {
        template::Event::Renamed {
            namespace,
            from,
            to,
        } => {
            rows.put(name_key(namespace, to), id)?;
            change(rows, recorded, id, |row, _| {
                row.name = to.clone();
                row.aliases.remove(to);
                row.aliases.insert(from.clone(), recorded.time);
            })
        }
        template::Event::AliasRemoved { namespace, alias } => {
            let key = name_key(namespace, alias);
            // Somebody else may have the name by now.
            if rows.get(&key)?.as_ref() == Some(id) {
                rows.delete(key);
            }
            change(rows, recorded, id, |row, _| {
                row.aliases.remove(alias);
            })
        }
        template::Event::VisibilityChanged { visibility } => {
            change(rows, recorded, id, |row, _| row.visibility = *visibility)
        }
        template::Event::TagsAssigned { tags, build } => {
            change(rows, recorded, id, |row, moves| {
                for tag in tags {
                    point(row, moves, recorded, tag.clone(), build);
                }
            })
        }
        template::Event::TagRemoved { tag, .. } => change(rows, recorded, id, |row, moves| {
            if let Some(was) = row.tags.remove(tag) {
                let tag_move = TagMove::new(recorded, Some(&was), None);
                moves.push((tag.clone(), tag_move));
            }
        }),
        template::Event::ArtifactExpired { build, artifact } => {
            expired::put(rows, id, build, artifact)?;
            change(rows, recorded, id, |row, _| {
                row.untagged.remove(build);
                row.expired.insert(build.clone(), artifact.clone());
            })
        }
        template::Event::ArtifactPurged { build, artifact } => {
            expired::delete(rows, build, artifact);
            change(rows, recorded, id, |row, _| {
                row.expired.remove(build);
            })
        }
        template::Event::Deleted {} => {
            if let Some(row) = rows.get(&row_key(id))? {
                expired::forget(rows, &row);
            }
            change(rows, recorded, id, |row, _| {
                row.deleted_at = Some(recorded.time);
                row.untagged.clear();
                row.expired.clear();
            })
        }
    }
}

/// Changes a template's row, its place in lists and the history of its tags. Nothing happens to a
/// template any more that is gone, also not by a build that was under way then.
fn change(
    rows: &mut Rows<'_>,
    recorded: &Recorded<Event>,
    id: &TemplateId,
    work: impl FnOnce(&mut TemplateRow, &mut Vec<(Tag, TagMove)>),
) -> Result<(), ApplyError> {
    let row: Option<TemplateRow> = rows.get(&row_key(id))?;
    let mut row = row.ok_or(ApplyError::OutOfPlace("the template has never had a name"))?;
    if row.deleted_at.is_some() {
        return Ok(());
    }
    let mut moves = Vec::new();
    let before = untagged::Pointed::of(&row);
    work(&mut row, &mut moves);
    before.follow(rows, &mut row, recorded.time)?;
    row.updated_at = recorded.time;
    if matches!(recorded.stream, StreamName::Template(_)) {
        row.version = recorded.version.plus(1);
    }
    for (tag, tag_move) in &moves {
        tag_moves::put(rows, id, tag, tag_move)?;
    }
    put(rows, &row)?;
    Ok(())
}

/// Points a tag to a build.
fn point(
    row: &mut TemplateRow,
    moves: &mut Vec<(Tag, TagMove)>,
    recorded: &Recorded<Event>,
    tag: Tag,
    build: &BuildId,
) {
    let was = row.tags.get(&tag);
    if was.is_some_and(|was| was.build_id == *build) {
        return;
    }
    let tag_move = TagMove::new(recorded, was, Some(build));
    moves.push((tag.clone(), tag_move));
    let tag_row = TagRow {
        build_id: build.clone(),
        since: recorded.time,
    };
    row.tags.insert(tag, tag_row);
}

/// Writes a template's row and its place in lists.
fn put(rows: &mut Rows<'_>, row: &TemplateRow) -> Result<(), StoreError> {
    let listed = row.ready.is_some() && row.deleted_at.is_none();
    let owned = owned_key(&row.owner).text(row.id.as_str());
    let is_public = listed && row.visibility == Visibility::Public;
    let public = public_key().text(row.id.as_str());
    let public_in = public_in_key(&row.namespace).text(row.id.as_str());
    for (key, there) in [(owned, listed), (public, is_public), (public_in, is_public)] {
        if there {
            rows.put(key, &row.id)?;
        } else {
            rows.delete(key);
        }
    }
    rows.put(row_key(&row.id), row)
}

#[cfg(test)]
mod tests;
