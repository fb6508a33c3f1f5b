//! One command of a step, in a container of its own.
//!
//! Start reading at [`Containers::run`]. What a container consists of, and who takes it away:
//!
//! | what | goes when |
//! |---|---|
//! | processes, their mounts (the root filesystem is one) | the step's supervisor ends, for whatever reason, also when the service dies |
//! | network | [`FilteredNetwork`] is dropped, also when the service dies |
//! | control groups, runtime state, bundle folder | `run` ends, or [`Containers::recover`] at the next start |

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::account::AccountError;
use super::bundle::{Bundle, Setting};
use super::cgroup::Cgroups;
use super::disk::{DiskFull, DiskWatch};
use super::identity::{IdRange, StepIds};
use super::network::{FilteredNetwork, NetworkError, NetworkPolicy};
use super::running::{self, Ended};
use super::step_root::{self, StepRoot};
use super::supervisor::{Network, Supervisor};
use crate::holdings::{Held, Holdings, Thing};
use crate::limits::native::NativeLimits;
use crate::process::ProcessError;

/// Which of its output streams a step wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes the output of a command. It is waited for, so a slow one slows the command.
pub trait OutputSink: Send {
    /// Takes a piece of output, as it was written.
    fn write(&mut self, stream: OutputStream, bytes: &[u8]) -> impl Future<Output = ()> + Send;
}

impl<F: FnMut(OutputStream, &[u8]) + Send> OutputSink for F {
    fn write(&mut self, stream: OutputStream, bytes: &[u8]) -> impl Future<Output = ()> + Send {
        self(stream, bytes);
        std::future::ready(())
    }
}

/// What a step reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepNetwork {
    /// Its own loopback.
    None,
    /// The Internet, through a [`FilteredNetwork`].
    Internet,
}

/// How steps that have a network reach package mirrors here: part of the service's configuration, and
/// of no layer and no key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkAccess {
    /// Variables (for example `PIP_INDEX_URL`) for which a step's own environment has no value.
    pub env: BTreeMap<String, String>,
    /// Files of the host that the step sees, read-only. Packages must be able to replace files of their
    /// own: a CA bundle belongs to a path of no package, with a variable that names it.
    pub files: Vec<BindFile>,
    /// Exceptions of the network's filter.
    pub policy: NetworkPolicy,
}

/// A file of the host and where a step sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindFile {
    /// The host's file; absolute.
    pub source: PathBuf,
    /// The path inside; absolute.
    pub target: PathBuf,
}

/// One command to run.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// The root filesystem.
    pub rootfs: StepRoot,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment; `PATH` and `HOME` are set if it lacks them.
    pub env: BTreeMap<String, String>,
    /// Name or number, with `:` and a group if one is named; looked up in the root filesystem.
    pub user: String,
    /// The working folder, absolute; made if it is missing.
    pub workdir: String,
    /// What it reaches.
    pub network: StepNetwork,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub vcpus: u32,
    /// How long it may run.
    pub deadline: Duration,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that are true or not, each alone; the one who judges puts them in order"
)]
pub struct Exit {
    /// The exit code; a command killed by signal `n` has `128 + n`. None if we killed it.
    pub code: Option<i32>,
    /// The signal that killed it, as far as the code tells.
    pub signal: Option<i32>,
    /// It failed, and the kernel had killed one of its processes for want of memory.
    pub out_of_memory: bool,
    /// It failed, or was killed, because it or the host has no disk space left for it.
    pub disk_full: Option<DiskFull>,
    /// It failed, and the kernel had refused it a further process.
    pub out_of_processes: bool,
    /// It was killed because its time was over.
    pub timed_out: bool,
    /// It was killed because the build was cancelled.
    pub cancelled: bool,
}

impl Exit {
    /// Whether the command ended by itself with exit code 0.
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }
}

/// Why a command could not be run, or could not be cleaned up after.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The user is none of the image's.
    #[error("cannot run as `{user}`")]
    User {
        /// The user.
        user: String,
        /// The cause.
        source: AccountError,
    },
    /// The working folder is no absolute path.
    #[error("the working folder `{0}` is not absolute")]
    Workdir(String),
    /// The container's files could not be written or taken away.
    #[error("cannot {doing} the container's {what}")]
    Files {
        /// `make` or `remove`, for example.
        doing: &'static str,
        /// Which files.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The host cannot give steps users of their own.
    #[error(
        "steps cannot get users of their own: the kernel has no user namespaces, or the filesystem of \
         the data folder has no idmapped mounts; `executor.step_user_namespace = false` runs steps \
         without"
    )]
    Ids(#[source] io::Error),
    /// There is no network for it.
    #[error("cannot connect the step to the network")]
    Network(#[source] NetworkError),
    /// The network broke down while the command ran, and the command failed.
    #[error("the step's network ended before the step")]
    NetworkLost,
    /// A host tool failed.
    #[error("cannot supervise the container")]
    Supervise(#[source] ProcessError),
    /// The runtime could not start the command: there is no such program, for example.
    #[error("the container did not start: {0}")]
    NotStarted(String),
    /// Something else than we killed the supervisor.
    #[error("the container's supervisor was killed")]
    SupervisorLost,
    /// Output or end of the container were lost.
    #[error("lost the container while it ran")]
    Lost(#[source] io::Error),
    /// It could not be killed.
    #[error("the container is not gone {0} s after it was killed")]
    NotGone(u64),
}

/// What a start of the service found left over from the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Containers whose control groups or files were there.
    pub containers: usize,
}

/// Configuration of [`Containers`].
#[derive(Clone, Debug)]
pub struct ContainersConfig {
    /// The OCI runtime's program.
    pub runc: PathBuf,
    /// A folder of the service alone, for what exists while a container does.
    pub state_dir: PathBuf,
    /// How steps reach package mirrors.
    pub access: NetworkAccess,
    /// Bounds.
    pub limits: NativeLimits,
}

/// Runs commands in containers. Clones share everything.
#[derive(Clone, Debug)]
pub struct Containers {
    config: Arc<ContainersConfig>,
    /// What the names of this service's control groups begin with.
    prefix: Arc<str>,
    /// Where a supervisor sees the root filesystem.
    place: Arc<Path>,
    /// The users of steps; none if steps have the host's.
    ids: Option<StepIds>,
    /// The last hand on the runtime's configuration: tests take protections away.
    finish: fn(Value) -> Value,
    holdings: Holdings,
}

impl Containers {
    /// Containers with this configuration. Blocking, briefly.
    ///
    /// # Errors
    /// [`ContainerError::Files`] if the state folder cannot be made, [`ContainerError::Ids`] if the host
    /// cannot give steps users of their own.
    pub fn new(config: ContainersConfig) -> Result<Self, ContainerError> {
        let made = std::fs::create_dir_all(&config.state_dir);
        let path = made.and_then(|()| config.state_dir.canonicalize());
        let path = path.map_err(|source| ContainerError::Files {
            doing: "make",
            what: "folder",
            source,
        })?;
        // Two services on one host must not take each other's groups for leftovers of their own.
        let hash = domain::digest::Hasher::new("native-state-dir/v1")
            .field(path.as_os_str().as_encoded_bytes());
        let prefix = format!("nullspace-{:.12}-", hash.finish().hex()).into();
        let files = config.access.files.iter().map(|file| file.source.as_path());
        let needed: Vec<&Path> = files.chain([path.as_path(), &config.runc]).collect();
        let place = step_root::place(&needed).map_err(|source| ContainerError::Files {
            doing: "find a place for",
            what: "root filesystem",
            source,
        })?;
        let ids = config.limits.step_ids.map(|range| mapped_ids(range, &path));
        if ids.is_none() {
            tracing::warn!(
                "steps run without a user namespace: their root is the host's, held back"
            );
        }
        Ok(Self {
            ids: ids.transpose()?,
            place: place.into(),
            finish: std::convert::identity,
            holdings: Holdings::default(),
            config: Arc::new(ContainersConfig {
                state_dir: path,
                ..config
            }),
            prefix,
        })
    }

    /// The users of steps, if they are others than the host's.
    pub const fn ids(&self) -> Option<&StepIds> {
        self.ids.as_ref()
    }

    /// The same containers, with `finish` as the last hand on their configuration.
    #[cfg(test)]
    pub(super) fn finished_by(&self, finish: fn(Value) -> Value) -> Self {
        let mut this = self.clone();
        this.finish = finish;
        this
    }

    /// The same containers, for whoever keeps the list `holdings`.
    #[must_use]
    pub fn held_by(&self, holdings: &Holdings) -> Self {
        Self {
            holdings: holdings.clone(),
            ..self.clone()
        }
    }

    /// The bounds in force.
    pub fn limits(&self) -> &NativeLimits {
        &self.config.limits
    }

    /// What the names of the control groups begin with.
    #[cfg(test)]
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Runs a command to its end and takes everything of it away.
    ///
    /// `cancel` and the deadline kill the command, and the call returns when it is gone.
    /// Dropping the future kills it too; the rest is then cleaned up in the background.
    ///
    /// # Errors
    /// [`ContainerError`]; a command that ran and failed is no error.
    pub async fn run(
        &self,
        spec: ContainerSpec,
        output: impl OutputSink,
        cancel: CancellationToken,
    ) -> Result<Exit, ContainerError> {
        if !spec.workdir.starts_with('/') {
            return Err(ContainerError::Workdir(spec.workdir));
        }
        let mut network = match spec.network {
            StepNetwork::None => None,
            StepNetwork::Internet => Some(
                FilteredNetwork::create(
                    &self.config.access.policy,
                    &self.config.limits,
                    &self.holdings,
                )
                .await
                .map_err(ContainerError::Network)?,
            ),
        };
        let setting = Setting {
            config: &self.config,
            prefix: &self.prefix,
            place: &self.place,
            finish: self.finish,
        };
        let bundle = Bundle::write(setting, &spec, network.as_ref()).await?;
        let mut held = vec![self.holdings.hold(bundle.things())];
        held.extend(network.as_ref().map(FilteredNetwork::held));
        let ended = self
            .supervise(&spec, &bundle, network.as_ref(), output, cancel)
            .await;
        let network_up = network.as_mut().is_none_or(FilteredNetwork::is_up);
        if let Some(network) = network {
            network.close().await;
        }
        let exit = match ended {
            Ok(ended) => bundle.exit(ended).await,
            Err(error) => Err(error),
        };
        // Cleaned on every path; the first error is the one to tell.
        let cleaned = bundle.clean().await;
        let exit = exit?;
        cleaned?;
        if !exit.cancelled {
            held.iter().for_each(Held::released);
        }
        if !network_up && !exit.is_success() && exit.code.is_some() {
            return Err(ContainerError::NetworkLost);
        }
        Ok(exit)
    }

    async fn supervise(
        &self,
        spec: &ContainerSpec,
        bundle: &Bundle,
        network: Option<&FilteredNetwork>,
        output: impl OutputSink,
        cancel: CancellationToken,
    ) -> Result<Ended, ContainerError> {
        let paths = network.map(|network| (network.path(), bundle.netns(), bundle.sys()));
        let network = paths.as_ref().map(|(namespace, place, sys)| Network {
            namespace,
            place,
            sys,
        });
        let runtime = bundle.command(&self.config.runc);
        let supervisor = Supervisor::start(&spec.rootfs, &self.place, network, runtime)
            .map_err(ContainerError::Supervise)?;
        let held = supervisor.child.id().map(|pid| {
            let things = [
                Some(Thing::process("the supervisor of a step", pid)),
                Thing::mounts_of(pid),
            ];
            self.holdings.hold(things.into_iter().flatten())
        });
        let limits = &self.config.limits;
        let device = spec.rootfs.device().map_err(ContainerError::Lost)?;
        let disk = spec.rootfs.written();
        let disk = disk.map(|folder| DiskWatch::new(folder, device, bundle.cgroups(), limits));
        let ended =
            running::follow(supervisor, spec.deadline, limits, disk, output, cancel).await?;
        if let Some(held) = held.filter(|_| !ended.cancelled) {
            held.released();
        }
        Ok(ended)
    }

    /// Takes away what containers of an earlier run of the service left. To be called before the first
    /// [`Containers::run`]; nothing else may use the state folder.
    ///
    /// # Errors
    /// [`ContainerError::Files`] and [`ContainerError::NotGone`].
    pub async fn recover(&self) -> Result<Recovered, ContainerError> {
        let limits = &self.config.limits;
        let files = |source| ContainerError::Files {
            doing: "remove",
            what: "left-over groups",
            source,
        };
        let prefix = Arc::clone(&self.prefix);
        let groups = tokio::task::spawn_blocking(move || Cgroups::with_prefix(&prefix))
            .await
            .map_err(io::Error::other)
            .and_then(|groups| groups)
            .map_err(files)?;
        let mut containers = groups.len();
        for group in groups {
            if !group
                .remove(limits.kill_wait, limits.poll_interval)
                .await
                .map_err(files)?
            {
                return Err(ContainerError::NotGone(limits.kill_wait.as_secs()));
            }
        }
        let state_dir = self.config.state_dir.clone();
        let folders = tokio::task::spawn_blocking(move || empty(&state_dir))
            .await
            .map_err(io::Error::other)
            .and_then(|count| count)
            .map_err(|source| ContainerError::Files {
                doing: "remove",
                what: "left-over files",
                source,
            })?;
        containers = containers.max(folders);
        Ok(Recovered { containers })
    }
}

/// Whether a host can give steps users of their own, with files in `folder`. Blocking, briefly.
///
/// # Errors
/// What it lacks.
pub fn check_ids(folder: &Path) -> io::Result<()> {
    let Some(range) = NativeLimits::default().step_ids else {
        return Ok(());
    };
    StepIds::new(range)?.mapped(folder).map(drop)
}

/// The users `range` for steps, once the filesystem of `folder` was seen to map them.
fn mapped_ids(range: IdRange, folder: &Path) -> Result<StepIds, ContainerError> {
    let ids = StepIds::new(range).map_err(ContainerError::Ids)?;
    ids.mapped(folder).map_err(ContainerError::Ids)?;
    Ok(ids)
}

/// Removes the bundles and states in the state folder, and says how many bundles there were.
fn empty(state_dir: &Path) -> io::Result<usize> {
    let mut count = 0;
    for (dir, counts) in [
        (Bundle::dir(state_dir), true),
        (Bundle::runtime_dir(state_dir), false),
    ] {
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            std::fs::remove_dir_all(entry?.path())?;
            count += usize::from(counts);
        }
    }
    Ok(count)
}
