//! The steps of a declarative template: planned from what decides them, carried out by the native
//! builder, told to the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::Digest;
use domain::build::{
    CacheBypassed, CacheKind, CacheMissed, CacheStored, CacheSubject, Event, LogStream, Phase,
    StepFinished, StepStarted,
};
use domain::definition::{ContextManifest, Step};
use domain::digest::Hasher;
use domain::failure::{Failure, FailureReason};

use super::base::Base;
use super::base::template::chain_digest;
use super::{Attempt, Interruption, failures};
use crate::layers::Layer;
use crate::limits::output::OutputLimits;
use crate::native::builder::{
    BuildFailure, Built, NativeBuilder, Purpose, StepError, StepEvent, StepObserver, StepResources,
};
use crate::native::container::{OutputStream, StepNetwork};
use crate::native::key::{Inputs, Plan, PlannedStep};
use crate::native::step::{Action, Ambient};
use crate::output::lines::LineAssembler;
use crate::report::{ReportError, Reporter};

impl Attempt<'_> {
    /// What the steps will do, and under which keys; nothing is run.
    pub(super) async fn plan_steps(
        &self,
        base: &Base,
        steps: &[Step],
        build_envs: &BTreeMap<String, String>,
    ) -> Result<Plan, Interruption> {
        let context = self.context().await?;
        let ambient = base.defaults.ambient(build_envs);
        let inputs = self.inputs(base.key, ambient, steps, context.as_ref());
        let planned = Plan::new(&inputs).map_err(|error| {
            let mut failure =
                Failure::new(FailureReason::StepFailed, domain::causes::chain(&error));
            failure.step_index = Some(error.index);
            failure
        })?;
        let layers_max = self.services.limits.worker.template_layers_max;
        check_layers(base.layer_count(), &planned, layers_max)?;
        Ok(planned)
    }

    /// What a plan of `steps` on files that are known by `base` is made of.
    pub(super) fn inputs<'a>(
        &self,
        base: Digest,
        ambient: Ambient,
        steps: &'a [Step],
        context: Option<&'a ContextManifest>,
    ) -> Inputs<'a> {
        let definition = &self.job.requested.definition;
        Inputs {
            base,
            steps,
            ambient,
            context,
            network: if definition.config.internet_access {
                StepNetwork::Internet
            } else {
                StepNetwork::None
            },
            skip_cache: definition.skip_cache,
            // Of the build: a second attempt finds what the first one made.
            nonce: Hasher::new("nonce/v1")
                .field(self.job.build.as_str())
                .finish(),
        }
    }

    /// The listing of the build's context, from the blob store.
    pub(super) async fn context(&self) -> Result<Option<ContextManifest>, Interruption> {
        let Some(context) = &self.job.requested.definition.context else {
            return Ok(None);
        };
        let bytes_max = self.services.limits.worker.context_listing_bytes_max;
        let listing = self.services.blobs.read(&context.digest, bytes_max).await;
        let listing = listing.map_err(|error| failures::internal(&error))?;
        let manifest =
            serde_json::from_slice(&listing).map_err(|error| failures::internal(&error))?;
        Ok(Some(manifest))
    }

    /// For whom this is built: a team is told what its own builds made, and no other's.
    pub(super) fn purpose(&self) -> Purpose {
        let requested = &self.job.requested;
        Purpose {
            scope: requested.namespace.to_string(),
            subject: requested.name.to_string(),
        }
    }

    /// Carries the plan out on top of the base. Without steps there is nothing to tell: those of a
    /// Dockerfile have been run by then.
    pub(super) async fn run_steps(&self, base: &Base, plan: &Plan) -> Result<Built, Interruption> {
        let layers = self.base_layers(base).await?;
        self.go_on()?;
        let phase = match plan.steps.as_slice() {
            [] => None,
            _ => Some(self.reporter.begin(Phase::Step).await?),
        };
        let mut observer = Observer::new(self.reporter.clone(), self.services.limits.output);
        let built = match self.carry_out(plan, layers, &mut observer).await {
            Ok(built) => built,
            Err(failure) => {
                observer.end_lines().await?;
                return Err(interruption(failure));
            }
        };
        if let Some(phase) = phase {
            self.reporter.end(phase).await?;
        }
        Ok(built)
    }

    /// Makes folders on top of layers, without a word of the log; the layers with them.
    pub(super) async fn make_folders(
        &self,
        layers: Vec<Layer>,
        folders: &[String],
    ) -> Result<Vec<Layer>, Interruption> {
        let steps: Vec<Step> = folders
            .iter()
            .map(|path| Step::MakeDir {
                path: path.clone(),
                mode: None,
            })
            .collect();
        let keys: Vec<Digest> = layers.iter().map(|layer| *layer.key()).collect();
        let ambient = Ambient {
            env: BTreeMap::new(),
            user: "root".to_owned(),
            workdir: "/".to_owned(),
        };
        let inputs = self.inputs(chain_digest(&keys), ambient, &steps, None);
        let plan = Plan::new(&inputs).map_err(|error| failures::internal(&error))?;
        let made = self.carry_out(&plan, layers, &mut Silent).await;
        made.map(|built| built.layers).map_err(interruption)
    }

    async fn carry_out<O: StepObserver>(
        &self,
        plan: &Plan,
        layers: Vec<Layer>,
        observer: &mut O,
    ) -> Result<Built, BuildFailure<O::Error>> {
        let services = self.services;
        let blobs = services.blobs.clone();
        let builder = NativeBuilder {
            containers: services.containers.held_by(&self.holdings),
            layers: services.layers.held_by(&self.holdings),
            blobs: Arc::new(move |digest| std::fs::File::open(blobs.path(digest))),
            mounts_dir: services.work_dir.path().to_owned(),
            holdings: self.holdings.clone(),
        };
        let config = &self.job.requested.definition.config;
        let limits = &services.limits.worker;
        let resources = StepResources {
            memory_mib: config.memory_mib.max(limits.step_memory_mib_min),
            vcpus: config.vcpus,
            deadline: Duration::from_secs(limits.step_seconds_max),
        };
        let purpose = self.purpose();
        let stop = &self.stop;
        builder
            .build(plan, layers, &purpose, resources, observer, stop)
            .await
    }
}

/// Tells nobody of steps that are none of the user's.
struct Silent;

impl StepObserver for Silent {
    type Error = ReportError;

    async fn event(&mut self, _: &PlannedStep, _: StepEvent) -> Result<(), ReportError> {
        Ok(())
    }

    async fn output(
        &mut self,
        _: &PlannedStep,
        _: OutputStream,
        _: &[u8],
    ) -> Result<(), ReportError> {
        Ok(())
    }
}

/// Refuses what could not be mounted in the end before anything is run for it.
fn check_layers(base: usize, plan: &Plan, max: usize) -> Result<(), Failure> {
    let changes = |step: &&PlannedStep| step.action != Action::Nothing;
    let own = plan.steps.iter().filter(changes).count();
    if base + own <= max {
        return Ok(());
    }
    let message = format!(
        "The base has {base} layers and the steps make {own} more; a template has at most {max}."
    );
    Err(Failure::new(FailureReason::TooManyLayers, message))
}

/// Tells the log what happens in steps.
struct Observer {
    reporter: Reporter,
    limits: OutputLimits,
    stdout: LineAssembler,
    stderr: LineAssembler,
}

impl Observer {
    fn new(reporter: Reporter, limits: OutputLimits) -> Self {
        let lines = || LineAssembler::new(limits.line_bytes_max);
        Self {
            reporter,
            limits,
            stdout: lines(),
            stderr: lines(),
        }
    }

    /// Writes the lines that the step left without an end.
    async fn end_lines(&mut self) -> Result<(), ReportError> {
        let rest = [
            (LogStream::Stdout, self.stdout.finish()),
            (LogStream::Stderr, self.stderr.finish()),
        ];
        for (stream, line) in rest {
            if let Some(line) = line {
                self.reporter.line(stream, line).await?;
            }
        }
        let fresh = || LineAssembler::new(self.limits.line_bytes_max);
        (self.stdout, self.stderr) = (fresh(), fresh());
        Ok(())
    }
}

impl StepObserver for Observer {
    type Error = ReportError;

    async fn event(&mut self, step: &PlannedStep, event: StepEvent) -> Result<(), ReportError> {
        let (index, total) = (step.index, step.total);
        let entry = |key| CacheSubject {
            kind: CacheKind::Layer,
            subject: step.title.clone(),
            step_index: Some(index),
            key,
        };
        let event = match event {
            StepEvent::Started => Event::StepStarted(StepStarted {
                index,
                total,
                name: step.title.clone(),
            }),
            StepEvent::CommitKnown { wanted, commit } => {
                let line = format!("Commit {} is what {wanted} has.", commit.as_str());
                return self.reporter.say(line).await;
            }
            StepEvent::CacheHit { key, waited } => {
                if let Some(waited) = waited {
                    let line = format!(
                        "Waited {} ms for a concurrent build that made this layer.",
                        waited.as_millis()
                    );
                    self.reporter.say(line).await?;
                }
                Event::CacheHit(entry(key))
            }
            StepEvent::CacheMissed { key, difference } => Event::CacheMissed(CacheMissed {
                entry: entry(key),
                difference,
            }),
            StepEvent::CacheBypassed { key, reason } => Event::CacheBypassed(CacheBypassed {
                entry: entry(key),
                reason,
            }),
            StepEvent::CacheStored { key, content_bytes } => {
                self.end_lines().await?;
                Event::CacheStored(CacheStored {
                    entry: entry(key),
                    bytes: content_bytes,
                })
            }
            StepEvent::Finished {
                duration,
                exit_code,
                cached,
            } => {
                self.end_lines().await?;
                let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
                let finished = StepFinished {
                    index,
                    total,
                    duration_ms,
                    exit_code,
                    cached,
                };
                Event::StepFinished(finished)
            }
        };
        self.reporter.event(event).await
    }

    async fn output(
        &mut self,
        _step: &PlannedStep,
        stream: OutputStream,
        bytes: &[u8],
    ) -> Result<(), ReportError> {
        let (assembler, stream) = match stream {
            OutputStream::Stdout => (&mut self.stdout, LogStream::Stdout),
            OutputStream::Stderr => (&mut self.stderr, LogStream::Stderr),
        };
        let mut lines = Vec::new();
        assembler.push(bytes, &mut lines);
        for line in lines {
            self.reporter.line(stream, line).await?;
        }
        Ok(())
    }
}

fn interruption(failure: BuildFailure<ReportError>) -> Interruption {
    match failure {
        BuildFailure::Observer(error) => error.into(),
        BuildFailure::Store { source, .. } => failures::store(&source).into(),
        BuildFailure::Step {
            source: StepError::Cancelled,
            index,
            ..
        } => Interruption::Stopped {
            killed: vec![format!("the container of step {index}")],
        },
        BuildFailure::Step {
            index,
            total,
            title,
            source,
        } => step_failure(index, total, &title, source).into(),
    }
}

fn step_failure(index: u32, total: u32, title: &str, error: StepError) -> Failure {
    let step = format!("Step {index} of {total} (`{title}`)");
    let (reason, exit_code, tail) = match &error {
        StepError::Exited { code, stderr_tail }
        | StepError::OutOfProcesses {
            code, stderr_tail, ..
        } => (FailureReason::StepFailed, Some(*code), stderr_tail.clone()),
        StepError::Commit {
            code, stderr_tail, ..
        } => (FailureReason::StepFailed, *code, stderr_tail.clone()),
        StepError::DiskFull {
            code, stderr_tail, ..
        } => (FailureReason::DiskFull, *code, stderr_tail.clone()),
        StepError::OutOfMemory {
            code, stderr_tail, ..
        } => (FailureReason::OutOfMemory, *code, stderr_tail.clone()),
        StepError::TimedOut { stderr_tail, .. } => {
            (FailureReason::Timeout, None, stderr_tail.clone())
        }
        StepError::Files(error) if error.is_disk_full() => {
            (FailureReason::DiskFull, None, Vec::new())
        }
        StepError::User { .. } | StepError::NotStarted(_) | StepError::Files(_) => {
            (FailureReason::StepFailed, None, Vec::new())
        }
        StepError::Cancelled
        | StepError::Container(_)
        | StepError::Overlay(_)
        | StepError::Io { .. } => (FailureReason::Internal, None, Vec::new()),
    };
    let last = if tail.is_empty() {
        String::new()
    } else {
        format!(
            " The last lines of its standard error:\n{}",
            tail.join("\n")
        )
    };
    let message = format!("{step} failed: {}.{last}", domain::causes::chain(&error));
    let mut failure = Failure::new(reason, message).with_detail("command", title);
    failure.step_index = Some(index);
    failure.exit_code = exit_code;
    failure.stderr_tail = tail;
    failure
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::worker::WorkerLimits;

    fn plan(steps: &[Step]) -> Plan {
        let inputs = Inputs {
            base: Digest::ZERO,
            steps,
            ambient: Ambient {
                env: [].into(),
                user: "root".to_owned(),
                workdir: "/".to_owned(),
            },
            context: None,
            network: StepNetwork::None,
            skip_cache: false,
            nonce: Digest::ZERO,
        };
        Plan::new(&inputs).unwrap()
    }

    #[test]
    fn a_template_has_no_more_layers_than_may_be_mounted() {
        let run = |command: &str| Step::Run {
            command: command.to_owned(),
            user: None,
        };
        let user = Step::User {
            user: "root".to_owned(),
        };
        // A step that changes no file makes no layer.
        let plan = plan(&[run("a"), user, run("b")]);
        assert_eq!(check_layers(3, &plan, 5), Ok(()));
        let failure = check_layers(4, &plan, 5).unwrap_err();
        assert_eq!(failure.reason, FailureReason::TooManyLayers);
        let expected = "The base has 4 layers and the steps make 2 more; a template has at most 5.";
        assert_eq!(failure.message, expected);
    }

    #[test]
    fn our_own_bound_is_below_the_kernel_s() {
        let max = WorkerLimits::default().template_layers_max;
        assert!(max <= crate::layers::overlay::LAYERS_MAX, "{max}");
    }
}
