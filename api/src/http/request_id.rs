//! The id of a request: the caller's own, if it is sane, else a new one.

use actix_web::HttpRequest;
use actix_web::http::header::{HeaderName, HeaderValue};

use crate::service::App;

/// The header that carries it, both ways.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

const BYTES_MAX: usize = 128;

/// The id of `request`.
pub fn of(request: &HttpRequest, app: &App) -> String {
    let own = request.headers().get(HEADER).map(HeaderValue::to_str);
    match own {
        Some(Ok(text)) if is_sane(text) => text.to_owned(),
        _ => {
            let id = app.ids.new_command_id();
            format!("req_{}", id.as_str().trim_start_matches("cmd_"))
        }
    }
}

fn is_sane(text: &str) -> bool {
    (1..=BYTES_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
