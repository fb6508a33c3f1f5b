//! Lines of retries.

use std::collections::BTreeMap;

use domain::ids::BuildId;
use projections::builds::BuildRow;
use projections::lineage::Lineage;

use super::{failure_of, texts, time};
use crate::service::actors::Labels;
use crate::wire::lineage::{BuildOutcome, Lineage as WireLineage, LineageBuild};

/// A line, as it is seen from the build `asked`.
pub fn lineage(line: &Lineage, asked: &BuildId, labels: &Labels) -> WireLineage {
    let (ancestors, descendants) = (line.ancestors(asked), line.descendants(asked));
    let mut retries: BTreeMap<&BuildId, Vec<String>> = BTreeMap::new();
    for row in &line.builds {
        if let Some(of) = &row.retry_of {
            let repeating = retries.entry(&of.build).or_default();
            repeating.push(row.build_id.to_string());
        }
    }
    let mut builds = Vec::with_capacity(line.builds.len());
    for row in &line.builds {
        let id = &row.build_id;
        let relation = if id == asked {
            "asked"
        } else if ancestors.contains(id) {
            "ancestor"
        } else if descendants.contains(id) {
            "descendant"
        } else {
            "other"
        };
        builds.push(LineageBuild {
            outcome: outcome(row, labels),
            relation,
            retry_of_build_id: row.retry_of.as_ref().map(|of| of.build.to_string()),
            retries: retries.remove(id).unwrap_or_default(),
        });
    }
    WireLineage {
        build_id: asked.to_string(),
        original_build_id: line.original.to_string(),
        build_count: line.build_count,
        truncated: line.is_cut(),
        builds,
    }
}

/// How a build went.
pub fn outcome(row: &BuildRow, labels: &Labels) -> BuildOutcome {
    let failure = row.failure.as_ref();
    BuildOutcome {
        build_id: row.build_id.to_string(),
        status: row.status.as_str(),
        tags: texts(&row.tags),
        triggered_by: labels.actor(&row.triggered_by),
        queued_at: row.created_at.to_string(),
        started_at: time(row.started_at),
        finished_at: time(row.finished_at),
        duration_ms: row.duration_ms(),
        attempt: row.attempt,
        max_attempts: row.max_attempts,
        error_detail: failure.map(|failure| failure_of(row, failure)),
    }
}
