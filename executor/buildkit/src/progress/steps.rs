//! The steps of a build, and what was told of them.
//!
//! Steps are numbered once, when the first of them begins, from all the vertexes that BuildKit has
//! announced by then. What turns up later and belongs to none of them is appended.
//!
//! A step is made of one vertex or more: `COPY --link` is a copy and a merge, `ADD http://…` a download
//! and a copy, and a step that another build does for this one comes as that build's vertex beside our
//! own. Parts of a step may be at work long before those that take them.
//!
//! "Completed" says little of a vertex that has begun: it may begin again. But a vertex that is at work
//! has all that it takes, so a step is told as done when another begins that builds on it.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::ops::{Index, IndexMut};
use std::time::Duration;

use super::graph::{Graph, Run, StepId, VertexId};
use super::name::StepName;
use super::place::{NO_STAGE, Placed, Slot, Stages, is_complete, place, title};
use super::tail::Tail;
use super::wire::Time;
use crate::event::{Event, OutputStream, Step};
use crate::limits::BuildkitLimits;

/// The steps.
#[derive(Debug)]
pub(super) struct Steps {
    stages: Stages,
    title_bytes_max: usize,
    tail_bytes_max: usize,
    list: List,
    /// The steps of each stage in order, and how many of them are told.
    rows: BTreeMap<usize, (Vec<StepId>, usize)>,
    by_text: BTreeMap<String, Vec<StepId>>,
    numbered: bool,
}

/// All of them, in the order of the Dockerfile.
#[derive(Debug, Default)]
struct List(Vec<State>);

/// A step.
#[derive(Debug)]
struct State {
    slot: Slot,
    title: String,
    vertexes: Vec<VertexId>,
    told: Told,
    /// It has begun. It is told once those before it in its stage are.
    begun: bool,
    /// How long any vertex of it was at work, up to the time beside it.
    busy: Duration,
    busy_until: Time,
    /// The ends of its outputs.
    tails: [Tail; 2],
}

/// What was told of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    Start,
    End,
}

/// Whether all steps are announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announced {
    /// No: some takes what is not there.
    Partly,
    /// Some stage is not there to its end, as far as the names tell.
    Perhaps,
    /// Yes, as far as can be told.
    Wholly,
}

impl Steps {
    pub(super) fn new(stages: &[Option<String>], limits: &BuildkitLimits) -> Self {
        Self {
            stages: Stages::new(stages),
            title_bytes_max: limits.step_title_bytes_max,
            tail_bytes_max: limits.text_tail_bytes_max,
            list: List::default(),
            rows: BTreeMap::new(),
            by_text: BTreeMap::new(),
            numbered: false,
        }
    }

    pub(super) fn are_numbered(&self) -> bool {
        self.numbered
    }

    /// What is known of how many steps there are.
    pub(super) fn announced(&mut self, graph: &Graph) -> Announced {
        if !graph.is_closed() {
            Announced::Partly
        } else if is_complete(graph, &mut self.stages) {
            Announced::Wholly
        } else {
            Announced::Perhaps
        }
    }

    /// Numbers what is announced.
    pub(super) fn number(&mut self, graph: &mut Graph) {
        self.numbered = true;
        for step in place(graph, &mut self.stages, self.title_bytes_max) {
            if step.slot.stage == NO_STAGE && self.is_done_elsewhere(graph, &step) {
                for id in step.vertexes {
                    self.adopt(graph, id);
                }
            } else {
                self.add(graph, step.slot, step.title, step.text, step.vertexes);
            }
        }
    }

    /// Whether what stands nowhere is another build's vertex for one of our steps: it has the same
    /// instruction, and is none that comes after it.
    fn is_done_elsewhere(&self, graph: &Graph, step: &Placed) -> bool {
        let mut alike = self.by_text.get(&step.text).into_iter().flatten();
        alike.any(|&alike| {
            let ours = &self.list[alike].vertexes;
            let mut theirs = step.vertexes.iter();
            !theirs.any(|&id| graph.takes_any(id, ours))
        })
    }

    /// Finds the step of a vertex that was announced after the others. It may be another build's, which
    /// does the work of one of ours: then it has the same instruction. One that fits nothing is another
    /// build's business, unless it is named after a stage of this one.
    pub(super) fn adopt(&mut self, graph: &mut Graph, id: VertexId) {
        let Some(name) = graph[id].step_name.clone() else {
            return;
        };
        let place = name.place;
        let stage = self.stages.of(&name);
        let slot = stage.map(|stage| Slot { stage, place });
        let alike = self.by_text.get(&name.text).into_iter().flatten();
        let best = alike.copied().min_by_key(|&step| {
            let known = &self.list[step];
            (slot != Some(known.slot), known.told)
        });
        if let Some(step) = best {
            graph[id].step = Some(step);
            self.list[step].vertexes.push(id);
        } else if let Some(slot) = slot {
            let bytes_max = self.title_bytes_max;
            let total = name.total.unwrap_or(place);
            let title = title(&self.stages, slot, total, &name.text, bytes_max);
            let stage = NO_STAGE;
            self.add(graph, Slot { stage, place }, title, name.text, vec![id]);
        }
    }

    fn add(
        &mut self,
        graph: &mut Graph,
        slot: Slot,
        title: String,
        text: String,
        vertexes: Vec<VertexId>,
    ) {
        let step = StepId(self.list.0.len());
        for &id in &vertexes {
            graph[id].step = Some(step);
        }
        self.by_text.entry(text).or_default().push(step);
        self.rows.entry(slot.stage).or_default().0.push(step);
        let tail = || Tail::new(self.tail_bytes_max);
        self.list.0.push(State {
            slot,
            title,
            vertexes,
            told: Told::Nothing,
            begun: false,
            busy: Duration::ZERO,
            busy_until: Time::MIN,
            tails: [tail(), tail()],
        });
    }

    /// A vertex of a step is at work. So what it takes is done.
    pub(super) fn begin(
        &mut self,
        graph: &mut Graph,
        step: StepId,
        id: VertexId,
        events: &mut Vec<Event>,
    ) {
        let mut taken = graph[id].inputs.clone();
        let mut done = BTreeSet::new();
        while let Some(input) = taken.pop() {
            if mem::replace(&mut graph[input].settled, true) {
                continue;
            }
            taken.extend_from_slice(&graph[input].inputs);
            done.extend(
                graph[input]
                    .step
                    .filter(|&of| !self.is_part(graph, of, input)),
            );
        }
        done.remove(&step);
        for step in done {
            self.end(graph, step, events);
        }
        self.list[step].begun = true;
        match self.list[step].slot.stage {
            // Nothing is known of what stands before it.
            NO_STAGE => self.start(step, events),
            stage => self.tell_begun(stage, events),
        }
    }

    /// Tells the steps of a stage that have begun, up to the first that has not.
    fn tell_begun(&mut self, stage: usize, events: &mut Vec<Event>) {
        let Some((row, mut told)) = self.rows.remove(&stage) else {
            return;
        };
        while let Some(&step) = row.get(told)
            && (self.list[step].begun || self.list[step].told > Told::Nothing)
        {
            self.start(step, events);
            told += 1;
        }
        self.rows.insert(stage, (row, told));
    }

    fn start(&mut self, step: StepId, events: &mut Vec<Event>) {
        if self.list[step].told == Told::Nothing {
            self.list[step].told = Told::Start;
            events.push(Event::StepStarted(self.step(step)));
        }
    }

    /// A vertex of a step was at work.
    pub(super) fn worked(&mut self, step: StepId, started: Time, completed: Time) {
        let state = &mut self.list[step];
        let from = started.max(state.busy_until);
        let nanos = u64::try_from(completed.saturating_sub(from)).unwrap_or(0);
        state.busy = state.busy.saturating_add(Duration::from_nanos(nanos));
        state.busy_until = completed.max(state.busy_until);
    }

    /// A step's process wrote something.
    pub(super) fn write(
        &mut self,
        step: StepId,
        stream: OutputStream,
        bytes: Vec<u8>,
        events: &mut Vec<Event>,
    ) {
        // Who writes has begun, whatever stands before it.
        self.start(step, events);
        let [stdout, stderr] = &mut self.list[step].tails;
        match stream {
            OutputStream::Stdout => stdout.push(&bytes),
            OutputStream::Stderr => stderr.push(&bytes),
        }
        events.push(Event::StepOutput {
            step: step.index(),
            stream,
            bytes,
        });
    }

    fn end(&mut self, graph: &Graph, step: StepId, events: &mut Vec<Event>) {
        self.start(step, events);
        let cached = !self.has_worked(graph, step);
        let vertex = self.last_part(graph, step).unwrap_or_default();
        let state = &mut self.list[step];
        if state.told == Told::Start {
            state.told = Told::End;
            for tail in &mut state.tails {
                drop(tail.take());
            }
            let duration = if cached { Duration::ZERO } else { state.busy };
            events.push(Event::StepFinished {
                step: self.step(step),
                duration,
                cached,
                vertex,
            });
        }
    }

    /// Every step is done: those that did not begin were not needed, for what they give was there.
    pub(super) fn end_all(&mut self, graph: &Graph, events: &mut Vec<Event>) {
        for step in self.list.ids() {
            self.end(graph, step, events);
        }
    }

    /// The build failed: those steps are done whose vertexes are, but for the one that failed.
    pub(super) fn end_done(
        &mut self,
        graph: &Graph,
        failed: Option<StepId>,
        events: &mut Vec<Event>,
    ) {
        for step in self.list.ids() {
            if Some(step) == failed {
                self.start(step, events);
            } else if self.list[step].told == Told::Start && self.is_done(graph, step) {
                self.end(graph, step, events);
            }
        }
    }

    /// Whether a vertex is only a part: another vertex of its step takes it.
    fn is_part(&self, graph: &Graph, step: StepId, id: VertexId) -> bool {
        let mut vertexes = self.list[step].vertexes.iter();
        vertexes.any(|&of| graph[of].inputs.contains(&id))
    }

    /// The digest of the part that no other takes. Another build's, if it does the step, comes after
    /// our own.
    fn last_part(&self, graph: &Graph, step: StepId) -> Option<String> {
        let mut parts = self.list[step].vertexes.iter();
        let last = parts.find(|&&id| !self.is_part(graph, step, id))?;
        Some(graph[*last].digest.clone())
    }

    fn has_worked(&self, graph: &Graph, step: StepId) -> bool {
        self.list[step].vertexes.iter().any(|&id| {
            let vertex = &graph[id];
            let is_base = vertex.step_name.as_ref().is_some_and(StepName::is_base);
            let is_at_work = vertex.run.is_some_and(|run| run.completed.is_none());
            // A base image is always looked at; it was there unless something of it was fetched.
            let worked = if is_base {
                vertex.pulled
            } else {
                vertex.worked || is_at_work
            };
            worked && !self.is_part(graph, step, id)
        })
    }

    fn is_done(&self, graph: &Graph, step: StepId) -> bool {
        let vertexes = &self.list[step].vertexes;
        let has_completed = |run: Option<Run>| run.is_some_and(|run| run.completed.is_some());
        let all_well = vertexes.iter().all(|&id| {
            let vertex = &graph[id];
            vertex.run.is_none() || (has_completed(vertex.run) && vertex.error.is_empty())
        });
        let mut wholes = vertexes
            .iter()
            .filter(|&&id| !self.is_part(graph, step, id));
        all_well && wholes.any(|&id| has_completed(graph[id].run))
    }

    /// The last lines that a step wrote to standard error, or else to standard output.
    pub(super) fn take_lines(&mut self, step: StepId, lines_max: usize) -> Vec<String> {
        let [stdout, stderr] = self.list[step].tails.each_mut().map(Tail::take);
        let lines = stderr.lines(lines_max);
        if lines.is_empty() {
            stdout.lines(lines_max)
        } else {
            lines
        }
    }

    /// A step as it is told.
    pub(super) fn step(&self, step: StepId) -> Step {
        Step {
            index: step.index(),
            total: u32::try_from(self.list.0.len()).unwrap_or(u32::MAX),
            title: self.list[step].title.clone(),
        }
    }
}

impl List {
    fn ids(&self) -> impl Iterator<Item = StepId> + use<> {
        (0..self.0.len()).map(StepId)
    }
}

impl Index<StepId> for List {
    type Output = State;

    fn index(&self, step: StepId) -> &State {
        let state = self.0.get(step.0);
        state.expect("the list only grows, and its ids are its own")
    }
}

impl IndexMut<StepId> for List {
    fn index_mut(&mut self, step: StepId) -> &mut State {
        let state = self.0.get_mut(step.0);
        state.expect("the list only grows, and its ids are its own")
    }
}
