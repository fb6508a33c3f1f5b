//! What differs between two builds of one owner: what was asked for, what was done, what came of it.
//!
//! Both may be of any kind and in any state: what is not known of one is left out.

mod definition;
mod steps;

use std::collections::BTreeSet;

use domain::build::{PinnedBase, Requested, Snapshotted};
use domain::definition::Source;
use projections::builds::BuildRow;
use projections::outline::Outline;
use projections::timeline::Timeline;

use super::actors::Labels;
use super::{App, present};
use crate::http::error::ApiError;
use crate::wire::diff::{Artifact, Base, BuildDiff, Compared, TimingDiff};

/// A build with all that is compared of it.
#[derive(Clone, Debug)]
pub struct Side {
    row: BuildRow,
    requested: Box<Requested>,
    outline: Outline,
    timeline: Timeline,
}

impl Side {
    /// The build `row`, which was asked for so. Reads the views.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] if they cannot be read.
    pub fn read(app: &App, row: BuildRow, requested: Box<Requested>) -> Result<Self, ApiError> {
        let outline = app.views.outline(&row)?;
        let timeline = Timeline::of(&row, &outline, app.clock.0.now());
        Ok(Self {
            row,
            requested,
            outline,
            timeline,
        })
    }
}

/// The two builds, side by side.
pub fn compare(before: &Side, after: &Side, labels: &Labels) -> BuildDiff {
    let lookup = |side: &Side| side.timeline.lookup().map(present::lookup);
    let cache = |side: &Side| Some(present::cache_summary(&side.row));
    let made = |side: &Side| side.outline.snapshotted().map(artifact);
    BuildDiff {
        before: present::outcome(&before.row, labels),
        after: present::outcome(&after.row, labels),
        same_definition: before.row.source_digest == after.row.source_digest,
        definition: definition::changes(&before.requested, &after.requested),
        base: bases(before, after),
        steps: steps::compare(before, after),
        cache: Compared::new(cache(before), cache(after)),
        artifact_cache: Compared::new(lookup(before), lookup(after)),
        timings: timings(&before.timeline, &after.timeline),
        artifact: Compared::new(made(before), made(after)),
        truncated: before.outline.is_cut || after.outline.is_cut,
    }
}

/// What both are built on: the same if the digests are, whatever it was called.
fn bases(before: &Side, after: &Side) -> Compared<Base> {
    let (before, after) = (base(before), base(after));
    let digests = before.digest.as_ref().zip(after.digest.as_ref());
    Compared {
        same: digests.map(|(before, after)| before == after),
        before: Some(before),
        after: Some(after),
    }
}

fn base(side: &Side) -> Base {
    let resolved = side.outline.base();
    let asked = match &side.requested.definition.source {
        Source::Declarative { base_image, .. } => Some(base_image.clone()),
        Source::Dockerfile { .. } => None,
    };
    let build_id = match &side.requested.base {
        Some(PinnedBase::Template(template)) => Some(template.build.to_string()),
        Some(PinnedBase::Builtin { .. }) | None => None,
    };
    Base {
        asked,
        reference: resolved.map(|base| base.reference.clone()),
        digest: resolved.map(|base| base.digest.to_string()),
        build_id,
    }
}

fn artifact(made: &Snapshotted) -> Artifact {
    Artifact {
        artifact_id: made.artifact.to_string(),
        rootfs_bytes: made.rootfs.bytes,
        memory_bytes: made.memory.bytes,
        device_state_bytes: made.device_state.bytes,
        disk_bytes: made.restore_check.disk_bytes,
        reused: made.reused,
    }
}

fn timings(before: &Timeline, after: &Timeline) -> Vec<TimingDiff> {
    let (one, other) = (before.sums(), after.sums());
    let kinds: BTreeSet<_> = one.keys().chain(other.keys()).copied().collect();
    let parts = kinds
        .into_iter()
        .map(|kind| timing(kind.as_str(), one.get(&kind), other.get(&kind)));
    let (one, other) = (before.span.micros(), after.span.micros());
    parts
        .chain([timing("total", Some(&one), Some(&other))])
        .collect()
}

fn timing(what: &'static str, before: Option<&u64>, after: Option<&u64>) -> TimingDiff {
    let delta = before.zip(after).and_then(|(before, after)| {
        let (before, after) = (i64::try_from(*before), i64::try_from(*after));
        after.ok()?.checked_sub(before.ok()?)
    });
    TimingDiff {
        what,
        before_us: before.copied(),
        after_us: after.copied(),
        delta_us: delta,
    }
}
