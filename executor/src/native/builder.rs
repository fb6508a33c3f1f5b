//! Carries out a plan: each step's layer comes from the store, or is made on top of the ones before.
//!
//! A layer is made in a staging folder that is the upper folder of an overlay, so what a failed step
//! wrote goes away with the folder.

mod commit;
mod making;
mod tree;

use std::path::PathBuf;
use std::time::Duration;

use domain::Digest;
use domain::build::BypassReason;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::account::AccountError;
use super::container::{ContainerError, Containers, OutputStream};
use super::context::OpenBlob;
use super::disk::DiskFull;
use super::files::FileError;
use super::git::{Commit, Wanted};
use super::key::{Chain, Plan, PlannedStep};
use super::step::Action;
use crate::holdings::Holdings;
use crate::layers::{Layer, LayerStore, OverlayError, Place, StoreError};
use making::Making;

pub(crate) use tree::mounted_below;
pub use tree::unmount_left;

/// What happens in a build, for whoever reports it. Events of a step come in this order: started; commit
/// known; hit, missed or bypassed; output; stored; finished.
pub trait StepObserver: Send {
    /// Why something could not be reported; the build stops then.
    type Error: std::error::Error + Send + 'static;

    /// Takes an event of `step`.
    fn event(
        &mut self,
        step: &PlannedStep,
        event: StepEvent,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Takes a piece of the output of `step`, as it was written.
    fn output(
        &mut self,
        step: &PlannedStep,
        stream: OutputStream,
        bytes: &[u8],
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// What happened to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepEvent {
    /// It is its turn.
    Started,
    /// What it clones is at this commit now.
    CommitKnown {
        /// What was asked for.
        wanted: Wanted,
        /// The commit.
        commit: Commit,
    },
    /// Its layer was there.
    CacheHit {
        /// The layer's key.
        key: Digest,
        /// How long another build was waited for that was making it, if one was.
        waited: Option<Duration>,
    },
    /// Its layer was not there.
    CacheMissed {
        /// The layer's key.
        key: Digest,
        /// Why, if anything like it was there.
        difference: Option<String>,
    },
    /// Nobody looked whether its layer was there.
    CacheBypassed {
        /// The layer's key.
        key: Digest,
        /// Why.
        reason: BypassReason,
    },
    /// Its layer was made and kept.
    CacheStored {
        /// The layer's key.
        key: Digest,
        /// The size of the layer's content.
        content_bytes: u64,
    },
    /// It is done.
    Finished {
        /// How long it took.
        duration: Duration,
        /// The exit code of its command; none for steps without one, and for cached ones.
        exit_code: Option<i32>,
        /// Whether its layer was there.
        cached: bool,
    },
}

/// What every container of a build may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepResources {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub vcpus: u32,
    /// How long each step may take.
    pub deadline: Duration,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Its command exited with another code than 0.
    #[error("the command exited with code {code}")]
    Exited {
        /// The code.
        code: i32,
        /// The last lines of its standard error.
        stderr_tail: Vec<String>,
    },
    /// Its command needed more memory than it may use.
    #[error("the command used more than the {memory_mib} MiB of memory that it may use")]
    OutOfMemory {
        /// The bound.
        memory_mib: u32,
        /// The exit code.
        code: Option<i32>,
        /// The last lines of its standard error.
        stderr_tail: Vec<String>,
    },
    /// Its command wrote more than it may, or the host has no space left for it.
    #[error("{full}")]
    DiskFull {
        /// What is full.
        full: DiskFull,
        /// The exit code; none if it was killed.
        code: Option<i32>,
        /// The last lines of its standard error.
        stderr_tail: Vec<String>,
    },
    /// Its command failed after it had as many processes as it may.
    #[error(
        "the command exited with code {code} after it had reached the {pids_max} processes that a \
         step may have at once"
    )]
    OutOfProcesses {
        /// The bound.
        pids_max: u32,
        /// The exit code.
        code: i32,
        /// The last lines of its standard error.
        stderr_tail: Vec<String>,
    },
    /// Its command took too long and was killed.
    #[error("the command did not end within {seconds} s and was killed")]
    TimedOut {
        /// The bound in seconds.
        seconds: u64,
        /// The last lines of its standard error.
        stderr_tail: Vec<String>,
    },
    /// Nobody could say which commit it is to clone.
    #[error("cannot tell the commit of {wanted}: {reason}")]
    Commit {
        /// What was asked for.
        wanted: Wanted,
        /// Why.
        reason: String,
        /// The exit code of git.
        code: Option<i32>,
        /// The last lines of its standard error.
        stderr_tail: Vec<String>,
    },
    /// The build was cancelled, and what was running is gone.
    #[error("the step was cancelled")]
    Cancelled,
    /// Its user is none of the image's.
    #[error("the step cannot run as `{user}`")]
    User {
        /// The user.
        user: String,
        /// The cause.
        source: AccountError,
    },
    /// Its command cannot be started: the image has no shell, or the working folder is no folder.
    #[error("the command cannot be started: {0}")]
    NotStarted(String),
    /// Its files could not be changed.
    #[error(transparent)]
    Files(#[from] FileError),
    /// The container broke down, through no fault of the step.
    #[error("the step's container broke down")]
    Container(#[source] ContainerError),
    /// The tree of layers could not be mounted or unmounted.
    #[error("cannot mount the step's files")]
    Overlay(#[from] OverlayError),
    /// A file operation of the builder failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}

/// Why a build did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum BuildFailure<E: std::error::Error + 'static> {
    /// A step failed.
    #[error("step {index} of {total} ({title}) failed")]
    Step {
        /// Which, 1-based.
        index: u32,
        /// Of how many.
        total: u32,
        /// The step as a log shows it.
        title: String,
        /// Why.
        source: StepError,
    },
    /// A step's layer could not be kept.
    #[error("the layer of step {index} cannot be kept")]
    Store {
        /// Which, 1-based.
        index: u32,
        /// The cause.
        source: StoreError,
    },
    /// The observer could not report.
    #[error("the build cannot be reported")]
    Observer(#[source] E),
}

/// Carries out plans. Clones share everything.
#[derive(Clone)]
pub struct NativeBuilder {
    /// Runs commands.
    pub containers: Containers,
    /// Keeps layers.
    pub layers: LayerStore,
    /// Opens the context's files.
    pub blobs: OpenBlob,
    /// A folder of the service alone, for mount points.
    pub mounts_dir: PathBuf,
    /// The list of whoever it builds for.
    pub holdings: Holdings,
}

impl std::fmt::Debug for NativeBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NativeBuilder")
            .field("mounts_dir", &self.mounts_dir)
            .finish_non_exhaustive()
    }
}

/// What a build made.
#[derive(Clone, Debug)]
pub struct Built {
    /// The base's layers and those of the steps, bottom first.
    pub layers: Vec<Layer>,
    /// The end of the way along the plan.
    pub chain: Chain,
}

/// For whom a build is: what its steps are remembered by, and who may be told of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// Who may be told: builds of the same scope.
    pub scope: String,
    /// What is built.
    pub subject: String,
}

impl Purpose {
    /// The place of a step, or of the whole.
    pub fn place(&self, index: Option<u32>) -> Place {
        Place {
            scope: self.scope.clone(),
            subject: self.subject.clone(),
            index,
        }
    }
}

impl NativeBuilder {
    /// Makes what `plan` says on top of the layers `base`, bottom first.
    ///
    /// # Errors
    /// [`BuildFailure`]; the layers of the steps before are kept, nothing of the failed one is.
    pub async fn build<O: StepObserver>(
        &self,
        plan: &Plan,
        base: Vec<Layer>,
        purpose: &Purpose,
        resources: StepResources,
        observer: &mut O,
        cancel: &CancellationToken,
    ) -> Result<Built, BuildFailure<O::Error>> {
        let mut chain = plan.chain();
        let mut layers = base;
        for step in &plan.steps {
            let began = Instant::now();
            observer
                .event(step, StepEvent::Started)
                .await
                .map_err(BuildFailure::Observer)?;
            let mut making = Making {
                builder: self,
                plan,
                step,
                beneath: &layers,
                purpose,
                resources,
                cancel,
                commit: None,
            };
            let (mut exit_code, mut cached) = (None, false);
            let made = if step.action == Action::Nothing {
                making.go_on()?;
                None
            } else {
                making.commit = making.known_commit(observer).await?;
                let recipe = chain.step(step, making.commit.as_ref());
                let made = making.layer(recipe, observer).await?;
                (exit_code, cached) = (made.exit_code, made.cached);
                Some(made.layer)
            };
            layers.extend(made);
            self.layers.stack(&layers);
            let finished = StepEvent::Finished {
                duration: began.elapsed(),
                exit_code,
                cached,
            };
            observer
                .event(step, finished)
                .await
                .map_err(BuildFailure::Observer)?;
        }
        Ok(Built { layers, chain })
    }
}

#[cfg(test)]
mod tests;
