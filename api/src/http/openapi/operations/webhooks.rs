//! The operations of webhooks.

use serde_json::json;

use super::super::operation::{Operation, Tag, operation, schema};
use crate::limits::{PAGE_DELIVERY_COUNT_DEFAULT, PAGE_DELIVERY_COUNT_MAX};

const ALL: &str = "/v1/webhooks";
const ONE: &str = "/v1/webhooks/{webhook_id}";

/// All of them.
pub(super) fn webhooks() -> Vec<Operation> {
    [themselves(), deliveries()].concat()
}

fn themselves() -> Vec<Operation> {
    let at = |method, path: &str, id, summary| operation(Tag::Webhooks, method, path, id, summary);
    let (one, list) = (schema("WebhookStatus"), schema("WebhookList"));
    vec![
        at("GET", ALL, "listWebhooks", "The caller's webhooks")
            .answers(200, "The webhooks, the oldest first", &list),
        at("POST", ALL, "registerWebhook", "Have events sent to a URL")
            .about(
                "What happens from then on to the caller's builds, templates and namespace is posted \
                 there, one event a request, as `application/cloudevents+json`; events of one build \
                 in their order, each at least once. Requests are signed as Standard Webhooks are: \
                 `webhook-signature` is `v1,` and the base64 of the HMAC-SHA256, under the secret, of \
                 `webhook-id`, `.`, `webhook-timestamp`, `.` and the body. Only a status of 2xx means \
                 that an event was taken; redirects are not followed. The secret is shown this once.",
            )
            .body("RegisterWebhookRequest")
            .answers(201, "The webhook, with its secret", &schema("CreatedWebhook")),
        at("GET", ONE, "getWebhook", "A webhook, and how far it is")
            .answers(200, "The webhook", &one)
            .refuses(&[404]),
        at("PATCH", ONE, "pauseWebhook", "Send nothing for a while, or again")
            .about("What happens meanwhile is sent when it is resumed.")
            .body("PauseWebhookRequest")
            .answers(200, "The webhook", &one)
            .refuses(&[404, 409]),
        at("DELETE", ONE, "deleteWebhook", "Send nothing any more")
            .answers_empty("It is gone")
            .refuses(&[404]),
    ]
}

/// What became of events, and sending them again.
fn deliveries() -> Vec<Operation> {
    let at = |method, part: &str, id, summary| {
        operation(Tag::Webhooks, method, &format!("{ONE}{part}"), id, summary)
    };
    let one = schema("WebhookStatus");
    vec![
        at("POST", "/replay", "replayWebhook", "Send events again")
            .body("ReplayWebhookRequest")
            .answers(202, "The webhook", &one)
            .refuses(&[404]),
        at(
            "GET",
            "/deliveries",
            "listWebhookDeliveries",
            "What became of events, the latest event first",
        )
        .about("Of those that were taken, a bounded number is kept.")
        .query(
            "status",
            &json!({"type": "string", "enum": ["dead"]}),
            "Only events that were given up.",
        )
        .query(
            "limit",
            &json!({
                "type": "integer",
                "minimum": 1,
                "maximum": PAGE_DELIVERY_COUNT_MAX,
                "default": PAGE_DELIVERY_COUNT_DEFAULT,
            }),
            "How many, at most.",
        )
        .query(
            "cursor",
            &json!({"type": "string"}),
            "The `next_cursor` of the page before.",
        )
        .answers(200, "A page", &schema("WebhookDeliveryList"))
        .refuses(&[404]),
        at(
            "POST",
            "/deliveries/{delivery_id}/redeliver",
            "redeliverWebhookDelivery",
            "Send an event again that was given up",
        )
        .about("By itself, whatever has been sent of its build since.")
        .answers(202, "The webhook", &one)
        .refuses(&[404]),
    ]
}
