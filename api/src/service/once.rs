//! Requests that may be about a build that is there: the same again by its idempotency key, or the very
//! same definition while it is being built.
//!
//! What happened before is in the log. A turn is held from the look at it to the request's own event, and
//! the look waits until the views show the whole log: so of two such requests at once, one builds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use domain::build::{Build, Requested};
use domain::digest::Digest;
use domain::name::{Owner, TemplateName, TemplateRef};
use projections::builds::{BuildFilter, BuildRow};
use tokio::sync::OwnedMutexGuard;

use super::App;
use super::accept::dispatch_error;
use super::keys::Caller;
use crate::http::error::ApiError;

/// Builds of a template that are looked at for one under way, the newest first.
const LOOKED_AT_COUNT_MAX: usize = 50;

/// What a request says about the build that it wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Requests with the same key and the same content are about the same build.
    pub key: Option<String>,
    /// A build under way of the same definition will do. Means nothing beside a key, and for requests
    /// with secret values.
    pub joins: bool,
}

/// A build for a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The build.
    pub row: BuildRow,
    /// How it came about.
    pub way: Way,
}

/// How the build of a request came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The request made it.
    New,
    /// An earlier request with the same key made it.
    Replayed,
    /// It was under way for another request.
    Joined,
}

/// An idempotency key and what was asked for with it.
#[derive(Clone, Debug)]
pub(super) struct Keyed {
    pub(super) key: String,
    pub(super) digest: Digest,
}

/// What requests take turns for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Key(Owner, String),
    Flight(Owner, TemplateName),
}

/// Lets one request at a time through for each key and for each name that is joined.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Mutex<HashMap<Subject, Weak<tokio::sync::Mutex<()>>>>>);

/// A request's turn. Dropped when its build is recorded, or will never be.
pub(super) type Turn = OwnedMutexGuard<()>;

impl Turns {
    async fn take(&self, subject: Subject) -> Turn {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(&subject).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::default();
                turns.insert(subject, Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }

    /// How many requests have a turn or wait for one, each subject once.
    #[cfg(test)]
    pub(crate) fn open_count(&self) -> usize {
        let turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns
            .values()
            .filter(|turn| turn.strong_count() > 0)
            .count()
    }
}

/// The turn of a request with a key, or the build that an earlier one made.
///
/// # Errors
/// [`ApiError::Conflict`] if the earlier one asked for something else; [`ApiError::Unavailable`] if it
/// cannot be known now.
pub(super) async fn first(
    app: &App,
    caller: &Caller,
    keyed: &Keyed,
) -> Result<Result<Turn, Accepted>, ApiError> {
    let subject = Subject::Key(caller.owner.clone(), keyed.key.clone());
    let turn = app.turns.take(subject).await;
    app.shown(None).await?;
    let earlier = app.views.keyed_request(&caller.owner, &keyed.key)?;
    let kept_ms = app.config.limits.idempotency_secs.saturating_mul(1000);
    let now = app.clock.0.now();
    let Some(earlier) = earlier.filter(|earlier| now.millis_since(earlier.at) < kept_ms) else {
        return Ok(Ok(turn));
    };
    if earlier.request_digest != keyed.digest {
        return Err(ApiError::Conflict(format!(
            "the idempotency key `{}` belongs to another request, which made the build `{}`: a new \
             request needs a new key",
            keyed.key, earlier.build_id
        )));
    }
    let row = app.views.build(&earlier.build_id)?;
    let row = row.ok_or(ApiError::NotVisibleYet(earlier.build_id))?;
    let way = Way::Replayed;
    Ok(Err(Accepted { row, way }))
}

/// The turn of a request that would join a build of the same name.
///
/// # Errors
/// [`ApiError::Unavailable`] if it cannot be known now which builds are under way.
pub(super) async fn flight(
    app: &App,
    caller: &Caller,
    name: &TemplateName,
) -> Result<Turn, ApiError> {
    let subject = Subject::Flight(caller.owner.clone(), name.clone());
    let turn = app.turns.take(subject).await;
    app.shown(None).await?;
    Ok(turn)
}

/// A build under way of the same owner that is what `requested` would be.
///
/// # Errors
/// [`ApiError::Unavailable`] if the views or the log cannot be read.
pub(super) async fn under_way(
    app: &App,
    caller: &Caller,
    requested: &Requested,
) -> Result<Option<BuildRow>, ApiError> {
    let reference = TemplateRef::Named {
        namespace: Some(requested.namespace.clone()),
        name: requested.name.clone(),
        qualifier: None,
    };
    let Some(template) = app.views.find(&caller.owner, &reference)? else {
        return Ok(None);
    };
    let filter = BuildFilter {
        owner: Some(caller.owner.clone()),
        backend: Some(requested.backend),
        ..BuildFilter::default()
    };
    let page = app
        .views
        .builds_of_template(&template.id, &filter, None, LOOKED_AT_COUNT_MAX)?;
    let may_be_it = |row: &BuildRow| {
        !row.status.is_terminal()
            && row.cancel.is_none()
            && row.source_digest == requested.definition_digest
            && row.name == requested.name
            && row.tags == requested.tags
    };
    for row in page.items.into_iter().filter(may_be_it) {
        let (state, _) = app
            .dispatcher
            .load_build(&row.build_id)
            .await
            .map_err(dispatch_error)?;
        if is_open(&state)
            && state
                .accepted()
                .is_some_and(|it| is_same(&it.requested, requested))
        {
            return Ok(Some(row));
        }
    }
    Ok(None)
}

/// Whether it may still become ready: what the view shows may be over in the log.
fn is_open(state: &Build) -> bool {
    matches!(state, Build::Waiting(_) | Build::Building(..))
}

/// Whether one build is as good as the other: the same definition on the same base, without anything that
/// only one of the two callers may know.
fn is_same(one: &Requested, other: &Requested) -> bool {
    one.definition == other.definition
        && one.base == other.base
        && one.registry_auth.is_empty()
        && other.registry_auth.is_empty()
        && one.definition.secret_ids.is_empty()
}
