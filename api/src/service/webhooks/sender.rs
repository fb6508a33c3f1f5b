//! One attempt at a delivery: a POST within a bound of time, to an address that is allowed.

use std::sync::Arc;
use std::time::Duration;

use domain::webhook::DeliveryFailure;
use executor::guard::{AddressRefused, Names, Resolver, SystemNames};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Response, redirect};

use super::target::Targets;
use crate::limits::Limits;

/// How long a connection is kept for the next delivery.
const IDLE_PATIENCE: Duration = Duration::from_secs(30);

/// How much of an answer is read so that its connection can be used again; of a longer one the
/// connection is closed. What it says is of no interest.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// The form of what is sent.
const CLOUD_EVENT: &str = "application/cloudevents+json";

/// Sends deliveries.
#[derive(Debug)]
pub struct Sender {
    client: Client,
    targets: Targets,
    patience: Duration,
}

impl Sender {
    /// Sends to what `targets` allow.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(targets: Targets, limits: &Limits) -> reqwest::Result<Self> {
        Self::with_names(targets, limits, Arc::new(SystemNames))
    }

    fn with_names(
        targets: Targets,
        limits: &Limits,
        names: Arc<dyn Names>,
    ) -> reqwest::Result<Self> {
        let resolver = Resolver::new(names, targets.reach().clone());
        let client = Client::builder()
            // A proxy would resolve names where nobody looks.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .dns_resolver(Arc::new(resolver))
            .pool_idle_timeout(IDLE_PATIENCE)
            .pool_max_idle_per_host(limits.webhook_concurrent_count_max)
            .user_agent(concat!("nullspaced/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            client,
            targets,
            patience: Duration::from_millis(limits.webhook_timeout_ms),
        })
    }

    /// What may be sent to.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Posts `body` to `url`.
    ///
    /// # Errors
    /// Why it counts as not taken.
    pub async fn send(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<(), DeliveryFailure> {
        // The settings may be others than when it was registered.
        let url = self.targets.read(url);
        let url = url.map_err(|_| DeliveryFailure::TargetRefused)?;
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, CLOUD_EVENT)
            .headers(headers)
            .body(body);
        let answering = async {
            let response = request.send().await.map_err(|err| unsent(&err))?;
            let status = response.status();
            read_out(response).await;
            if status.is_success() {
                Ok(())
            } else {
                let status = status.as_u16();
                Err(DeliveryFailure::Answered { status })
            }
        };
        let answered = tokio::time::timeout(self.patience, answering).await;
        answered.unwrap_or(Err(DeliveryFailure::TimedOut))
    }
}

/// Reads what is left of a short answer. The status has said all, so it does not matter how it ends.
async fn read_out(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(piece)) = response.chunk().await {
        read += piece.len();
        if read > ANSWER_BYTES_MAX {
            return;
        }
    }
}

fn unsent(err: &reqwest::Error) -> DeliveryFailure {
    match AddressRefused::in_causes(err) {
        Some(_) => DeliveryFailure::AddressRefused,
        None => DeliveryFailure::Unreachable,
    }
}

#[cfg(test)]
mod tests;
