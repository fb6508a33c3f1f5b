//! Webhooks: where events are sent, and what became of them.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use domain::webhook::{Command, DeadLetter, PauseReason};
use projections::webhooks::WebhookRow;

use super::body::Body;
use super::error::ApiError;
use super::query::Parameters;
use super::reply;
use crate::limits::{PAGE_DELIVERY_COUNT_DEFAULT, PAGE_DELIVERY_COUNT_MAX};
use crate::normalise;
use crate::service::App;
use crate::service::keys::Caller;
use crate::service::webhooks::ledger::{DeliveryStatus, Record};
use crate::service::webhooks::{self, Delivery};
use crate::wire::event::event_id;
use crate::wire::position::WirePosition;
use crate::wire::webhook as wire;

/// `POST /v1/webhooks`: registers one. What happens from then on is sent.
///
/// # Errors
/// [`ApiError::Invalid`], naming the field; [`ApiError::Quota`], [`ApiError::Forbidden`].
pub async fn register(
    app: &App,
    caller: &Caller,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    let limits = &app.config.limits;
    let json = body.required_json(limits.json_body_bytes_max).await?;
    let new = normalise::new_webhook(&json, &app.webhooks.targets, limits)?;
    let (row, secret) = webhooks::register(app, caller, new).await?;
    let created = wire::CreatedWebhook {
        webhook: info(&row),
        secret: &secret.reveal(),
    };
    reply::json(StatusCode::CREATED, &created)
}

/// `GET /v1/webhooks`: the caller's.
///
/// # Errors
/// [`ApiError`] if they cannot be read.
pub fn list(app: &App, caller: &Caller) -> Result<HttpResponse, ApiError> {
    let rows = webhooks::list(app, caller)?;
    let list = wire::WebhookList {
        webhooks: rows.iter().map(info).collect(),
    };
    reply::json(StatusCode::OK, &list)
}

/// `GET /v1/webhooks/{id}`
///
/// # Errors
/// [`ApiError::NotFound`], also if it is somebody else's.
pub async fn get(app: &App, caller: &Caller, id: &str) -> Result<HttpResponse, ApiError> {
    status(app, caller, id, StatusCode::OK).await
}

/// `PATCH /v1/webhooks/{id}` with `{"paused": …}`: sends nothing, or again. What happens while it is
/// paused is sent when it is resumed.
///
/// # Errors
/// [`ApiError::NotFound`], also if it is somebody else's; [`ApiError::Transition`] if it has too many
/// dead letters to be resumed.
pub async fn pause(
    app: &App,
    caller: &Caller,
    id: &str,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    let limits = &app.config.limits;
    webhooks::find(app, caller, id)?;
    let json = body.required_json(limits.json_body_bytes_max).await?;
    let command = if normalise::paused(&json, limits)? {
        Command::Pause(PauseReason::Asked)
    } else {
        Command::Resume {
            dead_letters_max: limits.webhook_dead_letter_count_max,
        }
    };
    webhooks::change(app, caller, id, command).await?;
    status(app, caller, id, StatusCode::OK).await
}

/// `DELETE /v1/webhooks/{id}`
///
/// # Errors
/// [`ApiError::NotFound`], also if it is somebody else's.
pub async fn delete(app: &App, caller: &Caller, id: &str) -> Result<HttpResponse, ApiError> {
    webhooks::change(app, caller, id, Command::Delete).await?;
    Ok(reply::no_content())
}

/// `POST /v1/webhooks/{id}/replay` with `{"from": …}`: sends again what happened behind a position.
///
/// # Errors
/// [`ApiError::NotFound`], also if it is somebody else's; [`ApiError::Invalid`], naming the field.
pub async fn replay(
    app: &App,
    caller: &Caller,
    id: &str,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    let limits = &app.config.limits;
    webhooks::find(app, caller, id)?;
    let json = body.required_json(limits.json_body_bytes_max).await?;
    let from = normalise::replayed(&json, limits)?;
    webhooks::replay(app, caller, id, from).await?;
    status(app, caller, id, StatusCode::ACCEPTED).await
}

/// `GET /v1/webhooks/{id}/deliveries`: what became of events, the latest first; with `status=dead`,
/// those that were given up.
///
/// # Errors
/// [`ApiError::NotFound`], also if it is somebody else's; [`ApiError::Invalid`], naming the parameter.
pub async fn deliveries(
    app: &App,
    caller: &Caller,
    id: &str,
    parameters: &Parameters,
) -> Result<HttpResponse, ApiError> {
    let row = webhooks::find(app, caller, id)?;
    let only_dead = match parameters.get("status") {
        None => false,
        Some("dead") => true,
        Some(_) => return Err(ApiError::field("status", "must be `dead`, or left out")),
    };
    let before = parameters.get("cursor").map(str::parse::<WirePosition>);
    let before = before
        .transpose()
        .map_err(|invalid| ApiError::field("cursor", invalid.to_string()))?
        .map(|position| position.0);
    let count_max = parameters.page_size(PAGE_DELIVERY_COUNT_DEFAULT, PAGE_DELIVERY_COUNT_MAX)?;
    let (found, has_more) = webhooks::deliveries(app, row, only_dead, before, count_max).await?;
    let list = wire::DeliveryList {
        next_cursor: found
            .last()
            .filter(|_| has_more)
            .map(|last| WirePosition(last.position())),
        deliveries: found.iter().map(delivery).collect(),
    };
    reply::json(StatusCode::OK, &list)
}

/// `POST /v1/webhooks/{id}/deliveries/{delivery}/redeliver`: sends a dead letter again.
///
/// # Errors
/// [`ApiError::NotFound`], also if the webhook is somebody else's, or the delivery no dead letter.
pub async fn redeliver(
    app: &App,
    caller: &Caller,
    id: &str,
    delivery: &str,
) -> Result<HttpResponse, ApiError> {
    webhooks::find(app, caller, id)?;
    let position = delivery.parse::<WirePosition>().map_err(|_| {
        let delivery: String = delivery.chars().take(80).collect();
        ApiError::NotFound(format!("there is no delivery `{delivery}`"))
    })?;
    let position = position.0;
    webhooks::change(app, caller, id, Command::Requeue { position }).await?;
    status(app, caller, id, StatusCode::ACCEPTED).await
}

async fn status(
    app: &App,
    caller: &Caller,
    id: &str,
    status: StatusCode,
) -> Result<HttpResponse, ApiError> {
    let row = webhooks::find(app, caller, id)?;
    let (progress, pending_stream_count) = webhooks::progress(app, &row.id).await?;
    let shown = wire::WebhookStatus {
        webhook: info(&row),
        position: progress.map(|progress| WirePosition(progress.read)),
        pending_stream_count,
    };
    reply::json(status, &shown)
}

fn info(row: &WebhookRow) -> wire::WebhookInfo {
    let registered = &row.live.registered;
    wire::WebhookInfo {
        id: row.id.to_string(),
        url: registered.url.clone(),
        types: registered.types.iter().cloned().collect(),
        templates: registered
            .templates
            .iter()
            .map(ToString::to_string)
            .collect(),
        description: registered.description.clone(),
        paused: row.live.paused.is_some(),
        paused_reason: row.live.paused.map(|reason| match reason {
            PauseReason::Asked => "asked",
            PauseReason::DeadLetters => "dead_letters",
            PauseReason::SigningKey => "signing_key",
        }),
        created_at: row.registered_at.to_string(),
        dead_letter_count: row.live.dead.len(),
    }
}

fn delivery(delivery: &Delivery) -> wire::Delivery {
    match delivery {
        Delivery::Open(record) => open(record),
        Delivery::Dead(letter) => dead(letter),
    }
}

fn open(record: &Record) -> wire::Delivery {
    wire::Delivery {
        id: WirePosition(record.position),
        event_id: event_id(&record.stream, record.version.0),
        kind: record.kind.clone(),
        status: match record.status {
            DeliveryStatus::Requeued => "requeued",
            DeliveryStatus::Retrying => "retrying",
            DeliveryStatus::Delivered => "delivered",
        },
        attempts: record.attempts,
        last_status: record.failure.and_then(|failure| failure.status()),
        last_error: record.failure.map(|failure| failure.to_string()),
        last_attempt_at: record.last_at.map(|at| at.to_string()),
        next_attempt_at: record.next_at.map(|at| at.to_string()),
    }
}

fn dead(letter: &DeadLetter) -> wire::Delivery {
    wire::Delivery {
        id: WirePosition(letter.position),
        event_id: event_id(&letter.stream, letter.version.0),
        kind: letter.kind.clone(),
        status: "dead",
        attempts: letter.attempts,
        last_status: letter.failure.status(),
        last_error: Some(letter.failure.to_string()),
        last_attempt_at: None,
        next_attempt_at: None,
    }
}
