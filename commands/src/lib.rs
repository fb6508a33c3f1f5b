//! The write side: the only code that appends events.
//!
//! ```text
//!  command ──► dispatch ──load, decide──► domain
//!                 │ append at the version read
//!                 ▼
//!              AnyLog ──► memory    (tests, simulation)
//!                    └──► embedded  (sled: one writer thread, group commit, anchor)
//! ```
//!
//! This crate knows nothing of HTTP, views or how a build is made. Where to start:
//! [`dispatch::Dispatcher`] is the way in, [`log::AnyLog`] is what it writes to, [`codec`] is what
//! the stored bytes look like and how they are chained. [`blobs`] holds the contents of uploaded
//! files, which are too large for events.

pub mod blobs;
pub mod clock;
pub mod codec;
pub mod dispatch;
pub mod ids;
pub mod limits;
pub mod log;

pub use dispatch::{DispatchError, Dispatcher, Done, Meta};
pub use log::AnyLog;
