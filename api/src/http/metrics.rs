//! `GET /metrics`: figures about the service, for whoever has a key.

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_TYPE;

use super::error::ApiError;
use crate::service::{App, metrics};

/// The figures.
///
/// # Errors
/// [`ApiError::Internal`].
pub fn get(app: &App) -> Result<HttpResponse, ApiError> {
    let text = app.metrics.text().map_err(ApiError::internal)?;
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, metrics::CONTENT_TYPE))
        .body(text))
}
