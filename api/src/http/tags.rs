//! The tags of a template: where they point, and moving them by hand.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;

use super::body::Body;
use super::error::ApiError;
use super::{reply, templates as handlers};
use crate::normalise;
use crate::service::keys::Caller;
use crate::service::{App, templates};
use crate::wire::template::TagInfo;

/// `GET …/tags`: the tags as a bare array, by name.
///
/// # Errors
/// [`ApiError::TemplateNotFound`]; [`ApiError::Forbidden`] for a builtin template.
pub fn list(app: &App, caller: &Caller, reference: &str) -> Result<HttpResponse, ApiError> {
    let row = templates::seen(app, caller, reference)?;
    let tags = row.tags.iter().map(|(tag, to)| TagInfo {
        tag: tag.to_string(),
        build_id: to.build_id.to_string(),
        created_at: to.since.to_string(),
    });
    reply::json(StatusCode::OK, &tags.collect::<Vec<_>>())
}

/// `POST …/tags`: points tags to the build that the reference means.
///
/// # Errors
/// [`ApiError::TemplateNotFound`], [`ApiError::Forbidden`] or [`ApiError::Invalid`];
/// [`ApiError::Transition`] if the build is not ready.
pub async fn assign(
    app: &App,
    caller: &Caller,
    reference: &str,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    let limits = &app.config.limits;
    let json = body.required_json(limits.json_body_bytes_max).await?;
    let (row, build) = templates::own_build(app, caller, reference)?;
    let tags = normalise::tags(&json, limits)?;
    templates::assign(app, caller, &row, build, tags).await?;
    handlers::changed(app, &row.id)
}

/// `DELETE …/tags/{tag}`
///
/// # Errors
/// [`ApiError::TemplateNotFound`] or [`ApiError::Forbidden`]; [`ApiError::NotFound`] if the
/// template does not have the tag.
pub async fn remove(
    app: &App,
    caller: &Caller,
    reference: &str,
    tag: &str,
) -> Result<HttpResponse, ApiError> {
    let row = templates::own(app, caller, reference)?;
    templates::remove_tag(app, caller, &row, tag).await?;
    Ok(reply::no_content())
}
