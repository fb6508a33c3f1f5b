//! The small bodies of what is done to webhooks.

use std::collections::BTreeSet;

use commands::codec::types_of;
use domain::event::Category;
use domain::ids::TemplateId;
use domain::recorded::Position;
use serde_json::Value;

use super::Refusal;
use super::changes::read;
use super::fields::Fields;
use crate::limits::Limits;
use crate::service::webhooks::NewWebhook;
use crate::service::webhooks::target::Targets;
use crate::wire::position::WirePosition;

/// Longer than any position.
const POSITION_BYTES_MAX: usize = 64;

/// The categories of events that are sent to anybody.
const SENT: [Category; 3] = [Category::Build, Category::Template, Category::Namespace];

/// `{"url": "…", "types": […], "templates": […], "description": "…"}`
///
/// # Errors
/// [`Refusal`], with every mistake that was found.
pub fn new_webhook(
    body: &Value,
    targets: &Targets,
    limits: &Limits,
) -> Result<NewWebhook, Refusal> {
    read(body, limits, |top| {
        top.only(&["url", "types", "templates", "description"]);
        let url = top.required_text("url", limits.webhook_url_bytes_max);
        let url = url.and_then(|text| match targets.read(text) {
            Ok(url) => Some(url.into()),
            Err(problem) => {
                top.problem("url", problem);
                None
            }
        });
        let types = set(top, "types", limits, |text| {
            let is_known = SENT
                .iter()
                .any(|category| types_of(*category).contains(&text));
            is_known
                .then(|| text.to_owned())
                .ok_or("is not the type of an event")
        });
        let templates = set(top, "templates", limits, |text| {
            let id = text.parse::<TemplateId>();
            id.map_err(|_| "is not the id of a template (`tmpl_…`)")
        });
        let description = top.text("description", limits.text_bytes_max);
        Some(NewWebhook {
            url: url?,
            types,
            templates,
            description: description.unwrap_or_default().to_owned(),
        })
    })
}

/// The elements of a list of texts, each once.
fn set<T: Ord>(
    top: Fields<'_>,
    key: &str,
    limits: &Limits,
    one: impl Fn(&str) -> Result<T, &'static str>,
) -> BTreeSet<T> {
    let mut found = BTreeSet::new();
    let list = top.list(key, limits.webhook_filter_count_max);
    for (index, value) in list.unwrap_or_default().iter().enumerate() {
        match value.as_str().ok_or("must be a string").and_then(&one) {
            Ok(element) => {
                found.insert(element);
            }
            Err(problem) => top.element_problem(key, index, problem),
        }
    }
    found
}

/// `{"paused": true}`: whether nothing is to be sent.
///
/// # Errors
/// [`Refusal`], naming the field.
pub fn paused(body: &Value, limits: &Limits) -> Result<bool, Refusal> {
    read(body, limits, |top| {
        top.only(&["paused"]);
        if !top.has("paused") {
            top.problem("paused", "is required");
        }
        top.switch("paused")
    })
}

/// `{"from": "…"}`: the position behind which events are sent again.
///
/// # Errors
/// [`Refusal`], naming the field.
pub fn replayed(body: &Value, limits: &Limits) -> Result<Position, Refusal> {
    read(body, limits, |top| {
        top.only(&["from"]);
        let text = top.required_text("from", POSITION_BYTES_MAX)?;
        match text.parse::<WirePosition>() {
            Ok(position) => Some(position.0),
            Err(invalid) => {
                top.problem("from", invalid.to_string());
                None
            }
        }
    })
}
