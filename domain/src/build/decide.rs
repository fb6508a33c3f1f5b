//! What a command makes happen to a build.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Accepted, Attempt, Build, CancelRequested, Cancelled, Event, Fence, Queued, Requested, RetryOf,
    RetryScheduled, Snapshotted, Started,
};
use crate::failure::Failure;
use crate::ids::{BuildId, WorkerId};
use crate::name::{SecretId, Tag};

/// What somebody wants to happen to a build.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Accept it.
    Request(Box<Requested>),
    /// Record at which place it waits.
    Queue {
        /// The place in its owner's line, from 1.
        place: u32,
    },
    /// Take it, as this worker.
    Start {
        /// The worker.
        worker: WorkerId,
    },
    /// Record what an attempt did; only events for which [`Event::is_progress`] holds.
    Report {
        /// The attempt's fence.
        fence: Fence,
        /// What it did, in order.
        events: Vec<Event>,
    },
    /// Finish it: the template is there.
    Complete {
        /// The attempt's fence.
        fence: Fence,
        /// The template.
        snapshotted: Box<Snapshotted>,
    },
    /// Record that an attempt failed.
    Fail {
        /// The attempt's fence.
        fence: Fence,
        /// Why.
        failure: Failure,
    },
    /// Give up a build that no worker has: what it needs is gone.
    Abandon {
        /// Why.
        failure: Failure,
    },
    /// Stop it.
    Cancel {
        /// Who wants it, as the wire shows it.
        by: String,
        /// Why.
        reason: Option<String>,
    },
    /// Record that nothing of a cancelled attempt runs any more.
    ConfirmCancelled {
        /// The attempt's fence.
        fence: Fence,
        /// What was killed, and what was seen afterwards.
        cancelled: Cancelled,
    },
}

/// Why a command makes nothing happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The id is taken.
    #[error("the build exists already")]
    AlreadyRequested,
    /// Nothing was requested under this id.
    #[error("there is no such build")]
    NotRequested,
    /// A request without tags.
    #[error("a build needs at least one tag")]
    NoTags,
    /// A worker has it, or it is over.
    #[error("the build does not wait for a worker")]
    NotWaiting,
    /// No worker has it.
    #[error("no worker builds it")]
    NotBuilding,
    /// The report comes from another attempt than the current one.
    #[error("the report is of attempt {reported}, the current one is {current}", reported = reported.0, current = current.0)]
    StaleFence {
        /// The report's fence.
        reported: Fence,
        /// The current attempt's fence.
        current: Fence,
    },
    /// It has been asked to stop: the worker confirms that, and nothing else.
    #[error("the build is being cancelled")]
    CancelRequested,
    /// It is over.
    #[error("the build is finished")]
    Finished,
    /// It is not over, so it cannot be retried.
    #[error("the build is not finished")]
    NotFinished,
    /// The event has a command of its own.
    #[error("`{0}` is not something that a worker reports")]
    NotProgress(&'static str),
    /// The root filesystem has not reached its size.
    #[error("the root filesystem has not been grown")]
    NotGrown,
    /// Nobody asked for the cancellation that is confirmed.
    #[error("no cancellation was requested")]
    NotCancelling,
    /// A retry must bring values for the same secrets as the original.
    #[error("a retry needs values for the same secret ids as the original build")]
    SecretsDiffer {
        /// Ids of the original that the retry lacks.
        missing: BTreeSet<SecretId>,
        /// Ids that the original does not have.
        extra: BTreeSet<SecretId>,
    },
    /// A retry must bring credentials for the registries that the original had some for.
    #[error("a retry needs credentials for the same registries as the original build")]
    CredentialsMissing {
        /// Hosts that the retry lacks credentials for.
        hosts: BTreeSet<String>,
    },
}

/// Decides what `command` makes happen to a build in `state`.
///
/// An empty list means that what the command wants is so already.
///
/// # Errors
/// The [`Rejection`] says what stands against it; nothing happens then.
pub fn decide(state: &Build, command: Command) -> Result<Vec<Event>, Rejection> {
    match command {
        Command::Request(requested) => request(state, requested),
        Command::Queue { place } => queue(state, place),
        Command::Start { worker } => start(state, worker),
        Command::Report { fence, events } => report(state, fence, events),
        Command::Complete { fence, snapshotted } => {
            let (_, attempt) = current(state, fence)?;
            if attempt.sized {
                Ok(vec![Event::Snapshotted(snapshotted)])
            } else {
                Err(Rejection::NotGrown)
            }
        }
        Command::Fail { fence, failure } => {
            let (accepted, _) = current(state, fence)?;
            Ok(vec![failed(accepted, failure)])
        }
        Command::Abandon { failure } => match state {
            Build::Absent => Err(Rejection::NotRequested),
            Build::Waiting(_) => Ok(vec![Event::Failed(failure)]),
            Build::Building(..) | Build::Cancelling(..) => Err(Rejection::NotWaiting),
            Build::Ready(..) | Build::Failed(..) | Build::Cancelled(_) => Err(Rejection::Finished),
        },
        Command::Cancel { by, reason } => cancel(state, CancelRequested { by, reason }),
        Command::ConfirmCancelled { fence, cancelled } => confirm(state, fence, cancelled),
    }
}

fn request(state: &Build, requested: Box<Requested>) -> Result<Vec<Event>, Rejection> {
    if *state != Build::Absent {
        return Err(Rejection::AlreadyRequested);
    }
    if requested.tags.is_empty() {
        return Err(Rejection::NoTags);
    }
    Ok(vec![Event::Requested(requested)])
}

fn queue(state: &Build, place: u32) -> Result<Vec<Event>, Rejection> {
    match state {
        Build::Absent => Err(Rejection::NotRequested),
        Build::Waiting(_) => Ok(vec![Event::Queued(Queued { place })]),
        Build::Building(..) | Build::Cancelling(..) => Err(Rejection::NotWaiting),
        Build::Ready(..) | Build::Failed(..) | Build::Cancelled(_) => Err(Rejection::Finished),
    }
}

fn start(state: &Build, worker: WorkerId) -> Result<Vec<Event>, Rejection> {
    match state {
        Build::Absent => Err(Rejection::NotRequested),
        Build::Waiting(accepted) => {
            let attempt = accepted.attempt_count.saturating_add(1);
            Ok(vec![Event::Started(Started {
                worker,
                attempt,
                max_attempts: accepted.requested.max_attempts,
                fence: Fence(u64::from(attempt)),
            })])
        }
        Build::Building(..) | Build::Cancelling(..) => Err(Rejection::NotWaiting),
        Build::Ready(..) | Build::Failed(..) | Build::Cancelled(_) => Err(Rejection::Finished),
    }
}

fn report(state: &Build, fence: Fence, events: Vec<Event>) -> Result<Vec<Event>, Rejection> {
    let (accepted, _) = current(state, fence)?;
    let mut offset = accepted.next_offset;
    events
        .into_iter()
        .filter(|event| !matches!(event, Event::StepLogged(logged) if logged.lines.is_empty()))
        .map(|mut event| {
            if !event.is_progress() {
                return Err(Rejection::NotProgress(event.name()));
            }
            if let Event::StepLogged(logged) = &mut event {
                logged.first_offset = offset;
            }
            offset += event.log_entry_count();
            Ok(event)
        })
        .collect()
}

/// A failed attempt is repeated if the cause lies with us and attempts are left. A build with
/// secrets is repeated too: its values are still in the memory of the process that reports.
fn failed(accepted: &Accepted, failure: Failure) -> Event {
    let (attempt, max_attempts) = (accepted.attempt_count, accepted.requested.max_attempts);
    if failure.reason.retried_by_itself() && attempt < max_attempts {
        Event::RetryScheduled(RetryScheduled {
            attempt,
            max_attempts,
            failure,
        })
    } else {
        Event::Failed(failure)
    }
}

fn cancel(state: &Build, wanted: CancelRequested) -> Result<Vec<Event>, Rejection> {
    match state {
        Build::Absent => Err(Rejection::NotRequested),
        // Nothing runs, so nobody has to confirm.
        Build::Waiting(_) => Ok(vec![
            Event::CancelRequested(wanted),
            Event::Cancelled(Cancelled::default()),
        ]),
        Build::Building(..) => Ok(vec![Event::CancelRequested(wanted)]),
        // Idempotent: the contract answers with the present snapshot.
        Build::Cancelling(..) | Build::Ready(..) | Build::Failed(..) | Build::Cancelled(_) => {
            Ok(Vec::new())
        }
    }
}

fn confirm(state: &Build, fence: Fence, cancelled: Cancelled) -> Result<Vec<Event>, Rejection> {
    match state {
        Build::Absent => Err(Rejection::NotRequested),
        Build::Waiting(_) | Build::Building(..) => Err(Rejection::NotCancelling),
        Build::Cancelling(_, attempt) => {
            check_fence(attempt, fence)?;
            Ok(vec![Event::Cancelled(cancelled)])
        }
        Build::Cancelled(_) => Ok(Vec::new()),
        Build::Ready(..) | Build::Failed(..) => Err(Rejection::Finished),
    }
}

/// The attempt that a report is of, if it is the one under way.
fn current(state: &Build, fence: Fence) -> Result<(&Accepted, &Attempt), Rejection> {
    match state {
        Build::Absent => Err(Rejection::NotRequested),
        Build::Waiting(_) => Err(Rejection::NotBuilding),
        Build::Building(accepted, attempt) => {
            check_fence(attempt, fence)?;
            Ok((accepted, attempt))
        }
        Build::Cancelling(..) => Err(Rejection::CancelRequested),
        Build::Ready(..) | Build::Failed(..) | Build::Cancelled(_) => Err(Rejection::Finished),
    }
}

fn check_fence(attempt: &Attempt, reported: Fence) -> Result<(), Rejection> {
    if attempt.fence == reported {
        Ok(())
    } else {
        Err(Rejection::StaleFence {
            reported,
            current: attempt.fence,
        })
    }
}

/// What a retry brings of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryRequest {
    /// The tags of the new build; the original's if there are none.
    pub tags: Option<Vec<Tag>>,
    /// The ids for which the request brings values.
    pub secret_ids: BTreeSet<SecretId>,
    /// Registries that the request brings credentials for: host and kind. There may be more of them
    /// than the original had: that it had none may be why it failed.
    pub registry_auth: BTreeMap<String, String>,
}

/// The request of a new build that repeats the finished build `of`, which is in `state`.
///
/// # Errors
/// [`Rejection::NotRequested`], [`Rejection::NotFinished`], [`Rejection::SecretsDiffer`] or
/// [`Rejection::CredentialsMissing`].
pub fn retry(of: &BuildId, state: &Build, request: RetryRequest) -> Result<Requested, Rejection> {
    let accepted = state.accepted().ok_or(Rejection::NotRequested)?;
    if !state.is_terminal() {
        return Err(Rejection::NotFinished);
    }
    let wanted = state.secret_ids();
    let missing: BTreeSet<_> = wanted.difference(&request.secret_ids).cloned().collect();
    let extra: BTreeSet<_> = request.secret_ids.difference(&wanted).cloned().collect();
    if !missing.is_empty() || !extra.is_empty() {
        return Err(Rejection::SecretsDiffer { missing, extra });
    }
    let hosts: BTreeSet<_> = accepted
        .requested
        .registry_auth
        .keys()
        .filter(|host| !request.registry_auth.contains_key(*host))
        .cloned()
        .collect();
    if !hosts.is_empty() {
        return Err(Rejection::CredentialsMissing { hosts });
    }
    let first = accepted
        .requested
        .retry_of
        .as_ref()
        .map_or(of, |earlier| &earlier.original);
    let retry_of = Some(RetryOf {
        build: of.clone(),
        original: first.clone(),
    });
    let mut requested = Requested {
        retry_of,
        registry_auth: request.registry_auth,
        ..(*accepted.requested).clone()
    };
    (requested.idempotency_key, requested.request_digest) = (None, None);
    // It brings no files: all of them are there.
    requested.arrivals = None;
    if let Some(tags) = request.tags {
        requested.tags = tags;
    }
    Ok(requested)
}
