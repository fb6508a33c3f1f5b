//! Where the steps of a build stand in its Dockerfile.
//!
//! A step is known by its name, but a name need not be this build's: a vertex that several builds have
//! at once bears the name that the first of them gave it, `[2/5] RUN make` for what is
//! `[build 2/3] RUN make` here. Such a vertex stands before the one that takes it. So does a base image
//! that several stages share: it is named after any of them and stands in the first. An image that steps
//! only take files from is no step, whatever it is called.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{Graph, VertexId};
use super::name::StepName;
use super::text::shorten;

/// A place in the Dockerfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    /// The stage, from 0.
    pub(super) stage: usize,
    /// The place among the counted instructions of the stage, from 1.
    pub(super) place: u32,
}

/// The stage of what stands in none that is known: behind all others.
pub(super) const NO_STAGE: usize = usize::MAX;

/// A step and the vertexes that it is made of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) slot: Slot,
    pub(super) title: String,
    /// The instruction.
    pub(super) text: String,
    pub(super) vertexes: Vec<VertexId>,
}

/// The stages of the Dockerfile, by the names that BuildKit gives them.
#[derive(Debug)]
pub(super) struct Stages {
    labels: Vec<String>,
    /// The labels are those that were met, for want of better knowledge.
    guessed: bool,
}

impl Stages {
    /// Stages without a name are called by their number.
    pub(super) fn new(names: &[Option<String>]) -> Self {
        let labels = names.iter().enumerate().map(|(index, name)| match name {
            Some(name) => name.to_lowercase(),
            None => format!("stage-{index}"),
        });
        Self {
            labels: labels.collect(),
            guessed: names.is_empty(),
        }
    }

    /// Which stage BuildKit calls `label`, if it is one of this Dockerfile.
    pub(super) fn find(&self, label: &str) -> Option<usize> {
        // BuildKit calls an only stage by its name, its number or nothing.
        if self.labels.len() == 1 && (label.is_empty() || label == "stage-0") {
            return Some(0);
        }
        self.labels.iter().position(|own| own == label)
    }

    /// The stage that a name says, if it is one of this Dockerfile.
    pub(super) fn of(&self, name: &StepName) -> Option<usize> {
        self.find(&name.stage).filter(|_| name.has_place())
    }

    /// Where nothing is known of the Dockerfile, its stages are those of the vertexes' names. The target
    /// is told first.
    fn guess(&mut self, graph: &Graph) {
        if !self.guessed {
            return;
        }
        for id in graph.ids().rev() {
            if let Some(name) = &graph[id].step_name
                && name.has_place()
                && !self.labels.contains(&name.stage)
            {
                self.labels.push(name.stage.clone());
            }
        }
    }
}

/// The steps that the vertexes so far make, in the order of the Dockerfile.
pub(super) fn place(graph: &Graph, stages: &mut Stages, title_bytes_max: usize) -> Vec<Placed> {
    stages.guess(graph);
    let slots = slots(graph, stages);
    let mut last = BTreeMap::new();
    for slot in slots.values() {
        let last = last.entry(slot.stage).or_insert(slot.place);
        *last = slot.place.max(*last);
    }
    let mut steps: BTreeMap<(Slot, &str), Vec<VertexId>> = BTreeMap::new();
    for (&id, &slot) in &slots {
        if let Some(name) = &graph[id].step_name {
            // What differs is another step, which bears the name of another build.
            steps.entry((slot, &name.text)).or_default().push(id);
        }
    }
    let placed = steps.into_iter().map(|((slot, text), vertexes)| {
        let total = last.get(&slot.stage).copied().unwrap_or(slot.place);
        Placed {
            slot,
            title: title(stages, slot, total, text, title_bytes_max),
            text: text.to_owned(),
            vertexes,
        }
    });
    placed.collect()
}

/// Whether every stage is there to its end, as far as the names tell.
pub(super) fn is_complete(graph: &Graph, stages: &mut Stages) -> bool {
    stages.guess(graph);
    let mut totals: BTreeMap<usize, BTreeMap<u32, Option<u32>>> = BTreeMap::new();
    let mut named = BTreeSet::new();
    for (id, slot) in slots(graph, stages) {
        if let Some(name) = &graph[id].step_name {
            let totals = totals.entry(slot.stage).or_default();
            totals.insert(slot.place, name.total);
            named.extend(stages.of(name));
        }
    }
    // A base that stages share stands in the first of them.
    named.iter().all(|stage| totals.contains_key(stage))
        && totals.values().all(|totals| {
            let first = if totals.contains_key(&1) { 1 } else { 2 };
            let mut places = (first..).zip(totals.keys());
            let last = totals.last_key_value();
            places.all(|(place, &there)| place == there)
                && last.is_some_and(|(place, total)| Some(*place) == *total)
        })
}

fn slots(graph: &Graph, stages: &Stages) -> BTreeMap<VertexId, Slot> {
    let steps = graph.ids().filter_map(|id| {
        let name = graph[id].step_name.as_ref()?;
        Some((id, name))
    });
    let steps: Vec<(VertexId, &StepName)> = steps.collect();
    let takers = takers(graph, &steps);
    let gives_files_only = |id: VertexId, name: &StepName| {
        // A stage that is nothing but its base is taken from, too: then the name tells.
        let may_be_a_stage = name.has_place() && stages.labels.len() > 1;
        !may_be_a_stage && takers.get(&id).is_some_and(Vec::is_empty)
    };
    let steps: Vec<(VertexId, &StepName)> = steps
        .into_iter()
        .filter(|&(id, name)| !gives_files_only(id, name))
        .collect();
    let own = |name: &StepName| {
        let stage = stages.of(name)?;
        Some(Slot {
            stage,
            place: name.place,
        })
    };
    let mut slots: BTreeMap<VertexId, Slot> = steps
        .iter()
        .filter_map(|&(id, name)| Some((id, own(name)?)))
        .collect();
    let taken: BTreeSet<Slot> = slots.values().copied().collect();
    let (mut strange, bases): (Vec<_>, Vec<_>) = steps
        .iter()
        .filter(|&&(id, name)| name.is_base() || !slots.contains_key(&id))
        .partition(|(_, name)| !name.is_base());

    // Whoever takes a strange vertex may be strange, too. Those are told first, mostly.
    loop {
        let before = strange.len();
        strange.retain(|&&(id, _)| {
            let free = before_takers(&takers, &slots, id).find(|slot| !taken.contains(slot));
            if let Some(slot) = free {
                slots.insert(id, slot);
            }
            free.is_none()
        });
        if strange.is_empty() || strange.len() == before {
            break;
        }
    }
    for &&(id, _) in &bases {
        let free = before_takers(&takers, &slots, id)
            .filter(|slot| slot.place == 1 && !taken.contains(slot));
        let first = free.chain(slots.get(&id).copied()).min();
        slots.extend(first.map(|slot| (id, slot)));
    }
    for (id, name) in steps {
        slots.entry(id).or_insert(Slot {
            stage: NO_STAGE,
            place: name.place,
        });
    }
    slots
}

/// Which steps take what; of a base image, which build on it: none if steps only take files from it.
fn takers(graph: &Graph, steps: &[(VertexId, &StepName)]) -> BTreeMap<VertexId, Vec<VertexId>> {
    let bases: BTreeSet<VertexId> = steps
        .iter()
        .filter(|(_, name)| name.is_base())
        .map(|&(id, _)| id)
        .collect();
    // The files of a `COPY --link` are copied to nothing: what they are merged with comes before it.
    let is_part = |part: VertexId, of: &StepName| {
        let mut wholes = steps.iter().filter(|&&(_, name)| name == of);
        wholes.any(|&(id, _)| graph[id].inputs.contains(&part))
    };
    let mut takers: BTreeMap<VertexId, Vec<VertexId>> = BTreeMap::new();
    for &(id, name) in steps {
        for (position, input) in graph[id].inputs.iter().enumerate() {
            let of = takers.entry(*input).or_default();
            // What a step builds on is the first thing that it takes; one that stands first builds on
            // nothing.
            let builds_on = || position == 0 && name.place > 1 && !is_part(id, name);
            if !bases.contains(input) || builds_on() {
                of.push(id);
            }
        }
    }
    takers
}

/// The places before the steps that take a vertex.
fn before_takers<'a>(
    takers: &'a BTreeMap<VertexId, Vec<VertexId>>,
    slots: &'a BTreeMap<VertexId, Slot>,
    id: VertexId,
) -> impl Iterator<Item = Slot> + 'a {
    let takers = takers.get(&id).into_iter().flatten();
    takers.filter_map(|taker| {
        let Slot { stage, place } = *slots.get(taker)?;
        let place = place.checked_sub(1).filter(|&place| place > 0)?;
        Some(Slot { stage, place })
    })
}

/// `[build 2/3] RUN make`, on one line.
pub(super) fn title(
    stages: &Stages,
    slot: Slot,
    total: u32,
    text: &str,
    bytes_max: usize,
) -> String {
    let label = match stages.labels.get(slot.stage) {
        Some(label) if stages.labels.len() > 1 && !label.is_empty() => format!("{label} "),
        Some(_) | None => String::new(),
    };
    let text: String = text
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect();
    let title = format!("[{label}{}/{total}] {text}", slot.place);
    shorten(&title, bytes_max)
}

#[cfg(test)]
mod tests;
