//! The read side: views that are folded from the event log and can be thrown away.
//!
//! Nothing here is ground state. Every row follows from the events behind it, in the order of the
//! log, and from nothing else: replaying the log gives the same bytes as having followed it. What
//! is damaged, or was written by another revision of the code, is deleted and folded anew.
//!
//! This crate knows nothing of commands, HTTP and workers; it reads the log through
//! [`domain::ports::EventReader`].
//!
//! Where to start: [`projection::Projection`] is what a view is, [`runner::Runner`] keeps the views
//! up to date, [`views::Views`] answers questions about them.
//!
//! ```no_run
//! # async fn example<R: domain::ports::EventReader + 'static>(log: R) -> Result<(), Box<dyn std::error::Error>> {
//! let (views, runner) = projections::open(std::path::Path::new("views"), &projections::limits::Limits::default())?;
//! let (stop, stopped) = tokio::sync::watch::channel(false);
//! let running = tokio::spawn(async move { runner.run(&log, stopped).await });
//! // … handlers hold clones of `views` …
//! drop(views);
//! stop.send_replace(true);
//! running.await??;
//! # Ok(())
//! # }
//! ```

pub mod builds;
pub mod claims;
pub mod idempotency;
mod key;
pub mod limits;
pub mod lineage;
pub mod logs;
pub mod outline;
pub mod past;
pub mod projection;
#[cfg(test)]
mod properties;
pub mod queue;
pub mod replay;
pub mod rows;
pub mod runner;
pub mod store;
pub mod templates;
#[cfg(test)]
mod testing;
pub mod timeline;
pub mod views;
pub mod webhooks;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

pub use key::Key;
pub use runner::Runner;
pub use views::Views;

use crate::limits::Limits;
use crate::store::StoreError;
use crate::store::embedded::Embedded;
use crate::store::memory::Memory;

/// Opens the views that are kept in `folder`, and what keeps them up to date. Blocks: it reads all
/// rows once, to see that none is missing.
///
/// # Errors
/// [`StoreError::InUse`] if another process has the folder, [`StoreError`] if not even an empty
/// view can be made there. Damage is no error: the views are folded anew.
pub fn open(folder: &Path, limits: &Limits) -> Result<(Views, Runner), StoreError> {
    let store = Embedded::open(folder, limits.embedded)?;
    runner::over(Arc::new(store), limits)
}

/// Views that are forgotten with the process.
///
/// # Errors
/// Never in practice: a store in memory does not fail.
pub fn in_memory(limits: &Limits) -> Result<(Views, Runner), StoreError> {
    runner::over(Arc::new(Memory::default()), limits)
}

/// An error as a field of a trace event, which shows its sources, too.
fn as_error<'a>(err: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    err
}
