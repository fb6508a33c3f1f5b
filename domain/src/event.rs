//! The log's whole vocabulary.

use serde::{Deserialize, Serialize};

use crate::recorded::StreamName;
use crate::{build, keys, namespace, template};

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
}

impl From<&StreamName> for Category {
    fn from(stream: &StreamName) -> Self {
        match stream {
            StreamName::Build(_) => Self::Build,
            StreamName::Template(_) => Self::Template,
            StreamName::Namespace(_) => Self::Namespace,
            StreamName::Keys => Self::Keys,
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
        }
    }

    /// Which streams hold it.
    pub const fn category(&self) -> Category {
        match self {
            Self::Build(_) => Category::Build,
            Self::Template(_) => Category::Template,
            Self::Namespace(_) => Category::Namespace,
            Self::Keys(_) => Category::Keys,
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
