//! The trail of a build: all that ever happened to it, by whom, and the chain that holds it together.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use commands::AnyLog;
use domain::Digest;
use domain::event::Event;
use domain::ids::BuildId;
use domain::ports::EventReader as _;
use domain::recorded::{Recorded, StreamName, Version};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::http::error::ApiError;
use crate::http::query::Parameters;
use crate::http::{builds, reply};
use crate::limits::{PAGE_EVENT_COUNT_DEFAULT, PAGE_EVENT_COUNT_MAX};
use crate::service::App;
use crate::service::keys::Caller;
use crate::wire::ascii;
use crate::wire::event::EventRecord;

/// A page of a build's trail.
#[derive(Debug, Serialize)]
struct Trail {
    build_id: BuildId,
    /// What the chain of this page begins with.
    previous_hash: Digest,
    events: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// `GET /v1/templates/builds/{id}/events`: a page of the build's events from the version `from`.
///
/// # Errors
/// [`ApiError::BuildNotFound`], also if it is somebody else's; [`ApiError::Invalid`], naming the
/// parameter.
pub async fn trail(
    app: &Arc<App>,
    caller: &Caller,
    id: &str,
    parameters: &Parameters,
) -> Result<HttpResponse, ApiError> {
    let from = parameters.number("from")?.unwrap_or(0);
    let count_max = parameters.page_size(PAGE_EVENT_COUNT_DEFAULT, PAGE_EVENT_COUNT_MAX)?;
    let build_id = builds::own(app, caller, id)?.build_id;
    let stream = StreamName::Build(build_id.clone());
    let (previous_hash, recorded) = read(&app.log, &stream, from, count_max).await?;
    let (mut events, mut bytes) = (Vec::new(), 0_usize);
    for recorded in &recorded {
        let event = written(recorded).map_err(ApiError::internal)?;
        bytes = bytes.saturating_add(event.get().len());
        if bytes > app.config.limits.batch_bytes_max && !events.is_empty() {
            break;
        }
        events.push(event);
    }
    let end = from.saturating_add(u64::try_from(events.len()).unwrap_or(u64::MAX));
    let further = read_stream(&app.log, &stream, end, 1).await?;
    let trail = Trail {
        build_id,
        previous_hash,
        events,
        next: (!further.is_empty()).then_some(end),
    };
    reply::json(StatusCode::OK, &trail)
}

/// The events from the version `from`, and the hash of the one before.
async fn read(
    log: &AnyLog,
    stream: &StreamName,
    from: u64,
    count_max: usize,
) -> Result<(Digest, Vec<Recorded<Event>>), ApiError> {
    let previous_hash = match from.checked_sub(1) {
        None => Digest::ZERO,
        Some(before) => match read_stream(log, stream, before, 1).await?.first() {
            Some(previous) => previous.hash,
            None => {
                return Err(ApiError::field(
                    "from",
                    "lies behind the build's last event",
                ));
            }
        },
    };
    Ok((
        previous_hash,
        read_stream(log, stream, from, count_max).await?,
    ))
}

async fn read_stream(
    log: &AnyLog,
    stream: &StreamName,
    from: u64,
    count_max: usize,
) -> Result<Vec<Recorded<Event>>, ApiError> {
    let read = log.read_stream(stream, Version(from), count_max).await;
    read.map_err(|err| ApiError::unavailable("the event log cannot be read", err))
}

fn written(recorded: &Recorded<Event>) -> serde_json::Result<Box<RawValue>> {
    let json = ascii::to_vec(&EventRecord::of(recorded)?)?;
    serde_json::from_slice(&json)
}
