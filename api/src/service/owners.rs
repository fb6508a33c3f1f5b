//! Whose events are whose: readers of the log get their own, and nobody else's.
//!
//! | stream | whose |
//! |---|---|
//! | of a build | the owner's in its first event, `Requested` |
//! | of a template | the owner's in the `NameTaken` that gave the template its first name |
//! | of a namespace | the owner's whose default namespace it is |
//! | of the keys and of webhooks | nobody's |
//!
//! None of these ever changes, so what was found out is kept, a bounded number of streams; whoever
//! reads the log in its order mostly comes by what says so. The rest is looked up: a build's first
//! event in the log, a template's row in the views, once they are as far as the event.
//! **Invariant: a stream is given to an owner only by what its events say**, never by a guess, and
//! what the views do not show yet is waited for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use commands::AnyLog;
use domain::build::{self, Requested};
use domain::event::Event;
use domain::ids::{BuildId, TemplateId};
use domain::name::Owner;
use domain::namespace;
use domain::ports::EventReader as _;
use domain::recorded::{Position, Recorded, StreamName, Version};
use projections::Views;

use crate::http::error::ApiError;

/// Whose a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The owner.
    pub owner: Owner,
    /// The template that it is about, if it is a template's or a build's.
    pub template: Option<TemplateId>,
}

/// Finds out whose events are whose. Clones share what they know.
#[derive(Clone, Debug)]
pub struct Owners {
    log: AnyLog,
    views: Views,
    known: Arc<Mutex<Known>>,
}

impl Owners {
    /// Looks into `log` and `views`, and keeps what it finds of at most `stream_count_max` streams.
    pub fn new(log: AnyLog, views: Views, stream_count_max: usize) -> Self {
        Self {
            log,
            views,
            known: Arc::new(Mutex::new(Known::new(stream_count_max))),
        }
    }

    /// Whose `recorded` is; nobody's if it is of the keys or of a webhook. Waits for the views if they have to say.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] if the log or the views cannot be read.
    pub async fn of(&self, recorded: &Recorded<Event>) -> Result<Option<Origin>, ApiError> {
        self.learn(recorded);
        let origin = match &recorded.stream {
            StreamName::Keys | StreamName::Webhook(_) => return Ok(None),
            StreamName::Namespace(slug) => Origin {
                // The grammar of both is the same.
                owner: slug.as_str().parse().map_err(ApiError::internal)?,
                template: None,
            },
            StreamName::Build(_) | StreamName::Template(_) => {
                if let Some(origin) = self.known().get(&recorded.stream) {
                    return Ok(Some(origin));
                }
                self.find(&recorded.stream, recorded.position).await?
            }
        };
        Ok(Some(origin))
    }

    /// Keeps what `recorded` says about its own stream or another one.
    fn learn(&self, recorded: &Recorded<Event>) {
        match &recorded.event {
            Event::Build(build::Event::Requested(requested)) => {
                let origin = Origin {
                    owner: requested.owner.clone(),
                    template: Some(requested.template_id.clone()),
                };
                self.known().put(recorded.stream.clone(), origin);
            }
            Event::Namespace(namespace::Event::NameTaken {
                template_id, owner, ..
            }) => {
                let origin = Origin {
                    owner: owner.clone(),
                    template: Some(template_id.clone()),
                };
                let stream = StreamName::Template(template_id.clone());
                self.known().put(stream, origin);
            }
            Event::Build(_)
            | Event::Namespace(_)
            | Event::Template(_)
            | Event::Keys(_)
            | Event::Webhook(_) => {}
        }
    }

    async fn find(&self, stream: &StreamName, at: Position) -> Result<Origin, ApiError> {
        let origin = match stream {
            StreamName::Build(id) => self.of_build(id).await?,
            StreamName::Template(id) => self.of_template(id, at).await?,
            StreamName::Namespace(_) | StreamName::Keys | StreamName::Webhook(_) => {
                return Err(ApiError::internal("the stream's name says whose it is"));
            }
        };
        self.known().put(stream.clone(), origin.clone());
        Ok(origin)
    }

    /// From the log, where a build's first event stands before all its others.
    async fn of_build(&self, id: &BuildId) -> Result<Origin, ApiError> {
        let requested = request_of(&self.log, id).await?;
        Ok(Origin {
            owner: requested.owner,
            template: Some(requested.template_id),
        })
    }

    /// From the views, which have a template's row since its first name, and for ever. The name was
    /// taken before whatever happened to the template `at` a position.
    async fn of_template(&self, id: &TemplateId, at: Position) -> Result<Origin, ApiError> {
        loop {
            let applied = self.views.applied();
            if let Some(row) = self.views.template(id)? {
                return Ok(Origin {
                    owner: row.owner,
                    template: Some(row.id),
                });
            }
            tracing::debug!(
                template.id = id.as_str(),
                position = at.raw(),
                applied = applied.raw(),
                "waits for the views to say whose a template is"
            );
            let changed = self.views.changed(applied).await;
            changed.map_err(|err| ApiError::unavailable("the views have stopped", err))?;
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Losing or keeping an entry is right either way.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the build `id`, which is in the log, was asked for: the first event of its stream.
///
/// # Errors
/// [`ApiError::Unavailable`] if the log cannot be read.
pub async fn request_of(log: &AnyLog, id: &BuildId) -> Result<Box<Requested>, ApiError> {
    let stream = StreamName::Build(id.clone());
    let first = log.read_stream(&stream, Version::EMPTY, 1).await;
    let first = first.map_err(|err| ApiError::unavailable("the event log cannot be read", err))?;
    match first.into_iter().next().map(|first| first.event) {
        Some(Event::Build(build::Event::Requested(requested))) => Ok(requested),
        // The log refuses any other beginning.
        _ => Err(ApiError::internal(format!(
            "the stream of build {id} does not begin with a request"
        ))),
    }
}

/// What is known, in two generations: when the younger one is full, the older one is forgotten, so
/// that neither use nor forgetting takes a search.
#[derive(Debug)]
struct Known {
    generation_count_max: usize,
    young: HashMap<StreamName, Origin>,
    old: HashMap<StreamName, Origin>,
}

impl Known {
    fn new(stream_count_max: usize) -> Self {
        Self {
            generation_count_max: (stream_count_max / 2).max(1),
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    fn get(&mut self, stream: &StreamName) -> Option<Origin> {
        if let Some(origin) = self.young.get(stream) {
            return Some(origin.clone());
        }
        let (stream, origin) = self.old.remove_entry(stream)?;
        self.put(stream, origin.clone());
        Some(origin)
    }

    fn put(&mut self, stream: StreamName, origin: Origin) {
        if self.young.len() >= self.generation_count_max && !self.young.contains_key(&stream) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(stream, origin);
    }
}

#[cfg(test)]
mod tests;
