//! What a template build is, and which rules hold: values and functions without IO.
//!
//! This crate knows nothing of HTTP, files, processes, clocks or randomness. Time, ids and digests
//! come in with the command; the same inputs give the same outputs, for ever.
//!
//! Where to start: [`build::decide`] is the rule book of builds, [`build::Event`] is what can have
//! happened, [`definition::Definition`] is what a user asks for, [`ports`] is what this crate wants
//! of the outside.

pub mod build;
pub mod causes;
pub mod definition;
pub mod digest;
pub mod event;
pub mod failure;
pub mod ids;
#[cfg(test)]
mod interleave;
pub mod keys;
pub mod name;
pub mod namespace;
pub mod ports;
pub mod recorded;
pub mod template;
pub mod time;
pub mod webhook;

pub use digest::Digest;
pub use event::Event;
