//! Who calls: a bearer key.

use actix_web::http::header::{AUTHORIZATION, HeaderMap};

use super::error::ApiError;
use crate::limits::Limits;
use crate::service::keys::{Caller, KeyTable};

/// The caller of a request.
///
/// # Errors
/// [`ApiError::Unauthorized`] if there is no key, or one that opens nothing.
pub fn caller(headers: &HeaderMap, keys: &KeyTable, limits: &Limits) -> Result<Caller, ApiError> {
    const MISSING: ApiError = ApiError::Unauthorized("an API key is required");
    let value = headers.get(AUTHORIZATION).ok_or(MISSING)?;
    if value.len() > limits.key_bytes_max {
        return Err(ApiError::Unauthorized("the API key is not valid"));
    }
    let text = value.to_str().map_err(|_| MISSING)?;
    let key = text
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim())
        .filter(|key| !key.is_empty())
        .ok_or(MISSING)?;
    keys.find(key)
        .ok_or(ApiError::Unauthorized("the API key is not valid"))
}
