//! The views as they were: the same projections, folded in memory up to an earlier position.
//!
//! Only what bears on the question is read: the names of the namespace, what was done to the
//! templates in question, how their builds began and ended, and all of one build if it is asked
//! for. The present views say where those events stand; what they mean is left to the projections.
//!
//! ```text
//!  namespace-…   ──┐
//!  template-…    ──┤
//!  builds' ends  ──┼──► in the order of the log ──► apply_batch ──► Views in memory
//!  build-…       ──┘
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use domain::ids::TemplateId;
use domain::name::{Namespace, Owner, TemplateName, TemplateRef};
use domain::ports::{EventReader, LogError};
use domain::recorded::{Position, Recorded, StreamName, Version};
use domain::{Event, namespace};

use crate::builds::BuildRow;
use crate::limits::Limits;
use crate::projection::apply_batch;
use crate::runner;
use crate::store::StoreError;
use crate::store::memory::Memory;
use crate::views::Views;

/// How many events are read, and applied, at once.
const PAGE_EVENTS: usize = 512;

/// Why there is no view of the past.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// More events bear on the question than are folded for one answer.
    #[error("more than {events_max} events bear on it")]
    TooLong {
        /// The bound.
        events_max: usize,
    },
    /// The log cannot be read.
    #[error("the events cannot be read")]
    Log(#[from] LogError),
    /// The present views cannot be read; they are about to be folded anew.
    #[error("the views cannot be read")]
    Store(#[from] StoreError),
    /// The process ends.
    #[error("folding the events was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl Views {
    /// Views that show what they showed of `build` and its template when `until` was the log's last
    /// event. These views must show that event already.
    ///
    /// # Errors
    /// [`PastError`].
    pub async fn build_at<R: EventReader>(
        &self,
        log: &R,
        build: &BuildRow,
        until: Position,
    ) -> Result<Views, PastError> {
        let mut fold = Fold::new(log, self, until);
        fold.namespace(&build.namespace).await?;
        // All of the build; of the others how they began and ended.
        fold.template(&build.template_id, Some(build)).await?;
        fold.finish().await
    }

    /// Views that show what `reference` meant to `caller` when `until` was the log's last event.
    /// These views must show that event already. Of the template's builds they show how they ended,
    /// and not what happened before.
    ///
    /// # Errors
    /// [`PastError`].
    pub async fn reference_at<R: EventReader>(
        &self,
        log: &R,
        caller: &Owner,
        reference: &TemplateRef,
        until: Position,
    ) -> Result<Views, PastError> {
        let mut fold = Fold::new(log, self, until);
        let templates = match reference {
            TemplateRef::Named {
                namespace, name, ..
            } => {
                let namespace = namespace.clone().unwrap_or_else(|| Namespace::of(caller));
                fold.namespace(&namespace).await?;
                fold.holders(name)
            }
            TemplateRef::Id(id) => match self.template(id)? {
                None => BTreeSet::new(),
                Some(row) => {
                    fold.namespace(&row.namespace).await?;
                    BTreeSet::from([id.clone()])
                }
            },
        };
        for template in &templates {
            fold.template(template, None).await?;
        }
        fold.finish().await
    }
}

/// Events of one source, in the order of the log.
struct Feed {
    /// What was read and not yet applied.
    read: VecDeque<Recorded<Event>>,
    rest: Rest,
}

/// What of a source is still to be read.
enum Rest {
    Nothing,
    Stream(StreamName, Version),
    Places(VecDeque<Position>),
}

impl Feed {
    fn stream(name: StreamName) -> Self {
        Self {
            read: VecDeque::new(),
            rest: Rest::Stream(name, Version::EMPTY),
        }
    }

    fn places(places: BTreeSet<Position>) -> Self {
        Self {
            read: VecDeque::new(),
            rest: Rest::Places(places.into_iter().collect()),
        }
    }

    fn is_read(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
    }

    fn next_position(&self) -> Option<Position> {
        self.read.front().map(|recorded| recorded.position)
    }
}

/// Where events come from, and how many may.
struct Source<'a, R> {
    log: &'a R,
    until: Position,
    event_count: usize,
    events_max: usize,
}

impl<R: EventReader> Source<'_, R> {
    /// Reads the next events of a feed that has none left.
    async fn refill(&mut self, feed: &mut Feed) -> Result<(), PastError> {
        if !feed.read.is_empty() {
            return Ok(());
        }
        let mut page = match &feed.rest {
            Rest::Nothing => return Ok(()),
            Rest::Stream(name, from) => self.log.read_stream(name, *from, PAGE_EVENTS).await?,
            Rest::Places(places) => {
                let wanted: Vec<Position> = places.iter().copied().take(PAGE_EVENTS).collect();
                self.log.read_at(&wanted).await?
            }
        };
        let is_last = page.is_empty() || page.last().is_some_and(|last| last.position > self.until);
        page.retain(|recorded| recorded.position <= self.until);
        match &mut feed.rest {
            rest if is_last => *rest = Rest::Nothing,
            Rest::Nothing => {}
            Rest::Stream(_, from) => *from = from.plus(count(&page)),
            Rest::Places(places) => drop(places.drain(..page.len())),
        }
        self.event_count = self.event_count.saturating_add(page.len());
        if self.event_count > self.events_max {
            let events_max = self.events_max;
            return Err(PastError::TooLong { events_max });
        }
        feed.read = page.into();
        Ok(())
    }
}

fn count(page: &[Recorded<Event>]) -> u64 {
    u64::try_from(page.len()).unwrap_or(u64::MAX)
}

/// Events on their way into views in memory.
struct Fold<'a, R> {
    source: Source<'a, R>,
    present: &'a Views,
    feeds: Vec<Feed>,
}

impl<'a, R: EventReader> Fold<'a, R> {
    fn new(log: &'a R, present: &'a Views, until: Position) -> Self {
        Self {
            source: Source {
                log,
                until,
                event_count: 0,
                events_max: present.limits.past_events_max,
            },
            present,
            feeds: Vec::new(),
        }
    }

    /// Adds what happened to the names of a namespace, read to its end.
    async fn namespace(&mut self, slug: &Namespace) -> Result<(), PastError> {
        let mut whole = VecDeque::new();
        let mut feed = Feed::stream(StreamName::Namespace(slug.clone()));
        while !feed.is_read() {
            self.source.refill(&mut feed).await?;
            whole.append(&mut feed.read);
        }
        feed.read = whole;
        self.feeds.push(feed);
        Ok(())
    }

    /// The templates that held `name` at any time, by the names that were added: whoever went by it
    /// is among them.
    fn holders(&self, name: &TemplateName) -> BTreeSet<TemplateId> {
        let holder = |recorded: &Recorded<Event>| match &recorded.event {
            Event::Namespace(namespace::Event::NameTaken {
                name: taken,
                template_id,
                ..
            }) if taken == name => Some(template_id.clone()),
            Event::Namespace(_)
            | Event::Build(_)
            | Event::Template(_)
            | Event::Keys(_)
            | Event::Webhook(_) => None,
        };
        let read = self.feeds.iter().flat_map(|feed| &feed.read);
        read.filter_map(holder).collect()
    }

    /// Adds what happened to a template: by hand, and by its builds; all of `whole`, if that is one.
    async fn template(
        &mut self,
        id: &TemplateId,
        whole: Option<&BuildRow>,
    ) -> Result<(), PastError> {
        let (views, template) = (self.present.clone(), id.clone());
        let (until, count_max) = (self.source.until, self.source.events_max);
        let whole = whole.map(|build| build.build_id.clone());
        let except = whole.clone();
        let finding = tokio::task::spawn_blocking(move || {
            views.ends_of_builds(&template, except.as_ref(), until, count_max)
        });
        self.feeds.push(Feed::places(finding.await??));
        if let Some(build) = whole {
            self.feeds.push(Feed::stream(StreamName::Build(build)));
        }
        let stream = StreamName::Template(id.clone());
        self.feeds.push(Feed::stream(stream));
        Ok(())
    }

    /// The next events, in the order of the log; none if all were given.
    async fn batch(&mut self) -> Result<Vec<Recorded<Event>>, PastError> {
        let mut batch = Vec::new();
        while batch.len() < PAGE_EVENTS {
            for feed in &mut self.feeds {
                self.source.refill(feed).await?;
            }
            let waiting = self.feeds.iter_mut().filter(|feed| !feed.read.is_empty());
            let first = waiting.min_by_key(|feed| feed.next_position());
            let Some(next) = first.and_then(|feed| feed.read.pop_front()) else {
                break;
            };
            batch.push(next);
        }
        Ok(batch)
    }

    /// Applies all of it.
    async fn finish(mut self) -> Result<Views, PastError> {
        let store = Arc::new(Memory::default());
        loop {
            let batch = self.batch().await?;
            if batch.is_empty() {
                break;
            }
            let store = Arc::clone(&store);
            let applying = tokio::task::spawn_blocking(move || apply_batch(&*store, &batch));
            applying.await??;
        }
        let limits = Limits {
            query: self.present.limits,
            ..Limits::default()
        };
        // Nothing follows these views: they stay as they are.
        let (views, _runner) = runner::over(store, &limits)?;
        Ok(views)
    }
}

#[cfg(test)]
mod tests;
