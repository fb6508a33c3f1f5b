//! A batch of CloudEvents.

use std::fmt::Write as _;
use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, LINK};
use domain::recorded::Position;

use super::question::{CLOUD_EVENTS, Question};
use crate::http::error::ApiError;
use crate::service::App;
use crate::service::events::{Filter, Form};
use crate::wire::position::WirePosition;

/// Says how far the log was read, also by a batch that holds nothing.
const LAST_POSITION: &str = "x-last-position";

/// At most `count_max` events up to `head`. A link to the next batch says that there may be more.
///
/// # Errors
/// [`ApiError::Unavailable`] if the log cannot be read.
pub(super) async fn answer(
    app: &Arc<App>,
    question: Question,
    count_max: usize,
    head: Position,
) -> Result<HttpResponse, ApiError> {
    let Question { from, filter, .. } = question;
    let (body, read) = collect(app, from, &filter, count_max, head).await?;
    let mut response = HttpResponse::Ok();
    response
        .insert_header((CONTENT_TYPE, CLOUD_EVENTS))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((LAST_POSITION, WirePosition(read).to_string()));
    if read < head {
        let next = next(read, &filter, count_max);
        response.insert_header((LINK, format!("<{next}>; rel=\"next\"")));
    }
    Ok(response.body(body))
}

/// The events as a JSON array, and how far the log was read for them.
async fn collect(
    app: &App,
    from: Position,
    filter: &Filter,
    count_max: usize,
    head: Position,
) -> Result<(Vec<u8>, Position), ApiError> {
    let limits = &app.config.limits;
    let (mut body, mut count, mut scanned) = (b"[".to_vec(), 0, 0);
    let mut read = from;
    while read < head && scanned < limits.batch_scan_count_max {
        let page = app.pages.behind(read, Form::Cloud).await?;
        for entry in page.entries() {
            if entry.position > head {
                return Ok((closed(body), head));
            }
            if filter.lets_through(entry) {
                let json = entry.json();
                let is_full = body.len().saturating_add(json.len()) > limits.batch_bytes_max;
                if count == count_max || (count > 0 && is_full) {
                    return Ok((closed(body), read));
                }
                if count > 0 {
                    body.push(b',');
                }
                body.extend_from_slice(&json);
                count += 1;
            }
            scanned += 1;
            read = entry.position;
        }
    }
    Ok((closed(body), read))
}

fn closed(mut body: Vec<u8>) -> Vec<u8> {
    body.push(b']');
    body
}

/// Where the next batch is. Positions, ids, streams and types need no escapes.
fn next(read: Position, filter: &Filter, count_max: usize) -> String {
    let mut path = format!("/v1/events?from={}&limit={count_max}", WirePosition(read));
    let mut filter_by = |name: &str, values: Vec<String>| {
        if !values.is_empty() {
            // Writing to a string does not fail.
            let _ = write!(path, "&{name}={}", values.join(","));
        }
    };
    filter_by("stream", texts(&filter.streams));
    filter_by("type", texts(&filter.kinds));
    filter_by("build", texts(&filter.builds));
    filter_by("template", texts(&filter.templates));
    path
}

fn texts<'a, T: ToString + 'a>(values: impl IntoIterator<Item = &'a T>) -> Vec<String> {
    values.into_iter().map(T::to_string).collect()
}
