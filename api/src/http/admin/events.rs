//! What operators ask of the log as a whole.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use domain::ports::EventReader as _;
use domain::recorded::Position;

use crate::http::error::ApiError;
use crate::http::query::Parameters;
use crate::http::reply;
use crate::limits::TAIL_WAIT_SECS_MAX;
use crate::service::App;
use crate::service::audit::{self, AuditError, Wanted};
use crate::wire::position::WirePosition;

/// Answers below `/admin/events`.
///
/// # Errors
/// [`ApiError`]
pub(super) async fn answer(
    method: &str,
    segments: &[&str],
    parameters: &Parameters,
    app: &App,
) -> Result<HttpResponse, ApiError> {
    match (method, segments) {
        ("GET", []) => tail(parameters, app).await,
        ("POST", ["verify"]) => {
            let _room = room(app)?;
            let verified = audit::verify(&app.log).await.map_err(refused)?;
            reply::json(StatusCode::OK, &verified)
        }
        ("POST", ["replay"]) => {
            let _room = room(app)?;
            let folder = app.config.data_dir.replay();
            let replayed = audit::replay(&app.log, &app.views, &folder).await;
            reply::json(StatusCode::OK, &replayed.map_err(refused)?)
        }
        ("GET", ["export", build]) => {
            let from = parameters.number("from")?.unwrap_or(0);
            let page = audit::export_page(&app.log, build, from).await;
            reply::json(StatusCode::OK, &page.map_err(refused)?)
        }
        _ => Err(ApiError::RouteNotFound),
    }
}

/// The log is looked at as a whole by one command at a time.
fn room(app: &App) -> Result<tokio::sync::SemaphorePermit<'_>, ApiError> {
    app.audits
        .try_acquire()
        .map_err(|_| ApiError::Busy("another command looks at the whole log already"))
}

/// Events behind a position; on request it is waited for one.
async fn tail(parameters: &Parameters, app: &App) -> Result<HttpResponse, ApiError> {
    let wanted = Wanted::new(parameters.get("type"), parameters.get("stream")).map_err(refused)?;
    let after = match parameters.get("after") {
        None => Position::START,
        Some("end") => app.log.head(),
        Some(text) => {
            let parsed = text.parse().map_err(AuditError::Position);
            parsed
                .map(|WirePosition(position)| position)
                .map_err(refused)?
        }
    };
    let mut is_stopping = false;
    if parameters.switch("wait")? {
        let patience = Duration::from_secs(TAIL_WAIT_SECS_MAX);
        tokio::select! {
            behind = app.log.wait_behind(after) => behind?,
            () = tokio::time::sleep(patience) => {}
            () = app.stopping.cancelled() => is_stopping = true,
        }
    }
    let page = audit::page(&app.log, &wanted, after).await;
    let mut page = page.map_err(refused)?;
    page.is_stopping = is_stopping;
    reply::json(StatusCode::OK, &page)
}

fn refused(err: AuditError) -> ApiError {
    match err {
        AuditError::Invalid(_) | AuditError::Position(_) | AuditError::UnknownType(_) => {
            ApiError::BadRequest(err.to_string())
        }
        AuditError::UnknownBuild(build) => ApiError::BuildNotFound(build.to_string()),
        AuditError::Log(err) => ApiError::unavailable("the event log cannot be read", err),
        err @ (AuditError::NoText(_)
        | AuditError::Json(_)
        | AuditError::Replay(_)
        | AuditError::Folder(_)) => ApiError::internal(err),
    }
}
