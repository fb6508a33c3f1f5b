//! The builds that wait for a worker, in order, for each owner.

use domain::Event;
use domain::build;
use domain::ids::BuildId;
use domain::name::Owner;
use domain::recorded::{Position, Recorded, StreamName};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::key::Key;
use crate::projection::{ApplyError, Projection};
use crate::rows::Rows;
use crate::store::{Scan, StoreError};
use crate::views::Views;

/// A build that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// The build.
    pub build_id: BuildId,
    /// Since when it waits: since it was accepted, or since an attempt failed.
    pub since: Timestamp,
}

/// Whose build it is and since which event it waits, if it does.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Place {
    owner: Owner,
    waits_since: Option<Position>,
}

/// The projection.
#[derive(Clone, Copy, Debug)]
pub struct Queue;

fn place_key(id: &BuildId) -> Key {
    Key::table("queue/place").text(id.as_str())
}

fn queue_key(owner: &Owner) -> Key {
    Key::table("queue/waiting").text(owner.as_str())
}

/// What an event means for the queue.
enum Move {
    Join,
    Leave,
    /// The build is over: nothing about it is kept.
    Forget,
}

fn move_of(event: &build::Event) -> Option<Move> {
    match event {
        build::Event::RetryScheduled(_) => Some(Move::Join),
        build::Event::Started(_) => Some(Move::Leave),
        build::Event::Snapshotted(_) | build::Event::Cancelled(_) | build::Event::Failed(_) => {
            Some(Move::Forget)
        }
        build::Event::Requested(_)
        | build::Event::Queued(_)
        | build::Event::PhaseStarted(_)
        | build::Event::PhaseFinished(_)
        | build::Event::BaseResolved(_)
        | build::Event::CacheHit(_)
        | build::Event::CacheMissed(_)
        | build::Event::CacheBypassed(_)
        | build::Event::CacheStored(_)
        | build::Event::FilesCounted(_)
        | build::Event::StepStarted(_)
        | build::Event::StepFinished(_)
        | build::Event::StepLogged(_)
        | build::Event::RootfsBuilt(_)
        | build::Event::RootfsGrown(_)
        | build::Event::VmBooted(_)
        | build::Event::StartCommandRan(_)
        | build::Event::ReadinessPassed(_)
        | build::Event::CancelRequested(_) => None,
    }
}

impl Projection for Queue {
    const NAME: &'static str = "queue";
    const REVISION: u32 = 1;

    fn apply(rows: &mut Rows<'_>, recorded: &Recorded<Event>) -> Result<(), ApplyError> {
        let (StreamName::Build(id), Event::Build(event)) = (&recorded.stream, &recorded.event)
        else {
            return Ok(());
        };
        if let build::Event::Requested(requested) = event {
            return join(rows, recorded, id, requested.owner.clone());
        }
        let Some(wanted) = move_of(event) else {
            return Ok(());
        };
        let Some(place) = rows.get::<Place>(&place_key(id))? else {
            return Err(ApplyError::OutOfPlace("nothing was requested"));
        };
        if let Some(position) = place.waits_since {
            rows.delete(queue_key(&place.owner).number(position.raw()));
        }
        match wanted {
            Move::Join => join(rows, recorded, id, place.owner)?,
            Move::Leave => {
                let place = Place {
                    waits_since: None,
                    ..place
                };
                rows.put(place_key(id), &place)?;
            }
            Move::Forget => rows.delete(place_key(id)),
        }
        Ok(())
    }
}

fn join(
    rows: &mut Rows<'_>,
    recorded: &Recorded<Event>,
    id: &BuildId,
    owner: Owner,
) -> Result<(), ApplyError> {
    let queued = Queued {
        build_id: id.clone(),
        since: recorded.time,
    };
    rows.put(queue_key(&owner).number(recorded.position.raw()), &queued)?;
    let place = Place {
        owner,
        waits_since: Some(recorded.position),
    };
    rows.put(place_key(id), &place)?;
    Ok(())
}

impl Views {
    /// The builds of `owner` that wait, the first in line first, at most `count_max`.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn queue(&self, owner: &Owner, count_max: usize) -> Result<Vec<Queued>, StoreError> {
        self.values(&Scan::below(&queue_key(owner), count_max))
    }

    /// A build's place in its owner's line, from 1; nothing if it does not wait. Reads all builds
    /// that stand before it.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn queue_position(&self, id: &BuildId) -> Result<Option<usize>, StoreError> {
        let Some(place) = self.get::<Place>(&place_key(id))? else {
            return Ok(None);
        };
        let Some(position) = place.waits_since else {
            return Ok(None);
        };
        let line = queue_key(&place.owner);
        let before =
            Scan::below(&line, usize::MAX).ending_before(&line.clone().number(position.raw()));
        Ok(Some(self.scan(&before)?.len().saturating_add(1)))
    }
}

#[cfg(test)]
mod tests;
