//! What each step does: a command in a container, a change of files by our own hand, or nothing but a
//! change of what later steps start from. Pure.

use std::collections::BTreeMap;

use domain::definition::{ContextManifest, CopyItem, Step};

use super::context::{NotInContext, Source, find};
use super::git;

/// What a step starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ambient {
    /// The environment: the base's, and over it the build's.
    pub env: BTreeMap<String, String>,
    /// The user.
    pub user: String,
    /// The working folder, absolute.
    pub workdir: String,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing to the files.
    Nothing,
    /// Runs a command.
    Run(Command),
    /// Clones a repository, at the commit that it has when it is the step's turn.
    Clone(git::Clone),
    /// Changes files.
    Change(Change),
}

/// A command of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Given to `/bin/sh -c`.
    pub script: String,
    /// The user.
    pub user: String,
    /// Variables for which the step's environment has no value.
    pub defaults: Vec<(&'static str, &'static str)>,
}

/// A change of files. Paths are absolute in the view; they may pass through links there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Copies files of the context.
    Copy(Vec<Copy>),
    /// Makes a folder and its parents.
    MakeDir {
        /// The folder.
        path: String,
        /// Its permission bits, also if it exists.
        mode: Option<u32>,
        /// Who owns what is made: the user in force, as if they ran `mkdir`.
        user: String,
    },
    /// Makes a symbolic link.
    MakeSymlink {
        /// What it says.
        target: String,
        /// Where it stands, or the folder that it stands in.
        path: String,
        /// Who owns what is made.
        user: String,
    },
    /// Removes a file or folder.
    Remove {
        /// What to remove.
        path: String,
        /// Folders with what is in them.
        recursive: bool,
        /// Nothing there is no error.
        force: bool,
    },
    /// Renames a file or folder.
    Rename {
        /// From.
        src: String,
        /// To, or the folder to go into.
        dst: String,
        /// Replaces what is there.
        force: bool,
    },
    /// Makes nothing but the working folders that are due.
    Workdir,
}

/// Files of the context, and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// What to copy.
    pub sources: Vec<Source>,
    /// Where to.
    pub dst: String,
    /// Whether the destination is a folder whatever is there.
    pub into_dir: bool,
    /// The owner; root if none is given.
    pub user: Option<String>,
    /// Permission bits; as in the context if none are given.
    pub mode: Option<u32>,
}

/// The user of global installations.
const ROOT: &str = "root";

impl Ambient {
    /// What `step` does here.
    ///
    /// # Errors
    /// [`NotInContext`] for a copy.
    #[expect(clippy::too_many_lines, reason = "a table: one arm for each step")]
    pub fn action(
        &self,
        step: &Step,
        context: Option<&ContextManifest>,
    ) -> Result<Action, NotInContext> {
        let run = |script: String, user: &str, defaults: &[_]| {
            Action::Run(Command {
                script,
                user: user.to_owned(),
                defaults: defaults.to_vec(),
            })
        };
        let own = self.user.as_str();
        let by = |global: bool| if global { ROOT } else { own };
        Ok(match step {
            Step::AptInstall { packages } => run(apt_install(packages), ROOT, &APT_ENV),
            Step::PipInstall { packages, global } => {
                run(pip_install(packages, *global), by(*global), &PIP_ENV)
            }
            Step::NpmInstall { packages, global } => {
                let flag = if *global { " --global" } else { "" };
                run(
                    format!("npm install{flag}{}", words(packages)),
                    by(*global),
                    &NPM_ENV,
                )
            }
            Step::BunInstall { packages, global } => {
                let flag = if *global { " --global" } else { "" };
                run(
                    format!("bun add{flag}{}", words(packages)),
                    by(*global),
                    &[],
                )
            }
            Step::Run { command, user } => {
                run(command.clone(), user.as_deref().unwrap_or(own), &[])
            }
            Step::GitClone {
                url,
                path,
                branch,
                depth,
            } => Action::Clone(git::Clone {
                url: url.clone(),
                path: self.absolute(path),
                branch: branch.clone(),
                depth: *depth,
                user: own.to_owned(),
            }),
            Step::Copy(item) => Action::Change(Change::Copy(vec![self.copy(item, context)?])),
            Step::CopyItems { items } => {
                let copies: Result<_, _> =
                    items.iter().map(|item| self.copy(item, context)).collect();
                Action::Change(Change::Copy(copies?))
            }
            Step::MakeDir { path, mode } => Action::Change(Change::MakeDir {
                path: self.absolute(path),
                mode: *mode,
                user: self.user.clone(),
            }),
            Step::MakeSymlink { target, path } => {
                let path = self.absolute(path);
                Action::Change(Change::MakeSymlink {
                    target: target.clone(),
                    path,
                    user: self.user.clone(),
                })
            }
            Step::Remove {
                path,
                recursive,
                force,
            } => {
                let (path, recursive, force) = (self.absolute(path), *recursive, *force);
                Action::Change(Change::Remove {
                    path,
                    recursive,
                    force,
                })
            }
            Step::Rename { src, dst, force } => {
                let (src, dst, force) = (self.absolute(src), self.absolute(dst), *force);
                Action::Change(Change::Rename { src, dst, force })
            }
            Step::Workdir { .. } | Step::User { .. } | Step::SkipCache => Action::Nothing,
        })
    }

    /// What the next step starts from, after `step`.
    #[must_use]
    pub fn after(mut self, step: &Step) -> Self {
        match step {
            Step::Workdir { path } => self.workdir = self.absolute(path),
            Step::User { user } => self.user.clone_from(user),
            Step::AptInstall { .. }
            | Step::PipInstall { .. }
            | Step::NpmInstall { .. }
            | Step::BunInstall { .. }
            | Step::Run { .. }
            | Step::Copy(_)
            | Step::CopyItems { .. }
            | Step::MakeDir { .. }
            | Step::MakeSymlink { .. }
            | Step::Remove { .. }
            | Step::Rename { .. }
            | Step::GitClone { .. }
            | Step::SkipCache => {}
        }
        self
    }

    /// A path of a step: relative ones start at the working folder. A `/` at the end stays.
    fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') {
            return path.to_owned();
        }
        format!("{}/{path}", self.workdir.trim_end_matches('/'))
    }

    fn copy(
        &self,
        item: &CopyItem,
        context: Option<&ContextManifest>,
    ) -> Result<Copy, NotInContext> {
        let sources: Result<Vec<_>, _> = item
            .sources
            .iter()
            .map(|source| find(context, source))
            .collect();
        let last = item.dst.rsplit('/').next().unwrap_or_default();
        Ok(Copy {
            into_dir: matches!(last, "" | "." | "..") || item.sources.len() > 1,
            sources: sources?,
            dst: self.absolute(&item.dst),
            user: item.user.clone(),
            mode: item.mode,
        })
    }
}

/// No questions, and no warning about having nobody to ask.
const APT_ENV: [(&str, &str); 2] = [
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("DEBCONF_NOWARNINGS", "yes"),
];

/// Debian's Python refuses to install beside its own packages (PEP 668); in an image of one purpose
/// that is what is wanted. Older versions of pip ignore what they do not know.
const PIP_ENV: [(&str, &str); 3] = [
    ("PIP_BREAK_SYSTEM_PACKAGES", "1"),
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ("PIP_ROOT_USER_ACTION", "ignore"),
];

/// Nobody is there to read adverts and reports, and each costs a request to the registry.
const NPM_ENV: [(&str, &str); 3] = [
    ("npm_config_audit", "false"),
    ("npm_config_fund", "false"),
    ("npm_config_update_notifier", "false"),
];

fn apt_install(packages: &[String]) -> String {
    // What the published client's own rendering says, and the caches that would swell the layer.
    format!(
        "set -e\napt-get update\napt-get install -y{}\napt-get clean\nrm -rf /var/lib/apt/lists/*",
        words(packages)
    )
}

fn pip_install(packages: &[String], global: bool) -> String {
    let flag = if global { "" } else { " --user" };
    format!(
        "if command -v pip > /dev/null; then set -- pip\n\
         elif command -v pip3 > /dev/null; then set -- pip3\n\
         else set -- python3 -m pip; fi\n\
         exec \"$@\" install --no-cache-dir{flag}{}",
        words(packages)
    )
}

/// Each text as one word for the shell, with a blank before it.
fn words(texts: &[String]) -> String {
    texts
        .iter()
        .flat_map(|text| [" ".to_owned(), quoted(text)])
        .collect()
}

/// A text as one word that the shell takes literally.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ambient() -> Ambient {
        Ambient {
            env: BTreeMap::new(),
            user: "app".to_owned(),
            workdir: "/srv/".to_owned(),
        }
    }

    fn script(step: &Step) -> (String, String) {
        match ambient().action(step, None) {
            Ok(Action::Run(command)) => (command.script, command.user),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn package_names_are_words_and_never_shell() {
        let packages = vec![
            "a=1.*".to_owned(),
            "$(touch /x)".to_owned(),
            "it's; rm".to_owned(),
        ];
        let quoted = r"'a=1.*' '$(touch /x)' 'it'\''s; rm'";
        for step in [
            Step::AptInstall {
                packages: packages.clone(),
            },
            Step::PipInstall {
                packages: packages.clone(),
                global: true,
            },
            Step::NpmInstall {
                packages: packages.clone(),
                global: false,
            },
            Step::BunInstall {
                packages,
                global: true,
            },
        ] {
            assert!(script(&step).0.contains(quoted), "{}", script(&step).0);
        }
    }

    #[test]
    fn global_installations_are_roots_and_others_the_users() {
        let packages = vec!["x".to_owned()];
        let user = |step| script(&step).1;
        assert_eq!(
            user(Step::AptInstall {
                packages: packages.clone()
            }),
            "root"
        );
        assert_eq!(
            user(Step::PipInstall {
                packages: packages.clone(),
                global: true
            }),
            "root"
        );
        assert_eq!(
            user(Step::PipInstall {
                packages,
                global: false
            }),
            "app"
        );
        assert_eq!(
            user(Step::Run {
                command: "x".to_owned(),
                user: None
            }),
            "app"
        );
        let step = Step::Run {
            command: "x".to_owned(),
            user: Some("1:2".to_owned()),
        };
        assert_eq!(user(step), "1:2");
    }

    #[test]
    fn relative_paths_start_at_the_working_folder() {
        let after = ambient().after(&Step::Workdir {
            path: "one".to_owned(),
        });
        let after = after.after(&Step::Workdir {
            path: "two/".to_owned(),
        });
        assert_eq!(after.workdir, "/srv/one/two/");
        assert_eq!(after.absolute("x/"), "/srv/one/two/x/");
        assert_eq!(after.absolute("/x"), "/x");
        let after = after.after(&Step::User {
            user: "u".to_owned(),
        });
        assert_eq!(after.user, "u");
    }

    #[test]
    fn a_destination_is_a_folder_when_it_reads_like_one() {
        let copy = |sources: usize, dst: &str| {
            let item = CopyItem {
                sources: vec![".".to_owned(); sources],
                dst: dst.to_owned(),
                user: None,
                mode: None,
                force_upload: false,
            };
            ambient().copy(&item, None).unwrap()
        };
        assert!(copy(1, "x/").into_dir && copy(1, ".").into_dir && copy(2, "x").into_dir);
        assert!(!copy(1, "x").into_dir && !copy(1, "/x/y.z").into_dir);
        assert_eq!(copy(1, "x/").dst, "/srv/x/");
    }
}
