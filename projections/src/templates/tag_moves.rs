//! Where tags have pointed to, move by move.

use domain::Event;
use domain::ids::{BuildId, TemplateId};
use domain::name::Tag;
use domain::recorded::{Actor, Position, Recorded};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::TagRow;
use crate::key::Key;
use crate::rows::Rows;
use crate::store::{Scan, StoreError};
use crate::views::Views;

/// A move of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagMove {
    /// Where it points to since then; nowhere if it was removed.
    pub build_id: Option<BuildId>,
    /// Where it pointed to before; nowhere if the template did not have it.
    pub previous: Option<BuildId>,
    /// When.
    pub at: Timestamp,
    /// By whom, as the event has it.
    pub by: Actor,
    /// Through what.
    pub cause: TagCause,
    /// By which event.
    pub position: Position,
}

/// What moves tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TagCause {
    /// A build that was asked for with the tag is ready.
    Built,
    /// Somebody pointed it to a build.
    Assigned,
    /// Somebody took it away.
    Removed,
}

impl TagCause {
    /// The wire's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Built => "built",
            Self::Assigned => "assigned",
            Self::Removed => "removed",
        }
    }
}

impl TagMove {
    /// The move of a tag from where it `was` to `build`, by this event.
    pub(super) fn new(
        recorded: &Recorded<Event>,
        was: Option<&TagRow>,
        build: Option<&BuildId>,
    ) -> Self {
        let cause = match (&recorded.event, build) {
            (_, None) => TagCause::Removed,
            (Event::Build(_), Some(_)) => TagCause::Built,
            (
                Event::Template(_) | Event::Namespace(_) | Event::Keys(_) | Event::Webhook(_),
                Some(_),
            ) => TagCause::Assigned,
        };
        Self {
            build_id: build.cloned(),
            previous: was.map(|was| was.build_id.clone()),
            at: recorded.time,
            by: recorded.actor.clone(),
            cause,
            position: recorded.position,
        }
    }
}

fn moves_key(id: &TemplateId, tag: &Tag) -> Key {
    Key::table("templates/tag-moves")
        .text(id.as_str())
        .text(tag.as_str())
}

/// The last move of a tag to a build.
fn last_key(id: &TemplateId, tag: &Tag, build: &BuildId) -> Key {
    Key::table("templates/tag-builds")
        .text(id.as_str())
        .text(tag.as_str())
        .text(build.as_str())
}

/// Writes a move down.
pub(super) fn put(
    rows: &mut Rows<'_>,
    id: &TemplateId,
    tag: &Tag,
    tag_move: &TagMove,
) -> Result<(), StoreError> {
    if let Some(build) = &tag_move.build_id {
        rows.put(last_key(id, tag, build), &tag_move.position)?;
    }
    let key = moves_key(id, tag).number(tag_move.position.raw());
    rows.put(key, tag_move)
}

impl Views {
    /// The moves of a tag before the one at `before`, or all; the latest first, at most `count_max`.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn tag_moves(
        &self,
        template: &TemplateId,
        tag: &Tag,
        before: Option<Position>,
        count_max: usize,
    ) -> Result<Vec<TagMove>, StoreError> {
        let moves = moves_key(template, tag);
        let mut scan = Scan::below(&moves, count_max).backwards();
        if let Some(position) = before {
            scan = scan.ending_before(&moves.number(position.raw()));
        }
        self.values(&scan)
    }

    /// The move of a tag by the event at `position`, if that moved it.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn tag_move_at(
        &self,
        template: &TemplateId,
        tag: &Tag,
        position: Position,
    ) -> Result<Option<TagMove>, StoreError> {
        self.get(&moves_key(template, tag).number(position.raw()))
    }

    /// The last move of a tag to `build`, if it has ever pointed there.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn tag_move_to(
        &self,
        template: &TemplateId,
        tag: &Tag,
        build: &BuildId,
    ) -> Result<Option<TagMove>, StoreError> {
        match self.get(&last_key(template, tag, build))? {
            Some(position) => self.tag_move_at(template, tag, position),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::template::Event as TemplateEvent;

    use super::*;
    use crate::testing::{History, build_id, key_id, tag, template_id};

    fn assigned(build: u8) -> TemplateEvent {
        TemplateEvent::TagsAssigned {
            tags: vec![tag("v1")],
            build: build_id(build),
        }
    }

    /// `v1` is built to 1 and to 2, set back to 1, removed, and given to 2 again.
    fn moved() -> History {
        let mut history = History::default();
        let removed = TemplateEvent::TagRemoved {
            tag: tag("v1"),
            build: Some(build_id(1)),
        };
        history
            .name_taken("acme", "my-app", 1)
            .ready_build(1, 1, &["v1"])
            .ready_build(2, 1, &["v1"])
            .template(1, assigned(1))
            .template(1, removed)
            .template(1, assigned(2));
        history
    }

    fn moves(views: &Views, before: Option<Position>, count_max: usize) -> Vec<TagMove> {
        let found = views.tag_moves(&template_id(1), &tag("v1"), before, count_max);
        found.unwrap()
    }

    #[test]
    fn each_move_says_from_where_to_where_through_what_and_by_whom() {
        let views = moved().views();
        let told: Vec<_> = moves(&views, None, 10)
            .into_iter()
            .map(|it| {
                assert_eq!(it.by, Actor::Key { id: key_id() });
                (it.previous, it.build_id, it.cause)
            })
            .collect();
        let (first, second) = (Some(build_id(1)), Some(build_id(2)));
        let expected = [
            (None, second.clone(), TagCause::Assigned),
            (first.clone(), None, TagCause::Removed),
            (second.clone(), first.clone(), TagCause::Assigned),
            (first.clone(), second, TagCause::Built),
            (None, first, TagCause::Built),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn pages_of_moves_follow_each_other_without_gap_or_repeat() {
        let views = moved().views();
        let all = moves(&views, None, 10);
        for count_max in 1..=5 {
            let mut found: Vec<TagMove> = Vec::new();
            // Pages that do not move on are found out, too.
            for _ in 0..=all.len() {
                let last = found.last().map(|last| last.position);
                found.extend(moves(&views, last, count_max));
            }
            assert_eq!(found, all, "{count_max}");
        }
    }

    #[test]
    fn a_move_is_found_by_its_event_and_by_its_build() {
        let views = moved().views();
        let all = moves(&views, None, 10);
        let (template, v1) = (template_id(1), tag("v1"));
        for expected in &all {
            let found = views.tag_move_at(&template, &v1, expected.position);
            assert_eq!(found.unwrap().as_ref(), Some(expected));
        }
        // The last of several.
        let to = |build| views.tag_move_to(&template, &v1, &build_id(build)).unwrap();
        assert_eq!(to(1).as_ref(), all.get(2));
        assert_eq!(to(2).as_ref(), all.first());
        assert_eq!(to(3), None);
        let other = views.tag_move_to(&template, &tag("v2"), &build_id(1));
        assert_eq!(other.unwrap(), None);
        let between = Position::from_raw(all[0].position.raw() - 1);
        let found = views.tag_move_at(&template, &v1, between);
        assert_eq!(found.unwrap(), None);
    }
}
