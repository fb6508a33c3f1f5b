//! Where tags have pointed to.

use serde::Serialize;

use super::build::Promotability;
use super::lineage::Actor;
use super::position::WirePosition;

/// A page of the moves of a tag.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TagHistory {
    /// The moves, the latest first.
    pub moves: Vec<TagMove>,
    /// What to ask for the next page with; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A move of a tag.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TagMove {
    /// The event that moved it. The tag can be rolled back to it.
    pub position: WirePosition,
    /// When.
    pub at: String,
    /// `built`, `assigned` or `removed`.
    pub cause: &'static str,
    /// Who did it.
    pub by: Actor,
    /// Who asked for the build that brought the tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<Actor>,
    /// Where the tag points to since then; absent if it was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// Where it pointed to before; absent if the template did not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_build_id: Option<String>,
    /// Whether the tag can be moved to the build again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promotability: Option<Promotability>,
}
