//! The files that a build copies, and what the cache of files did for them.

use std::collections::{BTreeMap, BTreeSet};

use domain::Digest;
use domain::build::{
    BypassReason, CacheBypassed, CacheKind, CacheMissed, CacheStored, CacheSubject, Event,
    FilesCounted,
};
use domain::definition::{Arrivals, ContextKind, ContextManifest, CopyItem, Step};

use super::{Attempt, Interruption, failures};
use crate::native::context::{BelowKind, Source, SourceFile};
use crate::native::key::Plan;
use crate::native::step::{Action, Change};

/// A file's content, as the first copy of it finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Used {
    path: String,
    /// The step that copies it; none if it is not known which one does.
    step_index: Option<u32>,
    bytes: u64,
    /// Whether any copy of it wants it sent anew.
    forced: bool,
}

/// What the cache of files did for one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Hit,
    Missed,
    Forced,
}

impl Attempt<'_> {
    /// Tells which of the copied files were there, and which the request brought.
    pub(super) async fn tell_files(&self, steps: &[Step], plan: &Plan) -> Result<(), Interruption> {
        self.tell_used(used(steps, plan)).await
    }

    /// Tells the same of every file of a context whose files are copied by nobody knows which step.
    pub(super) async fn tell_context(&self, context: &ContextManifest) -> Result<(), Interruption> {
        self.tell_used(all(context)).await
    }

    async fn tell_used(&self, used: Vec<(Digest, Used)>) -> Result<(), Interruption> {
        if used.is_empty() {
            return Ok(());
        }
        let requested = &self.job.requested;
        // What the request brought is there when it is attempted again.
        let arrivals = match &requested.arrivals {
            Some(stored) if self.job.attempt == 1 => self.arrivals(stored).await?,
            Some(_) | None => Arrivals::default(),
        };
        let told_max = self.services.limits.worker.told_files_max;
        let events = events(used, &arrivals, told_max);
        Ok(self.reporter.events(events).await?)
    }

    async fn arrivals(&self, stored: &Digest) -> Result<Arrivals, Interruption> {
        let bytes_max = self.services.limits.worker.context_listing_bytes_max;
        let stored = self.services.blobs.read(stored, bytes_max).await;
        let stored = stored.map_err(|error| failures::internal(&error))?;
        serde_json::from_slice(&stored).map_err(|error| failures::internal(&error).into())
    }
}

/// The contents that steps copy, in the order in which they are met.
fn used(steps: &[Step], plan: &Plan) -> Vec<(Digest, Used)> {
    let mut found: Vec<(Digest, Used)> = Vec::new();
    let mut places: BTreeMap<Digest, usize> = BTreeMap::new();
    for (step, planned) in steps.iter().zip(&plan.steps) {
        let items: &[CopyItem] = if let Step::Copy(item) = step {
            std::slice::from_ref(item)
        } else if let Step::CopyItems { items } = step {
            items
        } else {
            continue;
        };
        let Action::Change(Change::Copy(copies)) = &planned.action else {
            continue;
        };
        for (item, copy) in items.iter().zip(copies) {
            let files = item
                .sources
                .iter()
                .zip(&copy.sources)
                .flat_map(|(path, source)| files(path, source));
            for (path, file) in files {
                let place = *places.entry(file.digest).or_insert(found.len());
                if let Some((_, known)) = found.get_mut(place) {
                    known.forced |= item.force_upload;
                    continue;
                }
                let used = Used {
                    path,
                    step_index: Some(planned.index),
                    bytes: file.bytes,
                    forced: item.force_upload,
                };
                found.push((file.digest, used));
            }
        }
    }
    found
}

/// The contents of a context, in the order of its paths.
fn all(context: &ContextManifest) -> Vec<(Digest, Used)> {
    let mut seen = BTreeSet::new();
    let files = context
        .entries()
        .iter()
        .filter_map(|entry| match entry.kind {
            ContextKind::Dir => None,
            ContextKind::File { digest, bytes } => seen.insert(digest).then(|| {
                let used = Used {
                    path: entry.path.clone(),
                    step_index: None,
                    bytes,
                    forced: false,
                };
                (digest, used)
            }),
        });
    files.collect()
}

/// The files of a source, with their paths in the context.
fn files(path: &str, source: &Source) -> Vec<(String, SourceFile)> {
    let path = path.trim_end_matches('/');
    match source {
        Source::File { file, .. } => vec![(path.to_owned(), *file)],
        Source::Dir(below) => below
            .iter()
            .filter_map(|below| match below.kind {
                BelowKind::Dir(_) => None,
                BelowKind::File(file) => Some((format!("{path}/{}", below.path), file)),
            })
            .collect(),
    }
}

fn outcome(content: &Digest, used: &Used, arrivals: &Arrivals) -> Outcome {
    if used.forced && arrivals.contains(content) {
        Outcome::Forced
    } else if arrivals.new.contains(content) {
        Outcome::Missed
    } else {
        Outcome::Hit
    }
}

/// What is told of the files: the first one by one, the others in one sum.
fn events(used: Vec<(Digest, Used)>, arrivals: &Arrivals, told_max: usize) -> Vec<Event> {
    let mut events = Vec::new();
    let mut counted = FilesCounted::default();
    let untold = used.len() > told_max;
    for (place, (key, used)) in used.into_iter().enumerate() {
        let outcome = outcome(&key, &used, arrivals);
        if place >= told_max {
            match outcome {
                Outcome::Hit => counted.hits += 1,
                Outcome::Missed => counted.misses += 1,
                Outcome::Forced => counted.bypasses += 1,
            }
            continue;
        }
        let entry = CacheSubject {
            kind: CacheKind::FileBlob,
            subject: used.path,
            step_index: used.step_index,
            key,
        };
        let stored = Event::CacheStored(CacheStored {
            entry: entry.clone(),
            bytes: used.bytes,
        });
        match outcome {
            Outcome::Hit => events.push(Event::CacheHit(entry)),
            Outcome::Missed => {
                let difference = None;
                events.push(Event::CacheMissed(CacheMissed { entry, difference }));
                events.push(stored);
            }
            Outcome::Forced => {
                let reason = BypassReason::ForceUpload;
                events.push(Event::CacheBypassed(CacheBypassed { entry, reason }));
                events.push(stored);
            }
        }
    }
    if untold {
        counted.stores = counted.misses + counted.bypasses;
        events.push(Event::FilesCounted(counted));
    }
    events
}

#[cfg(test)]
mod tests {
    use domain::definition::ContextEntry;

    use super::*;
    use crate::native::container::StepNetwork;
    use crate::native::key::Inputs;
    use crate::native::step::Ambient;

    fn copy(sources: &[&str], force_upload: bool) -> CopyItem {
        CopyItem {
            sources: sources.iter().map(|source| (*source).to_owned()).collect(),
            dst: "/to/".to_owned(),
            user: None,
            mode: None,
            force_upload,
        }
    }

    fn of(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    /// A context of `a` and `same` with one content, and the folder `d`.
    fn context() -> ContextManifest {
        let file = |path: &str, content: &str| ContextEntry {
            path: path.to_owned(),
            mode: 0o644,
            kind: ContextKind::File {
                digest: of(content),
                bytes: 7,
            },
        };
        let context = ContextManifest::new(vec![
            file("a", "A"),
            file("same", "A"),
            file("d/b", "B"),
            file("d/e/c", "C"),
            file("unused", "U"),
        ]);
        context.unwrap()
    }

    /// The steps' files in that context.
    fn used_by(steps: &[Step]) -> Vec<(Digest, Used)> {
        let context = context();
        let inputs = Inputs {
            base: Digest::ZERO,
            steps,
            ambient: Ambient {
                env: BTreeMap::new(),
                user: "root".to_owned(),
                workdir: "/".to_owned(),
            },
            context: Some(&context),
            network: StepNetwork::None,
            skip_cache: false,
            nonce: Digest::ZERO,
        };
        used(steps, &Plan::new(&inputs).unwrap())
    }

    fn names(events: &[Event]) -> Vec<(&'static str, &str)> {
        let name = |event: &'_ Event| event.name();
        let subjects = events.iter().map(|event| {
            if let Event::CacheHit(entry) = event {
                entry.subject.as_str()
            } else if let Event::CacheMissed(missed) = event {
                &missed.entry.subject
            } else if let Event::CacheBypassed(bypassed) = event {
                &bypassed.entry.subject
            } else if let Event::CacheStored(stored) = event {
                &stored.entry.subject
            } else {
                panic!("{event:?}")
            }
        });
        events.iter().map(name).zip(subjects).collect()
    }

    fn steps() -> Vec<Step> {
        vec![
            Step::Copy(copy(&["a", "d/"], false)),
            Step::CopyItems {
                items: vec![copy(&["same"], false), copy(&["d/b"], true)],
            },
        ]
    }

    #[test]
    fn each_content_is_told_once_by_its_first_path_and_what_is_not_copied_is_not() {
        let used = used_by(&steps());
        let told: Vec<_> = used
            .iter()
            .map(|(_, used)| (used.path.as_str(), used.step_index, used.forced))
            .collect();
        assert_eq!(
            told,
            [
                ("a", Some(1), false),
                ("d/b", Some(1), true),
                ("d/e/c", Some(1), false)
            ]
        );
    }

    #[test]
    fn of_a_whole_context_each_content_is_told_once_and_of_no_step() {
        let used = all(&context());
        let told: Vec<_> = used
            .iter()
            .map(|(_, used)| (used.path.as_str(), used.step_index, used.bytes))
            .collect();
        assert_eq!(
            told,
            [
                ("a", None, 7),
                ("d/b", None, 7),
                ("d/e/c", None, 7),
                ("unused", None, 7)
            ]
        );
    }

    #[test]
    fn what_came_is_stored_what_was_there_is_hit_and_what_was_forced_is_told_so() {
        let arrivals = Arrivals {
            new: [of("A")].into(),
            again: [of("B"), of("C")].into(),
        };
        let events = events(used_by(&steps()), &arrivals, 10);
        let expected = [
            ("CacheMissed", "a"),
            ("CacheStored", "a"),
            ("CacheBypassed", "d/b"),
            ("CacheStored", "d/b"),
            ("CacheHit", "d/e/c"),
        ];
        assert_eq!(names(&events), expected);
    }

    #[test]
    fn a_repetition_that_brought_nothing_hits_also_what_was_forced() {
        let events = events(used_by(&steps()), &Arrivals::default(), 10);
        let expected = [
            ("CacheHit", "a"),
            ("CacheHit", "d/b"),
            ("CacheHit", "d/e/c"),
        ];
        assert_eq!(names(&events), expected);
    }

    #[test]
    fn files_beyond_the_bound_are_counted_and_none_is_lost() {
        let arrivals = Arrivals {
            new: [of("C")].into(),
            again: [of("B")].into(),
        };
        let events = events(used_by(&steps()), &arrivals, 1);
        let counted = FilesCounted {
            hits: 0,
            misses: 1,
            bypasses: 1,
            stores: 2,
        };
        assert_eq!(names(events.get(..1).unwrap()), [("CacheHit", "a")]);
        assert_eq!(events.get(1..), Some(&[Event::FilesCounted(counted)][..]));
    }
}
