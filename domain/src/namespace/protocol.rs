//! The two streams that have a say in names, with many at work on both at once, and crashing.
//!
//! What the service does is written down here as programs that read and append step by step. A
//! scheduler picks whose step is next, and drops some of the programs in the middle: that is a
//! crash. Whatever it picks, a name that a template goes by is held for it and for nobody else; and
//! a crash leaves no name that is lost for good.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Command, Hold, Names, Rejection, decide, evolve};
use crate::ids::TemplateId;
use crate::interleave::{Running, finish, goes_to_its_end, pause};
use crate::name::{Namespace, TemplateName};
use crate::recorded::Version;
use crate::template::{self, Standing, Template};
use crate::time::Timestamp;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const TEMPLATES: u8 = 3;
/// How often a program begins again because somebody was faster.
const ATTEMPTS_MAX: usize = 50;

fn id(number: u8) -> TemplateId {
    TemplateId::generate(Timestamp::from_unix_micros(1).unwrap(), [number; 10])
}

fn name(number: u8) -> TemplateName {
    NAMES[usize::from(number)].parse().unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_unix_micros(1).unwrap()
}

fn slug() -> Namespace {
    "team".parse().unwrap()
}

/// Both kinds of streams, as their states.
#[derive(Default)]
struct World {
    names: RefCell<Names>,
    templates: RefCell<BTreeMap<TemplateId, (TemplateName, Template)>>,
}

impl World {
    async fn names(&self, command: Command) -> Result<(), Rejection> {
        pause().await;
        let mut names = self.names.borrow_mut();
        let events = decide(&names, command)?;
        *names = events.iter().fold(names.clone(), evolve);
        Ok(())
    }

    async fn holder(&self, name: &TemplateName) -> Option<Hold> {
        pause().await;
        self.names.borrow().holder(name).cloned()
    }

    async fn template(&self, id: &TemplateId) -> Option<(TemplateName, Template)> {
        pause().await;
        self.templates.borrow().get(id).cloned()
    }

    async fn change(
        &self,
        id: &TemplateId,
        command: template::Command,
    ) -> Result<(), template::Rejection> {
        pause().await;
        let mut templates = self.templates.borrow_mut();
        let (_, template) = templates.get_mut(id).unwrap();
        let events = template::decide(template, command)?;
        *template = events.iter().fold(template.clone(), template::evolve);
        Ok(())
    }

    /// Releases a name that its holder has left; false if that is not so.
    async fn free_if_left(&self, name: &TemplateName) -> bool {
        let Some(hold) = self.holder(name).await else {
            return true;
        };
        let (_, template) = self.template(&hold.template_id).await.unwrap();
        if template.standing(name, hold.renaming) != Standing::Left {
            return false;
        }
        let name = name.clone();
        self.names(Command::Release { name, hold }).await.unwrap();
        true
    }

    /// Makes a template; true if it has the name.
    async fn make(&self, number: u8, name: TemplateName) -> bool {
        for _ in 0..ATTEMPTS_MAX {
            let take = Command::Take {
                name: name.clone(),
                template_id: id(number),
                owner: format!("owner-{number}").parse().unwrap(),
                claim: None,
                now: now(),
            };
            // Its first name and its being there are one event.
            let taken = {
                let taken = self.names(take).await;
                let names = self.names.borrow();
                let hold = names.holder(&name).unwrap();
                if taken.is_ok() && hold.template_id == id(number) {
                    let new = (name.clone(), Template::default());
                    self.templates.borrow_mut().entry(id(number)).or_insert(new);
                }
                taken
            };
            match taken {
                Ok(()) => return true,
                Err(Rejection::Taken(_)) if self.free_if_left(&name).await => {}
                Err(_) => return false,
            }
        }
        panic!("{name} is always taken and left");
    }

    async fn rename(&self, number: u8, to: TemplateName) {
        for _ in 0..ATTEMPTS_MAX {
            let Some((first, template)) = self.template(&id(number)).await else {
                return;
            };
            let Some(seen) = template.version() else {
                return;
            };
            if !template.goes_by(&to, &first) {
                let take = Command::TakeAlso {
                    name: to.clone(),
                    template_id: id(number),
                    owner: format!("owner-{number}").parse().unwrap(),
                    renaming: seen,
                    now: now(),
                };
                match self.names(take).await {
                    Ok(()) => {}
                    Err(_) if self.free_if_left(&to).await => continue,
                    Err(_) => return,
                }
            }
            let rename = template::Command::Rename {
                namespace: slug(),
                first,
                to: to.clone(),
                seen,
            };
            match self.change(&id(number), rename).await {
                Err(template::Rejection::Changed) => {}
                // Renamed, or deleted: then whoever wants the name finds it left.
                Ok(()) | Err(_) => return,
            }
        }
        panic!("{number} is always changed by somebody else");
    }

    async fn remove_alias(&self, number: u8, alias: TemplateName) {
        if self.template(&id(number)).await.is_none() {
            return;
        }
        let remove = template::Command::RemoveAlias {
            namespace: slug(),
            alias: alias.clone(),
        };
        if self.change(&id(number), remove).await.is_ok() {
            self.free_if_left(&alias).await;
        }
    }

    async fn delete(&self, number: u8) {
        let Some((_, template)) = self.template(&id(number)).await else {
            return;
        };
        let Some(seen) = template.version() else {
            return;
        };
        let delete = template::Command::Delete { seen };
        if self.change(&id(number), delete).await.is_ok() {
            let template_id = id(number);
            let released = self.names(Command::ReleaseAll { template_id }).await;
            released.unwrap();
        }
    }

    /// The templates that go by `name`.
    fn called(&self, name: &TemplateName) -> Vec<TemplateId> {
        let templates = self.templates.borrow();
        let called = templates
            .iter()
            .filter(|(_, (first, template))| template.goes_by(name, first));
        called.map(|(id, _)| id.clone()).collect()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for number in 0..u8::try_from(NAMES.len()).unwrap() {
            let called = self.called(&name(number));
            let names = self.names.borrow();
            let holder = names
                .holder(&name(number))
                .map(|hold| hold.template_id.clone());
            prop_assert!(called.len() <= 1, "{:?} go by {}", called, name(number));
            if let Some(template) = called.into_iter().next() {
                prop_assert_eq!(holder, Some(template), "holder of {}", name(number));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Program {
    Rename(u8, u8),
    RemoveAlias(u8, u8),
    Delete(u8),
    /// Somebody does something else to a template, which moves its version.
    Tag(u8),
    /// A new template takes a name.
    Make(u8),
}

impl Program {
    /// Runs it; `new` is the number of the template that it may make.
    async fn run(self, new: u8, world: &World) {
        match self {
            Self::Rename(template, to) => world.rename(template, name(to)).await,
            Self::RemoveAlias(template, alias) => world.remove_alias(template, name(alias)).await,
            Self::Delete(template) => world.delete(template).await,
            Self::Tag(template) if world.template(&id(template)).await.is_some() => {
                let tags = vec!["x".parse().unwrap()];
                let build = crate::ids::BuildId::generate(now(), [1; 10]);
                let assign = template::Command::AssignTags { tags, build };
                // Gone is as good as done.
                drop(world.change(&id(template), assign).await);
            }
            Self::Tag(_) => {}
            Self::Make(wanted) => drop(world.make(new, name(wanted)).await),
        }
    }
}

fn programs() -> impl Strategy<Value = Vec<Program>> {
    let (template, wanted) = (0..TEMPLATES, 0..u8::try_from(NAMES.len()).unwrap());
    let pair = (template.clone(), wanted.clone());
    prop::collection::vec(
        prop_oneof![
            5 => pair.clone().prop_map(|(template, to)| Program::Rename(template, to)),
            2 => pair.prop_map(|(template, alias)| Program::RemoveAlias(template, alias)),
            1 => template.clone().prop_map(Program::Delete),
            1 => template.prop_map(Program::Tag),
            1 => wanted.prop_map(Program::Make),
        ],
        1..9,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whoever_goes_by_a_name_holds_it_and_no_crash_loses_one(
        programs in programs(),
        schedule in prop::collection::vec((any::<prop::sample::Index>(), prop::bool::weighted(0.06)), 0..120),
    ) {
        let world = World::default();
        for number in 0..TEMPLATES {
            finish(async { assert!(world.make(number, name(number)).await) });
        }
        let mut running: Vec<(u8, Program, Running<'_>)> = (TEMPLATES..)
            .zip(programs)
            .map(|(new, program)| {
                let run: Running<'_> = Box::pin(program.run(new, &world));
                (new, program, run)
            })
            .collect();
        let mut crashed = Vec::new();
        for (pick, crashes) in schedule {
            if running.is_empty() {
                break;
            }
            let at = pick.index(running.len());
            if crashes {
                let (new, program, _) = running.swap_remove(at);
                crashed.push((new, program));
            } else if goes_to_its_end(&mut running[at].2) {
                drop(running.swap_remove(at));
            }
            world.check()?;
        }
        for (_, _, program) in running {
            finish(program);
            world.check()?;
        }
        // Whoever got no answer asks again.
        for (new, program) in crashed {
            finish(program.run(new, &world));
            world.check()?;
        }
        // What nobody goes by can be had by somebody new, and what somebody goes by cannot.
        for number in 0..u8::try_from(NAMES.len()).unwrap() {
            let is_free = world.called(&name(number)).is_empty();
            let new = 100 + number;
            finish(async { assert_eq!(world.make(new, name(number)).await, is_free, "{}", name(number)) });
            world.check()?;
        }
    }
}

#[test]
fn a_crash_between_the_two_streams_of_a_rename_is_mended_by_its_repeat() {
    let world = World::default();
    finish(async { assert!(world.make(0, name(0)).await) });
    let take = Command::TakeAlso {
        name: name(1),
        template_id: id(0),
        owner: "owner-0".parse().unwrap(),
        renaming: Version::EMPTY,
        now: now(),
    };
    finish(async { world.names(take).await.unwrap() });
    // Nobody else gets the name: the rename may still come.
    finish(async { assert!(!world.make(1, name(1)).await) });
    assert_eq!(world.called(&name(1)), []);
    finish(world.rename(0, name(1)));
    assert_eq!(world.called(&name(1)), [id(0)]);
    assert_eq!(world.called(&name(0)), [id(0)]);
}

#[test]
fn what_a_crashed_rename_took_is_free_once_something_else_happened_to_its_template() {
    let world = World::default();
    finish(async { assert!(world.make(0, name(0)).await) });
    let take = Command::TakeAlso {
        name: name(1),
        template_id: id(0),
        owner: "owner-0".parse().unwrap(),
        renaming: Version::EMPTY,
        now: now(),
    };
    finish(async { world.names(take).await.unwrap() });
    finish(Program::Tag(0).run(9, &world));
    finish(async { assert!(world.make(1, name(1)).await) });
    assert_eq!(world.called(&name(1)), [id(1)]);
}

#[test]
fn a_crash_after_a_deletion_leaves_its_names_to_whoever_wants_them() {
    let world = World::default();
    finish(async { assert!(world.make(0, name(0)).await) });
    finish(world.rename(0, name(1)));
    let seen = Version(1);
    let delete = template::Command::Delete { seen };
    finish(async { world.change(&id(0), delete).await.unwrap() });
    for number in [0, 1] {
        let held = world.names.borrow().holder(&name(number)).is_some();
        assert!(held);
        finish(async { assert!(world.make(number + 1, name(number)).await) });
        assert_eq!(world.called(&name(number)), [id(number + 1)]);
    }
}

#[test]
fn a_crash_after_an_alias_was_removed_leaves_it_to_whoever_wants_it() {
    let world = World::default();
    finish(async { assert!(world.make(0, name(0)).await) });
    finish(world.rename(0, name(1)));
    let remove = template::Command::RemoveAlias {
        namespace: slug(),
        alias: name(0),
    };
    finish(async { world.change(&id(0), remove).await.unwrap() });
    finish(async { assert!(world.make(1, name(0)).await) });
    assert_eq!(world.called(&name(0)), [id(1)]);
}
