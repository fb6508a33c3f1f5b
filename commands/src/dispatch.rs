//! The way from a command to events: load, decide, append at the version read.
//!
//! ```text
//!            ┌──────────── Conflict: somebody else was first ─────────────┐
//!            ▼                                                            │
//!  cache or read_stream ──► decide ──► append ──► evolve ──► Done         │
//!                             │           └───────────────────────────────┘
//!                             └─► Rejected, or nothing to do; from the present state only
//! ```

mod aggregate;
mod cache;
mod error;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use domain::event::Event;
use domain::ids::{BuildId, CommandId, TemplateId, WebhookId};
use domain::name::Namespace;
use domain::ports::{Append, Appended, Clock, EventAppender, EventReader, LogError};
use domain::recorded::{Actor, Recorded, StreamName, Version};
use domain::{build, keys, namespace, template, webhook};
use tracing::{Instrument, Span, field, info_span};

use crate::limits::DispatchLimits;
use crate::log::AnyLog;
use aggregate::{Aggregate, Builds, KeyRing, NameBook, Templates, Webhooks};
use cache::Cache;
pub use error::DispatchError;
use error::ReadError;

/// Whose command it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The command's id: the ids of its events derive from it.
    pub command_id: CommandId,
    /// Who gives it.
    pub actor: Actor,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq)]
pub struct Done<S> {
    /// The state afterwards.
    pub state: S,
    /// The stream's version afterwards.
    pub version: Version,
    /// How many events it made happen.
    pub events: usize,
    /// Where they stand; none if what the command wants was so already.
    pub appended: Option<Appended>,
}

/// Dispatches commands. Clones share their caches.
#[derive(Clone)]
pub struct Dispatcher {
    log: AnyLog,
    clock: Arc<dyn Clock>,
    limits: DispatchLimits,
    builds: Arc<Cache<build::Build>>,
    names: Arc<Cache<namespace::Names>>,
    templates: Arc<Cache<template::Template>>,
    keys: Arc<Cache<keys::Keys>>,
    webhooks: Arc<Cache<webhook::Webhook>>,
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher")
            .field("log", &self.log)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Dispatcher {
    /// A dispatcher that appends to `log`.
    pub fn new(log: AnyLog, clock: Arc<dyn Clock>, limits: DispatchLimits) -> Self {
        let states_max = limits.cached_states_max;
        Self {
            log,
            clock,
            limits,
            builds: Arc::new(Cache::new(states_max)),
            names: Arc::new(Cache::new(states_max)),
            templates: Arc::new(Cache::new(states_max)),
            keys: Arc::new(Cache::new(states_max)),
            webhooks: Arc::new(Cache::new(states_max)),
        }
    }

    /// Gives a build a command.
    ///
    /// # Errors
    /// [`DispatchError`].
    pub async fn build(
        &self,
        id: &BuildId,
        meta: Meta,
        command: build::Command,
    ) -> Result<Done<build::Build>, DispatchError<build::Rejection>> {
        let span = span::<Builds>(&command);
        span.record("build.id", id.as_str());
        self.dispatch::<Builds>(&self.builds, StreamName::Build(id.clone()), meta, command)
            .instrument(span)
            .await
    }

    /// Gives the names of a namespace a command.
    ///
    /// # Errors
    /// [`DispatchError`].
    pub async fn names(
        &self,
        namespace: &Namespace,
        meta: Meta,
        command: namespace::Command,
    ) -> Result<Done<namespace::Names>, DispatchError<namespace::Rejection>> {
        let stream = StreamName::Namespace(namespace.clone());
        let span = span::<NameBook>(&command);
        self.dispatch::<NameBook>(&self.names, stream, meta, command)
            .instrument(span)
            .await
    }

    /// Gives a template a command.
    ///
    /// # Errors
    /// [`DispatchError`].
    pub async fn template(
        &self,
        id: &TemplateId,
        meta: Meta,
        command: template::Command,
    ) -> Result<Done<template::Template>, DispatchError<template::Rejection>> {
        let stream = StreamName::Template(id.clone());
        let span = span::<Templates>(&command);
        span.record("template.id", id.as_str());
        self.dispatch::<Templates>(&self.templates, stream, meta, command)
            .instrument(span)
            .await
    }

    /// Gives the API keys a command.
    ///
    /// # Errors
    /// [`DispatchError`].
    pub async fn keys(
        &self,
        meta: Meta,
        command: keys::Command,
    ) -> Result<Done<keys::Keys>, DispatchError<keys::Rejection>> {
        let span = span::<KeyRing>(&command);
        self.dispatch::<KeyRing>(&self.keys, StreamName::Keys, meta, command)
            .instrument(span)
            .await
    }

    /// Gives a webhook a command.
    ///
    /// # Errors
    /// [`DispatchError`].
    pub async fn webhook(
        &self,
        id: &WebhookId,
        meta: Meta,
        command: webhook::Command,
    ) -> Result<Done<webhook::Webhook>, DispatchError<webhook::Rejection>> {
        let stream = StreamName::Webhook(id.clone());
        let span = span::<Webhooks>(&command);
        span.record("webhook.id", id.as_str());
        self.dispatch::<Webhooks>(&self.webhooks, stream, meta, command)
            .instrument(span)
            .await
    }

    /// The present state of a build, and its stream's version.
    ///
    /// # Errors
    /// [`DispatchError::Corrupt`] or [`DispatchError::Log`].
    pub async fn load_build(
        &self,
        id: &BuildId,
    ) -> Result<(build::Build, Version), DispatchError<Infallible>> {
        self.load::<Builds>(&self.builds, &StreamName::Build(id.clone()))
            .await
    }

    /// The present names of a namespace, and its stream's version.
    ///
    /// # Errors
    /// [`DispatchError::Corrupt`] or [`DispatchError::Log`].
    pub async fn load_names(
        &self,
        namespace: &Namespace,
    ) -> Result<(namespace::Names, Version), DispatchError<Infallible>> {
        self.load::<NameBook>(&self.names, &StreamName::Namespace(namespace.clone()))
            .await
    }

    /// What was done to a template so far, and its stream's version.
    ///
    /// # Errors
    /// [`DispatchError::Corrupt`] or [`DispatchError::Log`].
    pub async fn load_template(
        &self,
        id: &TemplateId,
    ) -> Result<(template::Template, Version), DispatchError<Infallible>> {
        self.load::<Templates>(&self.templates, &StreamName::Template(id.clone()))
            .await
    }

    /// The present API keys, and their stream's version.
    ///
    /// # Errors
    /// [`DispatchError::Corrupt`] or [`DispatchError::Log`].
    pub async fn load_keys(&self) -> Result<(keys::Keys, Version), DispatchError<Infallible>> {
        self.load::<KeyRing>(&self.keys, &StreamName::Keys).await
    }

    async fn dispatch<A: Aggregate>(
        &self,
        cache: &Cache<A::State>,
        stream: StreamName,
        meta: Meta,
        command: A::Command,
    ) -> Result<Done<A::State>, DispatchError<A::Rejection>> {
        let time = self.clock.now();
        for _ in 0..self.limits.attempts_max {
            let kept = cache.get(&stream);
            let cached = kept.is_some();
            let (state, version) = match kept {
                Some(kept) => kept,
                None => self.read::<A>(&stream).await?,
            };
            let events = match A::decide(&state, command.clone()) {
                Ok(events) if !events.is_empty() => events,
                // What makes nothing happen meets no conflict, so it must be told from the
                // present state.
                _ if cached && self.has_moved_on(&stream, version).await? => {
                    cache.remove(&stream);
                    continue;
                }
                Ok(_) => return Ok(done(state, version)),
                Err(rejection) => return Err(DispatchError::Rejected(rejection)),
            };
            let append = Append {
                stream: stream.clone(),
                expected: version,
                command_id: meta.command_id.clone(),
                actor: meta.actor.clone(),
                time,
                events: events.iter().cloned().map(Into::into).collect(),
            };
            match append_known(&self.log, append, &self.limits).await {
                Ok(appended) => {
                    let state = events.iter().fold(state, A::evolve);
                    keep::<A>(cache, stream, &state, appended.version);
                    Span::current().record("stream.version", appended.version.0);
                    return Ok(Done {
                        state,
                        version: appended.version,
                        events: events.len(),
                        appended: Some(appended),
                    });
                }
                Err(LogError::Conflict { .. }) => cache.remove(&stream),
                Err(err) => return Err(err.into()),
            }
        }
        Err(DispatchError::Contended {
            stream,
            attempts: self.limits.attempts_max,
        })
    }

    async fn load<A: Aggregate>(
        &self,
        cache: &Cache<A::State>,
        stream: &StreamName,
    ) -> Result<(A::State, Version), DispatchError<Infallible>> {
        if let Some((state, version)) = cache.get(stream) {
            if !self.has_moved_on(stream, version).await? {
                return Ok((state, version));
            }
            cache.remove(stream);
        }
        let (state, version) = self.read::<A>(stream).await?;
        keep::<A>(cache, stream.clone(), &state, version);
        Ok((state, version))
    }

    async fn has_moved_on(&self, stream: &StreamName, version: Version) -> Result<bool, LogError> {
        Ok(!self.log.read_stream(stream, version, 1).await?.is_empty())
    }

    /// Reads and folds a whole stream.
    async fn read<A: Aggregate>(
        &self,
        stream: &StreamName,
    ) -> Result<(A::State, Version), ReadError> {
        let mut history = Vec::new();
        let mut from = Version::EMPTY;
        loop {
            let page = self
                .log
                .read_stream(stream, from, self.limits.page_events)
                .await?;
            let Some(last) = page.last() else { break };
            from = last.version.plus(1);
            for recorded in page {
                history.push(own::<A>(recorded)?);
            }
        }
        A::replay(&history).map_err(|source| ReadError::Corrupt {
            stream: stream.clone(),
            source,
        })
    }
}

/// Appends; if nobody knows whether that happened, again, which the log recognises.
async fn append_known(
    log: &impl EventAppender,
    append: Append,
    limits: &DispatchLimits,
) -> Result<Appended, LogError> {
    let mut outcome = log.append(append.clone()).await;
    for _ in 0..limits.repeats_max {
        let Err(unknown @ LogError::OutcomeUnknown(_)) = outcome else {
            return outcome;
        };
        tokio::time::sleep(Duration::from_millis(limits.repeat_pause_ms)).await;
        outcome = match log.append(append.clone()).await {
            // That nothing was written is said of the repeat, not of the first time.
            Err(LogError::Unavailable(_)) => Err(unknown),
            repeated => repeated,
        };
    }
    outcome
}

/// The event as one of the aggregate's own.
fn own<A: Aggregate>(recorded: Recorded<Event>) -> Result<Recorded<A::Event>, ReadError> {
    let event = recorded.event.name();
    match A::own(recorded.event) {
        Some(event) => Ok(Recorded {
            stream: recorded.stream,
            version: recorded.version,
            position: recorded.position,
            time: recorded.time,
            schema_version: recorded.schema_version,
            actor: recorded.actor,
            command_id: recorded.command_id,
            hash: recorded.hash,
            event,
        }),
        None => Err(ReadError::Corrupt {
            stream: recorded.stream,
            source: build::CorruptStream {
                version: recorded.version,
                event,
            },
        }),
    }
}

fn keep<A: Aggregate>(
    cache: &Cache<A::State>,
    stream: StreamName,
    state: &A::State,
    version: Version,
) {
    if A::is_final(state) {
        cache.remove(&stream);
    } else {
        cache.put(stream, state.clone(), version);
    }
}

fn done<S>(state: S, version: Version) -> Done<S> {
    Done {
        state,
        version,
        events: 0,
        appended: None,
    }
}

fn span<A: Aggregate>(command: &A::Command) -> Span {
    info_span!(
        "dispatch",
        command.name = A::command_name(command),
        build.id = field::Empty,
        template.id = field::Empty,
        webhook.id = field::Empty,
        stream.version = field::Empty,
    )
}
