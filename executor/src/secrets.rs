//! Secret values in what a build brings forth: how they may be written, how they are found again.
//!
//! ```text
//! value ──forms──► byte strings ──Needles──┬──► output::mask   what the log must not show
//!                                          └──► search         what the result must not hold
//! ```
//!
//! Both do what can be done and no more: whoever encrypts, compresses or reverses a value gets it past
//! them.

pub(crate) mod forms;
pub(crate) mod needles;
pub mod search;
