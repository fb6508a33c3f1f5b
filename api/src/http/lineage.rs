//! What became of builds: their lines of retries, and where their time went.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;

use super::error::ApiError;
use super::{builds, reply};
use crate::service::actors::Labels;
use crate::service::keys::Caller;
use crate::service::{App, present};
use crate::wire::ascii;

/// `GET /v1/templates/builds/{id}/lineage`: the build, those that it repeats and those that repeat
/// it or one of them.
///
/// # Errors
/// [`ApiError::BuildNotFound`], also if it is somebody else's.
pub async fn get(app: &Arc<App>, caller: &Caller, id: &str) -> Result<HttpResponse, ApiError> {
    let asked = builds::own(app, caller, id)?;
    let labels = Labels::of(app, &caller.owner).await?;
    let app = Arc::clone(app);
    let answering = tokio::task::spawn_blocking(move || {
        let id = asked.build_id.clone();
        let line = app.views.lineage(asked)?;
        ascii::to_vec(&present::lineage(&line, &id, &labels)).map_err(ApiError::internal)
    });
    Ok(reply::json_bytes(StatusCode::OK, answering.await??))
}

/// `GET /v1/templates/builds/{id}/timeline`: what the build spent its time with, up to now if it is
/// not over.
///
/// # Errors
/// [`ApiError::BuildNotFound`], also if it is somebody else's.
pub async fn timeline(app: &Arc<App>, caller: &Caller, id: &str) -> Result<HttpResponse, ApiError> {
    let row = builds::own(app, caller, id)?;
    let app = Arc::clone(app);
    let answering = tokio::task::spawn_blocking(move || {
        let outline = app.views.outline(&row)?;
        let timeline = present::timeline(&row, &outline, app.clock.0.now());
        ascii::to_vec(&timeline).map_err(ApiError::internal)
    });
    Ok(reply::json_bytes(StatusCode::OK, answering.await??))
}
