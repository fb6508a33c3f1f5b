//! What an entry is: what it was made of, who needs it, what the event log says of it.

use std::collections::BTreeMap;

use domain::build::{CacheSubject, Event as BuildEvent};
use domain::ids::{ArtifactId, BuildId};
use domain::ports::EventReader as _;
use domain::recorded::{Position, StreamName};
use domain::time::Timestamp;
use domain::{Digest, Event};
use executor::layers::{Recipe, Role, Value};

use super::find::{Entry, spelled};
use super::{CacheDesk, CacheError, text};
use crate::wire::cache::{Explanation, Fact, Kind, Line, Need, State};

/// Events that are read from the log at once.
const READ_COUNT: usize = 1000;

/// What the log says of a key.
#[derive(Clone, Debug, Default)]
struct Told {
    stored: Option<Use>,
    hit_count: u64,
    hit: Option<Use>,
    missed: Option<(Use, Option<String>)>,
}

/// A build's use of an entry.
#[derive(Clone, Debug)]
struct Use {
    at: Timestamp,
    build: BuildId,
    subject: String,
    step_index: Option<u32>,
}

impl CacheDesk {
    /// Everything that is known of the entry whose key begins with `key`, also of one that is gone.
    ///
    /// # Errors
    /// [`CacheError`]; that it is unknown is none.
    pub async fn explain(&self, key: &str, kind: Option<Kind>) -> Result<Explanation, CacheError> {
        let Some(entry) = self.find(key, kind).await? else {
            return self.explain_gone(key).await;
        };
        let templates = self.templates().await?;
        let lines = match entry.kind() {
            Kind::Layer => self.layer_lines(&templates).await?,
            Kind::Artifact => self.artifact_lines(&templates).await?,
            Kind::Blob => self.blob_lines().await?,
        };
        let whole = entry.key();
        let line = lines.into_iter().find(|line| line.key == whole);
        let keys = match &entry {
            Entry::Layer(key) | Entry::Blob(key) => vec![*key],
            Entry::Artifact(id) => {
                let all = self.cache.artifacts.links().await?.into_iter();
                let own = all.filter(|(_, linked)| linked == id);
                own.map(|(key, _)| key).collect()
            }
        };
        let told = self.told(|key| keys.contains(key)).await?;
        let mut recipe = match &entry {
            Entry::Layer(layer) => self.layer_facts(layer, told.get(layer)).await?,
            Entry::Artifact(id) => self.artifact_facts(id).await?,
            Entry::Blob(_) => Vec::new(),
        };
        for key in keys {
            recipe.extend(self.inputs(key).await?);
        }
        let mut history = Vec::new();
        for told in told.values() {
            self.history(told, &mut history)?;
        }
        Ok(Explanation {
            key: whole,
            state: State::Present,
            entry: line,
            recipe,
            history,
        })
    }

    async fn explain_gone(&self, key: &str) -> Result<Explanation, CacheError> {
        let (hex, _) = spelled(key.trim());
        let told = self.told(|key| key.hex().starts_with(hex)).await?;
        let mut known = told.iter();
        let (whole, state, told) = match (known.next(), known.len()) {
            (None, _) => (key.to_owned(), State::Unknown, None),
            (Some((key, told)), 0) => (key.to_string(), State::Gone, Some(told)),
            (Some((first, _)), more) => {
                return Err(CacheError::Ambiguous {
                    key: key.to_owned(),
                    count: more + 1,
                    examples: vec![first.to_string()],
                });
            }
        };
        let mut history = Vec::new();
        if let Some(told) = told {
            self.history(told, &mut history)?;
        }
        let mut recipe = told.map(said_by_events).unwrap_or_default();
        if let Ok(key) = whole.parse() {
            recipe.extend(self.inputs(key).await?);
        }
        Ok(Explanation {
            key: whole,
            state,
            entry: None,
            recipe,
            history,
        })
    }

    /// What the whole log says of the keys that are `wanted`.
    async fn told(
        &self,
        wanted: impl Fn(&Digest) -> bool + Send,
    ) -> Result<BTreeMap<Digest, Told>, CacheError> {
        let mut told: BTreeMap<Digest, Told> = BTreeMap::new();
        let mut position = Position::START;
        loop {
            let events = self.log.read_all(position, READ_COUNT).await?;
            let Some(last) = events.last() else {
                return Ok(told);
            };
            position = last.position;
            for recorded in &events {
                let (StreamName::Build(build), Event::Build(event)) =
                    (&recorded.stream, &recorded.event)
                else {
                    continue;
                };
                let Some(subject) = subject(event).filter(|subject| wanted(&subject.key)) else {
                    continue;
                };
                let used = Use {
                    at: recorded.time,
                    build: build.clone(),
                    subject: subject.subject.clone(),
                    step_index: subject.step_index,
                };
                told.entry(subject.key).or_default().note(event, used);
            }
        }
    }

    /// The inputs of the recipe of that key, which outlives what was made by it. None of its files, of
    /// which there may be many: what changed in them is told by the miss.
    async fn inputs(&self, key: Digest) -> Result<Vec<Fact>, CacheError> {
        let layers = self.cache.layers.clone();
        let recipe = tokio::task::spawn_blocking(move || layers.recipes().get(&key)).await?;
        Ok(recipe.as_ref().map(inputs).unwrap_or_default())
    }

    /// The step that made it, and its neighbours.
    async fn layer_facts(
        &self,
        layer: &Digest,
        told: Option<&Told>,
    ) -> Result<Vec<Fact>, CacheError> {
        let mut facts = told.map(said_by_events).unwrap_or_default();
        let layers = self.cache.layers.clone();
        let stored = tokio::task::spawn_blocking(move || layers.list()).await?;
        let own = stored.iter().find(|stored| stored.key == *layer);
        if let Some(beneath) = own.and_then(|own| own.beneath) {
            facts.push(fact("lies on", beneath));
        }
        if told.is_none() {
            facts.push(fact("made of", "a layer of a base image"));
        }
        let above = stored
            .iter()
            .filter(|stored| stored.beneath == Some(*layer));
        facts.extend(above.map(|above| fact("beneath", above.key)));
        Ok(facts)
    }

    async fn artifact_facts(&self, id: &ArtifactId) -> Result<Vec<Fact>, CacheError> {
        let artifact = match self.cache.artifacts.peek(id).await {
            Ok(artifact) => artifact,
            Err(error) => return Ok(vec![fact("damage", error)]),
        };
        let manifest = &artifact.manifest;
        let mut facts = Vec::new();
        if let Some(base) = &manifest.base {
            facts.push(fact(
                "base",
                format!("{} ({})", base.reference, base.digest),
            ));
        }
        let machine = &manifest.machine;
        facts.push(fact(
            "machine",
            format!(
                "{} processors, {} MiB of memory, {}",
                machine.vcpus,
                machine.memory_mib,
                if machine.network {
                    "network"
                } else {
                    "no network"
                }
            ),
        ));
        let vmm = &manifest.vmm;
        let vmm = format!("{} {} ({})", vmm.kind, vmm.version, vmm.accelerator);
        facts.push(fact("bound to", vmm));
        facts.push(fact("disk", format!("{} bytes", manifest.rootfs.bytes)));
        if let Some(command) = &manifest.runtime.start_cmd {
            facts.push(fact("start command", command));
        }
        facts.push(fact("made at", manifest.created_at));
        facts.extend(manifest.layers.iter().map(|layer| fact("layer", layer)));
        Ok(facts)
    }

    fn history(&self, told: &Told, facts: &mut Vec<Fact>) -> Result<(), CacheError> {
        if let Some(used) = &told.stored {
            facts.push(fact("stored", self.used(used)?));
        }
        if let Some(used) = &told.hit {
            let times = told.hit_count;
            facts.push(fact(
                "hits",
                format!("{times}, the last {}", self.used(used)?),
            ));
        }
        if let Some((used, difference)) = &told.missed {
            let why = difference.as_ref();
            let why = why.map_or_else(String::new, |why| format!(" ({why})"));
            facts.push(fact("last miss", format!("{}{why}", self.used(used)?)));
        }
        Ok(())
    }

    fn used(&self, used: &Use) -> Result<String, CacheError> {
        let row = self.views.build(&used.build)?;
        let name = row.map_or_else(String::new, |row| {
            format!(" of {}/{}", row.namespace, row.name)
        });
        Ok(format!("{} by {}{name}", text(used.at), used.build))
    }
}

impl Told {
    fn note(&mut self, event: &BuildEvent, used: Use) {
        if let BuildEvent::CacheStored(_) = event {
            self.stored = Some(used);
        } else if let BuildEvent::CacheHit(_) = event {
            self.hit_count += 1;
            self.hit = Some(used);
        } else if let BuildEvent::CacheMissed(missed) = event {
            self.missed = Some((used, missed.difference.clone()));
        }
    }

    fn any(&self) -> Option<&Use> {
        let missed = self.missed.as_ref().map(|(used, _)| used);
        self.stored.as_ref().or(self.hit.as_ref()).or(missed)
    }
}

/// The entry that a cache's event is about.
fn subject(event: &BuildEvent) -> Option<&CacheSubject> {
    if let BuildEvent::CacheHit(entry) = event {
        Some(entry)
    } else if let BuildEvent::CacheMissed(missed) = event {
        Some(&missed.entry)
    } else if let BuildEvent::CacheStored(stored) = event {
        Some(&stored.entry)
    } else {
        None
    }
}

fn said_by_events(told: &Told) -> Vec<Fact> {
    let Some(used) = told.any() else {
        return Vec::new();
    };
    let mut facts = vec![fact("made of", &used.subject)];
    facts.extend(used.step_index.map(|index| fact("step", index)));
    facts
}

fn inputs(recipe: &Recipe) -> Vec<Fact> {
    let told = recipe.inputs().iter().filter_map(|input| {
        let value = match &input.value {
            Value::Absent => return None,
            Value::Plain(text) => text.clone(),
            Value::Text { shown, digest } => format!("{shown} ({digest})"),
            Value::Digest(digest) => digest.to_string(),
        };
        let name = match input.role {
            Role::Variable => format!("variable {}", input.name),
            Role::Base
            | Role::Parent
            | Role::Boundary
            | Role::Text
            | Role::Files
            | Role::Commit
            | Role::Setting => input.name.clone(),
        };
        Some(Fact { name, value })
    });
    told.collect()
}

fn fact(name: &str, value: impl std::fmt::Display) -> Fact {
    Fact {
        name: name.to_owned(),
        value: value.to_string(),
    }
}

/// A need as a sentence has it.
pub(super) fn need(need: &Need) -> String {
    match need {
        Need::Template(reference) => format!("the template {reference}"),
        Need::Artifact(id) => format!("the artifact {id}"),
        Need::Build(id) => format!("the build {id}"),
    }
}

/// What an entry must stay for, as a sentence has it.
pub fn needs(line: &Line) -> Vec<String> {
    let in_use = line.in_use.then(|| "in use".to_owned());
    in_use
        .into_iter()
        .chain(line.needed_by.iter().map(need))
        .collect()
}
