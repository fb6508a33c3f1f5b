//! The parts that send events to webhooks.

use std::path::PathBuf;
use std::sync::Arc;

use projections::limits::EmbeddedLimits;
use projections::store::embedded::Embedded;

use super::{Background, StartError};
use crate::config::Config;
use crate::service::App;
use crate::service::webhooks::Webhooks;
use crate::service::webhooks::ledger::Ledger;
use crate::service::webhooks::office::Office;
use crate::service::webhooks::sender::Sender;
use crate::service::webhooks::signing::SigningKey;
use crate::service::webhooks::target::Targets;

/// What was delivered, kept in `folder`.
pub(super) async fn ledger(folder: PathBuf) -> Result<Ledger, StartError> {
    let opening = tokio::task::spawn_blocking(move || {
        let store = Embedded::open(&folder, EmbeddedLimits::default())?;
        Ledger::over(Arc::new(store))
    });
    Ok(opening.await??)
}

/// What endpoints need of webhooks.
pub(super) async fn desk(config: &Config, ledger: Ledger) -> Result<Webhooks, StartError> {
    let file = config.data_dir.webhooks_key();
    let signing = tokio::task::spawn_blocking(move || SigningKey::open(&file)).await??;
    let targets = Targets::new(&config.webhooks);
    Ok(Webhooks::new(ledger, targets, Arc::new(signing)))
}

/// What happens is sent to whoever wants it.
pub(super) fn send(background: &mut Background, app: &Arc<App>) -> Result<(), StartError> {
    if !app.config.webhooks.enabled {
        return Ok(());
    }
    let (limits, webhooks) = (app.config.limits.clone(), &app.webhooks);
    let sender = Sender::new(webhooks.targets.clone(), &limits).map_err(StartError::Sender)?;
    let office = Office {
        log: app.log.clone(),
        dispatcher: app.dispatcher.clone(),
        views: app.views.clone(),
        owners: app.owners.clone(),
        ledger: webhooks.ledger.clone(),
        signing: Arc::clone(&webhooks.signing),
        sender,
        limits,
        worker: app.ids.new_worker_id(),
        ids: app.ids.clone(),
        clock: app.clock.clone(),
    };
    let stop = background.first();
    background.spawn("webhooks", async move {
        Arc::new(office).run(stop).await.map_err(Into::into)
    });
    Ok(())
}
