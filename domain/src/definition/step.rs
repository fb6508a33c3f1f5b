//! The steps of a declarative template.

use serde::{Deserialize, Serialize};

/// One step of a declarative template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Step {
    /// Installs Debian packages.
    AptInstall {
        /// Package names, each one shell word when quoted.
        packages: Vec<String>,
    },
    /// Installs Python packages.
    PipInstall {
        /// Requirement specifiers.
        packages: Vec<String>,
        /// For all users, or for the current one.
        global: bool,
    },
    /// Installs npm packages.
    NpmInstall {
        /// Package specifiers.
        packages: Vec<String>,
        /// With `--global`, or into the working folder.
        global: bool,
    },
    /// Installs packages with Bun.
    BunInstall {
        /// Package specifiers.
        packages: Vec<String>,
        /// With `--global`, or into the working folder.
        global: bool,
    },
    /// Runs a command by `/bin/sh -c`.
    Run {
        /// The command.
        command: String,
        /// The user; the one in force if none is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
    /// Sets (and makes) the working folder of later steps.
    Workdir {
        /// The folder; relative to the one in force.
        path: String,
    },
    /// Sets the user of later steps.
    User {
        /// Name or number.
        user: String,
    },
    /// Copies files of the context.
    Copy(CopyItem),
    /// Copies several sets of files of the context, in one layer.
    CopyItems {
        /// The sets.
        items: Vec<CopyItem>,
    },
    /// Makes a folder and its parents.
    MakeDir {
        /// The folder.
        path: String,
        /// Its permission bits; 0755 if none are given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
    },
    /// Makes a symbolic link.
    MakeSymlink {
        /// What the link says.
        target: String,
        /// Where it stands.
        path: String,
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
        /// To.
        dst: String,
        /// Replaces what is there.
        force: bool,
    },
    /// Clones a git repository.
    GitClone {
        /// Its URL.
        url: String,
        /// Where to.
        path: String,
        /// A branch or tag; the default branch if none is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        branch: Option<String>,
        /// How many commits of history; all if none is given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        depth: Option<u32>,
    },
    /// Later steps are built anew.
    SkipCache,
}

impl Step {
    /// The step as a line of a log shows it, for example `RUN pip install x`.
    pub fn title(&self) -> String {
        match self {
            Self::AptInstall { packages } => format!("APT INSTALL {}", packages.join(" ")),
            Self::PipInstall {
                packages,
                global: true,
            } => {
                format!("PIP INSTALL {}", packages.join(" "))
            }
            Self::PipInstall {
                packages,
                global: false,
            } => {
                format!("PIP INSTALL --user {}", packages.join(" "))
            }
            Self::NpmInstall { packages, .. } => format!("NPM INSTALL {}", packages.join(" ")),
            Self::BunInstall { packages, .. } => format!("BUN INSTALL {}", packages.join(" ")),
            Self::Run { command, .. } => format!("RUN {command}"),
            Self::Workdir { path } => format!("WORKDIR {path}"),
            Self::User { user } => format!("USER {user}"),
            Self::Copy(item) => format!("COPY {}", item.title()),
            Self::CopyItems { items } => {
                format!(
                    "COPY {}",
                    items
                        .iter()
                        .map(CopyItem::title)
                        .collect::<Vec<_>>()
                        .join(", ")
                )
            }
            Self::MakeDir { path, .. } => format!("MKDIR {path}"),
            Self::MakeSymlink { target, path } => format!("SYMLINK {path} -> {target}"),
            Self::Remove { path, .. } => format!("REMOVE {path}"),
            Self::Rename { src, dst, .. } => format!("RENAME {src} {dst}"),
            Self::GitClone { url, path, .. } => format!("GIT CLONE {url} {path}"),
            Self::SkipCache => "SKIP CACHE".to_owned(),
        }
    }
}

/// Files of the context, and where they go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyItem {
    /// Paths into the context. Of a folder, what is in it is copied.
    pub sources: Vec<String>,
    /// Where to; a trailing `/`, several sources or an existing folder make it a folder.
    pub dst: String,
    /// The owner; root if none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Permission bits of the copied files; as in the context if none are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// The files were uploaded anew, so no cached layer may stand for them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_upload: bool,
}

impl CopyItem {
    fn title(&self) -> String {
        format!("{} {}", self.sources.join(" "), self.dst)
    }
}
