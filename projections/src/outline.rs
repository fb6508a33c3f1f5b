//! What happened in each build, without the lines that it wrote: short also where its log is long.
//!
//! How a build went is worked out from this when somebody asks ([`crate::timeline`]): what is
//! stored is what the log says, and nothing that another way of counting would make stale.

use domain::Event;
use domain::build::{self, BaseResolved, CacheKind, RootfsGrown, Snapshotted};
use domain::ids::BuildId;
use domain::recorded::{Position, Recorded, StreamName};
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::builds::BuildRow;
use crate::key::Key;
use crate::projection::{ApplyError, Projection};
use crate::rows::Rows;
use crate::store::{Scan, StoreError};
use crate::views::Views;

/// The projection.
#[derive(Clone, Copy, Debug)]
pub struct Outlines;

/// Something that happened in a build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Where it stands in the log.
    pub position: Position,
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: build::Event,
}

/// What happened in a build, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outline {
    /// The first of it, up to a bound.
    pub marks: Vec<Mark>,
    /// Whether there is more.
    pub is_cut: bool,
}

impl Outline {
    /// What the base turned out to be, in the last attempt that got so far.
    pub fn base(&self) -> Option<&BaseResolved> {
        self.last(|event| {
            if let build::Event::BaseResolved(base) = event {
                Some(base)
            } else {
                None
            }
        })
    }

    /// How the root filesystem was grown.
    pub fn grown(&self) -> Option<&RootfsGrown> {
        self.last(|event| {
            if let build::Event::RootfsGrown(grown) = event {
                Some(grown)
            } else {
                None
            }
        })
    }

    /// What was made.
    pub fn snapshotted(&self) -> Option<&Snapshotted> {
        self.last(|event| {
            if let build::Event::Snapshotted(snapshotted) = event {
                Some(snapshotted.as_ref())
            } else {
                None
            }
        })
    }

    fn last<'a, T>(&'a self, what: impl Fn(&'a build::Event) -> Option<T>) -> Option<T> {
        self.marks.iter().rev().find_map(|mark| what(&mark.event))
    }
}

fn marks_key(id: &BuildId) -> Key {
    Key::table("outline/mark").text(id.as_str())
}

/// Whether how a build went depends on the event. Files of the context are many, and are counted in
/// the build's row; the request is what the build was meant to be.
fn is_told(event: &build::Event) -> bool {
    match event {
        build::Event::CacheHit(entry) => entry.kind != CacheKind::FileBlob,
        build::Event::CacheMissed(missed) => missed.entry.kind != CacheKind::FileBlob,
        build::Event::CacheBypassed(passed) => passed.entry.kind != CacheKind::FileBlob,
        build::Event::CacheStored(stored) => stored.entry.kind != CacheKind::FileBlob,
        build::Event::Started(_)
        | build::Event::PhaseStarted(_)
        | build::Event::PhaseFinished(_)
        | build::Event::BaseResolved(_)
        | build::Event::StepStarted(_)
        | build::Event::StepFinished(_)
        | build::Event::RootfsBuilt(_)
        | build::Event::RootfsGrown(_)
        | build::Event::Snapshotted(_)
        | build::Event::RetryScheduled(_)
        | build::Event::CancelRequested(_)
        | build::Event::Cancelled(_)
        | build::Event::Failed(_) => true,
        build::Event::Requested(_)
        | build::Event::Queued(_)
        | build::Event::FilesCounted(_)
        | build::Event::StepLogged(_)
        | build::Event::VmBooted(_)
        | build::Event::StartCommandRan(_)
        | build::Event::ReadinessPassed(_) => false,
    }
}

impl Projection for Outlines {
    const NAME: &'static str = "outline";
    const REVISION: u32 = 1;

    fn apply(rows: &mut Rows<'_>, recorded: &Recorded<Event>) -> Result<(), ApplyError> {
        let (StreamName::Build(id), Event::Build(event)) = (&recorded.stream, &recorded.event)
        else {
            return Ok(());
        };
        if is_told(event) {
            let mark = MarkRef {
                position: recorded.position,
                at: recorded.time,
                event,
            };
            rows.put(marks_key(id).number(recorded.version.0), &mark)?;
        }
        Ok(())
    }
}

/// A [`Mark`] that is written without a copy of its event.
#[derive(Serialize)]
struct MarkRef<'a> {
    position: Position,
    at: Timestamp,
    event: &'a build::Event,
}

impl Views {
    /// What happened in a build up to what its `row` tells.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn outline(&self, row: &BuildRow) -> Result<Outline, StoreError> {
        let count_max = self.limits.outline_marks_max;
        let scan = Scan::below(&marks_key(&row.build_id), count_max.saturating_add(1));
        let mut marks: Vec<Mark> = self.values(&scan)?;
        let is_cut = marks.len() > count_max;
        marks.truncate(count_max);
        // What has happened since the row was read would not fit to it.
        marks.retain(|mark| mark.position <= row.updated);
        Ok(Outline { marks, is_cut })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        History, at, build_id, grown, layer, logged, requested, snapshotted, started,
    };

    fn history() -> History {
        let mut history = History::default();
        let file = build::CacheSubject {
            kind: CacheKind::FileBlob,
            ..layer(1, "a file")
        };
        history
            .build(1, requested(1, &["a"]))
            .build(1, started(1))
            .build(1, build::Event::CacheHit(file))
            .build(1, build::Event::CacheHit(layer(1, "RUN x")))
            .build(1, logged(4, &["one", "two"]))
            .build(1, grown())
            .build(1, snapshotted(1));
        history
    }

    #[test]
    fn an_outline_is_what_happened_without_lines_and_files() {
        let views = history().views();
        let mut row = views.build(&build_id(1)).unwrap().unwrap();
        let outline = views.outline(&row).unwrap();
        let told: Vec<_> = outline
            .marks
            .iter()
            .map(|mark| (mark.at, mark.event.name()))
            .collect();
        let expected = [
            (at(2_000), "Started"),
            (at(4_000), "CacheHit"),
            (at(6_000), "RootfsGrown"),
            (at(7_000), "Snapshotted"),
        ];
        assert_eq!(told, expected);
        assert!(!outline.is_cut);
        assert_eq!(outline.grown().unwrap().to_bytes, 2 << 30);
        assert_eq!(outline.snapshotted().unwrap().rootfs.bytes, 1);
        assert_eq!(outline.base(), None);
        // A row that was read before the build was ready.
        row.updated = outline.marks[2].position;
        let earlier = views.outline(&row).unwrap();
        assert_eq!(earlier.marks, outline.marks[..3]);
    }

    #[test]
    fn a_long_outline_is_cut_and_says_so() {
        let mut views = history().views();
        let row = views.build(&build_id(1)).unwrap().unwrap();
        for (count_max, is_cut) in [(3, true), (4, false)] {
            views.limits.outline_marks_max = count_max;
            let outline = views.outline(&row).unwrap();
            assert_eq!((outline.marks.len(), outline.is_cut), (count_max, is_cut));
        }
    }
}
