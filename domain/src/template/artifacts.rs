//! A template's stream and the store of artifacts, with many at work on both at once, and crashing.
//!
//! What the service does is written down here as programs that read, append and remove step by step. A
//! scheduler picks whose step is next, and drops some of the programs in the middle: that is a crash.
//! Whatever it picks, what a tag points to is there; and a crash leaves nothing that is never removed,
//! or removed and never said.

use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Command, Event, Rejection, Template, decide, evolve};
use crate::digest::Digest;
use crate::ids::{ArtifactId, BuildId};
use crate::interleave::{Running, finish, finish_all, goes_to_its_end, pause};
use crate::name::Tag;
use crate::recorded::Version;
use crate::time::Timestamp;

const TAGS: [&str; 2] = ["a", "b"];
const BUILDS: u8 = 5;
const ARTIFACTS: u8 = 2;
/// How often a program begins again because somebody was faster.
const ATTEMPTS_MAX: usize = 200;

fn build(number: u8) -> BuildId {
    BuildId::generate(Timestamp::from_unix_micros(1).unwrap(), [number; 10])
}

fn artifact(number: u8) -> ArtifactId {
    ArtifactId::of(&Digest::of(&[number]))
}

fn tag(number: u8) -> Tag {
    TAGS[usize::from(number)].parse().unwrap()
}

/// What the log says.
#[derive(Default)]
struct Said {
    template: Template,
    tags: BTreeMap<u8, BuildId>,
    /// Builds that are ready, and what they made or found made.
    ready: BTreeMap<BuildId, u8>,
    expired: BTreeSet<BuildId>,
    purged: BTreeSet<BuildId>,
}

impl Said {
    fn version(&self) -> Version {
        self.template.version().unwrap()
    }

    fn is_needed(&self, artifact: u8) -> bool {
        let mut ready = self.ready.iter();
        ready.any(|(build, made)| *made == artifact && !self.expired.contains(build))
    }

    fn is_tagged(&self, build: &BuildId) -> bool {
        self.tags.values().any(|to| to == build)
    }
}

/// An artifact in the store.
#[derive(Clone, Copy, Default)]
struct Stored {
    use_count: usize,
    is_claimed: bool,
}

/// The log, and the store of artifacts.
#[derive(Default)]
struct World {
    said: RefCell<Said>,
    store: RefCell<BTreeMap<u8, Stored>>,
}

/// A build's use of an artifact, which ends with its process.
struct Use<'a>(&'a World, u8);

impl Drop for Use<'_> {
    fn drop(&mut self) {
        let mut store = self.0.store.borrow_mut();
        store.get_mut(&self.1).unwrap().use_count -= 1;
    }
}

/// The claim of whoever removes an artifact, which ends with its process.
struct Claim<'a>(&'a World, u8);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some(stored) = self.0.store.borrow_mut().get_mut(&self.1) {
            stored.is_claimed = false;
        }
    }
}

impl World {
    /// Appends to the template's stream.
    async fn change(&self, command: Command) -> Result<Vec<Event>, Rejection> {
        pause().await;
        let mut said = self.said.borrow_mut();
        let events = decide(&said.template, command)?;
        for event in &events {
            said.template = evolve(std::mem::take(&mut said.template), event);
            match event {
                Event::TagsAssigned { tags, build } => {
                    let numbers = (0..).zip(TAGS);
                    for (number, text) in numbers {
                        if tags.iter().any(|tag| tag.as_str() == text) {
                            said.tags.insert(number, build.clone());
                        }
                    }
                }
                Event::TagRemoved { tag, .. } => said
                    .tags
                    .retain(|number, _| TAGS[usize::from(*number)] != tag.as_str()),
                Event::ArtifactExpired { build, .. } => drop(said.expired.insert(build.clone())),
                Event::ArtifactPurged { build, .. } => drop(said.purged.insert(build.clone())),
                Event::Renamed { .. }
                | Event::AliasRemoved { .. }
                | Event::VisibilityChanged { .. }
                | Event::Deleted {} => panic!("nobody asked for {event:?}"),
            }
        }
        Ok(events)
    }

    /// A use of the artifact, found or made; nothing while it is being removed.
    fn try_use(&self, artifact: u8) -> Option<Use<'_>> {
        let mut store = self.store.borrow_mut();
        let stored = store.entry(artifact).or_default();
        if stored.is_claimed {
            return None;
        }
        stored.use_count += 1;
        drop(store);
        Some(Use(self, artifact))
    }

    /// Builds, and takes the tag.
    async fn build(&self, number: u8, artifact: u8, tag: u8) {
        for _ in 0..ATTEMPTS_MAX {
            pause().await;
            let Some(held) = self.try_use(artifact) else {
                continue;
            };
            pause().await;
            self.say_ready(build(number), artifact, tag);
            pause().await;
            drop(held);
            return;
        }
        panic!("the artifact {artifact} is always claimed");
    }

    /// A build is ready once, and takes the tag then.
    fn say_ready(&self, build: BuildId, artifact: u8, tag: u8) {
        let said = &mut *self.said.borrow_mut();
        if let Entry::Vacant(first) = said.ready.entry(build.clone()) {
            first.insert(artifact);
            said.tags.insert(tag, build);
        }
    }

    async fn assign(&self, number: u8, to: u8) {
        pause().await;
        let is_ready = self.said.borrow().ready.contains_key(&build(number));
        if is_ready {
            let command = Command::AssignTags {
                tags: vec![tag(to)],
                build: build(number),
            };
            // That it has expired is an answer, too.
            drop(self.change(command).await);
        }
    }

    async fn remove_tag(&self, number: u8) {
        pause().await;
        let seen = self.said.borrow().tags.get(&number).cloned();
        if let Some(build) = seen {
            let tag = tag(number);
            drop(self.change(Command::RemoveTag { tag, build }).await);
        }
    }

    /// Lets the artifact of a build expire that no tag points to, and removes it.
    async fn expire(&self, number: u8) {
        pause().await;
        let seen = {
            let said = self.said.borrow();
            let made = said.ready.get(&build(number)).copied();
            made.filter(|_| !said.is_tagged(&build(number)))
                .map(|made| (made, said.version()))
        };
        let Some((made, seen)) = seen else { return };
        let command = Command::ExpireArtifact {
            build: build(number),
            artifact: artifact(made),
            seen,
        };
        if self.change(command).await.is_ok() {
            self.collect(made).await;
        }
    }

    /// Removes an artifact that nobody needs, and says so.
    async fn collect(&self, number: u8) {
        pause().await;
        let claim = match self.store.borrow_mut().get_mut(&number) {
            Some(stored) if stored.use_count > 0 || stored.is_claimed => return,
            Some(stored) => {
                stored.is_claimed = true;
                Some(Claim(self, number))
            }
            // A crash may have been between the two.
            None => None,
        };
        if claim.is_some() {
            pause().await;
            if self.said.borrow().is_needed(number) {
                return;
            }
            pause().await;
            self.store.borrow_mut().remove(&number);
        }
        drop(claim);
        pause().await;
        let gone: Vec<_> = {
            let said = self.said.borrow();
            let expired = said.expired.iter();
            let gone = expired.filter(|build| said.ready.get(*build) == Some(&number));
            gone.cloned().collect()
        };
        for build in gone {
            let command = Command::PurgeArtifact {
                build,
                artifact: artifact(number),
            };
            self.change(command).await.unwrap();
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let (said, store) = (self.said.borrow(), self.store.borrow());
        for (tag, to) in &said.tags {
            let made = said.ready.get(to);
            prop_assert!(made.is_some(), "the tag {} points to no ready build", tag);
            let is_there = made.is_some_and(|made| store.contains_key(made));
            prop_assert!(is_there, "what the tag {} points to is gone", tag);
            prop_assert!(
                !said.purged.contains(to),
                "the tag {} points to a purged build",
                tag
            );
        }
        prop_assert!(said.purged.is_subset(&said.expired));
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Program {
    Build(u8, u8, u8),
    Assign(u8, u8),
    RemoveTag(u8),
    Expire(u8),
    Collect(u8),
}

impl Program {
    async fn run(self, world: &World) {
        match self {
            Self::Build(number, artifact, tag) => world.build(number, artifact, tag).await,
            Self::Assign(number, to) => world.assign(number, to).await,
            Self::RemoveTag(number) => world.remove_tag(number).await,
            Self::Expire(number) => world.expire(number).await,
            Self::Collect(number) => world.collect(number).await,
        }
    }
}

fn programs() -> impl Strategy<Value = Vec<Program>> {
    let tags = u8::try_from(TAGS.len()).unwrap();
    prop::collection::vec(
        prop_oneof![
            4 => (0..BUILDS, 0..ARTIFACTS, 0..tags)
                .prop_map(|(number, artifact, tag)| Program::Build(number, artifact, tag)),
            3 => (0..BUILDS, 0..tags).prop_map(|(number, to)| Program::Assign(number, to)),
            2 => (0..tags).prop_map(Program::RemoveTag),
            5 => (0..BUILDS).prop_map(Program::Expire),
            2 => (0..ARTIFACTS).prop_map(Program::Collect),
        ],
        1..14,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_a_tag_points_to_is_there_and_no_crash_leaves_what_has_expired(
        programs in programs(),
        schedule in prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.05)), 0..160),
    ) {
        let world = World::default();
        // Two builds of one artifact: the tag `a` has left the first.
        finish(world.build(0, 0, 0));
        finish(world.build(1, 0, 0));
        let mut running: Vec<Running<'_>> = Vec::new();
        running.extend(programs.into_iter().map(|program| -> Running<'_> { Box::pin(program.run(&world)) }));
        for (pick, crashes) in schedule {
            if running.is_empty() {
                break;
            }
            let at = pick.index(running.len());
            if crashes || goes_to_its_end(&mut running[at]) {
                drop(running.swap_remove(at));
            }
            world.check()?;
        }
        // In turns: a build waits for whoever has claimed what it wants.
        finish_all(running, || world.check())?;
        // The next start lets everything expire that has no tag, and looks what is left of it.
        for number in 0..BUILDS {
            finish(world.expire(number));
        }
        for number in 0..ARTIFACTS {
            finish(world.collect(number));
            world.check()?;
        }
        let (said, store) = (world.said.borrow(), world.store.borrow());
        for number in 0..ARTIFACTS {
            prop_assert_eq!(store.contains_key(&number), said.is_needed(number), "artifact {}", number);
        }
        for build in &said.expired {
            let is_needed = said.ready.get(build).is_some_and(|made| said.is_needed(*made));
            prop_assert!(is_needed || said.purged.contains(build), "{:?} is not said to be gone", build);
        }
    }
}
