//! How events change a build: one table, read in two ways.

use super::{Accepted, Attempt, Build, CacheKind, Event};
use crate::recorded::{Recorded, Version};

/// The state after `event`.
///
/// # Panics
/// If the event cannot follow: then [`super::decide`] has a bug.
#[must_use]
pub fn evolve(state: Build, event: &Event) -> Build {
    transition(state, event).expect("decide lets only events happen that can follow")
}

/// A stored stream whose events cannot have followed one another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {version} (`{event}`) cannot follow what stands before it", version = version.0)]
pub struct CorruptStream {
    /// Where the stream stops making sense.
    pub version: Version,
    /// The event there.
    pub event: &'static str,
}

/// Folds a stored stream.
///
/// # Errors
/// [`CorruptStream`] for an event out of place.
#[expect(
    single_use_lifetimes,
    reason = "an `impl Trait` argument cannot elide its lifetime"
)]
pub fn replay<'a>(
    stream: impl IntoIterator<Item = &'a Recorded<Event>>,
) -> Result<(Build, Version), CorruptStream> {
    let mut state = Build::Absent;
    let mut version = Version::EMPTY;
    for recorded in stream {
        let corrupt = CorruptStream {
            version,
            event: recorded.event.name(),
        };
        if recorded.version != version {
            return Err(corrupt);
        }
        state = transition(state, &recorded.event).ok_or(corrupt)?;
        version = version.plus(1);
    }
    Ok((state, version))
}

/// The whole table, once. `None`: the event cannot follow.
fn transition(state: Build, event: &Event) -> Option<Build> {
    if let Event::StepLogged(logged) = event
        && state.accepted()?.next_offset != logged.first_offset
    {
        return None;
    }
    let next = match (event, state) {
        (Event::Requested(requested), Build::Absent) => Build::Waiting(Accepted {
            requested: requested.clone(),
            next_offset: 0,
            attempt_count: 0,
        }),
        (Event::Started(started), Build::Waiting(mut accepted)) => {
            accepted.attempt_count = started.attempt;
            Build::Building(
                accepted,
                Attempt {
                    fence: started.fence,
                    sized: false,
                },
            )
        }
        (Event::RootfsGrown(_), Build::Building(accepted, attempt)) => Build::Building(
            accepted,
            Attempt {
                sized: true,
                ..attempt
            },
        ),
        // A finished artifact was grown by the build that made it, and its key holds the size.
        (Event::CacheHit(hit), Build::Building(accepted, attempt)) => {
            let sized = attempt.sized || hit.kind == CacheKind::FinalArtifact;
            Build::Building(accepted, Attempt { sized, ..attempt })
        }
        (
            Event::Snapshotted(snapshotted),
            Build::Building(accepted, Attempt { sized: true, .. }),
        ) => Build::Ready(accepted, snapshotted.artifact.clone()),
        (Event::Failed(failure), Build::Building(accepted, _) | Build::Waiting(accepted)) => {
            Build::Failed(accepted, failure.clone())
        }
        (Event::CancelRequested(_), Build::Building(accepted, attempt)) => {
            Build::Cancelling(accepted, attempt)
        }
        // A cancelled build that waits gets `Cancelled` at once, in the same append.
        (Event::RetryScheduled(_), Build::Building(accepted, _))
        | (Event::CancelRequested(_) | Event::Queued(_), Build::Waiting(accepted)) => {
            Build::Waiting(accepted)
        }
        (Event::Cancelled(_), Build::Cancelling(accepted, _) | Build::Waiting(accepted)) => {
            Build::Cancelled(accepted)
        }
        (progress, Build::Building(accepted, attempt)) if progress.is_progress() => {
            Build::Building(accepted, attempt)
        }
        (_, _) => return None,
    };
    Some(count_entries(next, event))
}

fn count_entries(mut state: Build, event: &Event) -> Build {
    match &mut state {
        Build::Absent => {}
        Build::Waiting(accepted)
        | Build::Building(accepted, _)
        | Build::Cancelling(accepted, _)
        | Build::Ready(accepted, _)
        | Build::Failed(accepted, _)
        | Build::Cancelled(accepted) => {
            accepted.next_offset = accepted.next_offset.saturating_add(event.log_entry_count());
        }
    }
    state
}
