//! One attempt to send the next event of a lane.

use std::sync::Arc;

use domain::event::Event;
use domain::ids::WebhookId;
use domain::ports::{EventReader as _, LogError};
use domain::recorded::{Position, Recorded, StreamName, Version};
use domain::time::Timestamp;
use domain::webhook::{DeliveryFailure, Registered};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::super::lanes::{Lane, LaneKey};
use super::super::office::Office;
use super::super::signing::Secret;
use crate::service::owners::Origin;
use crate::wire::ascii;
use crate::wire::event::{CloudEvent, EventRecord};

/// Events that are read at once where most of them are not wanted.
const PAGE_EVENTS: usize = 16;

/// A webhook, as far as it does not change.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) id: WebhookId,
    pub(super) registered: Registered,
    pub(super) secret: Secret,
}

impl Hook {
    /// Whether it is about what happens there.
    pub(super) fn is_about(&self, origin: &Origin) -> bool {
        let templates = &self.registered.templates;
        let is_about = |template| templates.contains(template);
        origin.owner == self.registered.owner
            && (templates.is_empty() || origin.template.as_ref().is_some_and(is_about))
    }

    /// Whether events of this type are sent.
    pub(super) fn wants(&self, kind: &str) -> bool {
        self.registered.types.is_empty() || self.registered.types.contains(kind)
    }
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    /// The lane.
    pub(super) key: LaneKey,
    /// Where it was.
    pub(super) began: Version,
    /// How often its event was sent, this time included.
    pub(super) attempts: u32,
    pub(super) outcome: Result<Outcome, LogError>,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing before this version was to be sent.
    Nothing { next: Version },
    /// An event was sent.
    Sent(Sent),
}

/// An event that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) position: Position,
    pub(super) stream: StreamName,
    pub(super) version: Version,
    pub(super) kind: &'static str,
    pub(super) at: Timestamp,
    /// Why it was not taken; none if it was.
    pub(super) failure: Option<DeliveryFailure>,
}

/// Sends the next event of a lane.
pub(super) async fn attempt(
    office: Arc<Office>,
    hook: Arc<Hook>,
    key: LaneKey,
    lane: Lane,
) -> Attempt {
    let found = next(&office, &hook, &key, &lane).await;
    let began = lane.next;
    let (outcome, attempts) = match found {
        Err(err) => (Err(err), lane.attempts),
        Ok(None) => (Ok(Outcome::Nothing { next: lane.end }), lane.attempts),
        Ok(Some(recorded)) => {
            let attempts = lane.attempts.saturating_add(1);
            let sent = send(&office, &hook, recorded, attempts).await;
            (Ok(Outcome::Sent(sent)), attempts)
        }
    };
    Attempt {
        key,
        began,
        attempts,
        outcome,
    }
}

/// The next event of a lane that is to be sent.
async fn next(
    office: &Office,
    hook: &Hook,
    key: &LaneKey,
    lane: &Lane,
) -> Result<Option<Recorded<Event>>, LogError> {
    let mut from = lane.next;
    let mut events_max = 1;
    while from < lane.end {
        let page = office
            .log
            .read_stream(&lane.stream, from, events_max)
            .await?;
        let Some(last) = page.last() else { break };
        from = last.version.plus(1);
        let found = page.into_iter().find(|recorded| {
            // What is sent again by itself was wanted before.
            matches!(key, LaneKey::Again(_)) || hook.wants(recorded.event.name())
        });
        if let Some(found) = found {
            return Ok((found.version < lane.end).then_some(found));
        }
        events_max = PAGE_EVENTS;
    }
    Ok(None)
}

async fn send(office: &Office, hook: &Hook, recorded: Recorded<Event>, attempts: u32) -> Sent {
    let at = office.now();
    let outcome = match message(hook, &recorded, attempts, at) {
        Ok((headers, body)) => {
            let url = &hook.registered.url;
            office.sender.send(url, headers, body).await
        }
        Err(err) => {
            // A defect: nobody could take what cannot be written.
            tracing::error!(%err, event = recorded.event.name(), "an event has no form to send");
            Err(DeliveryFailure::Unreachable)
        }
    };
    let failure = outcome.err();
    tracing::debug!(
        webhook.id = hook.id.as_str(),
        stream = %recorded.stream,
        stream.version = recorded.version.0,
        attempts,
        failure = failure.map(tracing::field::display),
        "sent an event"
    );
    Sent {
        position: recorded.position,
        version: recorded.version,
        kind: recorded.event.name(),
        stream: recorded.stream,
        at,
        failure,
    }
}

/// What is sent, and the headers that say what it is and that we said it.
fn message(
    hook: &Hook,
    recorded: &Recorded<Event>,
    attempts: u32,
    at: Timestamp,
) -> serde_json::Result<(HeaderMap, Vec<u8>)> {
    const MICROS_PER_SEC: i64 = 1_000_000;
    let record = EventRecord::of(recorded)?;
    let event = CloudEvent::of(&record);
    let body = ascii::to_vec(&event)?;
    let timestamp = at.unix_micros().div_euclid(MICROS_PER_SEC);
    let signature = hook.secret.sign(&event.id, timestamp, &body);
    let headers = [
        ("webhook-id", event.id),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", signature),
        ("nullspace-webhook", hook.id.to_string()),
        ("nullspace-attempt", attempts.to_string()),
    ];
    let headers = headers.into_iter().filter_map(|(name, value)| {
        // All of them are ASCII, by the grammar of what they are made of.
        let value = HeaderValue::try_from(value).ok()?;
        Some((HeaderName::from_static(name), value))
    });
    Ok((headers.collect(), body))
}
