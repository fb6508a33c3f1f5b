//! Webhooks: events are sent to where their owner wants them.
//!
//! ```text
//!  HTTP ──► commands ──► webhook-… streams ──► view ──► office ──► a courier for each webhook
//!                                                                     │ reads the log, asks whose an
//!                                             event log ──────────────┤ event is, and sends it
//!                                                                     ├──► ledger (what was delivered)
//!                                                                     └──► what was given up: an event
//! ```
//!
//! What its owner wants of a webhook, and what it did not take, is in the log. What it took is in the
//! [`ledger`], beside the log: an event for each delivery would double the log.
//! **Invariant: every event is sent until it was taken or is recorded as given up**, and of one stream
//! no later event is sent before.

pub mod courier;
pub mod lanes;
pub mod ledger;
pub mod office;
pub mod sender;
pub mod signing;
pub mod target;

use std::collections::BTreeSet;
use std::sync::Arc;

use commands::DispatchError;
use domain::ids::{TemplateId, WebhookId};
use domain::ports::EventReader as _;
use domain::recorded::Position;
use domain::webhook::{Command, DeadLetter, Registered, Rejection};
use projections::webhooks::WebhookRow;
use tokio::sync::Mutex;

use super::App;
use super::accept::dispatch_error;
use super::keys::Caller;
use crate::http::error::ApiError;
use ledger::{Ledger, Progress, Record};
use signing::{Secret, SigningKey};
use target::Targets;

/// What endpoints need of webhooks.
#[derive(Debug)]
pub struct Webhooks {
    /// What was delivered.
    pub ledger: Ledger,
    /// What may be sent to.
    pub targets: Targets,
    /// What secrets are made of.
    pub signing: Arc<SigningKey>,
    /// Held while one is registered, so that nobody gets more of them than the bound.
    registering: Mutex<()>,
}

impl Webhooks {
    /// With these parts.
    pub fn new(ledger: Ledger, targets: Targets, signing: Arc<SigningKey>) -> Self {
        Self {
            ledger,
            targets,
            signing,
            registering: Mutex::default(),
        }
    }
}

/// A webhook that somebody wants, right in itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWebhook {
    /// Where events are sent.
    pub url: String,
    /// The types of the events; empty: all.
    pub types: BTreeSet<String>,
    /// The templates; empty: all.
    pub templates: BTreeSet<TemplateId>,
    /// What its owner says about it.
    pub description: String,
}

/// Registers a webhook of `caller`, and waits until it is visible. Its secret is told now and never
/// again.
///
/// # Errors
/// [`ApiError::Quota`] if the caller has as many as anybody may have, [`ApiError::Forbidden`] if
/// webhooks are switched off.
pub async fn register(
    app: &App,
    caller: &Caller,
    new: NewWebhook,
) -> Result<(WebhookRow, Secret), ApiError> {
    if !app.config.webhooks.enabled {
        let message = "webhooks are switched off by the operator (`webhooks.enabled`)";
        return Err(ApiError::Forbidden(message.to_owned()));
    }
    let _alone = app.webhooks.registering.lock().await;
    let count_max = app.config.limits.webhook_count_max;
    if app.views.webhooks_of(&caller.owner, count_max)?.len() >= count_max {
        let message = format!("you have {count_max} webhooks, and no more may be");
        return Err(ApiError::Quota(message));
    }
    let id = app.ids.new_webhook_id();
    let secret = app.webhooks.signing.secret(&id);
    let command = Command::Register(Registered {
        owner: caller.owner.clone(),
        url: new.url,
        types: new.types,
        templates: new.templates,
        description: new.description,
        secret_digest: secret.digest(),
    });
    dispatch(app, caller, &id, command).await?;
    Ok((find(app, caller, id.as_str())?, secret))
}

/// The webhooks of `caller`, the oldest first.
///
/// # Errors
/// [`ApiError`] if the views cannot be read.
pub fn list(app: &App, caller: &Caller) -> Result<Vec<WebhookRow>, ApiError> {
    let count_max = app.config.limits.webhook_count_max;
    Ok(app.views.webhooks_of(&caller.owner, count_max)?)
}

/// A webhook of `caller`.
///
/// # Errors
/// [`ApiError::NotFound`], also if it is somebody else's.
pub fn find(app: &App, caller: &Caller, id: &str) -> Result<WebhookRow, ApiError> {
    let row = match id.parse::<WebhookId>() {
        Ok(id) => app.views.webhook(&id)?,
        Err(_) => None,
    };
    row.filter(|row| row.live.registered.owner == caller.owner)
        .ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> ApiError {
    let id: String = id.chars().take(80).collect();
    ApiError::NotFound(format!("there is no webhook `{id}`"))
}

/// Gives a webhook of `caller` a command, and waits until that is visible.
///
/// # Errors
/// [`ApiError::NotFound`], also if it is somebody else's, or has no such dead letter;
/// [`ApiError::Transition`] if it has too many dead letters.
pub async fn change(
    app: &App,
    caller: &Caller,
    id: &str,
    command: Command,
) -> Result<(), ApiError> {
    let row = find(app, caller, id)?;
    dispatch(app, caller, &row.id, command).await
}

async fn dispatch(
    app: &App,
    caller: &Caller,
    id: &WebhookId,
    command: Command,
) -> Result<(), ApiError> {
    let given = app.dispatcher.webhook(id, app.meta(caller), command).await;
    let done = given.map_err(|err| match err {
        DispatchError::Rejected(Rejection::Unknown) => unknown(id.as_str()),
        DispatchError::Rejected(rejection @ Rejection::NoDeadLetter) => {
            ApiError::NotFound(rejection.to_string())
        }
        DispatchError::Rejected(rejection @ Rejection::TooManyDeadLetters(_)) => {
            ApiError::Transition(rejection.to_string())
        }
        DispatchError::Rejected(rejection @ Rejection::Exists) => ApiError::internal(rejection),
        err @ (DispatchError::Contended { .. }
        | DispatchError::Corrupt { .. }
        | DispatchError::Log(_)) => dispatch_error(err),
    })?;
    app.shown(done.appended).await
}

/// Sends again what happened behind `from`.
///
/// # Errors
/// [`ApiError::Invalid`] if that is behind the last event; as [`change`].
pub async fn replay(app: &App, caller: &Caller, id: &str, from: Position) -> Result<(), ApiError> {
    if from > app.log.head() {
        return Err(ApiError::field("from", "is behind the last event"));
    }
    change(app, caller, id, Command::Replay { from }).await
}

/// How far a webhook is, and of how many streams it has something to send.
///
/// # Errors
/// [`ApiError::Unavailable`] if that cannot be read.
pub async fn progress(app: &App, id: &WebhookId) -> Result<(Option<Progress>, usize), ApiError> {
    let (ledger, id) = (app.webhooks.ledger.clone(), id.clone());
    let asking = tokio::task::spawn_blocking(move || ledger.progress(&id));
    asking.await?.map_err(unreadable)
}

fn unreadable(err: projections::store::StoreError) -> ApiError {
    ApiError::unavailable("what was delivered cannot be read", err)
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It was taken, or will be sent again.
    Open(Record),
    /// It was given up.
    Dead(DeadLetter),
}

impl Delivery {
    /// The event's place in the log.
    pub fn position(&self) -> Position {
        match self {
            Self::Open(record) => record.position,
            Self::Dead(letter) => letter.position,
        }
    }
}

/// What became of events, the latest event first, and whether there is more; of those before
/// `before`, if that is said.
///
/// # Errors
/// [`ApiError::Unavailable`] if that cannot be read.
pub async fn deliveries(
    app: &App,
    row: WebhookRow,
    only_dead: bool,
    before: Option<Position>,
    count_max: usize,
) -> Result<(Vec<Delivery>, bool), ApiError> {
    let looked_at = count_max.saturating_add(1);
    let mut records = Vec::new();
    if !only_dead {
        let (ledger, id) = (app.webhooks.ledger.clone(), row.id);
        let asking = tokio::task::spawn_blocking(move || ledger.records(&id, before, looked_at));
        records = asking.await?.map_err(unreadable)?;
    }
    let dead = row.live.dead;
    // What was given up once more since is told as that alone.
    records.retain(|record| !dead.contains_key(&record.position));
    let dead = dead
        .into_values()
        .filter(|letter| before.is_none_or(|before| letter.position < before));
    let mut found: Vec<Delivery> = records.into_iter().map(Delivery::Open).collect();
    found.extend(dead.map(Delivery::Dead));
    found.sort_by_key(|delivery| std::cmp::Reverse(delivery.position()));
    let has_more = found.len() > count_max;
    found.truncate(count_max);
    Ok((found, has_more))
}
