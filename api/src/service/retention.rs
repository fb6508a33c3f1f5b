//! Artifacts go when no tag has pointed to their builds for long enough.
//!
//! First the template's stream says so, at the version at which no tag pointed to the build: whoever
//! assigns a tag at the same time wins or is refused. The files go after that, and only if no other
//! build needs the same artifact; what a crash left between the two goes at the next start.

use std::collections::BTreeSet;
use std::time::Duration;

use commands::DispatchError;
use domain::causes::chain;
use domain::ids::ArtifactId;
use domain::template::{Command, Rejection};
use tokio_util::sync::CancellationToken;

use super::App;
use super::cache::{CacheError, Stays};
use crate::http::error::ApiError;
use crate::wire::cache::Removed;

/// What is to be done about the build that has been without a tag for the longest time.
#[derive(Debug)]
enum Next {
    /// It has expired, and its artifact may go.
    Expired(ArtifactId),
    /// It expires after this time, unless something happens.
    In(Duration),
    /// There is none, or the views do not show yet what became of it.
    Nothing,
}

/// Lets artifacts expire until `stop`. Wakes at the next expiry and when something happens.
pub async fn follow(app: &App, stop: &CancellationToken) {
    let mut leaving = left_behind(app).await;
    while !stop.is_cancelled() {
        let seen = app.views.applied();
        remove(app, &mut leaving).await;
        let wait = match next(app).await {
            Ok(Next::Expired(artifact)) => {
                leaving.insert(artifact);
                continue;
            }
            Ok(Next::In(wait)) => Some(wait),
            Ok(Next::Nothing) => None,
            Err(error) => {
                tracing::warn!(error = chain(&error), "an artifact could not expire");
                None
            }
        };
        let due = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = due => {}
            changed = app.views.changed(seen) => if changed.is_err() {
                return;
            },
        }
    }
}

/// Removes what nobody needs, at an interval, until `stop`: uploaded files, at once as well, and
/// artifacts whose templates were deleted.
pub async fn collect(app: &App, stop: &CancellationToken) {
    let interval = app.config.retention.files_interval();
    loop {
        tell_removed("uploaded files", app.desk.collect_files(false).await);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        tell_removed("artifacts", app.desk.collect_artifacts(false).await);
    }
}

fn tell_removed(what: &str, gone: Result<Vec<Removed>, CacheError>) {
    match gone {
        Ok(gone) if gone.is_empty() => {}
        Ok(gone) => {
            let freed_bytes: u64 = gone.iter().map(|one| one.bytes).sum();
            tracing::info!(count = gone.len(), freed_bytes, "removed {what}");
        }
        Err(error) => tracing::warn!(error = chain(&error), "{what} stay for now"),
    }
}

async fn next(app: &App) -> Result<Next, ApiError> {
    let Some(first) = app.views.longest_untagged()? else {
        return Ok(Next::Nothing);
    };
    let Some(expires_at) = app.config.retention.expires_at(first.since) else {
        return Ok(Next::Nothing);
    };
    let left_ms = expires_at.millis_since(app.clock.0.now());
    if left_ms > 0 {
        return Ok(Next::In(Duration::from_millis(left_ms)));
    }
    let template = app.views.template(&first.template_id)?;
    let build = app.views.build(&first.build_id)?;
    let artifact = build.and_then(|build| build.artifact);
    let (Some(template), Some(artifact)) = (template, artifact) else {
        return Ok(Next::Nothing);
    };
    // Between the two reads it may have got a tag, and the version is that one's.
    if !template.untagged.contains_key(&first.build_id) {
        return Ok(Next::Nothing);
    }
    let command = Command::ExpireArtifact {
        build: first.build_id.clone(),
        artifact: artifact.clone(),
        seen: template.version,
    };
    let dispatched = app
        .dispatcher
        .template(&template.id, app.operator(), command);
    match dispatched.await {
        // Said before: the views are about to show it.
        Ok(done) if done.appended.is_none() => Ok(Next::Nothing),
        Ok(done) => {
            app.shown(done.appended).await?;
            tracing::info!(
                build.id = %first.build_id,
                artifact.id = %artifact,
                "an artifact has expired"
            );
            Ok(Next::Expired(artifact))
        }
        // The views are about to show what was done to the template.
        Err(DispatchError::Rejected(Rejection::Changed | Rejection::Deleted)) => Ok(Next::Nothing),
        Err(error) => Err(super::accept::dispatch_error(error)),
    }
}

/// Removes the files of expired artifacts. What stays in `leaving` is in use for now.
async fn remove(app: &App, leaving: &mut BTreeSet<ArtifactId>) {
    for id in std::mem::take(leaving) {
        match app.desk.remove_artifact(&id).await {
            Ok(Ok(())) => tracing::info!(artifact.id = %id, "removed an expired artifact"),
            // Another build needs it, or it has gone.
            Ok(Err(Stays::Needed(_) | Stays::Unknown)) => {}
            Ok(Err(Stays::InUse)) => drop(leaving.insert(id)),
            Err(error) => {
                tracing::warn!(artifact.id = %id, error = chain(&error), "an expired artifact stays");
                leaving.insert(id);
            }
        }
    }
}

/// Artifacts that have expired, and whose files are still there.
async fn left_behind(app: &App) -> BTreeSet<ArtifactId> {
    app.desk
        .expired_artifacts()
        .await
        .unwrap_or_else(|error: CacheError| {
            tracing::warn!(
                error = chain(&error),
                "expired artifacts stay until they are collected"
            );
            BTreeSet::new()
        })
}
