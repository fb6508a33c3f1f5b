//! Moving tags to a build.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use projections::builds::{BuildRow, BuildStatus};
use projections::templates::TemplateRow;

use super::body::Body;
use super::error::ApiError;
use super::{builds, reply};
use crate::normalise;
use crate::service::keys::Caller;
use crate::service::{App, present, templates};

/// `POST /v1/templates/builds/{id}/promote`: points tags to a build that is ready, and answers with
/// its template.
///
/// # Errors
/// [`ApiError::BuildNotFound`], also if it is somebody else's; [`ApiError::Transition`] if it is not
/// ready, or its template was deleted; [`ApiError::Conflict`] if that happens at the same time.
pub async fn promote(
    app: &App,
    caller: &Caller,
    id: &str,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    let limits = &app.config.limits;
    let json = body.required_json(limits.json_body_bytes_max).await?;
    let build = builds::own(app, caller, id)?;
    let tags = normalise::promoted_tags(&json, limits)?;
    check_ready(&build)?;
    let template = live_template(app, &build)?;
    templates::assign(app, caller, &template, build.build_id.clone(), tags).await?;
    // Somebody may have deleted it since: the tags were moved all the same.
    let template = builds::template_of(app, &build)?.unwrap_or(template);
    reply::json(StatusCode::OK, &present::template(&template, Some(&build)))
}

fn check_ready(build: &BuildRow) -> Result<(), ApiError> {
    if build.status == BuildStatus::Ready {
        return Ok(());
    }
    let (id, status) = (&build.build_id, build.status.as_str());
    Err(ApiError::Transition(format!(
        "tags move to builds that are ready; the build `{id}` is `{status}`"
    )))
}

fn live_template(app: &App, build: &BuildRow) -> Result<TemplateRow, ApiError> {
    let template = builds::template_of(app, build)?;
    let there = template.filter(|template| template.deleted_at.is_none());
    there.ok_or_else(|| {
        let id = &build.build_id;
        ApiError::Transition(format!("the template of the build `{id}` was deleted"))
    })
}
