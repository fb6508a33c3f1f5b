//! Where couriers come from: one for each webhook that is there.

use std::collections::HashMap;
use std::sync::Arc;

use commands::ids::IdSource;
use commands::{AnyLog, Dispatcher, Meta};
use domain::causes::chain;
use domain::event::Event;
use domain::ids::{WebhookId, WorkerId};
use domain::ports::{EventReader as _, LogError};
use domain::recorded::{Actor, Position, Recorded, StreamName};
use domain::time::Timestamp;
use projections::Views;
use projections::store::StoreError;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::courier::{Courier, CourierError};
use super::ledger::Ledger;
use super::sender::Sender;
use super::signing::SigningKey;
use crate::limits::Limits;
use crate::service::ClockHandle;
use crate::service::owners::Owners;

/// How often the ledger is emptied after damage before the service gives up.
const RESETS_MAX: u32 = 3;

/// What couriers share.
#[derive(Debug)]
pub struct Office {
    /// The event log.
    pub log: AnyLog,
    /// The way to write to it.
    pub dispatcher: Dispatcher,
    /// Which webhooks there are.
    pub views: Views,
    /// Whose events are whose.
    pub owners: Owners,
    /// What was delivered.
    pub ledger: Ledger,
    /// What signs deliveries.
    pub signing: Arc<SigningKey>,
    /// What sends them.
    pub sender: Sender,
    /// Bounds.
    pub limits: Limits,
    /// New identifiers.
    pub ids: IdSource,
    /// Who gives events up.
    pub worker: WorkerId,
    /// The present moment.
    pub clock: ClockHandle,
}

/// The couriers at work.
struct Couriers {
    tasks: JoinSet<Result<WebhookId, CourierError>>,
    pokes: HashMap<WebhookId, Arc<Notify>>,
    stop: CancellationToken,
}

impl Office {
    /// Now.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.0.now()
    }

    /// What a courier's command carries.
    pub(super) fn meta(&self) -> Meta {
        Meta {
            command_id: self.ids.new_command_id(),
            actor: Actor::Worker {
                id: self.worker.clone(),
            },
        }
    }

    /// The next events behind a position; waits until there are some.
    pub(super) async fn page(&self, behind: Position) -> Result<Vec<Recorded<Event>>, LogError> {
        self.log.wait_behind(behind).await?;
        let events_max = self.limits.stream_entry_count_max;
        self.log.read_all(behind, events_max).await
    }

    /// Asks the ledger about a webhook.
    pub(super) async fn ask_ledger<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Ledger, &WebhookId) -> Result<T, StoreError> + Send + 'static,
        id: &WebhookId,
    ) -> Result<T, CourierError> {
        let (ledger, id) = (self.ledger.clone(), id.clone());
        Ok(tokio::task::spawn_blocking(move || ask(&ledger, &id)).await??)
    }

    /// Keeps a courier at work for each webhook, until `stop`.
    ///
    /// # Errors
    /// [`CourierError`]: nothing is sent any more.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) -> Result<(), CourierError> {
        let mut resets = 0;
        loop {
            match self.serve(&stop).await {
                Err(CourierError::Ledger(err)) if resets < RESETS_MAX => {
                    resets += 1;
                    tracing::error!(
                        error = chain(&err),
                        "what was delivered is lost, and is sent again"
                    );
                    let ledger = self.ledger.clone();
                    tokio::task::spawn_blocking(move || ledger.reset()).await??;
                }
                Ok(()) => break,
                // The log ends when the service does.
                Err(err) if stop.is_cancelled() => {
                    tracing::debug!(error = chain(&err), "webhooks end");
                    break;
                }
                Err(err) => return Err(err),
            }
        }
        let ledger = self.ledger.clone();
        tokio::task::spawn_blocking(move || ledger.flush()).await??;
        Ok(())
    }

    async fn serve(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), CourierError> {
        let mut couriers = Couriers {
            tasks: JoinSet::new(),
            pokes: HashMap::new(),
            stop: stop.child_token(),
        };
        // Those that are registered later are seen in the log.
        let mut seen = self.views.applied();
        let views = self.views.clone();
        let there = tokio::task::spawn_blocking(move || views.webhooks()).await??;
        for row in there {
            couriers.start(self, row.id);
        }
        let served = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                Some(ended) = couriers.tasks.join_next() => match ended? {
                    Ok(id) => couriers.ended(&id),
                    Err(err) => break Err(err),
                },
                page = self.page(seen) => {
                    let page = page?;
                    for recorded in &page {
                        if let StreamName::Webhook(id) = &recorded.stream {
                            couriers.tell(self, id);
                        }
                    }
                    seen = page.last().map_or(seen, |last| last.position);
                }
            }
        };
        couriers.stop.cancel();
        while let Some(ended) = couriers.tasks.join_next().await {
            ended??;
        }
        served
    }
}

impl Couriers {
    fn start(&mut self, office: &Arc<Office>, id: WebhookId) {
        let poke = Arc::new(Notify::new());
        self.pokes.insert(id.clone(), Arc::clone(&poke));
        let (office, stop) = (Arc::clone(office), self.stop.clone());
        self.tasks.spawn(async move {
            if let Some(courier) = Courier::new(office, id.clone(), poke).await? {
                courier.run(stop).await?;
            }
            Ok(id)
        });
    }

    /// Something has happened to a webhook.
    fn tell(&mut self, office: &Arc<Office>, id: &WebhookId) {
        match self.pokes.get(id) {
            Some(poke) => poke.notify_one(),
            None => self.start(office, id.clone()),
        }
    }

    /// The webhook was deleted, or the service stops.
    fn ended(&mut self, id: &WebhookId) {
        self.pokes.remove(id);
    }
}
