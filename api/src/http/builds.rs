//! Builds: asking for one, looking at it, stopping it.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use domain::build::Command;
use domain::ids::BuildId;
use projections::Views;
use projections::builds::BuildRow;
use projections::templates::TemplateRow;

use super::body::{Body, Json};
use super::error::ApiError;
use super::query::Parameters;
use super::{logs, reply, terms};
use crate::normalise::{self, BuildRequest};
use crate::service::accept::{accept, accept_retry, dispatch_error};
use crate::service::keys::Caller;
use crate::service::once::{Accepted, Terms};
use crate::service::{App, past, present};
use crate::wire::build::StatusSnapshot;

/// The longest reason for a cancellation that is kept.
const REASON_BYTES_MAX: usize = 1000;

/// `POST /v1/templates/build`: builds, and streams the log. What is wrong with the request is said
/// before the stream begins; a client that goes away does not stop the build.
///
/// # Errors
/// [`ApiError`]; nothing was accepted then.
pub async fn build(
    app: &Arc<App>,
    caller: Caller,
    terms: Terms,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    // Before the build is accepted: a build whose log cannot be streamed would be lost to its
    // caller.
    let room = logs::room(app)?;
    let request = read_request(app, &caller, body).await?;
    let accepted = accept(app, caller, request, terms).await?;
    let mut response = logs::stream(app, accepted.row.clone(), 0, true, room);
    terms::mark(&mut response, &accepted);
    Ok(response)
}

/// `POST /v1/templates/builds`: builds in the background.
///
/// # Errors
/// [`ApiError`]; nothing was accepted then, except after [`ApiError::NotVisibleYet`].
pub async fn start(
    app: &Arc<App>,
    caller: Caller,
    terms: Terms,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    let request = read_request(app, &caller, body).await?;
    let accepted = accept(app, caller, request, terms).await?;
    answer(app, &accepted)
}

/// The answer to whoever started a build.
fn answer(app: &App, accepted: &Accepted) -> Result<HttpResponse, ApiError> {
    let template = template_of(app, &accepted.row)?;
    let build = present::build(&accepted.row, template.as_ref(), &app.config.retention);
    let mut response = reply::json(StatusCode::ACCEPTED, &build)?;
    terms::mark(&mut response, accepted);
    Ok(response)
}

pub(super) async fn read_request(
    app: &Arc<App>,
    caller: &Caller,
    body: &mut Body,
) -> Result<BuildRequest, ApiError> {
    let json = body.json(app.config.limits.json_body_bytes_max).await?;
    let Some(json) = json else {
        return Err(ApiError::field("", "is empty; a JSON object is expected"));
    };
    let (app, owner) = (Arc::clone(app), caller.owner.clone());
    // Inlined files are decoded here, which takes a while.
    let reading = tokio::task::spawn_blocking(move || {
        let bounds = normalise::Bounds {
            limits: &app.config.limits,
            executor: &app.config.executor,
        };
        normalise::build_request(&json, &owner, bounds)
    });
    Ok(reading.await??)
}

/// `GET /v1/templates/builds/{id}`: the build, and its log from an offset; as they were, if the
/// caller says when.
///
/// # Errors
/// [`ApiError::BuildNotFound`], also if it is somebody else's, or was not asked for yet.
pub async fn status(
    app: &Arc<App>,
    caller: &Caller,
    id: &str,
    parameters: &Parameters,
) -> Result<HttpResponse, ApiError> {
    let offset = parameters.number("offset")?.unwrap_or(0);
    let row = own(app, caller, id)?;
    let views = match parameters.get("at") {
        None => app.views.clone(),
        Some(at) => past::of_build(app, &row, past::position(app, at).await?).await?,
    };
    snapshot(app, views, row.build_id, offset).await
}

/// The answer with the build and all of its log from `offset`, as `views` show them.
async fn snapshot(
    app: &Arc<App>,
    views: Views,
    id: BuildId,
    offset: u64,
) -> Result<HttpResponse, ApiError> {
    let app = Arc::clone(app);
    // A long log is read from the disk, and written as JSON.
    let answering = tokio::task::spawn_blocking(move || {
        let found = views.status_snapshot(&id, offset)?;
        let found = found.ok_or_else(|| ApiError::BuildNotFound(id.to_string()))?;
        let template = views.template(&found.build.template_id)?;
        let snapshot = StatusSnapshot {
            build: present::build(&found.build, template.as_ref(), &app.config.retention),
            entries: found
                .entries
                .into_iter()
                .map(|entry| present::entry(&found.build, template.as_ref(), entry))
                .collect(),
            next_offset: found.next_offset,
        };
        crate::wire::ascii::to_vec(&snapshot).map_err(ApiError::internal)
    });
    Ok(reply::json_bytes(StatusCode::OK, answering.await??))
}

/// `POST /v1/templates/builds/{id}/cancel`: stops the build; one that has ended stays as it is.
///
/// # Errors
/// [`ApiError::BuildNotFound`], also if it is somebody else's.
pub async fn cancel(
    app: &Arc<App>,
    caller: &Caller,
    id: &str,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    let json = body.json(app.config.limits.json_body_bytes_max).await?;
    let id = own(app, caller, id)?.build_id;
    let reason = match json.as_ref().and_then(|json| json.get("reason")) {
        None | Some(serde_json::Value::Null) => None,
        Some(serde_json::Value::String(text)) => {
            Some(text.chars().take(REASON_BYTES_MAX).collect())
        }
        Some(_) => return Err(ApiError::field("reason", "must be a string")),
    };
    let command = Command::Cancel {
        by: caller.owner.to_string(),
        reason,
    };
    let done = app
        .dispatcher
        .build(&id, app.meta(caller), command)
        .await
        .map_err(dispatch_error)?;
    if let Some(appended) = done.appended {
        let visible = app.views.wait_for(appended.position, app.read_your_write());
        visible
            .await
            .map_err(|stalled| ApiError::unavailable("the views are behind", stalled))?;
    }
    snapshot(app, app.views.clone(), id, 0).await
}

/// `POST /v1/templates/builds/{id}/retry`: builds the stored definition of a finished build again,
/// as a new build.
///
/// # Errors
/// [`ApiError::BuildNotFound`], also if it is somebody else's; [`ApiError::Transition`] while it
/// is not finished; [`ApiError`] for a request that brings other secrets than the original's.
pub async fn retry(
    app: &Arc<App>,
    caller: Caller,
    id: &str,
    terms: Terms,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    let json = body.json(app.config.limits.json_body_bytes_max).await?;
    let id = own(app, &caller, id)?.build_id;
    let json = json.unwrap_or_else(Json::empty);
    let limits = app.config.limits.clone();
    let reading = tokio::task::spawn_blocking(move || normalise::retry_request(&json, &limits));
    let accepted = accept_retry(app, caller, id, reading.await??, terms).await?;
    answer(app, &accepted)
}

/// The caller's own build with this id.
///
/// # Errors
/// [`ApiError::BuildNotFound`]: somebody else's build is told apart from none by nobody.
pub fn own(app: &App, caller: &Caller, id: &str) -> Result<BuildRow, ApiError> {
    let unknown = || ApiError::BuildNotFound(id.chars().take(80).collect());
    let build_id: BuildId = id.parse().map_err(|_| unknown())?;
    let row = app.views.build(&build_id)?;
    row.filter(|row| row.owner == caller.owner)
        .ok_or_else(unknown)
}

/// The template of a build.
///
/// # Errors
/// [`ApiError::Unavailable`] if the views cannot be read.
pub fn template_of(app: &App, row: &BuildRow) -> Result<Option<TemplateRow>, ApiError> {
    Ok(app.views.template(&row.template_id)?)
}
