//! Webhooks: where an owner's events are sent, and what could not be sent there. The log holds a
//! digest of the secret that signs deliveries, never the secret.
//!
//! What was delivered is not recorded here: that would be an event for each event. Who delivers keeps
//! that elsewhere, and may deliver again what it no longer knows of.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::TemplateId;
use crate::name::Owner;
use crate::recorded::{Position, StreamName, Version};

/// Something that happened to a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum Event {
    /// It was registered: what happens from then on is sent.
    WebhookRegistered(Registered),
    /// Nothing is sent until it is resumed.
    WebhookPaused {
        /// Why.
        reason: PauseReason,
    },
    /// What happened since it was paused is sent, and so on.
    WebhookResumed {},
    /// What happened behind a position is sent again.
    WebhookReplayed {
        /// The position.
        from: Position,
    },
    /// An event was not taken, however often it was sent, and is not sent by itself any more.
    DeliveryDeadLettered(DeadLetter),
    /// A dead letter is sent again.
    DeliveryRequeued {
        /// The position of its event.
        position: Position,
    },
    /// Nothing is sent any more, for good.
    WebhookDeleted {},
}

/// A webhook, as it was registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Whose it is, and whose events are sent.
    pub owner: Owner,
    /// Where they are sent.
    pub url: String,
    /// The types of the events that are sent; empty: all.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub types: BTreeSet<String>,
    /// The templates of which events are sent, of their builds too; empty: all.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub templates: BTreeSet<TemplateId>,
    /// What its owner says about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The digest of the secret that signs deliveries: it is random and long, so nothing slower is
    /// needed. It tells whether a secret that was made anew is the one that the owner was shown.
    pub secret_digest: Digest,
}

/// Why nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseReason {
    /// Its owner wants it so.
    Asked,
    /// It has as many dead letters as it may have.
    DeadLetters,
    /// Deliveries cannot be signed with the secret that its owner was shown: the service's key is
    /// another one.
    SigningKey,
}

/// An event that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The event's place in the log.
    pub position: Position,
    /// Its stream.
    pub stream: StreamName,
    /// Its number there.
    pub version: Version,
    /// Its type.
    pub kind: String,
    /// How often it was sent.
    pub attempts: u32,
    /// What became of the last time.
    pub failure: DeliveryFailure,
}

/// Why an event counts as not taken. It tells nothing of what the receiver answered but the status:
/// where a URL leads is its owner's choice, and what is said there may be none of the owner's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum DeliveryFailure {
    /// The receiver answered with a status that is no success; redirects are not followed.
    Answered {
        /// The status.
        status: u16,
    },
    /// The receiver did not answer in time.
    TimedOut,
    /// Nobody is there, TLS failed, or the connection broke.
    Unreachable,
    /// The host leads to an address to which nothing is sent.
    AddressRefused,
    /// The settings do not allow the URL any more.
    TargetRefused,
}

impl DeliveryFailure {
    /// What the receiver answered, if it did.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Answered { status } => Some(*status),
            Self::TimedOut | Self::Unreachable | Self::AddressRefused | Self::TargetRefused => None,
        }
    }
}

impl fmt::Display for DeliveryFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { status } => write!(f, "the receiver answered with status {status}"),
            Self::TimedOut => f.write_str("the receiver did not answer in time"),
            Self::Unreachable => f.write_str(
                "the receiver was not reached: no connection, no TLS, or the connection broke",
            ),
            Self::AddressRefused => {
                f.write_str("the host leads to an address to which nothing is sent")
            }
            Self::TargetRefused => f.write_str("the settings do not allow the URL"),
        }
    }
}

impl Event {
    /// The event's stored and published name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::WebhookRegistered(_) => "WebhookRegistered",
            Self::WebhookPaused { .. } => "WebhookPaused",
            Self::WebhookResumed {} => "WebhookResumed",
            Self::WebhookReplayed { .. } => "WebhookReplayed",
            Self::DeliveryDeadLettered(_) => "DeliveryDeadLettered",
            Self::DeliveryRequeued { .. } => "DeliveryRequeued",
            Self::WebhookDeleted {} => "WebhookDeleted",
        }
    }
}

/// A webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Webhook {
    /// Nobody registered it.
    #[default]
    Absent,
    /// It is there.
    Live(Box<Live>),
    /// It is gone for good.
    Deleted,
}

/// A webhook that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// As it was registered.
    pub registered: Registered,
    /// Why nothing is sent; none if events are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<PauseReason>,
    /// The events that were not taken, by position.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dead: BTreeMap<Position, DeadLetter>,
}

impl Live {
    /// As it is when it was just registered.
    pub fn new(registered: Registered) -> Self {
        Self {
            registered,
            paused: None,
            dead: BTreeMap::new(),
        }
    }
}

/// What somebody wants to happen to a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make it.
    Register(Registered),
    /// Send nothing.
    Pause(PauseReason),
    /// Send again.
    Resume {
        /// With how many dead letters nothing is sent.
        dead_letters_max: usize,
    },
    /// Send again what happened behind a position.
    Replay {
        /// The position.
        from: Position,
    },
    /// Give an event up.
    DeadLetter {
        /// The event, and what became of it.
        letter: DeadLetter,
        /// With how many dead letters nothing more is sent.
        dead_letters_max: usize,
    },
    /// Send a dead letter again.
    Requeue {
        /// The position of its event.
        position: Position,
    },
    /// Send nothing any more, for good.
    Delete,
}

/// Why a command makes nothing happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It is there already.
    #[error("the webhook exists already")]
    Exists,
    /// It is not there, or no longer.
    #[error("there is no such webhook")]
    Unknown,
    /// It has no such dead letter.
    #[error("the webhook has no such dead letter")]
    NoDeadLetter,
    /// It has as many dead letters as it may have.
    #[error("the webhook has {0} dead letters, and nothing more is sent until some are sent again")]
    TooManyDeadLetters(usize),
}

/// Decides what `command` makes happen to a webhook.
///
/// # Errors
/// The [`Rejection`] says what stands against it; nothing happens then.
pub fn decide(state: &Webhook, command: Command) -> Result<Vec<Event>, Rejection> {
    let live = match (state, &command) {
        (Webhook::Live(live), _) => live,
        (Webhook::Absent, Command::Register(registered)) => {
            return Ok(vec![Event::WebhookRegistered(registered.clone())]);
        }
        (Webhook::Deleted, Command::Register(_)) => return Err(Rejection::Exists),
        (Webhook::Absent | Webhook::Deleted, _) => return Err(Rejection::Unknown),
    };
    match command {
        Command::Register(_) => Err(Rejection::Exists),
        Command::Pause(_) if live.paused.is_some() => Ok(Vec::new()),
        Command::Pause(reason) => Ok(vec![Event::WebhookPaused { reason }]),
        Command::Resume { dead_letters_max } => resume(live, dead_letters_max),
        Command::Replay { from } => Ok(vec![Event::WebhookReplayed { from }]),
        Command::DeadLetter {
            letter,
            dead_letters_max,
        } => Ok(dead_letter(live, letter, dead_letters_max)),
        Command::Requeue { position } if live.dead.contains_key(&position) => {
            Ok(vec![Event::DeliveryRequeued { position }])
        }
        Command::Requeue { .. } => Err(Rejection::NoDeadLetter),
        Command::Delete => Ok(vec![Event::WebhookDeleted {}]),
    }
}

fn resume(live: &Live, dead_letters_max: usize) -> Result<Vec<Event>, Rejection> {
    if live.paused.is_none() {
        return Ok(Vec::new());
    }
    if live.dead.len() >= dead_letters_max {
        return Err(Rejection::TooManyDeadLetters(live.dead.len()));
    }
    Ok(vec![Event::WebhookResumed {}])
}

/// A letter that is dead already stays as it is. The one that reaches the bound pauses the webhook:
/// a receiver that is gone must not fill the log.
fn dead_letter(live: &Live, letter: DeadLetter, dead_letters_max: usize) -> Vec<Event> {
    if live.dead.contains_key(&letter.position) {
        return Vec::new();
    }
    let is_last = live.paused.is_none() && live.dead.len().saturating_add(1) >= dead_letters_max;
    let paused = is_last.then_some(Event::WebhookPaused {
        reason: PauseReason::DeadLetters,
    });
    std::iter::once(Event::DeliveryDeadLettered(letter))
        .chain(paused)
        .collect()
}

/// The webhook after `event`.
#[must_use]
pub fn evolve(state: Webhook, event: &Event) -> Webhook {
    let mut live = match (state, event) {
        (_, Event::WebhookRegistered(registered)) => {
            return Webhook::Live(Box::new(Live::new(registered.clone())));
        }
        (_, Event::WebhookDeleted {}) => return Webhook::Deleted,
        (Webhook::Live(live), _) => live,
        (state @ (Webhook::Absent | Webhook::Deleted), _) => return state,
    };
    match event {
        Event::WebhookPaused { reason } => live.paused = Some(*reason),
        Event::WebhookResumed {} => live.paused = None,
        // What is sent again anyway is no longer given up.
        Event::WebhookReplayed { from } => live.dead.retain(|position, _| position <= from),
        Event::DeliveryDeadLettered(letter) => {
            live.dead.insert(letter.position, letter.clone());
        }
        Event::DeliveryRequeued { position } => {
            live.dead.remove(position);
        }
        Event::WebhookRegistered(_) | Event::WebhookDeleted {} => {}
    }
    Webhook::Live(live)
}
