//! The plan of a build: what runs on what, what may come from the cache, and the recipes of it all.
//!
//! A key is the digest of a recipe: everything that decides what a step makes. That is the step beneath,
//! the step itself, what it starts from, the files that it copies. A text stands for what it names: a
//! mirror that has changed behind the text of an installation is not seen, which is what `skip_cache` is
//! for. A clone is the exception: its commit enters its key. It is known when it is the step's turn, so
//! the keys from there on are made on the way, by walking along a [`Chain`].

use std::collections::BTreeMap;

use domain::Digest;
use domain::build::BypassReason;
use domain::definition::{ContextManifest, CopyItem, Step};

use super::container::StepNetwork;
use super::context::NotInContext;
use super::git::Commit;
use super::step::{Action, Ambient, Change, Command, Copy};
use crate::layers::{Recipe, Role, Value};

/// What a plan is made of.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// What the base's files are known by: a digest of content, never a tag.
    pub base: Digest,
    /// The steps.
    pub steps: &'a [Step],
    /// What the first step starts from.
    pub ambient: Ambient,
    /// The context, if there is one.
    pub context: Option<&'a ContextManifest>,
    /// What steps reach.
    pub network: StepNetwork,
    /// Build everything anew.
    pub skip_cache: bool,
    /// What makes the keys of steps that must be built anew unlike any before: of the build, so that a
    /// second attempt at it finds what the first one made.
    pub nonce: Digest,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStep {
    /// Which, 1-based.
    pub index: u32,
    /// Of how many.
    pub total: u32,
    /// The step as a log shows it.
    pub title: String,
    /// What decides what it makes, but for what it stands on and for the commit of a clone.
    pub recipe: Recipe,
    /// Why no earlier layer may stand for it, if none may.
    pub bypass: Option<BypassReason>,
    /// What it starts from.
    pub ambient: Ambient,
    /// What it does.
    pub action: Action,
    /// Working folders that it makes first, and who owns them.
    pub due: Vec<DueDir>,
}

/// A working folder that the next change of files makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueDir {
    /// The folder.
    pub path: String,
    /// Its owner, if it is missing.
    pub user: String,
}

/// What is to be done on top of a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The steps, in order.
    pub steps: Vec<PlannedStep>,
    /// What steps reach.
    pub network: StepNetwork,
    /// What the base's files are known by.
    pub base: Digest,
    /// Why no earlier result may stand for the whole, if none may.
    pub bypass: Option<BypassReason>,
    /// What makes keys unlike any before where nothing earlier may stand for something.
    pub nonce: Digest,
}

/// The way along a plan: what the next step stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    base: Digest,
    parent: Option<Digest>,
    nonce: Digest,
}

impl Chain {
    /// The recipe of the files after `step`, which is what the step after it stands on. A clone's is of
    /// this commit.
    pub fn step(&mut self, step: &PlannedStep, commit: Option<&Commit>) -> Recipe {
        let recipe = self
            .beneath(step.recipe.kind(), step.bypass)
            .and(&step.recipe);
        let recipe = match commit {
            None => recipe,
            Some(commit) => {
                recipe.with(Role::Commit, "commit", Value::plain(Some(commit.as_str())))
            }
        };
        self.parent = Some(recipe.key());
        recipe
    }

    /// The recipe, as far as it goes, of something of this kind that is made of the files so far.
    pub fn beneath(&self, kind: &str, bypass: Option<BypassReason>) -> Recipe {
        let recipe = Recipe::new(kind).with(Role::Base, "base image", Value::Digest(self.base));
        let recipe = match self.parent {
            None => recipe,
            Some(parent) => recipe.with(Role::Parent, "step before", Value::Digest(parent)),
        };
        match bypass {
            None => recipe,
            Some(_) => recipe.with(Role::Boundary, "boundary", Value::Digest(self.nonce)),
        }
    }
}

/// A step that cannot be planned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("step {index} ({title}) cannot be built")]
pub struct Unplannable {
    /// Which, 1-based.
    pub index: u32,
    /// The step as a log shows it.
    pub title: String,
    /// Why.
    pub source: NotInContext,
}

impl Plan {
    /// The plan for `inputs`.
    ///
    /// # Errors
    /// [`Unplannable`], if a step copies what is not in the context.
    pub fn new(inputs: &Inputs<'_>) -> Result<Self, Unplannable> {
        let total = u32::try_from(inputs.steps.len()).unwrap_or(u32::MAX);
        let mut ambient = inputs.ambient.clone();
        let mut bypass = inputs
            .skip_cache
            .then_some(BypassReason::WholeBuildSkipCache);
        let mut due = Vec::new();
        let mut steps = Vec::with_capacity(inputs.steps.len());
        let last_change = inputs.steps.iter().rposition(changes_files);
        for (place, step) in inputs.steps.iter().enumerate() {
            let index = u32::try_from(place + 1).unwrap_or(u32::MAX);
            let action = ambient
                .action(step, inputs.context)
                .map_err(|source| Unplannable {
                    index,
                    title: step.title(),
                    source,
                })?;
            let before = ambient.clone();
            ambient = ambient.after(step);
            if matches!(step, Step::Workdir { .. }) {
                due.push(DueDir {
                    path: ambient.workdir.clone(),
                    user: ambient.user.clone(),
                });
            }
            // Folders wait for the next change of files; the last ones have none to wait for.
            let is_last =
                place + 1 == inputs.steps.len() && last_change.is_none_or(|last| last < place);
            let action = if action == Action::Nothing && is_last && !due.is_empty() {
                Action::Change(Change::Workdir)
            } else {
                action
            };
            if let Some(reason) = own_bypass(step) {
                bypass = bypass.or(Some(reason));
            }
            let due_here = if action == Action::Nothing {
                Vec::new()
            } else {
                std::mem::take(&mut due)
            };
            steps.push(PlannedStep {
                index,
                total,
                title: step.title(),
                recipe: recipe(step, &before, &action, &due_here, inputs.network),
                bypass,
                ambient: before,
                action,
                due: due_here,
            });
        }
        Ok(Self {
            steps,
            network: inputs.network,
            base: inputs.base,
            bypass,
            nonce: inputs.nonce,
        })
    }

    /// The way along the plan, from its beginning.
    pub fn chain(&self) -> Chain {
        Chain {
            base: self.base,
            parent: None,
            nonce: self.nonce,
        }
    }

    /// The recipes of all steps that make a layer, and the end of the way; nothing if a commit has to be
    /// asked for first.
    pub fn recipes(&self) -> Option<(Vec<Recipe>, Chain)> {
        let mut chain = self.chain();
        let mut recipes = Vec::new();
        for step in &self.steps {
            match step.action {
                Action::Nothing => {}
                Action::Clone(_) => return None,
                Action::Run(_) | Action::Change(_) => recipes.push(chain.step(step, None)),
            }
        }
        Some((recipes, chain))
    }
}

/// Whether the step makes a layer wherever it stands.
fn changes_files(step: &Step) -> bool {
    !matches!(
        step,
        Step::Workdir { .. } | Step::User { .. } | Step::SkipCache
    )
}

/// Why the step itself wants nothing from the cache, for it and what follows.
fn own_bypass(step: &Step) -> Option<BypassReason> {
    match step {
        Step::SkipCache => Some(BypassReason::BuilderCacheBoundary),
        Step::Copy(item) if item.force_upload => Some(BypassReason::ForceUpload),
        Step::CopyItems { items } if items.iter().any(|item| item.force_upload) => {
            Some(BypassReason::ForceUpload)
        }
        Step::AptInstall { .. }
        | Step::PipInstall { .. }
        | Step::NpmInstall { .. }
        | Step::BunInstall { .. }
        | Step::Run { .. }
        | Step::Workdir { .. }
        | Step::User { .. }
        | Step::Copy(_)
        | Step::CopyItems { .. }
        | Step::MakeDir { .. }
        | Step::MakeSymlink { .. }
        | Step::Remove { .. }
        | Step::Rename { .. }
        | Step::GitClone { .. } => None,
    }
}

/// What decides what a step makes, but for what it stands on.
fn recipe(
    step: &Step,
    ambient: &Ambient,
    action: &Action,
    due: &[DueDir],
    network: StepNetwork,
) -> Recipe {
    let recipe = Recipe::new(kind(step, action));
    let recipe = match action {
        Action::Nothing => return recipe,
        Action::Run(command) => with_command(recipe, step, command, &ambient.env),
        Action::Clone(clone) => with_command(recipe, step, &clone.outline(), &ambient.env),
        Action::Change(Change::Copy(copies)) => {
            items(step).iter().zip(copies).fold(recipe, with_copy)
        }
        Action::Change(Change::Workdir) => recipe,
        // What these do is all in their words; new files are the user's.
        Action::Change(_) => recipe
            .with(Role::Text, "step", text(step, &step.title()))
            .setting("user", Value::text(&ambient.user)),
    };
    let recipe = match action {
        Action::Change(Change::Copy(_) | Change::Workdir) | Action::Nothing => recipe,
        // Paths start there.
        Action::Run(_) | Action::Clone(_) | Action::Change(_) => {
            recipe.setting("working folder", Value::text(&ambient.workdir))
        }
    };
    let recipe = due.iter().fold(recipe, |recipe, dir| {
        recipe
            .setting("folder to make", Value::text(&dir.path))
            .setting("owner of the folder", Value::text(&dir.user))
    });
    let network = match network {
        StepNetwork::None => "none",
        StepNetwork::Internet => "internet",
    };
    recipe
        .setting("network", Value::plain(Some(network)))
        .setting("architecture", Value::plain(Some(std::env::consts::ARCH)))
}

/// What a step copies, in its own words.
fn items(step: &Step) -> &[CopyItem] {
    if let Step::CopyItems { items } = step {
        items
    } else if let Step::Copy(item) = step {
        std::slice::from_ref(item)
    } else {
        &[]
    }
}

/// The step's own words, and the script that they come to.
fn text(step: &Step, script: &str) -> Value {
    let words = serde_json::to_vec(step);
    let mut whole = words.expect("a step has only string keys and no failing serializer");
    // No byte of JSON is zero, so the two cannot run into one another.
    whole.push(0);
    whole.extend_from_slice(script.as_bytes());
    Value::shown(&step.title(), &whole)
}

fn with_command(
    recipe: Recipe,
    step: &Step,
    command: &Command,
    own: &BTreeMap<String, String>,
) -> Recipe {
    let defaults = command.defaults.iter().map(|(name, value)| (*name, *value));
    let own = own
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let env: BTreeMap<&str, &str> = defaults.chain(own).collect();
    recipe
        .with(Role::Text, "step", text(step, &command.script))
        .setting("user", Value::text(&command.user))
        .variables(env)
}

fn with_copy(recipe: Recipe, (item, copy): (&CopyItem, &Copy)) -> Recipe {
    let sources = item.sources.iter().zip(&copy.sources);
    let recipe = sources.fold(recipe, |recipe, (name, source)| {
        recipe.files(source.listing(name))
    });
    let mode = copy.mode.map(|mode| format!("{mode:04o}"));
    let form = if copy.into_dir { "folder" } else { "name" };
    recipe
        .setting("destination", Value::text(&copy.dst))
        .setting("destination is a", Value::plain(Some(form)))
        .setting("owner", Value::text_or_absent(copy.user.as_deref()))
        .setting("mode", Value::plain(mode))
}

/// What a step is called in recipes: as in requests.
fn kind(step: &Step, action: &Action) -> &'static str {
    if *action == Action::Change(Change::Workdir) {
        return "workdir";
    }
    match step {
        Step::AptInstall { .. } => "apt_install",
        Step::PipInstall { .. } => "pip_install",
        Step::NpmInstall { .. } => "npm_install",
        Step::BunInstall { .. } => "bun_install",
        Step::Run { .. } => "run",
        Step::Workdir { .. } => "workdir",
        Step::User { .. } => "user",
        Step::Copy(_) => "copy",
        Step::CopyItems { .. } => "copy_items",
        Step::MakeDir { .. } => "make_dir",
        Step::MakeSymlink { .. } => "make_symlink",
        Step::Remove { .. } => "remove",
        Step::Rename { .. } => "rename",
        Step::GitClone { .. } => "git_clone",
        Step::SkipCache => "skip_cache",
    }
}

#[cfg(test)]
mod tests {
    use domain::definition::{ContextEntry, ContextKind, CopyItem};

    use super::*;

    fn run(command: &str) -> Step {
        Step::Run {
            command: command.to_owned(),
            user: None,
        }
    }

    fn workdir(path: &str) -> Step {
        Step::Workdir {
            path: path.to_owned(),
        }
    }

    fn copy(force_upload: bool) -> Step {
        let (sources, dst) = (vec!["a".to_owned()], "/a".to_owned());
        Step::Copy(CopyItem {
            sources,
            dst,
            user: None,
            mode: None,
            force_upload,
        })
    }

    fn context(content: &[u8], mode: u32, other: &str) -> ContextManifest {
        let file = |path: &str, mode, content: &[u8]| ContextEntry {
            path: path.to_owned(),
            mode,
            kind: ContextKind::File {
                digest: Digest::of(content),
                bytes: 1,
            },
        };
        ContextManifest::new(vec![
            file("a", mode, content),
            file("b", 0o644, other.as_bytes()),
        ])
        .unwrap()
    }

    /// A plan with every input at a plain value, after `change`.
    fn plan(steps: &[Step], change: impl FnOnce(&mut Inputs<'_>)) -> Plan {
        let context = context(b"1", 0o644, "x");
        let mut inputs = Inputs {
            base: Digest::of(b"base"),
            steps,
            ambient: Ambient {
                env: BTreeMap::new(),
                user: "root".to_owned(),
                workdir: "/".to_owned(),
            },
            context: Some(&context),
            network: StepNetwork::Internet,
            skip_cache: false,
            nonce: Digest::of(b"build 1"),
        };
        change(&mut inputs);
        Plan::new(&inputs).unwrap()
    }

    /// The keys of all steps that make layers, and of the files after the last step for an artifact.
    fn keys(plan: &Plan) -> Vec<Digest> {
        let (recipes, chain) = plan.recipes().unwrap();
        let whole = chain.beneath("whole", plan.bypass);
        recipes.iter().chain([&whole]).map(Recipe::key).collect()
    }

    fn key(plan: &Plan) -> Digest {
        *keys(plan).last().unwrap()
    }

    #[test]
    fn a_change_moves_its_own_key_and_all_later_ones() {
        let one = plan(&[run("a"), run("b"), run("c")], |_| {});
        let other = plan(&[run("a"), run("B"), run("c")], |_| {});
        let (one, other) = (keys(&one), keys(&other));
        assert_eq!(one[0], other[0]);
        assert!(one[1] != other[1] && one[2] != other[2]);
    }

    #[test]
    fn every_input_of_a_command_is_in_its_key() {
        let steps = [run("a")];
        let plain = key(&plan(&steps, |_| {}));
        assert_eq!(plain, key(&plan(&steps, |_| {})));
        let changed = [
            key(&plan(&steps, |inputs| inputs.base = Digest::ZERO)),
            key(&plan(&steps, |inputs| inputs.network = StepNetwork::None)),
            key(&plan(&steps, |inputs| {
                inputs.ambient.user = "app".to_owned();
            })),
            key(&plan(&steps, |inputs| {
                inputs.ambient.workdir = "/srv".to_owned();
            })),
            key(&plan(&steps, |inputs| {
                drop(inputs.ambient.env.insert("A".to_owned(), "1".to_owned()));
            })),
            key(&plan(&steps, |inputs| inputs.skip_cache = true)),
        ];
        for key in changed {
            assert_ne!(key, plain);
        }
        assert_eq!(
            key(&plan(&steps, |inputs| inputs.nonce = Digest::ZERO)),
            plain
        );
    }

    #[test]
    fn a_folder_made_for_another_user_is_another_layer() {
        let path = "/d".to_owned();
        let steps = [Step::MakeDir { path, mode: None }];
        let by = |user: &str| {
            key(&plan(&steps, |inputs| {
                inputs.ambient.user = user.to_owned();
            }))
        };
        assert_eq!(by("root"), by("root"));
        assert_ne!(by("root"), by("app"));
    }

    #[test]
    fn a_copy_depends_on_what_it_copies_and_on_nothing_else() {
        let steps = [copy(false)];
        let key_of = |content: &[u8], mode, other| {
            let context = context(content, mode, other);
            let ambient = Ambient {
                env: BTreeMap::new(),
                user: "u".to_owned(),
                workdir: "/".to_owned(),
            };
            let inputs = Inputs {
                base: Digest::of(b"base"),
                steps: &steps,
                ambient,
                context: Some(&context),
                network: StepNetwork::Internet,
                skip_cache: false,
                nonce: Digest::ZERO,
            };
            key(&Plan::new(&inputs).unwrap())
        };
        let plain = key_of(b"1", 0o644, "x");
        assert_eq!(key_of(b"1", 0o644, "y"), plain);
        let with_variable = plan(&steps, |inputs| {
            drop(inputs.ambient.env.insert("A".into(), "1".into()));
        });
        assert_eq!(key(&with_variable), plain);
        assert_ne!(key_of(b"2", 0o644, "x"), plain);
        assert_ne!(key_of(b"1", 0o755, "x"), plain);
    }

    #[test]
    fn the_number_of_a_step_is_not_in_its_key() {
        // The client's own folder names have it, which a step more before this one changes.
        let key_of = |folder: &str| {
            let path = format!("{folder}/app/main.py");
            let file = ContextEntry {
                path,
                mode: 0o644,
                kind: ContextKind::File {
                    digest: Digest::of(b"1"),
                    bytes: 1,
                },
            };
            let context = ContextManifest::new(vec![file]).unwrap();
            let steps = [Step::Copy(CopyItem {
                sources: vec![format!("{folder}/app")],
                dst: "/a".to_owned(),
                user: None,
                mode: None,
                force_upload: false,
            })];
            let inputs = Inputs {
                base: Digest::ZERO,
                steps: &steps,
                ambient: Ambient {
                    env: BTreeMap::new(),
                    user: "u".to_owned(),
                    workdir: "/".to_owned(),
                },
                context: Some(&context),
                network: StepNetwork::None,
                skip_cache: false,
                nonce: Digest::ZERO,
            };
            key(&Plan::new(&inputs).unwrap())
        };
        let one = key_of("builder-context/step-0/src-0");
        assert_eq!(one, key_of("builder-context/step-7/src-0"));
        assert_ne!(one, key_of("elsewhere"));
    }

    #[test]
    fn a_boundary_makes_later_keys_new_in_each_build_and_leaves_earlier_ones() {
        let steps = [run("a"), Step::SkipCache, run("b")];
        let one = plan(&steps, |_| {});
        let again = plan(&steps, |_| {});
        let next = plan(&steps, |inputs| inputs.nonce = Digest::of(b"build 2"));
        assert_eq!(keys(&one), keys(&again));
        assert_eq!(keys(&one)[0], keys(&next)[0]);
        assert_ne!(keys(&one)[1], keys(&next)[1]);
        let reasons: Vec<_> = one.steps.iter().map(|step| step.bypass).collect();
        let boundary = Some(BypassReason::BuilderCacheBoundary);
        assert_eq!(reasons, [None, boundary, boundary]);
        assert_eq!(one.bypass, boundary);
        // Also one at the very end, for what is made of the files.
        let last = |nonce: &[u8]| {
            let nonce = Digest::of(nonce);
            keys(&plan(&steps[..2], |inputs| inputs.nonce = nonce))
        };
        assert_eq!(last(b"1")[0], last(b"2")[0]);
        assert_ne!(last(b"1")[1], last(b"2")[1]);
        assert_eq!(
            plan(&[copy(true)], |_| {}).bypass,
            Some(BypassReason::ForceUpload)
        );
    }

    #[test]
    fn a_clone_has_no_key_before_its_commit_is_known() {
        let clone = Step::GitClone {
            url: "https://h/r".to_owned(),
            path: "r".to_owned(),
            branch: None,
            depth: None,
        };
        let plan = plan(&[run("a"), clone, run("b")], |_| {});
        assert_eq!(plan.recipes(), None);
        let Action::Clone(clone) = &plan.steps[1].action else {
            panic!("{:?}", plan.steps[1])
        };
        let keys = |digit: &str| {
            let commit = clone.commit(&format!("{}\tHEAD\n", digit.repeat(40)));
            let mut chain = plan.chain();
            let steps = plan.steps.iter().zip([None, commit, None]);
            let keys = steps.map(|(step, commit)| chain.step(step, commit.as_ref()).key());
            keys.collect::<Vec<_>>()
        };
        let (one, again, other) = (keys("1"), keys("1"), keys("2"));
        assert_eq!(one, again);
        assert_eq!(one[0], other[0]);
        assert!(one[1] != other[1] && one[2] != other[2]);
    }

    /// Keys are on disks: a change of how they are made throws all of them away, which has to be meant.
    #[test]
    fn keys_are_what_they_were() {
        let begin = |step: Step| {
            let steps = [workdir("/srv"), step];
            let plan = plan(&steps, |inputs| {
                drop(inputs.ambient.env.insert("A".to_owned(), "1".to_owned()));
            });
            let (recipes, _) = plan.recipes().unwrap();
            // The same on every architecture.
            let own = format!("\"{}\"", std::env::consts::ARCH);
            let text = serde_json::to_string(&recipes[0]).unwrap();
            let recipe: Recipe = serde_json::from_str(&text.replace(&own, "\"any\"")).unwrap();
            recipe.key().hex()[..16].to_owned()
        };
        let made = Step::MakeDir {
            path: "d".to_owned(),
            mode: Some(0o700),
        };
        assert_eq!(
            [run("a"), copy(false), made].map(begin),
            ["1a1e9c88b2a86a1b", "7ab589cab1ffd3f3", "4cf9ea7eef75716f"]
        );
    }

    #[test]
    fn working_folders_are_made_by_the_next_change_or_at_the_end() {
        let plan_of = |steps: &[Step]| {
            let due = |step: &PlannedStep| step.due.iter().map(|dir| dir.path.clone()).collect();
            plan(steps, |_| {})
                .steps
                .iter()
                .map(due)
                .collect::<Vec<Vec<String>>>()
        };
        let none = Vec::<String>::new;
        assert_eq!(
            plan_of(&[workdir("/a"), workdir("b"), run("x")]),
            [none(), none(), vec!["/a".into(), "/a/b".into()]]
        );
        assert_eq!(
            plan_of(&[run("x"), workdir("/a")]),
            [none(), vec!["/a".into()]]
        );
        let trailing = [
            workdir("/a"),
            Step::User {
                user: "u".to_owned(),
            },
        ];
        assert_eq!(plan_of(&trailing), [none(), vec!["/a".into()]]);
        let last = plan(&trailing, |_| {});
        assert_eq!(last.steps[1].action, Action::Change(Change::Workdir));
        assert_eq!(last.steps[1].due[0].user, "root");
    }

    #[test]
    fn a_copy_of_nothing_is_no_plan() {
        let steps = [run("x"), copy(false)];
        let inputs = Inputs {
            base: Digest::ZERO,
            steps: &steps,
            ambient: Ambient {
                env: BTreeMap::new(),
                user: "u".to_owned(),
                workdir: "/".to_owned(),
            },
            context: None,
            network: StepNetwork::None,
            skip_cache: false,
            nonce: Digest::ZERO,
        };
        let refused = Plan::new(&inputs).unwrap_err();
        assert_eq!(
            (refused.index, refused.source),
            (2, NotInContext("a".to_owned()))
        );
    }
}
