//! Requests that are only looked at: whether they would be accepted, and what they would build.
//! Nothing is recorded, and no file is kept.

mod body;

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;

use super::body::Body;
use super::error::ApiError;
use super::reply;
use crate::service::App;
use crate::service::inspect::{self, Inspection};
use crate::service::keys::Caller;
use crate::wire::plan::{Validation, ValidationError};
use body::Inspected;

/// `POST /v1/templates/validate`: whether a request would be accepted, and why not.
///
/// # Errors
/// [`ApiError`] for a body that is no JSON object or too large, and when it cannot be found out.
pub async fn validate(
    app: &Arc<App>,
    caller: &Caller,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    let read = body::read(body, app).await?;
    if !read.json.is_object() {
        return Err(ApiError::field("", "must be an object"));
    }
    let validation = match look(app, caller, read).await {
        Ok(inspection) => Validation {
            valid: true,
            errors: Vec::new(),
            warnings: inspection.remarks(),
        },
        Err(refusal) => Validation {
            valid: false,
            errors: errors(refusal)?,
            warnings: Vec::new(),
        },
    };
    reply::json(StatusCode::OK, &validation)
}

/// `POST /v1/templates/plan`: what a request would build.
///
/// # Errors
/// [`ApiError`], as a build would be refused.
pub async fn plan(
    app: &Arc<App>,
    caller: &Caller,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    let read = body::read(body, app).await?;
    let inspection = look(app, caller, read).await?;
    reply::json(StatusCode::OK, &inspection.plan()?)
}

async fn look(app: &Arc<App>, caller: &Caller, read: Inspected) -> Result<Inspection, ApiError> {
    inspect::inspect(app, caller, read.json, &read.contents).await
}

/// What is wrong with a request.
///
/// # Errors
/// The refusal itself, if it says nothing about the request.
fn errors(refusal: ApiError) -> Result<Vec<ValidationError>, ApiError> {
    let code = refusal.code();
    if let ApiError::Invalid { problems, total } = refusal {
        let more = total.saturating_sub(problems.len());
        let mut errors: Vec<ValidationError> = problems
            .into_iter()
            .map(|problem| ValidationError {
                code,
                message: format!("{}: {}", problem.field, problem.message),
                field: Some(problem.field),
            })
            .collect();
        if more > 0 {
            errors.push(ValidationError {
                code,
                message: format!("{more} more fields are wrong"),
                field: None,
            });
        }
        return Ok(errors);
    }
    if !refusal.is_about_the_request() {
        return Err(refusal);
    }
    Ok(vec![ValidationError {
        code,
        message: refusal.to_string(),
        field: None,
    }])
}
