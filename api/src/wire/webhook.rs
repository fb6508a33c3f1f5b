//! Webhooks and deliveries on the wire.

use serde::Serialize;

use super::position::WirePosition;

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WebhookInfo {
    /// `wh_…`
    pub id: String,
    /// Where events are sent.
    pub url: String,
    /// The types of the events that are sent; none: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// The templates of which events are sent; none: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub templates: Vec<String>,
    /// What its owner says about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whether nothing is sent.
    pub paused: bool,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_reason: Option<&'static str>,
    /// When it was registered.
    pub created_at: String,
    /// How many events were given up.
    pub dead_letter_count: usize,
}

/// A webhook that was just registered: the only time its secret is shown.
#[derive(Serialize)]
pub struct CreatedWebhook<'a> {
    /// The webhook.
    #[serde(flatten)]
    pub webhook: WebhookInfo,
    /// What signs its deliveries: `whsec_…`
    pub secret: &'a str,
}

impl std::fmt::Debug for CreatedWebhook<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedWebhook")
            .field("webhook", &self.webhook)
            .finish_non_exhaustive()
    }
}

/// A webhook, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WebhookStatus {
    /// The webhook.
    #[serde(flatten)]
    pub webhook: WebhookInfo,
    /// Up to where events were read for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<WirePosition>,
    /// Of how many builds, templates and namespaces it has something to send.
    pub pending_stream_count: usize,
}

/// The webhooks of an owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WebhookList {
    /// The oldest first.
    pub webhooks: Vec<WebhookInfo>,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// What it is called: the event's position.
    pub id: WirePosition,
    /// What the receiver knows the event by: the `id` of its `CloudEvent`.
    pub event_id: String,
    /// The event's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `delivered`, `retrying`, `requeued` or `dead`.
    pub status: &'static str,
    /// How often it was sent.
    pub attempts: u32,
    /// What the receiver answered last, if that was no success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_status: Option<u16>,
    /// Why it was not taken last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When it was sent last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_attempt_at: Option<String>,
    /// When it is sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<String>,
}

/// A page of deliveries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeliveryList {
    /// The latest event first.
    pub deliveries: Vec<Delivery>,
    /// Where the next page begins; none if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<WirePosition>,
}
