//! Names that are kept for a while for templates that are yet to be made.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;

use super::body::Body;
use super::error::ApiError;
use super::reply;
use crate::normalise;
use crate::service::keys::Caller;
use crate::service::{App, claims};
use crate::wire::template::NameClaim;

/// `POST /v1/templates/claims`: keeps a name of the caller's namespace.
///
/// # Errors
/// [`ApiError::Conflict`] if the name is taken or kept already.
pub async fn reserve(
    app: &App,
    caller: &Caller,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    let limits = &app.config.limits;
    let json = body.required_json(limits.json_body_bytes_max).await?;
    let name = normalise::reserved_name(&json, &caller.namespace, limits)?;
    let reserved = claims::reserve(app, caller, name).await?;
    let claim = NameClaim {
        claim_token: reserved.token.reveal().to_owned(),
        canonical_ref: format!("{}/{}", reserved.namespace, reserved.name),
        expires_at: reserved.expires_at.to_string(),
    };
    reply::json(StatusCode::CREATED, &claim)
}

/// `DELETE /v1/templates/claims/{claim_token}`
///
/// # Errors
/// [`ApiError::ClaimNotFound`].
pub async fn release(app: &App, caller: &Caller, token: &str) -> Result<HttpResponse, ApiError> {
    claims::release(app, caller, token).await?;
    Ok(reply::no_content())
}
