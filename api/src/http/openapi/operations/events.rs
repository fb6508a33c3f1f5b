//! Operations on events.

use serde_json::{Value, json};

use super::super::operation::{Operation, Tag, operation, schema};
use crate::limits::{PAGE_EVENT_COUNT_DEFAULT, PAGE_EVENT_COUNT_MAX};

/// All of them.
pub(super) fn all() -> Vec<Operation> {
    let get = |path, id, summary| operation(Tag::Events, "GET", path, id, summary);
    let version = json!({"type": "integer", "minimum": 0, "default": 0});
    vec![
        subscription(get(
            "/v1/events",
            "streamEvents",
            "What happened, as events",
        )),
        get(
            "/v1/templates/builds/{build_id}/events",
            "listTemplateBuildEvents",
            "All that happened to a build",
        )
        .about(
            "Who caused what and when, with the hashes that hold it together: whoever keeps the \
             last hash can prove later that nothing before it was changed or left out.",
        )
        .query("from", &version, "Events from this version on.")
        .query("limit", &page_size(), "How many, at most.")
        .answers(200, "A page", &schema("TemplateBuildTrail"))
        .refuses(&[404]),
    ]
}

fn subscription(operation: Operation) -> Operation {
    const FRAMES: &str = "Server-sent events in ASCII: `id` is the position, `event` the type, `data` \
        the event. `event: heartbeat` says by its `id` how far the log was read when nothing in it was \
        for this reader. `event: dropped` is the last frame to a reader that was too slow: its `id` is \
        where to go on. Lines that begin with `:` keep the connection alive. A batch is a JSON array.";
    let list = json!({"type": "array", "items": {"type": "string"}});
    let position = json!({"anyOf": [schema("EventPosition"), {"const": "head"}]});
    let told = ["EventRecord", "CloudEvent", "EventStreamMark"].map(schema);
    operation
        .about(
            "The events of the caller's builds, templates and namespace, in the order in which they \
             happened, each once. Filters take several values, with commas between them or repeated: \
             of one filter any will do, and different filters must all be met. `Accept: \
             application/cloudevents+json` asks for CloudEvents: a batch, or with `follow` (or if \
             `text/event-stream` is accepted, too) a stream of them.",
        )
        .query(
            "from",
            &position,
            "Events behind this position; all if nothing is said, none that happened already if `head`.",
        )
        .query(
            "follow",
            &json!({"type": "boolean", "default": false}),
            "Wait for further events, for as long as the connection lasts.",
        )
        .query("stream", &list, "Only events of these streams.")
        .query("type", &list, "Only events of these types.")
        .query("build", &list, "Only events of these builds.")
        .query("template", &list, "Only events of these templates and their builds.")
        .query("limit", &page_size(), "How many events a batch holds, at most.")
        .header("Last-Event-ID", "The position seen last; wins over `from`.")
        .answers_stream(FRAMES, &json!({"anyOf": told}))
        .or_as(
            "application/cloudevents-batch+json",
            &json!({"type": "array", "items": schema("CloudEvent")}),
        )
        .answers_with_header("x-last-position", "Of a batch: how far the log was read for it.")
        .answers_with_header(
            "link",
            "Of a batch: where the next one is, with `rel=\"next\"`, while there may be more.",
        )
}

fn page_size() -> Value {
    json!({
        "type": "integer",
        "minimum": 1,
        "maximum": PAGE_EVENT_COUNT_MAX,
        "default": PAGE_EVENT_COUNT_DEFAULT,
    })
}
