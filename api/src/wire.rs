//! What travels over HTTP: the shapes of contract/openapi.yaml. Not domain types: a stored event
//! must not change because an answer does, nor the other way round.
//!
//! A value that is absent is left out, never `null`: the published client dies of some nulls.

pub mod admin;
pub mod ascii;
pub mod audit;
pub mod blob;
pub mod build;
pub mod cache;
pub mod diff;
pub mod error;
pub mod event;
pub mod lineage;
pub mod log;
pub mod plan;
pub mod position;
pub mod tag;
pub mod template;
pub mod timeline;
pub mod webhook;

/// An object of the caller's choosing.
pub type Object = serde_json::Map<String, serde_json::Value>;
