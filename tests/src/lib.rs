//! The test kit: a real service in a process of its own, and a runner whose scenarios share it.
//!
//! It knows the service from outside only: its command line, its HTTP interface, its exit code.

#![expect(clippy::panic, reason = "a test fails by panicking")]

pub mod buildkitd;
pub mod network;
pub mod registry;
pub mod runner;
pub mod search;
pub mod service;
