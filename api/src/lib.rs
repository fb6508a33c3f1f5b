//! HTTP, operator commands and the composition root of `nullspaced`.
//!
//! ```text
//!  request ──► http (route, key, body) ──► normalise ──► service ──► commands
//!  answer  ◄── wire ◄── service::present ◄── projections
//! ```
//!
//! Where to start: [`http::route`] is the whole API on one page, [`normalise`] says what is wrong
//! with a request, [`service::accept`] makes a build of it, [`wiring`] puts everything together.
//! This crate decides nothing about builds: rules are in `domain`, views in `projections`.

pub mod cli;
pub mod config;
pub mod http;
pub mod limits;
pub mod normalise;
pub mod service;
pub mod telemetry;
pub mod wire;
pub mod wiring;
