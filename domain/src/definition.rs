//! The normalised definition of a template: what is stored, keyed and built. No secret value is in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};
use crate::name::SecretId;

/// Everything that decides what a build makes, without the values of its secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// What is built.
    pub source: Source,
    /// The files that steps may copy; their content is in the blob store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<ContextRef>,
    /// The command that runs in the machine before it is captured, by `/bin/sh -c`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_cmd: Option<String>,
    /// Defaults of every machine that is started from the template.
    #[serde(default)]
    pub runtime: RuntimeConfig,
    /// The machine.
    pub config: BuildConfig,
    /// Build everything anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_cache: bool,
    /// The ids of the secrets that the request brings; sorted, without repeats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_ids: Vec<SecretId>,
}

impl Definition {
    /// The digest of the stored form.
    ///
    /// # Panics
    /// Never: every field has a JSON form.
    pub fn digest(&self) -> Digest {
        let json = serde_json::to_vec(self)
            .expect("a definition has only string keys and no failing serializer");
        Hasher::new("definition/v1").field(json).finish()
    }
}

/// What a template is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    /// A base and steps, built by the native backend.
    Declarative {
        /// An OCI image reference, or a template reference, as the caller wrote it.
        base_image: String,
        /// The steps, in order.
        steps: Vec<Step>,
        /// Variables that steps see and machines do not.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        build_envs: BTreeMap<String, String>,
    },
    /// A Dockerfile, built by BuildKit.
    Dockerfile {
        /// Its text.
        text: String,
        /// Its path in the context; `Dockerfile` if it has none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<String>,
        /// Values of its `ARG`s.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        build_args: BTreeMap<String, String>,
        /// The stage to build; the last if none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<String>,
    },
}

/// Which engine runs a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// Our own step containers.
    Native,
    /// `buildctl` and BuildKit.
    Buildkit,
}

/// Where a template comes from, in the wire's vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceType {
    /// A base image and steps.
    Declarative,
    /// A Dockerfile.
    Dockerfile,
    /// A base image without steps.
    OciImport,
    /// Another template.
    TemplateBase,
}

/// The machine that a template is built for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildConfig {
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// The least size of the root filesystem in MiB, if the caller gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_mb: Option<u64>,
    /// Whether steps and the machine have a network.
    pub internet_access: bool,
}

/// Defaults of every machine that is started from a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeConfig {
    /// The user of processes in the machine; root if none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_user: Option<String>,
    /// Their working folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_workdir: Option<String>,
    /// Their environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub default_envs: BTreeMap<String, String>,
    /// When the start command counts as up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
}

/// When a start command counts as up. Probed from inside the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Readiness {
    /// A port accepts a connection.
    Tcp {
        /// The port on the machine's loopback.
        port: u16,
        /// How often and how long.
        #[serde(flatten)]
        schedule: ProbeSchedule,
    },
    /// A path answers with a status below 400.
    Http {
        /// The port on the machine's loopback.
        port: u16,
        /// The path, beginning with `/`.
        path: String,
        /// How often and how long.
        #[serde(flatten)]
        schedule: ProbeSchedule,
    },
    /// A command exits with 0.
    Command {
        /// The command, run by `/bin/sh -c`.
        command: String,
        /// How often and how long.
        #[serde(flatten)]
        schedule: ProbeSchedule,
    },
    /// Time has passed.
    Timeout {
        /// How much, in milliseconds.
        timeout_ms: u64,
    },
}

/// How often and how long a probe is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeSchedule {
    /// How long to try, in seconds.
    pub timeout_secs: u64,
    /// The pause between tries, in milliseconds.
    pub interval_ms: u64,
    /// The pause before the first try, in seconds.
    pub startup_grace_secs: u64,
}

impl Default for ProbeSchedule {
    /// The contract's defaults: 30 s, every 500 ms, after 2 s.
    fn default() -> Self {
        Self {
            timeout_secs: 30,
            interval_ms: 500,
            startup_grace_secs: 2,
        }
    }
}

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
    /// Paths into the context. A folder keeps its name below a `dst` that is a folder.
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

/// The listing of a context, in the blob store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextRef {
    /// The digest of the stored listing, which is a [`ContextManifest`] as JSON.
    pub digest: Digest,
    /// How many files it lists, folders not counted.
    pub file_count: u64,
    /// The sum of their sizes in bytes.
    pub total_bytes: u64,
}

/// The files of a context: sorted by path, each path once, none outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<ContextEntry>", into = "Vec<ContextEntry>")]
pub struct ContextManifest(Vec<ContextEntry>);

/// One file or folder of a context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextEntry {
    /// Relative, `/`-separated.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub kind: ContextKind,
}

/// What a context entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContextKind {
    /// A folder.
    Dir,
    /// A file, whose content is in the blob store.
    File {
        /// The content.
        digest: Digest,
        /// Its length.
        bytes: u64,
    },
}

/// Why a listing is not a context.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidContext {
    /// A path leaves the context or names nothing.
    #[error("context path `{0}` must be relative, without `..`, `.` or empty parts")]
    Path(String),
    /// A path is listed twice.
    #[error("context path `{0}` is listed twice")]
    Duplicate(String),
    /// A path lies below a file.
    #[error("context path `{0}` lies below a file")]
    BelowFile(String),
}

/// The longest context path in bytes: PATH_MAX of Linux, less room for the folder it goes to.
pub const CONTEXT_PATH_BYTES_MAX: usize = 3072;

impl ContextManifest {
    /// A context of these entries.
    ///
    /// # Errors
    /// [`InvalidContext`], naming the path at fault.
    pub fn new(mut entries: Vec<ContextEntry>) -> Result<Self, InvalidContext> {
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        let mut kinds: BTreeMap<&str, bool> = BTreeMap::new();
        for entry in &entries {
            if !is_context_path(&entry.path) {
                return Err(InvalidContext::Path(entry.path.clone()));
            }
            if kinds
                .insert(&entry.path, entry.kind == ContextKind::Dir)
                .is_some()
            {
                return Err(InvalidContext::Duplicate(entry.path.clone()));
            }
        }
        for entry in &entries {
            let below_file = entry
                .path
                .match_indices('/')
                .filter_map(|(at, _)| entry.path.get(..at))
                .any(|parent| kinds.get(parent) == Some(&false));
            if below_file {
                return Err(InvalidContext::BelowFile(entry.path.clone()));
            }
        }
        Ok(Self(entries))
    }

    /// The entries, sorted by path.
    pub fn entries(&self) -> &[ContextEntry] {
        &self.0
    }

    /// The stored form and what refers to it.
    ///
    /// # Panics
    /// Never: every field has a JSON form.
    pub fn to_stored(&self) -> (Vec<u8>, ContextRef) {
        let bytes = serde_json::to_vec(&self.0)
            .expect("a listing has only string keys and no failing serializer");
        let sizes = self.0.iter().filter_map(|entry| match entry.kind {
            ContextKind::Dir => None,
            ContextKind::File { bytes, .. } => Some(bytes),
        });
        let (file_count, total_bytes) = sizes.fold((0_u64, 0_u64), |(count, sum), bytes| {
            (count + 1, sum.saturating_add(bytes))
        });
        let digest = Digest::of(&bytes);
        (
            bytes,
            ContextRef {
                digest,
                file_count,
                total_bytes,
            },
        )
    }
}

fn is_context_path(path: &str) -> bool {
    path.len() <= CONTEXT_PATH_BYTES_MAX
        && !path.contains('\0')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

impl TryFrom<Vec<ContextEntry>> for ContextManifest {
    type Error = InvalidContext;

    fn try_from(entries: Vec<ContextEntry>) -> Result<Self, InvalidContext> {
        Self::new(entries)
    }
}

impl From<ContextManifest> for Vec<ContextEntry> {
    fn from(manifest: ContextManifest) -> Self {
        manifest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> ContextEntry {
        let kind = ContextKind::File {
            digest: Digest::of(b"x"),
            bytes: 1,
        };
        ContextEntry {
            path: path.to_owned(),
            mode: 0o644,
            kind,
        }
    }

    #[test]
    fn paths_that_leave_the_context_are_refused() {
        for path in [
            "../x",
            "/etc/passwd",
            "a/../b",
            "a//b",
            "",
            ".",
            "a/.",
            "a\0b",
        ] {
            let refused = ContextManifest::new(vec![file(path)]);
            assert_eq!(refused, Err(InvalidContext::Path(path.to_owned())));
        }
    }

    #[test]
    fn a_path_may_stand_once_and_not_below_a_file() {
        let twice = ContextManifest::new(vec![file("a"), file("a")]);
        assert_eq!(twice, Err(InvalidContext::Duplicate("a".into())));
        let below = ContextManifest::new(vec![file("a/b"), file("a"), file("a-b")]);
        assert_eq!(below, Err(InvalidContext::BelowFile("a/b".into())));
    }

    #[test]
    fn the_stored_form_does_not_depend_on_the_order_of_the_request() {
        let one = ContextManifest::new(vec![file("a"), file("b c/ü")]).unwrap();
        let other = ContextManifest::new(vec![file("b c/ü"), file("a")]).unwrap();
        assert_eq!(one.to_stored(), other.to_stored());
        assert_eq!(one.to_stored().1.file_count, 2);
        let (bytes, _) = one.to_stored();
        assert_eq!(
            serde_json::from_slice::<ContextManifest>(&bytes).unwrap(),
            one
        );
    }
}
