//! One step of a plan, from the look into the store to the kept layer.

use std::sync::atomic::{AtomicBool, Ordering};

use domain::Digest;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::tree::{Tree, blocking, io};
use super::{
    BuildFailure, NativeBuilder, Purpose, StepError, StepEvent, StepObserver, StepResources,
};
use crate::layers::{BuildError, Layer, Place, Provenance, Recipe, Staging};
use crate::limits::native::NativeLimits;
use crate::native::container::{ContainerError, ContainerSpec, Exit, OutputSink, OutputStream};
use crate::native::files::Changer;
use crate::native::git::Commit;
use crate::native::key::{Plan, PlannedStep};
use crate::native::step::{Action, Command};
use crate::native::step_root::StepRoot;
use crate::native::tail::Tail;
use crate::native::view::View;

/// An error while a layer is made: of the step, or of who watches it.
enum Unmade<E> {
    Step(StepError),
    Observer(E),
}

impl<E> From<StepError> for Unmade<E> {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

/// The making of one step's layer.
pub(super) struct Making<'a> {
    pub(super) builder: &'a NativeBuilder,
    pub(super) plan: &'a Plan,
    pub(super) step: &'a PlannedStep,
    pub(super) beneath: &'a [Layer],
    pub(super) purpose: &'a Purpose,
    pub(super) resources: StepResources,
    pub(super) cancel: &'a CancellationToken,
    /// Of a clone: what it is to be of.
    pub(super) commit: Option<Commit>,
}

/// A step's layer.
pub(super) struct Made {
    pub(super) layer: Layer,
    /// The exit code of the step's command, if one ran.
    pub(super) exit_code: Option<i32>,
    /// Whether the layer was there.
    pub(super) cached: bool,
}

impl Making<'_> {
    /// Stops here if the build was cancelled.
    pub(super) fn go_on<E: std::error::Error>(&self) -> Result<(), BuildFailure<E>> {
        if self.cancel.is_cancelled() {
            return Err(self.failure(StepError::Cancelled));
        }
        Ok(())
    }

    /// The layer of `recipe`, which is the step's.
    pub(super) async fn layer<O: StepObserver>(
        &self,
        recipe: Recipe,
        observer: &mut O,
    ) -> Result<Made, BuildFailure<O::Error>> {
        self.go_on()?;
        let (key, began) = (recipe.key(), Instant::now());
        let mut exit_code = None;
        let running = AtomicBool::new(false);
        let (watcher, code, is_running, wanted) =
            (&mut *observer, &mut exit_code, &running, &recipe);
        let build = move |staging: Staging| async move {
            is_running.store(true, Ordering::Relaxed);
            let looked = self.looked(key, wanted).await;
            watcher
                .event(self.step, looked)
                .await
                .map_err(Unmade::Observer)?;
            *code = self.fill(staging, watcher).await?;
            Ok::<_, Unmade<O::Error>>(())
        };
        let given_up = async {
            self.cancel.cancelled().await;
            // Another build makes this layer: its turn is not worth waiting for. What we run ourselves
            // ends by the token, and is waited for.
            if running.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        let layers = &self.builder.layers;
        let made = tokio::select! {
            made = layers.get_or_build(key, build) => made,
            () = given_up => return Err(self.failure(StepError::Cancelled)),
        };
        let (layer, provenance) = made.map_err(|error| match error {
            BuildError::Build(Unmade::Step(source)) => self.failure(source),
            BuildError::Build(Unmade::Observer(error)) => BuildFailure::Observer(error),
            BuildError::Store(source) => BuildFailure::Store {
                index: self.step.index,
                source,
            },
        })?;
        layers.recipes().note(recipe, self.place()).await;
        let content_bytes = layer.content_bytes();
        let (event, cached) = match provenance {
            Provenance::Hit => (StepEvent::CacheHit { key, waited: None }, true),
            Provenance::Joined => {
                let event = StepEvent::CacheHit {
                    key,
                    waited: Some(began.elapsed()),
                };
                (event, true)
            }
            Provenance::Built => (StepEvent::CacheStored { key, content_bytes }, false),
        };
        observer
            .event(self.step, event)
            .await
            .map_err(BuildFailure::Observer)?;
        Ok(Made {
            layer,
            exit_code,
            cached,
        })
    }

    /// What is told when the layer was not there.
    async fn looked(&self, key: Digest, wanted: &Recipe) -> StepEvent {
        if let Some(reason) = self.step.bypass {
            return StepEvent::CacheBypassed { key, reason };
        }
        let recipes = self.builder.layers.recipes();
        let difference = recipes
            .explain(wanted.clone(), self.place(), Vec::new())
            .await;
        StepEvent::CacheMissed { key, difference }
    }

    fn place(&self) -> Place {
        self.purpose.place(Some(self.step.index))
    }

    pub(super) fn failure<E: std::error::Error>(&self, source: StepError) -> BuildFailure<E> {
        let (index, total, title) = (self.step.index, self.step.total, self.step.title.clone());
        BuildFailure::Step {
            index,
            total,
            title,
            source,
        }
    }

    /// Does what the step does, with its changes going to `staging`, and gives the exit code if it ran
    /// a command.
    async fn fill<O: StepObserver>(
        &self,
        staging: Staging,
        observer: &mut O,
    ) -> Result<Option<i32>, Unmade<O::Error>> {
        let changes = matches!(self.step.action, Action::Change(_));
        if changes || !self.step.due.is_empty() {
            self.change_files(staging.clone()).await?;
        }
        match &self.step.action {
            Action::Nothing | Action::Change(_) => Ok(None),
            Action::Run(command) => self.run_in(staging, command, observer).await.map(Some),
            Action::Clone(clone) => {
                let commit = self.commit.as_ref();
                let commit = commit.expect("a clone is not made before its commit is known");
                let command = clone.clone_of(commit);
                self.run_in(staging, &command, observer).await.map(Some)
            }
        }
    }

    /// Runs a command whose changes go to `staging`.
    async fn run_in<O: StepObserver>(
        &self,
        staging: Staging,
        command: &Command,
        observer: &mut O,
    ) -> Result<i32, Unmade<O::Error>> {
        let root = self.root(staging).await?;
        let ran = self.run(command, root.clone(), observer).await;
        release(root).await?;
        ran
    }

    /// The root filesystem of the step's command, with its changes going to `staging`.
    pub(super) async fn root(&self, staging: Staging) -> Result<StepRoot, StepError> {
        let beneath = self.beneath.to_vec();
        let ids = self.builder.containers.ids().cloned();
        blocking("mount files", move || {
            Ok(StepRoot::layers(&beneath, &staging, ids.as_ref())?)
        })
        .await
    }

    /// Makes the changes that need no container, as the host's root: the files keep their numbers.
    async fn change_files(&self, staging: Staging) -> Result<(), StepError> {
        let tree = Tree::mount(self.beneath, staging, self.builder).await?;
        let changed = self.change(&tree).await;
        // The error of the step is the one to tell.
        let unmounted = tree.unmount(self.builder.containers.limits()).await;
        changed?;
        unmounted
    }

    /// Makes the step's own changes of files, and the working folders that are due.
    async fn change(&self, tree: &Tree) -> Result<(), StepError> {
        let (step, blobs) = (self.step.clone(), self.builder.blobs.clone());
        let account_file_bytes_max = self.builder.containers.limits().account_file_bytes_max;
        let root = tree.path().to_owned();
        blocking("change files", move || {
            let view = View::open(&root).map_err(|source| io("open the step's files", source))?;
            let changer = Changer {
                view: &view,
                blobs: &blobs,
                account_file_bytes_max,
            };
            changer.make_workdirs(&step.due)?;
            if let Action::Change(change) = &step.action {
                changer.make(change)?;
            }
            Ok(())
        })
        .await
    }

    /// Runs the step's command and takes any exit code but 0 for an error.
    async fn run<O: StepObserver>(
        &self,
        command: &Command,
        root: StepRoot,
        observer: &mut O,
    ) -> Result<i32, Unmade<O::Error>> {
        let limits = *self.builder.containers.limits();
        let mut output = Watched {
            observer,
            step: self.step,
            tail: Tail::new(limits.stderr_tail_bytes),
            // Cancelled with the build, or alone when the output cannot be reported.
            stop: self.cancel.child_token(),
            error: None,
        };
        let stop = output.stop.clone();
        let ran = self
            .builder
            .containers
            .run(self.spec(command, root), &mut output, stop)
            .await;
        if let Some(error) = output.error {
            return Err(Unmade::Observer(error));
        }
        let exit = ran.map_err(container_error)?;
        self.judge(exit, output.tail, &limits).map_err(Unmade::Step)
    }

    pub(super) fn spec(&self, command: &Command, root: StepRoot) -> ContainerSpec {
        let ambient = &self.step.ambient;
        let mut env = ambient.env.clone();
        for (name, value) in &command.defaults {
            env.entry((*name).to_owned())
                .or_insert_with(|| (*value).to_owned());
        }
        ContainerSpec {
            rootfs: root,
            argv: vec![
                "/bin/sh".to_owned(),
                "-c".to_owned(),
                command.script.clone(),
            ],
            env,
            user: command.user.clone(),
            workdir: ambient.workdir.clone(),
            network: self.plan.network,
            memory_mib: self.resources.memory_mib,
            vcpus: self.resources.vcpus,
            deadline: self.resources.deadline,
        }
    }

    fn judge(&self, exit: Exit, tail: Tail, limits: &NativeLimits) -> Result<i32, StepError> {
        let stderr_tail = tail.lines(limits.stderr_tail_lines);
        if let Some(full) = exit.disk_full {
            return Err(StepError::DiskFull {
                full,
                code: exit.code,
                stderr_tail,
            });
        }
        match exit.code {
            _ if exit.cancelled => Err(StepError::Cancelled),
            _ if exit.timed_out => Err(StepError::TimedOut {
                seconds: self.resources.deadline.as_secs(),
                stderr_tail,
            }),
            code if exit.out_of_memory => Err(StepError::OutOfMemory {
                memory_mib: self.resources.memory_mib,
                code,
                stderr_tail,
            }),
            Some(0) => Ok(0),
            Some(code) if exit.out_of_processes => Err(StepError::OutOfProcesses {
                pids_max: limits.pids_max,
                code,
                stderr_tail,
            }),
            Some(code) => Err(StepError::Exited { code, stderr_tail }),
            None => Err(StepError::Container(ContainerError::SupervisorLost)),
        }
    }
}

/// Lets the last hold on a mount go, which flushes what was written.
pub(super) async fn release(root: StepRoot) -> Result<(), StepError> {
    blocking("release files", move || {
        drop(root);
        Ok(())
    })
    .await
}

/// What is the step's fault, and what is the container's.
pub(super) fn container_error(error: ContainerError) -> StepError {
    match error {
        ContainerError::User { user, source } => StepError::User { user, source },
        ContainerError::NotStarted(message) => StepError::NotStarted(message),
        error @ (ContainerError::Workdir(_)
        | ContainerError::Files { .. }
        | ContainerError::Ids(_)
        | ContainerError::Network(_)
        | ContainerError::NetworkLost
        | ContainerError::Supervise(_)
        | ContainerError::SupervisorLost
        | ContainerError::Lost(_)
        | ContainerError::NotGone(_)) => StepError::Container(error),
    }
}

/// Passes a command's output on, and keeps the end of its standard error.
struct Watched<'a, O: StepObserver> {
    observer: &'a mut O,
    step: &'a PlannedStep,
    tail: Tail,
    stop: CancellationToken,
    error: Option<O::Error>,
}

impl<O: StepObserver> OutputSink for &mut Watched<'_, O> {
    async fn write(&mut self, stream: OutputStream, bytes: &[u8]) {
        if bytes.is_empty() || self.error.is_some() {
            return;
        }
        if stream == OutputStream::Stderr {
            self.tail.add(bytes);
        }
        if let Err(error) = self.observer.output(self.step, stream, bytes).await {
            self.error = Some(error);
            self.stop.cancel();
        }
    }
}
