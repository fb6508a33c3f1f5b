//! What the endpoints do, without HTTP.

pub mod accept;
pub mod actors;
pub mod admission;
pub mod audit;
pub mod bases;
pub mod cache;
pub mod claims;
pub mod context;
pub mod diff;
pub mod events;
pub mod first_key;
pub mod inspect;
pub mod keys;
pub mod metrics;
mod names;
pub mod once;
pub mod operator;
pub mod owners;
pub mod past;
pub mod present;
pub mod retention;
mod secret_file;
pub mod templates;
pub mod uploads;
pub mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use commands::blobs::BlobStore;
use commands::ids::IdSource;
use commands::{AnyLog, Dispatcher, Meta};
use domain::ports::{Appended, Clock, EventReader as _};
use domain::recorded::{Actor, Position};
use executor::vault::Vault;
use projections::Views;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::http::error::ApiError;
use admission::Admission;
use cache::CacheDesk;
use events::Pages;
use keys::{Caller, KeyTable};
use metrics::Metrics;
use once::Turns;
use owners::Owners;
use uploads::Uploads;
use webhooks::Webhooks;

/// Everything that endpoints share.
#[derive(Debug)]
pub struct App {
    /// The settings.
    pub config: Config,
    /// The event log.
    pub log: AnyLog,
    /// The way to write to it.
    pub dispatcher: Dispatcher,
    /// What has been made of it.
    pub views: Views,
    /// Contents of files.
    pub blobs: BlobStore,
    /// Who has sent which file.
    pub uploads: Uploads,
    /// Who may have a further build wait.
    pub admission: Admission,
    /// Whose turn it is among requests that may be about one build.
    pub turns: Turns,
    /// Secret values of builds that are not over.
    pub vault: Vault,
    /// What is kept to be used again.
    pub desk: CacheDesk,
    /// Who has which key.
    pub keys: KeyTable,
    /// Whose events are whose.
    pub owners: Owners,
    /// Where events are sent.
    pub webhooks: Webhooks,
    /// The log, for readers of events.
    pub pages: Pages,
    /// New identifiers.
    pub ids: IdSource,
    /// The present moment.
    pub clock: ClockHandle,
    /// What is counted.
    pub metrics: Metrics,
    /// Room for open streams.
    pub streams: Arc<Semaphore>,
    /// Room for large requests that are only looked at.
    pub inspections: Semaphore,
    /// Room for looking at the whole log.
    pub audits: Semaphore,
    /// Room for views of the past.
    pub past_views: Semaphore,
    /// Requests that are being answered, and streams.
    pub open: TaskTracker,
    /// Says that the service stops: streams end.
    pub stopping: CancellationToken,
    /// The position that the views must have reached before the service is ready.
    pub ready_from: Position,
    /// Whether a worker is ready to build.
    pub worker_ready: watch::Receiver<bool>,
    /// Where work goes on that must not end with its request.
    pub runtime: tokio::runtime::Handle,
}

/// The present moment, for everybody.
#[derive(Clone)]
pub struct ClockHandle(pub Arc<dyn Clock>);

impl std::fmt::Debug for ClockHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClockHandle")
    }
}

impl App {
    /// What a command of `caller` carries.
    pub fn meta(&self, caller: &Caller) -> Meta {
        Meta {
            command_id: self.ids.new_command_id(),
            actor: Actor::Key {
                id: caller.key.clone(),
            },
        }
    }

    /// What a command of the operator carries.
    pub fn operator(&self) -> Meta {
        Meta {
            command_id: self.ids.new_command_id(),
            actor: Actor::Operator,
        }
    }

    /// How long a write waits until it is visible.
    pub fn read_your_write(&self) -> Duration {
        Duration::from_millis(self.config.limits.read_your_write_ms_max)
    }

    /// Waits until the views show what was appended; if nothing was, all that had happened by then:
    /// what is so already may be somebody's write that is not shown yet.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] if that takes too long. What was appended stays.
    pub async fn shown(&self, appended: Option<Appended>) -> Result<(), ApiError> {
        let position = appended.map_or_else(|| self.log.head(), |appended| appended.position);
        let shown = self.views.wait_for(position, self.read_your_write()).await;
        shown.map_err(|stalled| ApiError::unavailable("the views are behind", stalled))
    }

    /// Why the service cannot build yet; `None`: it can.
    pub fn not_ready(&self) -> Option<&'static str> {
        if self.views.applied() < self.ready_from {
            return Some("the views are catching up with the event log");
        }
        if !*self.worker_ready.borrow() {
            return Some("no worker is ready");
        }
        if self.stopping.is_cancelled() {
            return Some("the service is stopping");
        }
        None
    }
}
