//! Keys of steps, and the plan that they make: what runs on what, and what may come from the cache.
//!
//! A key is the digest of everything that decides what a step makes: the key before it, the step, what
//! it starts from, the files that it copies. A text stands for what it names: a mirror that has changed
//! behind the text of an installation is not seen, which is what `skip_cache` is for.

use std::collections::BTreeMap;

use domain::Digest;
use domain::build::BypassReason;
use domain::definition::{ContextManifest, Step};
use domain::digest::Hasher;

use super::container::StepNetwork;
use super::context::NotInContext;
use super::step::{Action, Ambient, Change, Copy};

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
    /// The key of the files after it.
    pub key: Digest,
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
    /// The key of the files after the last step.
    pub key: Digest,
    /// Why no earlier result may stand for the whole, if none may.
    pub bypass: Option<BypassReason>,
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
        let mut key = with_nonce(inputs.base, bypass, inputs);
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
                key = with_nonce(key, Some(reason), inputs);
            }
            let due_here = if action == Action::Nothing {
                Vec::new()
            } else {
                std::mem::take(&mut due)
            };
            if action != Action::Nothing {
                key = step_key(key, step, &before, &action, &due_here, inputs.network);
            }
            let title = step.title();
            steps.push(PlannedStep {
                index,
                total,
                title,
                key,
                bypass,
                ambient: before,
                action,
                due: due_here,
            });
        }
        Ok(Self {
            steps,
            network: inputs.network,
            key,
            bypass,
        })
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

/// A key that no other build has, if there is a reason for one.
fn with_nonce(key: Digest, reason: Option<BypassReason>, inputs: &Inputs<'_>) -> Digest {
    match reason {
        None => key,
        Some(_) => Hasher::new("native-anew/v1")
            .field(key.as_bytes())
            .field(inputs.nonce.as_bytes())
            .finish(),
    }
}

fn step_key(
    parent: Digest,
    step: &Step,
    ambient: &Ambient,
    action: &Action,
    due: &[DueDir],
    network: StepNetwork,
) -> Digest {
    let hasher = Hasher::new("native-step/v1")
        .field(parent.as_bytes())
        .field(std::env::consts::ARCH)
        .field(match network {
            StepNetwork::None => "no network",
            StepNetwork::Internet => "internet",
        });
    let hasher = due.iter().fold(hasher, |hasher, dir| {
        hasher.field("workdir").field(&dir.path).field(&dir.user)
    });
    match action {
        Action::Nothing => hasher.field("nothing"),
        Action::Run(command) => {
            let defaults = command.defaults.iter().map(|(name, value)| (*name, *value));
            let hasher = hasher
                .field("run")
                .field(&command.script)
                .field(&command.user)
                .field(&ambient.workdir);
            let own = ambient
                .env
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()));
            let env: BTreeMap<&str, &str> = defaults.chain(own).collect();
            hasher
                .list(env.keys().collect::<Vec<_>>().into_iter())
                .list(env.values().collect::<Vec<_>>().into_iter())
        }
        Action::Change(Change::Copy(copies)) => copies.iter().fold(hasher.field("copy"), copy_key),
        // What these do is all in their words; paths start where they start, and new files are the user's.
        Action::Change(_) => hasher
            .field("change")
            .field(
                serde_json::to_vec(step)
                    .expect("a step has only string keys and no failing serializer"),
            )
            .field(&ambient.workdir)
            .field(&ambient.user),
    }
    .finish()
}

fn copy_key(hasher: Hasher, copy: &Copy) -> Hasher {
    let sources: Vec<Digest> = copy
        .sources
        .iter()
        .map(super::context::Source::digest)
        .collect();
    hasher
        .list(sources.iter().map(Digest::as_bytes))
        .field(&copy.dst)
        .field([u8::from(copy.into_dir)])
        .list(copy.user.iter())
        .list(copy.mode.map(u32::to_le_bytes).iter())
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

    fn keys(plan: &Plan) -> Vec<Digest> {
        plan.steps.iter().map(|step| step.key).collect()
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
        let plain = plan(&steps, |_| {}).key;
        assert_eq!(plain, plan(&steps, |_| {}).key);
        let changed = [
            plan(&steps, |inputs| inputs.base = Digest::ZERO).key,
            plan(&steps, |inputs| inputs.network = StepNetwork::None).key,
            plan(&steps, |inputs| inputs.ambient.user = "app".to_owned()).key,
            plan(&steps, |inputs| inputs.ambient.workdir = "/srv".to_owned()).key,
            plan(&steps, |inputs| {
                drop(inputs.ambient.env.insert("A".to_owned(), "1".to_owned()));
            })
            .key,
            plan(&steps, |inputs| inputs.skip_cache = true).key,
        ];
        for key in changed {
            assert_ne!(key, plain);
        }
        assert_eq!(
            plan(&steps, |inputs| inputs.nonce = Digest::ZERO).key,
            plain
        );
    }

    #[test]
    fn a_folder_made_for_another_user_is_another_layer() {
        let path = "/d".to_owned();
        let steps = [Step::MakeDir { path, mode: None }];
        let by = |user: &str| plan(&steps, |inputs| inputs.ambient.user = user.to_owned()).key;
        assert_eq!(by("root"), by("root"));
        assert_ne!(by("root"), by("app"));
    }

    #[test]
    fn a_copy_depends_on_what_it_copies_and_on_nothing_else() {
        let steps = [copy(false)];
        let key = |content: &[u8], mode, other| {
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
            Plan::new(&inputs).unwrap().key
        };
        let plain = key(b"1", 0o644, "x");
        assert_eq!(key(b"1", 0o644, "y"), plain);
        assert_eq!(
            plan(&steps, |inputs| drop(
                inputs.ambient.env.insert("A".into(), "1".into())
            ))
            .key,
            plain
        );
        assert_ne!(key(b"2", 0o644, "x"), plain);
        assert_ne!(key(b"1", 0o755, "x"), plain);
    }

    #[test]
    fn a_boundary_makes_later_keys_new_in_each_build_and_leaves_earlier_ones() {
        let steps = [run("a"), Step::SkipCache, run("b")];
        let one = plan(&steps, |_| {});
        let again = plan(&steps, |_| {});
        let next = plan(&steps, |inputs| inputs.nonce = Digest::of(b"build 2"));
        assert_eq!(keys(&one), keys(&again));
        assert_eq!(keys(&one)[0], keys(&next)[0]);
        assert_ne!(keys(&one)[2], keys(&next)[2]);
        let reasons: Vec<_> = one.steps.iter().map(|step| step.bypass).collect();
        let boundary = Some(BypassReason::BuilderCacheBoundary);
        assert_eq!(reasons, [None, boundary, boundary]);
        assert_eq!(one.bypass, boundary);
        assert_eq!(
            plan(&[copy(true)], |_| {}).bypass,
            Some(BypassReason::ForceUpload)
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
