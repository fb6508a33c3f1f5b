//! The vertexes of a build, as they were told so far.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Index, IndexMut};

use super::name::StepName;
use super::output::Output;
use super::wire::{self, Time};
use crate::event::OutputStream;

/// A vertex of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct VertexId(usize);

/// A step of the build, by its place among all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StepId(pub(super) usize);

impl StepId {
    /// Its place, from 1.
    pub(super) fn index(self) -> u32 {
        u32::try_from(self.0).map_or(u32::MAX, |place| place.saturating_add(1))
    }
}

/// A vertex.
#[derive(Debug, Default)]
pub(super) struct Vertex {
    /// The digest of what it does and of all that it takes.
    pub(super) digest: String,
    /// Empty as long as it is known only as what another one takes.
    pub(super) name: String,
    /// What its name says, if it is a step's.
    pub(super) step_name: Option<StepName>,
    /// What it takes.
    pub(super) inputs: Vec<VertexId>,
    /// The step that it is a part of, once that is known.
    pub(super) step: Option<StepId>,
    /// When it was at work last: a vertex may be several times, first to find its cache key.
    pub(super) run: Option<Run>,
    /// It was at work, and not only to load a result that was there.
    pub(super) worked: bool,
    /// It fetched or unpacked layers of an image.
    pub(super) pulled: bool,
    /// How much of the context it transferred, in bytes.
    pub(super) sent: i64,
    /// Why it failed when it was at work last, if it did.
    pub(super) error: String,
    /// What it depends on has been told as done.
    pub(super) settled: bool,
    /// What its process writes to standard output.
    stdout: Output,
    /// What it writes to standard error.
    stderr: Output,
}

impl Vertex {
    /// What its process writes to a stream.
    pub(super) fn output(&mut self, stream: OutputStream) -> &mut Output {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }
}

/// A time of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) started: Time,
    pub(super) completed: Option<Time>,
}

/// All vertexes.
#[derive(Debug)]
pub(super) struct Graph {
    vertexes: Vec<Vertex>,
    by_digest: BTreeMap<String, VertexId>,
    vertexes_max: usize,
}

/// A vertex that was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) id: VertexId,
    /// It was not told before.
    pub(super) is_new: bool,
}

impl Graph {
    pub(super) fn new(vertexes_max: usize) -> Self {
        Self {
            vertexes: Vec::new(),
            by_digest: BTreeMap::new(),
            vertexes_max,
        }
    }

    /// Takes a vertex as it was told; none if there are too many.
    pub(super) fn meet(&mut self, told: &wire::Vertex<'_>) -> Option<Met> {
        let id = self.intern(&told.digest)?;
        let is_new = self[id].name.is_empty() && !told.name.is_empty();
        if is_new {
            // A name never changes. It may be that of another build which has the vertex, too.
            self[id].step_name = StepName::parse(&told.name);
            self[id].name = told.name.clone().into_owned();
        }
        if self[id].inputs.is_empty() {
            let inputs = told.inputs.iter();
            self[id].inputs = inputs.filter_map(|digest| self.intern(digest)).collect();
        }
        Some(Met { id, is_new })
    }

    /// The vertex with a digest, if it is known.
    pub(super) fn find(&self, digest: &str) -> Option<VertexId> {
        self.by_digest.get(digest).copied()
    }

    fn intern(&mut self, digest: &str) -> Option<VertexId> {
        if let Some(id) = self.find(digest) {
            return Some(id);
        }
        let id = VertexId(self.vertexes.len());
        if id.0 == self.vertexes_max {
            return None;
        }
        self.vertexes.push(Vertex {
            digest: digest.to_owned(),
            ..Vertex::default()
        });
        self.by_digest.insert(digest.to_owned(), id);
        Some(id)
    }

    /// Whether a vertex takes any of others, or takes one that does.
    pub(super) fn takes_any(&self, id: VertexId, others: &[VertexId]) -> bool {
        let mut seen = BTreeSet::new();
        let mut taken = vec![id];
        while let Some(id) = taken.pop() {
            let inputs = &self[id].inputs;
            if inputs.iter().any(|input| others.contains(input)) {
                return true;
            }
            taken.extend(inputs.iter().filter(|&&input| seen.insert(input)));
        }
        false
    }

    /// Whether everything that a step takes is there.
    pub(super) fn is_closed(&self) -> bool {
        let steps = self
            .vertexes
            .iter()
            .filter(|vertex| vertex.step_name.is_some());
        let mut inputs = steps.flat_map(|vertex| &vertex.inputs);
        inputs.all(|&id| !self[id].name.is_empty())
    }

    /// The step that made the build fail for a reason, if one did: what failed because the rest did
    /// is not meant.
    pub(super) fn failed(&self, reason: &str) -> Option<StepId> {
        let failed = self.vertexes.iter().filter_map(|vertex| {
            let is_told = reason.contains(&vertex.error);
            let is_cause = is_told || !vertex.error.contains("context canceled");
            let step = vertex
                .step
                .filter(|_| is_cause && !vertex.error.is_empty())?;
            let completed = vertex.run.and_then(|run| run.completed);
            Some((!is_told, completed, step))
        });
        failed.min().map(|(_, _, step)| step)
    }

    /// All of them, in the order in which they were met.
    pub(super) fn ids(&self) -> impl DoubleEndedIterator<Item = VertexId> + use<> {
        (0..self.vertexes.len()).map(VertexId)
    }
}

impl Index<VertexId> for Graph {
    type Output = Vertex;

    fn index(&self, id: VertexId) -> &Vertex {
        let vertex = self.vertexes.get(id.0);
        vertex.expect("a graph only grows, and its ids are its own")
    }
}

impl IndexMut<VertexId> for Graph {
    fn index_mut(&mut self, id: VertexId) -> &mut Vertex {
        let vertex = self.vertexes.get_mut(id.0);
        vertex.expect("a graph only grows, and its ids are its own")
    }
}
