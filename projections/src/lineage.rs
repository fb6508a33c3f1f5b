//! Lines of retries: which builds repeat which, from the first of a line on.
//!
//! A retry says which build it repeats and which was the first of the line, so a line is a list by
//! its first build, in the order in which its builds were asked for. All of them are one owner's.

use std::collections::{BTreeMap, BTreeSet};

use domain::Event;
use domain::build;
use domain::ids::BuildId;
use domain::recorded::{Position, Recorded, StreamName};
use serde::{Deserialize, Serialize};

use crate::builds::BuildRow;
use crate::key::Key;
use crate::projection::{ApplyError, Projection};
use crate::rows::Rows;
use crate::store::{Scan, StoreError};
use crate::views::Views;

/// The projection.
#[derive(Clone, Copy, Debug)]
pub struct Lineages;

/// How many builds a line has.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Length(u64);

fn length_key(original: &BuildId) -> Key {
    Key::table("lineage/length").text(original.as_str())
}

fn line_key(original: &BuildId) -> Key {
    Key::table("lineage/line").text(original.as_str())
}

impl Projection for Lineages {
    const NAME: &'static str = "lineage";
    const REVISION: u32 = 1;

    fn apply(rows: &mut Rows<'_>, recorded: &Recorded<Event>) -> Result<(), ApplyError> {
        let (StreamName::Build(id), Event::Build(build::Event::Requested(requested))) =
            (&recorded.stream, &recorded.event)
        else {
            return Ok(());
        };
        let original = requested.retry_of.as_ref().map_or(id, |of| &of.original);
        let Length(length) = rows.get(&length_key(original))?.unwrap_or_default();
        rows.put(length_key(original), &Length(length.saturating_add(1)))?;
        rows.put(line_key(original).number(recorded.position.raw()), id)?;
        Ok(())
    }
}

/// A line of retries, as it is seen from one of its builds.
#[derive(Clone, Debug, PartialEq)]
pub struct Lineage {
    /// The first build of the line.
    pub original: BuildId,
    /// How many builds the line has.
    pub build_count: u64,
    /// Its builds in the order in which they were asked for: each behind the one that it repeats.
    /// Of a long line some are left out: the asked one is there, then as many of those that it
    /// repeats as fit, then the oldest of the others.
    pub builds: Vec<BuildRow>,
}

impl Lineage {
    /// Whether builds were left out.
    pub fn is_cut(&self) -> bool {
        u64::try_from(self.builds.len()).is_ok_and(|shown| shown < self.build_count)
    }

    /// The builds that `id` repeats, directly or not.
    pub fn ancestors(&self, id: &BuildId) -> BTreeSet<&BuildId> {
        let repeats: BTreeMap<&BuildId, &BuildId> = self
            .builds
            .iter()
            .filter_map(|row| Some((&row.build_id, &row.retry_of.as_ref()?.build)))
            .collect();
        let mut ancestors = BTreeSet::new();
        let mut at = id;
        while let Some(repeated) = repeats.get(at)
            && ancestors.insert(*repeated)
        {
            at = repeated;
        }
        ancestors
    }

    /// The builds that repeat `id`, directly or not.
    pub fn descendants(&self, id: &BuildId) -> BTreeSet<&BuildId> {
        let mut descendants = BTreeSet::new();
        // A build stands behind the one that it repeats, so one pass meets all of them.
        for row in &self.builds {
            if let Some(of) = &row.retry_of
                && (of.build == *id || descendants.contains(&of.build))
            {
                descendants.insert(&row.build_id);
            }
        }
        descendants
    }
}

impl Views {
    /// The line of retries that `asked` stands in. Whose it is, the caller must check.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn lineage(&self, asked: BuildRow) -> Result<Lineage, StoreError> {
        let count_max = self.limits.lineage_builds_max;
        let original = asked.retry_of.as_ref().map(|of| of.original.clone());
        let original = original.unwrap_or_else(|| asked.build_id.clone());
        let mut builds: BTreeMap<Position, BuildRow> = BTreeMap::new();
        let mut next = Some(asked);
        while let Some(row) = next.take()
            && builds.len() < count_max
        {
            if let Some(of) = &row.retry_of {
                next = self.build(&of.build)?;
            }
            builds.insert(row.requested, row);
        }
        // No more than these can be missing, even if all that are there already come first.
        let line: Vec<BuildId> = self.values(&Scan::below(&line_key(&original), count_max))?;
        let known: BTreeSet<BuildId> = builds.values().map(|row| row.build_id.clone()).collect();
        for id in line.iter().filter(|id| !known.contains(*id)) {
            if builds.len() >= count_max {
                break;
            }
            if let Some(row) = self.build(id)? {
                builds.insert(row.requested, row);
            }
        }
        // Behind the rows: it counts all of them.
        let Length(build_count) = self.get(&length_key(&original))?.unwrap_or_default();
        Ok(Lineage {
            original,
            build_count,
            builds: builds.into_values().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use domain::build::{Event as BuildEvent, RetryOf};

    use super::*;
    use crate::testing::{History, build_id, request, requested, started, step_failure};

    fn retried(of: u8, original: u8) -> BuildEvent {
        let mut request = request(1, &["a"]);
        request.retry_of = Some(RetryOf {
            build: build_id(of),
            original: build_id(original),
        });
        BuildEvent::Requested(Box::new(request))
    }

    /// 1 is repeated by 2 and 4, 2 by 3, and 3 by 5; 9 stands alone.
    fn tree() -> History {
        let mut history = History::default();
        history
            .build(1, requested(1, &["a"]))
            .build(1, started(1))
            .build(1, BuildEvent::Failed(step_failure()))
            .build(9, requested(1, &["a"]))
            .build(2, retried(1, 1))
            .build(3, retried(2, 1))
            .build(4, retried(1, 1))
            .build(5, retried(3, 1));
        history
    }

    fn lineage(views: &Views, number: u8) -> Lineage {
        let asked = views.build(&build_id(number)).unwrap().unwrap();
        views.lineage(asked).unwrap()
    }

    fn numbers(lineage: &Lineage) -> Vec<u8> {
        let number = |row: &BuildRow| (1..=9).find(|number| build_id(*number) == row.build_id);
        lineage
            .builds
            .iter()
            .map(|row| number(row).unwrap())
            .collect()
    }

    #[test]
    fn every_build_of_a_line_sees_the_same_line() {
        let views = tree().views();
        for number in 1..=5 {
            let line = lineage(&views, number);
            assert_eq!(numbers(&line), [1, 2, 3, 4, 5], "{number}");
            assert_eq!((&line.original, line.build_count), (&build_id(1), 5));
            assert!(!line.is_cut());
        }
        let alone = lineage(&views, 9);
        assert_eq!((numbers(&alone), alone.build_count), (vec![9], 1));
        assert_eq!(alone.original, build_id(9));
    }

    #[test]
    fn ancestors_and_descendants_are_those_of_the_build_and_no_cousins() {
        let line = lineage(&tree().views(), 3);
        for (number, ancestors, descendants) in [
            (1, vec![], vec![2, 3, 4, 5]),
            (2, vec![1], vec![3, 5]),
            (3, vec![1, 2], vec![5]),
            (4, vec![1], vec![]),
            (5, vec![1, 2, 3], vec![]),
        ] {
            let id = build_id(number);
            let ids =
                |numbers: Vec<u8>| -> Vec<BuildId> { numbers.into_iter().map(build_id).collect() };
            let found: Vec<BuildId> = line.ancestors(&id).into_iter().cloned().collect();
            assert_eq!(found, ids(ancestors), "{number}");
            let found: Vec<BuildId> = line.descendants(&id).into_iter().cloned().collect();
            assert_eq!(found, ids(descendants), "{number}");
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_build_that_was_asked_for() {
        let mut views = tree().views();
        for (count_max, asked, expected) in [
            (1, 5, vec![5]),
            (2, 5, vec![3, 5]),
            (3, 4, vec![1, 2, 4]),
            (4, 5, vec![1, 2, 3, 5]),
            (2, 1, vec![1, 2]),
            (5, 5, vec![1, 2, 3, 4, 5]),
        ] {
            views.limits.lineage_builds_max = count_max;
            let line = lineage(&views, asked);
            assert_eq!(numbers(&line), expected, "{count_max} of {asked}");
            assert_eq!(line.is_cut(), count_max < 5);
            assert_eq!(line.build_count, 5);
        }
    }
}
