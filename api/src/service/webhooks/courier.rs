//! Sends the events of one webhook: one task each, so that none waits for another one's receiver.
//!
//! It waits for the log, for answers, for the time of a next try, and for what its owner wants of it;
//! it never looks whether something has happened. Nothing waits for it.

mod attempt;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use commands::DispatchError;
use domain::event::Event;
use domain::ids::WebhookId;
use domain::ports::{EventReader as _, LogError};
use domain::recorded::{Position, Recorded, StreamName, Version};
use domain::time::Timestamp;
use domain::webhook::{self, Command, DeadLetter, DeliveryFailure, PauseReason, Webhook};
use projections::store::StoreError;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::lanes::{LaneKey, Lanes, backoff_ms};
use super::ledger::{Changes, DeliveryStatus, Kept, Ledger, Progress, Record};
use super::office::Office;
use crate::http::error::ApiError;
use attempt::{Attempt, Hook, Outcome, Sent};
use domain::causes::chain;

/// Why a webhook is no longer served.
#[derive(Debug, thiserror::Error)]
pub enum CourierError {
    /// The log cannot be read or written.
    #[error("the event log cannot be used")]
    Log(#[from] LogError),
    /// What was delivered cannot be kept.
    #[error("what was delivered cannot be kept")]
    Ledger(#[from] StoreError),
    /// Its own stream cannot be read.
    #[error("the webhook's own stream is damaged")]
    Stream(#[source] Box<DispatchError<webhook::Rejection>>),
    /// It is not known whose an event is.
    #[error("it is not known whose an event is")]
    Origin(#[source] Box<ApiError>),
    /// A thread was lost.
    #[error("a thread was lost")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Sends the events of one webhook.
#[derive(Debug)]
pub(super) struct Courier {
    office: Arc<Office>,
    hook: Arc<Hook>,
    /// Says that something happened to the webhook itself.
    poke: Arc<Notify>,
    state: Webhook,
    progress: Progress,
    lanes: Lanes,
    /// The deliveries that were taken and are kept, the oldest first.
    delivered: VecDeque<Position>,
    under_way: JoinSet<Attempt>,
}

impl Courier {
    /// The courier of the webhook `id`, which goes on where it was; none if it was never registered.
    pub(super) async fn new(
        office: Arc<Office>,
        id: WebhookId,
        poke: Arc<Notify>,
    ) -> Result<Option<Self>, CourierError> {
        let stream = StreamName::Webhook(id.clone());
        let first = office.log.read_stream(&stream, Version::EMPTY, 1).await?;
        let Some((behind, Event::Webhook(event @ webhook::Event::WebhookRegistered(registered)))) =
            first.first().map(|first| (first.position, &first.event))
        else {
            return Ok(None);
        };
        let kept = office.ask_ledger(Ledger::kept, &id).await?;
        let Kept {
            progress,
            lanes,
            delivered,
        } = kept;
        let hook = Hook {
            secret: office.signing.secret(&id),
            registered: registered.clone(),
            id,
        };
        Ok(Some(Self {
            office,
            hook: Arc::new(hook),
            poke,
            state: webhook::evolve(Webhook::Absent, event),
            progress: progress.unwrap_or(Progress {
                read: behind,
                heeded: Version::EMPTY,
            }),
            lanes: Lanes::restored(lanes),
            delivered: delivered.into(),
            under_way: JoinSet::new(),
        }))
    }

    /// Sends until the webhook is deleted or the service stops.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), CourierError> {
        self.catch_up_state().await?;
        loop {
            if matches!(self.state, Webhook::Deleted) {
                let id = &self.hook.id;
                let forgetting = self.office.ask_ledger(Ledger::forget, id);
                return forgetting.await;
            }
            self.start();
            let office = Arc::clone(&self.office);
            let (reads, behind) = (self.reads(), self.progress.read);
            let next_try = self.next_try();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.poke.notified() => self.heed().await?,
                Some(attempt) = self.under_way.join_next() => self.settle(attempt?).await?,
                () = sleep(next_try), if next_try.is_some() => {}
                page = office.page(behind), if reads => self.sort(page?).await?,
            }
        }
    }

    /// Brings what is known of the webhook to where its stream was heeded, and heeds the rest.
    async fn catch_up_state(&mut self) -> Result<(), CourierError> {
        let heeded = self.progress.heeded;
        let mut from = Version(1);
        while from < heeded {
            let page = self.own(from).await?;
            let known = page.iter().take_while(|recorded| recorded.version < heeded);
            let mut last = None;
            for recorded in known {
                self.evolve(&recorded.event);
                last = Some(recorded.version);
            }
            let Some(last) = last else { break };
            from = last.plus(1);
        }
        self.heed().await?;
        if self.hook.secret.digest() != self.hook.registered.secret_digest {
            tracing::error!(
                webhook.id = self.hook.id.as_str(),
                "the key that the webhook's secret was made of is another one: it is paused"
            );
            self.command(Command::Pause(PauseReason::SigningKey))
                .await?;
            self.heed().await?;
        }
        Ok(())
    }

    async fn own(&self, from: Version) -> Result<Vec<Recorded<Event>>, LogError> {
        let stream = StreamName::Webhook(self.hook.id.clone());
        let events_max = self.office.limits.stream_entry_count_max;
        self.office.log.read_stream(&stream, from, events_max).await
    }

    fn evolve(&mut self, event: &Event) {
        if let Event::Webhook(event) = event {
            self.state = webhook::evolve(std::mem::take(&mut self.state), event);
        }
    }

    /// Does what the webhook's own stream says.
    async fn heed(&mut self) -> Result<(), CourierError> {
        loop {
            let page = self.own(self.progress.heeded).await?;
            let Some(last) = page.last().map(|last| last.version) else {
                return Ok(());
            };
            let mut changes = Changes::of(&self.hook.id);
            for recorded in &page {
                if let Event::Webhook(event) = &recorded.event {
                    self.obey(event, &mut changes);
                }
                self.evolve(&recorded.event);
            }
            self.progress.heeded = last.plus(1);
            changes.progress(self.progress);
            self.keep(changes).await?;
        }
    }

    fn obey(&mut self, event: &webhook::Event, changes: &mut Changes) {
        match event {
            // Lanes stay: what they hold may lie before the position.
            webhook::Event::WebhookReplayed { from } => {
                self.progress.read = self.progress.read.min(*from);
            }
            webhook::Event::DeliveryRequeued { position } => {
                if let Webhook::Live(live) = &self.state
                    && let Some(letter) = live.dead.get(position)
                {
                    let key = LaneKey::Again(*position);
                    self.lanes.put(&key, &letter.stream, letter.version);
                    changes.lane(&key, self.lanes.get(&key));
                    changes.record(requeued(letter));
                }
            }
            webhook::Event::WebhookRegistered(_)
            | webhook::Event::WebhookPaused { .. }
            | webhook::Event::WebhookResumed {}
            | webhook::Event::DeliveryDeadLettered(_)
            | webhook::Event::WebhookDeleted {} => {}
        }
    }

    fn is_active(&self) -> bool {
        matches!(&self.state, Webhook::Live(live) if live.paused.is_none())
    }

    fn reads(&self) -> bool {
        self.is_active() && self.lanes.count() < self.office.limits.webhook_lane_count_max
    }

    /// Puts what is to be sent of `page` into lanes.
    async fn sort(&mut self, page: Vec<Recorded<Event>>) -> Result<(), CourierError> {
        let mut changes = Changes::of(&self.hook.id);
        let mut read = self.progress.read;
        for recorded in &page {
            if self.lanes.count() >= self.office.limits.webhook_lane_count_max {
                break;
            }
            read = recorded.position;
            let origin = self.office.owners.of(recorded).await;
            let origin = origin.map_err(|err| CourierError::Origin(Box::new(err)))?;
            if !origin.is_some_and(|origin| self.hook.is_about(&origin))
                || !self.hook.wants(recorded.event.name())
            {
                continue;
            }
            let key = LaneKey::Stream(recorded.stream.clone());
            if self.lanes.put(&key, &recorded.stream, recorded.version) {
                changes.lane(&key, self.lanes.get(&key));
            }
        }
        if read != self.progress.read {
            self.progress.read = read;
            changes.progress(self.progress);
            self.keep(changes).await?;
        }
        Ok(())
    }

    /// Begins to send what can be sent.
    fn start(&mut self) {
        if !self.is_active() {
            return;
        }
        let now = self.office.now();
        while self.under_way.len() < self.office.limits.webhook_concurrent_count_max
            && let Some((key, lane)) = self.lanes.start(now)
        {
            let (office, hook) = (Arc::clone(&self.office), Arc::clone(&self.hook));
            self.under_way
                .spawn(attempt::attempt(office, hook, key, lane));
        }
    }

    /// How long it is until a lane is due; nothing if none will be, or there is no room to send.
    fn next_try(&self) -> Option<Duration> {
        let has_room = self.under_way.len() < self.office.limits.webhook_concurrent_count_max;
        let due = self.lanes.due().filter(|_| has_room && self.is_active())?;
        // Whole milliseconds are cut off.
        let wait_ms = due.millis_since(self.office.now()).saturating_add(1);
        Some(Duration::from_millis(wait_ms))
    }

    /// Does what an attempt's outcome demands.
    async fn settle(&mut self, attempt: Attempt) -> Result<(), CourierError> {
        let Attempt {
            key,
            began,
            attempts,
            outcome,
        } = attempt;
        let mut changes = Changes::of(&self.hook.id);
        match outcome? {
            Outcome::Nothing { next } => self.lanes.passed(&key, began, next),
            Outcome::Sent(sent) => match sent.failure {
                None => {
                    self.delivered(&sent, attempts, &mut changes);
                    self.lanes.passed(&key, began, sent.version.plus(1));
                }
                Some(failure) if attempts >= self.office.limits.webhook_attempt_count_max => {
                    changes.forget(sent.position);
                    self.give_up(&sent, attempts, failure).await?;
                    self.lanes.passed(&key, began, sent.version.plus(1));
                }
                Some(_) => {
                    let due = self.later(attempts);
                    changes.record(record(&sent, attempts, Some(due)));
                    self.lanes.failed(&key, began, sent.version, attempts, due);
                }
            },
        }
        changes.lane(&key, self.lanes.get(&key));
        self.keep(changes).await
    }

    fn delivered(&mut self, sent: &Sent, attempts: u32, changes: &mut Changes) {
        changes.record(record(sent, attempts, None));
        self.delivered.retain(|position| *position != sent.position);
        self.delivered.push_back(sent.position);
        while self.delivered.len() > self.office.limits.webhook_kept_delivery_count_max
            && let Some(oldest) = self.delivered.pop_front()
        {
            changes.forget(oldest);
        }
    }

    fn later(&self, attempts: u32) -> Timestamp {
        // Without random bytes all wait the shortest time that is allowed.
        let random = getrandom::u32().unwrap_or(0);
        let wait_ms = backoff_ms(&self.office.limits, attempts, random);
        self.office.now().plus_millis(wait_ms)
    }

    async fn give_up(
        &mut self,
        sent: &Sent,
        attempts: u32,
        failure: DeliveryFailure,
    ) -> Result<(), CourierError> {
        let letter = DeadLetter {
            position: sent.position,
            stream: sent.stream.clone(),
            version: sent.version,
            kind: sent.kind.to_owned(),
            attempts,
            failure,
        };
        let dead_letters_max = self.office.limits.webhook_dead_letter_count_max;
        let command = Command::DeadLetter {
            letter,
            dead_letters_max,
        };
        self.command(command).await?;
        // Before anything else is sent: it may have been the last one.
        self.heed().await
    }

    async fn command(&self, command: Command) -> Result<(), CourierError> {
        let (id, meta) = (&self.hook.id, self.office.meta());
        match self.office.dispatcher.webhook(id, meta, command).await {
            // Somebody has deleted it, which will be heeded.
            Ok(_) | Err(DispatchError::Rejected(_)) => Ok(()),
            Err(DispatchError::Log(err)) => Err(err.into()),
            Err(err @ (DispatchError::Contended { .. } | DispatchError::Corrupt { .. })) => {
                tracing::error!(error = chain(&err), "a webhook cannot be changed");
                Err(CourierError::Stream(Box::new(err)))
            }
        }
    }

    async fn keep(&self, changes: Changes) -> Result<(), CourierError> {
        let ledger = self.office.ledger.clone();
        let keeping = tokio::task::spawn_blocking(move || ledger.commit(changes));
        Ok(keeping.await??)
    }
}

async fn sleep(wait: Option<Duration>) {
    tokio::time::sleep(wait.unwrap_or_default()).await;
}

fn record(sent: &Sent, attempts: u32, next_at: Option<Timestamp>) -> Record {
    Record {
        position: sent.position,
        stream: sent.stream.clone(),
        version: sent.version,
        kind: sent.kind.to_owned(),
        status: match sent.failure {
            None => DeliveryStatus::Delivered,
            Some(_) => DeliveryStatus::Retrying,
        },
        attempts,
        failure: sent.failure,
        last_at: Some(sent.at),
        next_at,
    }
}

fn requeued(letter: &DeadLetter) -> Record {
    Record {
        position: letter.position,
        stream: letter.stream.clone(),
        version: letter.version,
        kind: letter.kind.clone(),
        status: DeliveryStatus::Requeued,
        attempts: 0,
        failure: None,
        last_at: None,
        next_at: None,
    }
}
