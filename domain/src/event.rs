//! The log's whole vocabulary.

use serde::{Deserialize, Serialize};

use crate::recorded::StreamName;
use crate::{build, keys, namespace, template, webhook};

/// An event of any stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Of a build.
    Build(build::Event),
    /// Of a template.
    Template(template::Event),
    /// Of a namespace.
    Namespace(namespace::Event),
    /// Of the API keys.
    Keys(keys::Event),
    /// Of a webhook.
    Webhook(webhook::Event),
}

/// Which streams hold an event. Decides how stored bytes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// `build-…`
    Build,
    /// `template-…`
    Template,
    /// `namespace-…`
    Namespace,
    /// `keys`
    Keys,
    /// `webhook-…`
    Webhook,
}

impl From<&StreamName> for Category {
    fn from(stream: &StreamName) -> Self {
        match stream {
            StreamName::Build(_) => Self::Build,
            StreamName::Template(_) => Self::Template,
            StreamName::Namespace(_) => Self::Namespace,
            StreamName::Keys => Self::Keys,
            StreamName::Webhook(_) => Self::Webhook,
        }
    }
}

impl Event {
    /// The event's stored and published name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Build(event) => event.name(),
            Self::Template(event) => event.name(),
            Self::Namespace(event) => event.name(),
            Self::Keys(event) => event.name(),
            Self::Webhook(event) => event.name(),
        }
    }

    /// Which streams hold it.
    pub const fn category(&self) -> Category {
        match self {
            Self::Build(_) => Category::Build,
            Self::Template(_) => Category::Template,
            Self::Namespace(_) => Category::Namespace,
            Self::Keys(_) => Category::Keys,
            Self::Webhook(_) => Category::Webhook,
        }
    }
}

impl From<build::Event> for Event {
    fn from(event: build::Event) -> Self {
        Self::Build(event)
    }
}

impl From<template::Event> for Event {
    fn from(event: template::Event) -> Self {
        Self::Template(event)
    }
}

impl From<namespace::Event> for Event {
    fn from(event: namespace::Event) -> Self {
        Self::Namespace(event)
    }
}

impl From<keys::Event> for Event {
    fn from(event: keys::Event) -> Self {
        Self::Keys(event)
    }
}

impl From<webhook::Event> for Event {
    fn from(event: webhook::Event) -> Self {
        Self::Webhook(event)
    }
}
