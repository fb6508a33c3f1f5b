//! The steps of a declarative template.

use domain::definition::{CopyItem, Step};

use super::context::Listing;
use super::fields::Fields;
use super::runtime::user;
use crate::limits::{FILE_NAME_BYTES_MAX, Limits, PATH_BYTES_MAX};

const ACTIONS: &str = "apt_install, pip_install, npm_install, bun_install, run, workdir, user, \
                       copy, copy_items, make_dir, make_symlink, remove, rename, git_clone, \
                       skip_cache";

/// Where a repository goes if nobody says: the client's default.
const GIT_CLONE_PATH_DEFAULT: &str = "/workspace";

const COPY_KEYS: [&str; 5] = ["sources", "dst", "user", "mode", "force_upload"];

pub(super) fn steps(top: Fields<'_>, context: &Listing, limits: &Limits) -> Vec<Step> {
    top.each("steps", limits.step_count_max, |_, fields| {
        let step = StepFields {
            fields,
            context,
            limits,
        };
        step.read()
    })
}

/// One step of the request.
#[derive(Clone, Copy)]
struct StepFields<'a> {
    fields: Fields<'a>,
    context: &'a Listing,
    limits: &'a Limits,
}

impl StepFields<'_> {
    fn read(self) -> Option<Step> {
        let fields = self.fields;
        let action = fields.required_text("action", self.limits.text_bytes_max)?;
        match action {
            "apt_install" => {
                self.only(&["packages"]);
                Some(Step::AptInstall {
                    packages: self.packages(),
                })
            }
            // The client says `g` only where it differs from the tool's usual: pip installs for
            // all users, npm and bun into the working folder.
            "pip_install" => {
                let (packages, global) = self.install(true);
                Some(Step::PipInstall { packages, global })
            }
            "npm_install" => {
                let (packages, global) = self.install(false);
                Some(Step::NpmInstall { packages, global })
            }
            "bun_install" => {
                let (packages, global) = self.install(false);
                Some(Step::BunInstall { packages, global })
            }
            "run" => {
                self.only(&["command", "user"]);
                let user = user(fields, "user", self.limits);
                let command = fields.required_text("command", self.limits.command_bytes_max)?;
                Some(Step::Run {
                    command: command.to_owned(),
                    user,
                })
            }
            "workdir" => {
                self.only(&["path"]);
                Some(Step::Workdir {
                    path: self.path("path")?,
                })
            }
            "user" => {
                self.only(&["user"]);
                self.require("user");
                Some(Step::User {
                    user: user(fields, "user", self.limits)?,
                })
            }
            "copy" => {
                fields.only(&[&["action"], &COPY_KEYS[..]].concat());
                copy_item(fields, self.context, self.limits).map(Step::Copy)
            }
            "copy_items" => self.copy_items(),
            "make_dir" | "make_symlink" | "remove" | "rename" => self.path_step(action),
            "git_clone" => self.git_clone(),
            "skip_cache" => {
                self.only(&[]);
                Some(Step::SkipCache)
            }
            other => {
                let shown: String = other.chars().take(40).collect();
                fields.problem(
                    "action",
                    format!("`{shown}` is not a step; the steps are {ACTIONS}"),
                );
                None
            }
        }
    }

    fn path_step(self, action: &str) -> Option<Step> {
        let fields = self.fields;
        match action {
            "make_dir" => {
                self.only(&["path", "mode"]);
                let mode = fields.mode("mode");
                let path = self.path("path")?;
                Some(Step::MakeDir { path, mode })
            }
            "make_symlink" => {
                self.only(&["target", "path"]);
                // A link may say anything; only where it stands has names of files.
                let target = fields.required_text("target", PATH_BYTES_MAX);
                let path = self.path("path")?;
                Some(Step::MakeSymlink {
                    target: target?.to_owned(),
                    path,
                })
            }
            "remove" => {
                self.only(&["path", "recursive", "force"]);
                let recursive = fields.switch("recursive").unwrap_or(false);
                let force = fields.switch("force").unwrap_or(false);
                let path = self.path("path")?;
                Some(Step::Remove {
                    path,
                    recursive,
                    force,
                })
            }
            _ => {
                self.only(&["src", "dst", "force"]);
                let force = fields.switch("force").unwrap_or(false);
                let src = self.path("src");
                let dst = self.path("dst")?;
                Some(Step::Rename {
                    src: src?,
                    dst,
                    force,
                })
            }
        }
    }

    fn install(self, global_usually: bool) -> (Vec<String>, bool) {
        self.only(&["packages", "g"]);
        let global = self.fields.switch("g").unwrap_or(global_usually);
        (self.packages(), global)
    }

    /// Each is one word for its installer, so a blank around it would be part of the name.
    fn packages(self) -> Vec<String> {
        let packages = self.fields.text_list("packages", self.limits);
        for (index, package) in packages.iter().enumerate() {
            if package.trim() != package {
                let message = "must not begin or end with a blank";
                self.fields.element_problem("packages", index, message);
            }
        }
        packages
    }

    fn path(self, key: &str) -> Option<String> {
        path(self.fields, key)
    }

    fn copy_items(self) -> Option<Step> {
        self.only(&["items"]);
        self.require("items");
        let count_max = self.limits.step_item_count_max;
        let list = self.fields.list("items", count_max)?;
        if list.is_empty() {
            self.fields.problem("items", "must not be empty");
        }
        let items = self.fields.each("items", count_max, |_, item| {
            item.only(&COPY_KEYS);
            copy_item(item, self.context, self.limits)
        });
        Some(Step::CopyItems { items })
    }

    fn git_clone(self) -> Option<Step> {
        let fields = self.fields;
        self.only(&["url", "path", "branch", "depth"]);
        let url = self.required("url");
        let branch = fields.text("branch", self.limits.text_bytes_max);
        // git would read them as options.
        for (key, value) in [("url", url.as_deref()), ("branch", branch)] {
            if value.is_some_and(|value| value.starts_with('-')) {
                fields.problem(key, "must not begin with `-`");
            }
        }
        let path = if fields.has("path") {
            self.path("path")
        } else {
            Some(GIT_CLONE_PATH_DEFAULT.to_owned())
        };
        let depth = fields.number_u32("depth", 1..=u32::MAX);
        Some(Step::GitClone {
            url: url?,
            path: path?,
            branch: branch.map(str::to_owned),
            depth,
        })
    }

    fn only(self, known: &[&str]) {
        self.fields.only(&[&["action"], known].concat());
    }

    fn require(self, key: &str) {
        if !self.fields.has(key) {
            self.fields.problem(key, "is required");
        }
    }

    fn required(self, key: &str) -> Option<String> {
        self.fields
            .required_text(key, self.limits.text_bytes_max)
            .map(str::to_owned)
    }
}

/// A path in the template: absolute, or from the working folder.
fn path(fields: Fields<'_>, key: &str) -> Option<String> {
    let path = fields.required_text(key, PATH_BYTES_MAX)?;
    if let Some(name) = path
        .split('/')
        .find(|name| name.len() > FILE_NAME_BYTES_MAX)
    {
        let bytes = name.len();
        fields.problem(
            key,
            format!("has a name of {bytes} bytes, at most {FILE_NAME_BYTES_MAX} may be"),
        );
    }
    Some(path.to_owned())
}

fn copy_item(item: Fields<'_>, context: &Listing, limits: &Limits) -> Option<CopyItem> {
    let sources = item.text_list("sources", limits);
    for (index, source) in sources.iter().enumerate() {
        if !context.contains(source) {
            let shown: String = source.chars().take(200).collect();
            item.element_problem(
                "sources",
                index,
                format!("`{shown}` is not listed in build_context.files"),
            );
        }
    }
    let user = user(item, "user", limits);
    let mode = item.mode("mode");
    let force_upload = item.switch("force_upload").unwrap_or(false);
    let dst = path(item, "dst")?;
    Some(CopyItem {
        sources: sources
            .iter()
            .map(|source| source.trim_end_matches('/').to_owned())
            .collect(),
        dst,
        user,
        mode,
        force_upload,
    })
}
