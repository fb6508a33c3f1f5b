//! What happened, in the order in which it did.

use super::graph::{Graph, VertexId};
use super::wire::{Time, Vertex};
use crate::event::OutputStream;

/// What happened, as far as it has not been told.
#[derive(Debug, Default)]
pub(super) struct Pending(Vec<Happening>);

/// Something that happened to a vertex.
#[derive(Debug)]
pub(super) struct Happening {
    at: Time,
    pub(super) vertex: VertexId,
    pub(super) what: What,
}

/// What it was.
#[derive(Debug)]
pub(super) enum What {
    /// It began to work.
    Started {
        /// When.
        at: Time,
    },
    /// It ended.
    Completed {
        /// When it had begun.
        started: Time,
        /// When it ended.
        at: Time,
        /// It only loaded a result that was there.
        cached: bool,
        /// Why it failed, if it did.
        error: String,
    },
    /// Its process wrote something.
    Wrote {
        /// Where to.
        stream: OutputStream,
        /// What.
        bytes: Vec<u8>,
    },
}

impl Pending {
    /// A vertex is as it is told now.
    pub(super) fn vertex(&mut self, vertex: VertexId, told: &Vertex<'_>) {
        let Some(started) = told.started else {
            return;
        };
        let what = What::Started { at: started };
        self.push(started, vertex, what);
        if let Some(completed) = told.completed {
            let at = completed.max(started);
            let what = What::Completed {
                started,
                at,
                cached: told.cached,
                error: told.error.clone().into_owned(),
            };
            self.push(at, vertex, what);
        }
    }

    pub(super) fn push(&mut self, at: Time, vertex: VertexId, what: What) {
        self.0.push(Happening { at, vertex, what });
    }

    /// Whether anything of it happened to a step.
    pub(super) fn concerns_steps(&self, graph: &Graph) -> bool {
        let mut vertexes = self.0.iter().map(|happening| happening.vertex);
        vertexes.any(|id| graph[id].step_name.is_some())
    }

    /// What happened up to a time. What happened at once happened in the order of the Dockerfile.
    pub(super) fn take(&mut self, until: Time, graph: &Graph) -> Vec<Happening> {
        self.0
            .sort_by_key(|happening| (happening.at, graph[happening.vertex].step));
        let later = self.0.partition_point(|happening| happening.at <= until);
        let later = self.0.split_off(later);
        std::mem::replace(&mut self.0, later)
    }
}
