//! What a view is: a fold of the log into rows.

use domain::Event;
use domain::recorded::Recorded;

use crate::builds::Builds;
use crate::claims::Claims;
use crate::idempotency::Idempotency;
use crate::lineage::Lineages;
use crate::logs::Logs;
use crate::outline::Outlines;
use crate::queue::Queue;
use crate::rows::Rows;
use crate::store::{Checkpoint, LastEvent, StoreError, ViewStore};
use crate::templates::Templates;
use crate::webhooks::Webhooks;

/// A fold of the log into rows.
///
/// It sees each event once, in the order of the log, and it reads nothing but its own rows: so the
/// rows depend on the events alone.
pub trait Projection {
    /// What it is called.
    const NAME: &'static str;
    /// Raised whenever the rows would come out differently: then all views are folded anew.
    const REVISION: u32;

    /// Changes the rows as `recorded` demands.
    ///
    /// # Errors
    /// [`ApplyError`].
    fn apply(rows: &mut Rows<'_>, recorded: &Recorded<Event>) -> Result<(), ApplyError>;
}

/// Why an event was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The store failed, and with it the whole batch.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The event cannot follow what stands before it. It is reported and left out: the log is
    /// append-only, and one stream must not hold up all views for ever.
    #[error("the event cannot follow: {0}")]
    OutOfPlace(&'static str),
}

/// The names and revisions of all projections.
pub fn revisions() -> String {
    [
        revision::<Builds>(),
        revision::<Logs>(),
        revision::<Templates>(),
        revision::<Queue>(),
        revision::<Claims>(),
        revision::<Webhooks>(),
        revision::<Idempotency>(),
        revision::<Lineages>(),
        revision::<Outlines>(),
    ]
    .join(" ")
}

fn revision<P: Projection>() -> String {
    format!("{}={}", P::NAME, P::REVISION)
}

/// Applies `events` to all views and commits what changed together with how far it got. Events
/// that were applied before are left out. Blocks.
///
/// # Errors
/// [`StoreError`]; nothing was changed then.
pub fn apply_batch(
    store: &dyn ViewStore,
    events: &[Recorded<Event>],
) -> Result<Option<LastEvent>, StoreError> {
    let checkpoint = store.checkpoint()?;
    let applied = checkpoint.as_ref().map(Checkpoint::position);
    let mut last = checkpoint.and_then(|checkpoint| checkpoint.last);
    let mut rows = Rows::new(store);
    for recorded in events {
        if applied.is_some_and(|applied| recorded.position <= applied) {
            continue;
        }
        apply_to::<Builds>(&mut rows, recorded)?;
        apply_to::<Logs>(&mut rows, recorded)?;
        apply_to::<Templates>(&mut rows, recorded)?;
        apply_to::<Queue>(&mut rows, recorded)?;
        apply_to::<Claims>(&mut rows, recorded)?;
        apply_to::<Webhooks>(&mut rows, recorded)?;
        apply_to::<Idempotency>(&mut rows, recorded)?;
        apply_to::<Lineages>(&mut rows, recorded)?;
        apply_to::<Outlines>(&mut rows, recorded)?;
        last = Some(LastEvent {
            position: recorded.position,
            stream: recorded.stream.clone(),
            version: recorded.version,
            hash: recorded.hash,
        });
    }
    let checkpoint = Checkpoint {
        revisions: revisions(),
        last,
    };
    store.commit(&rows.into_changes(), &checkpoint)?;
    Ok(checkpoint.last)
}

fn apply_to<P: Projection>(
    rows: &mut Rows<'_>,
    recorded: &Recorded<Event>,
) -> Result<(), StoreError> {
    match P::apply(rows, recorded) {
        Ok(()) => Ok(()),
        Err(ApplyError::Store(err)) => Err(err),
        Err(err @ ApplyError::OutOfPlace(_)) => {
            tracing::error!(
                error = crate::as_error(&err),
                projection = P::NAME,
                stream = %recorded.stream,
                stream.version = recorded.version.0,
                event = recorded.event.name(),
                "a view leaves an event out"
            );
            Ok(())
        }
    }
}
