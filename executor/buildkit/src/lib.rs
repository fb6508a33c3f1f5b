//! Drives BuildKit's client, `buildctl`: which daemon is asked, what it is asked for, what it says
//! while it works, and why it failed.
//!
//! It knows nothing of builds as the service knows them, of the event log and of layers: it turns an
//! invocation into [`Event`]s and a folder with an OCI image layout. What it gives has not been
//! searched for secret values; whoever passes it on does that.
//!
//! Where to start: [`run`] is one build from the private folder to the outcome.

pub mod daemon;
pub mod dockerfile;
pub mod event;
pub mod invocation;
pub mod limits;
mod outcome;
pub mod progress;
pub mod run;
#[cfg(test)]
mod testkit;

pub use event::{Event, Excerpt, Failure, FailureKind, OutputStream, Step};
pub use limits::BuildkitLimits;
