//! What a subscriber asks for.
//!
//! A filter takes several values, by repeating it or with commas between them. An answer is a stream
//! of server-sent events unless `Accept` names CloudEvents:
//!
//! | `Accept` names | without `follow` | with `follow` |
//! |---|---|---|
//! | neither | stream of records | stream of records |
//! | `application/cloudevents+json` | batch | stream of CloudEvents |
//! | that and `text/event-stream` | stream of CloudEvents | stream of CloudEvents |
//! | `application/cloudevents-batch+json` | batch | refused |

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use actix_web::http::header::{ACCEPT, HeaderMap};
use commands::codec;
use domain::event::Category;
use domain::recorded::{Position, StreamName};

use crate::http::error::ApiError;
use crate::http::query::Parameters;
use crate::limits::{EVENT_FILTER_COUNT_MAX, PAGE_EVENT_COUNT_DEFAULT, PAGE_EVENT_COUNT_MAX};
use crate::service::events::{Filter, Form};
use crate::service::keys::Caller;
use crate::wire::position::WirePosition;

/// Where a browser says how far it was when the connection broke.
const LAST_EVENT_ID: &str = "Last-Event-ID";

/// One event, as JSON.
const CLOUD_EVENT: &str = "application/cloudevents+json";
/// A list of events, as JSON.
pub(super) const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";
/// Server-sent events.
const STREAM: &str = "text/event-stream";

/// What may be named in `type`: all that happens in the streams that callers may see.
const CATEGORIES: [Category; 3] = [Category::Build, Category::Template, Category::Namespace];

/// What is asked for.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) from: Position,
    pub(super) filter: Filter,
    pub(super) answer: Answer,
}

/// How it is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Stream { form: Form, follow: bool },
    Batch { count_max: usize },
}

impl Question {
    /// What the request asks for of a log that ends at `head`.
    ///
    /// # Errors
    /// [`ApiError::Invalid`], naming the parameter or header.
    pub(super) fn read(
        caller: &Caller,
        headers: &HeaderMap,
        parameters: &Parameters,
        head: Position,
    ) -> Result<Self, ApiError> {
        Ok(Self {
            from: from(headers, parameters, head)?,
            filter: Filter {
                owner: caller.owner.clone(),
                streams: values(parameters, "stream", stream)?,
                kinds: values(parameters, "type", kind)?,
                builds: values(parameters, "build", parsed)?,
                templates: values(parameters, "template", parsed)?,
            },
            answer: answer(headers, parameters)?,
        })
    }
}

/// The header wins: it is what was seen last, and the address is still that of the first request.
fn from(
    headers: &HeaderMap,
    parameters: &Parameters,
    head: Position,
) -> Result<Position, ApiError> {
    let header = headers.get(LAST_EVENT_ID).map(|value| value.to_str());
    let (field, text) = match header {
        // Empty: a browser that has seen nothing yet.
        None | Some(Ok("")) => ("from", parameters.get("from")),
        Some(text) => (LAST_EVENT_ID, Some(text.unwrap_or_default())),
    };
    let position = match text {
        None => return Ok(Position::START),
        Some("head") if field == "from" => return Ok(head),
        Some(text) => text.parse::<WirePosition>(),
    };
    let WirePosition(position) =
        position.map_err(|invalid| ApiError::field(field, invalid.to_string()))?;
    if position > head {
        return Err(ApiError::field(field, "lies behind the end of the log"));
    }
    Ok(position)
}

/// The values of the filter `name`, which may be many, read by `read`.
fn values<T: Ord>(
    parameters: &Parameters,
    name: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<BTreeSet<T>, ApiError> {
    let values: Result<BTreeSet<T>, String> = parameters.values(name).map(read).collect();
    let values = values.map_err(|message| ApiError::field(name, message))?;
    if values.len() > EVENT_FILTER_COUNT_MAX {
        let message = format!("may name at most {EVENT_FILTER_COUNT_MAX}");
        return Err(ApiError::field(name, message));
    }
    Ok(values)
}

fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|invalid: T::Err| invalid.to_string())
}

fn stream(text: &str) -> Result<StreamName, String> {
    match text.parse() {
        Ok(StreamName::Keys | StreamName::Webhook(_)) | Err(_) => {
            let text: String = text.chars().take(80).collect();
            Err(format!(
                "`{text}` is not a stream (`build-tb_…`, `template-tmpl_…` or `namespace-…`)"
            ))
        }
        Ok(stream) => Ok(stream),
    }
}

fn kind(text: &str) -> Result<&'static str, String> {
    let kinds = CATEGORIES.iter().flat_map(|known| codec::types_of(*known));
    kinds.copied().find(|known| *known == text).ok_or_else(|| {
        let text: String = text.chars().take(80).collect();
        format!("`{text}` is not a type of events, for example `Snapshotted`")
    })
}

fn answer(headers: &HeaderMap, parameters: &Parameters) -> Result<Answer, ApiError> {
    let follow = parameters.switch("follow")?;
    let accepted = headers
        .get_all(ACCEPT)
        .filter_map(|value| value.to_str().ok());
    let accepted: Vec<&str> = accepted
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .map(str::trim)
        .collect();
    let accepts = |kind: &str| {
        accepted
            .iter()
            .any(|range| range.eq_ignore_ascii_case(kind))
    };
    let stream = |form| Answer::Stream { form, follow };
    if accepts(CLOUD_EVENTS) && follow {
        return Err(ApiError::field(
            "follow",
            format!("cannot be answered with {CLOUD_EVENTS}: accept {CLOUD_EVENT}"),
        ));
    }
    Ok(match accepts(CLOUD_EVENT) {
        true if follow || accepts(STREAM) => stream(Form::Cloud),
        is_cloud if is_cloud || accepts(CLOUD_EVENTS) => Answer::Batch {
            count_max: parameters.page_size(PAGE_EVENT_COUNT_DEFAULT, PAGE_EVENT_COUNT_MAX)?,
        },
        _ => stream(Form::Record),
    })
}

#[cfg(test)]
mod tests;
