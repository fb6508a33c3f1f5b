//! `POST /v1/templates`: builds, and answers when the build is over. Published, and deprecated: no
//! sign of life can be given meanwhile.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use domain::ids::BuildId;
use projections::builds::{BuildRow, BuildStatus};

use super::body::Body;
use super::error::ApiError;
use super::{builds, logs, reply};
use crate::service::accept::accept;
use crate::service::keys::Caller;
use crate::service::once::Terms;
use crate::service::{App, present};

/// Builds, and answers with the template. A client that goes away does not stop the build.
///
/// # Errors
/// [`ApiError::BuildFailed`] with what a log's `error` entry says, [`ApiError::Transition`] if the
/// build was cancelled, [`ApiError::NotOver`] if it takes too long: it goes on then. Whatever is
/// wrong with the request; nothing was accepted then.
pub async fn create(
    app: &Arc<App>,
    caller: Caller,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    // It is held as long as a stream is.
    let _room = logs::room(app)?;
    let request = builds::read_request(app, &caller, body).await?;
    let accepted = accept(app, caller, request, Terms::default()).await?;
    let row = over(app, &accepted.row.build_id).await?;
    match (row.status, &row.failure) {
        (BuildStatus::Error, Some(failure)) => Err(ApiError::BuildFailed {
            failure: Box::new(present::failure_of(&row, failure)),
            build: row.build_id,
        }),
        (BuildStatus::Ready, _) => {
            let template = builds::template_of(app, &row)?;
            reply::json(
                StatusCode::CREATED,
                &present::result(&row, template.as_ref()),
            )
        }
        (BuildStatus::Cancelled, _) => Err(ApiError::Transition(format!(
            "the build `{}` was cancelled",
            row.build_id
        ))),
        (status @ (BuildStatus::Waiting | BuildStatus::Building | BuildStatus::Error), _) => {
            let what = format!("a build that is over is `{}`", status.as_str());
            Err(ApiError::internal(what))
        }
    }
}

/// The build when it is over.
async fn over(app: &App, id: &BuildId) -> Result<BuildRow, ApiError> {
    let patience = Duration::from_secs(app.config.limits.blocking_build_secs_max);
    let not_over = |why| ApiError::NotOver {
        build: id.clone(),
        why,
    };
    let waiting = async {
        loop {
            // Before the look: what is committed meanwhile ends the wait at once.
            let seen = app.views.applied();
            // No row: the views are being folded anew, and it comes back.
            if let Some(row) = app.views.build(id)?
                && row.status.is_terminal()
            {
                return Ok(row);
            }
            let changed = app.views.changed(seen).await;
            changed.map_err(|err| ApiError::unavailable("the views have stopped", err))?;
        }
    };
    tokio::select! {
        waited = tokio::time::timeout(patience, waiting) => waited.unwrap_or_else(|_| {
            Err(not_over(format!("it is not over after {} s", patience.as_secs())))
        }),
        () = app.stopping.cancelled() => Err(not_over("the service stops".to_owned())),
    }
}
