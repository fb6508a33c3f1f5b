//! Answers.

use std::convert::Infallible;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::Bytes;
use actix_web::{HttpResponse, HttpResponseBuilder};
use futures_util::Stream;
use serde::Serialize;

use super::error::ApiError;
use crate::wire::ascii;

/// `value` as JSON.
///
/// # Errors
/// [`ApiError::Internal`] if it has no JSON form, which is a defect.
pub fn json<T: Serialize + ?Sized>(
    status: StatusCode,
    value: &T,
) -> Result<HttpResponse, ApiError> {
    let bytes = ascii::to_vec(value).map_err(ApiError::internal)?;
    Ok(json_bytes(status, bytes))
}

/// JSON that was written elsewhere.
pub fn json_bytes(status: StatusCode, bytes: Vec<u8>) -> HttpResponse {
    HttpResponseBuilder::new(status)
        .insert_header((CONTENT_TYPE, "application/json"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(bytes)
}

/// A stream of server-sent events, which `pieces` holds as they are sent.
pub fn event_stream(
    pieces: impl Stream<Item = Result<Bytes, Infallible>> + 'static,
) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(pieces)
}

/// Nothing to say.
pub fn no_content() -> HttpResponse {
    HttpResponse::NoContent().finish()
}
