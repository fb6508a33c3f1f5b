//! The worker: it consumes accepted builds, drives the tools that make a template of them, and
//! reports outcomes as commands.
//!
//! It knows nothing of HTTP and of views: it learns what to do from the log, and tells what it did
//! to the log. Where to start: [`plan::plan`] decides, [`worker::Worker`] performs,
//! [`pipeline::run`] is one build from its base to its artifact.

pub mod artifact;
pub mod cache;
pub mod guard;
pub mod holdings;
pub mod image;
pub mod layers;
pub mod limits;
pub mod native;
pub mod output;
pub mod pipeline;
pub mod plan;
pub mod process;
pub mod report;
pub mod restore;
pub mod rootfs;
pub mod secrets;
pub mod services;
pub mod vault;
pub mod vmm;
pub mod worker;
