//! What the headers of a request say about the build that it wants: the same one for the same key, or
//! one that is under way.

use actix_web::HttpResponse;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

use super::error::ApiError;
use crate::limits::Limits;
use crate::service::once::{Accepted, Terms, Way};

/// The header with the caller's key: <https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>.
pub const KEY: &str = "Idempotency-Key";
/// The header that says that the answer is about the build of an earlier request with the same key.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The header with what the caller would like (RFC 7240), and the answer to it.
pub const PREFER: &str = "Prefer";
const APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// The preference: a build under way of the very same definition will do.
pub const SINGLE_FLIGHT: &str = "single-flight";

/// Reads the terms of a request.
///
/// # Errors
/// [`ApiError::Invalid`], naming the header.
pub fn read(headers: &HeaderMap, limits: &Limits) -> Result<Terms, ApiError> {
    Ok(Terms {
        key: key(headers, limits)?,
        joins: headers.get_all(PREFER).any(wants_single_flight),
    })
}

fn key(headers: &HeaderMap, limits: &Limits) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(KEY);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(ApiError::field(KEY, "is given twice"));
    }
    let bytes_max = limits.idempotency_key_bytes_max;
    let text = value.to_str().unwrap_or_default();
    // The draft has a quoted string, and most clients send a bare one: both mean the same.
    let quoted = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let key = quoted.unwrap_or(text);
    let is_visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    if key.is_empty() || key.len() > bytes_max || !is_visible {
        let message = format!("must be 1 to {bytes_max} visible ASCII characters without blanks");
        return Err(ApiError::field(KEY, message));
    }
    Ok(Some(key.to_owned()))
}

/// Whether a list of preferences has it. Their parameters and others are not for us.
fn wants_single_flight(value: &HeaderValue) -> bool {
    let list = value.to_str().unwrap_or_default();
    list.split(',').any(|preference| {
        let name = preference.split([';', '=']).next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case(SINGLE_FLIGHT)
    })
}

/// Says in `response` how its build came about.
pub fn mark(response: &mut HttpResponse, accepted: &Accepted) {
    let (name, value) = match accepted.way {
        Way::New => return,
        Way::Replayed => (REPLAYED, HeaderValue::from_static("true")),
        Way::Joined => (APPLIED, HeaderValue::from_static(SINGLE_FLIGHT)),
    };
    response.headers_mut().insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(headers: &[(&'static str, &str)]) -> Result<Terms, ApiError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let value = HeaderValue::from_str(value).unwrap();
            map.append(HeaderName::from_static(name), value);
        }
        read(&map, &Limits::default())
    }

    #[test]
    fn a_key_is_a_short_visible_text_with_or_without_quotes() {
        let key = |value: &str| terms(&[("idempotency-key", value)]).map(|terms| terms.key);
        assert_eq!(key("a-1/B").unwrap().as_deref(), Some("a-1/B"));
        assert_eq!(key("\"a\"").unwrap().as_deref(), Some("a"));
        assert_eq!(
            key(&"x".repeat(255)).unwrap().map(|key| key.len()),
            Some(255)
        );
        for wrong in ["", "\"\"", "a b", "ä", &"x".repeat(256)] {
            let Err(ApiError::Invalid { problems, .. }) = key(wrong) else {
                panic!("`{wrong}` was accepted")
            };
            assert_eq!(problems[0].field, KEY);
        }
        let twice = terms(&[("idempotency-key", "a"), ("idempotency-key", "b")]);
        assert!(matches!(twice, Err(ApiError::Invalid { .. })));
        assert_eq!(terms(&[]).unwrap(), Terms::default());
    }

    #[test]
    fn single_flight_is_one_preference_among_others() {
        let joins = |value: &str| terms(&[("prefer", value)]).unwrap().joins;
        for wanted in [
            "single-flight",
            "respond-async, Single-Flight",
            "wait=10, single-flight; x=1",
        ] {
            assert!(joins(wanted), "{wanted}");
        }
        for other in ["", "respond-async", "no-single-flight", "x=single-flight"] {
            assert!(!joins(other), "{other}");
        }
    }
}
