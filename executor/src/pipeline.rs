//! One build, from its base to its artifact: the phases, in order, on one page.

mod base;
mod disk;
mod dockerfile;
mod failures;
mod files;
mod key;
mod machine;
mod settle;
mod startup;
mod steps;

use std::collections::BTreeMap;
use std::sync::Arc;

use commands::dispatch::DispatchError;
use domain::build::{
    Accepted, CacheBypassed, CacheMissed, CacheStored, Event, Phase, Rejection, Requested,
    Snapshotted,
};
use domain::definition::Source;
use domain::failure::Failure;
use domain::ids::BuildId;
use secrecy::ExposeSecret as _;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use self::base::Origin;
use crate::artifact::Artifact;
use crate::holdings::Holdings;
use crate::layers::{Layer, Recipe};
use crate::limits::secrets::SecretLimits;
use crate::output::mask::Mask;
use crate::report::{ReportError, Reporter};
use crate::services::Services;
use crate::vault::Secrets;

/// The VMM's identity in the log's words.
pub(crate) use settle::identity;

/// What is to be built.
#[derive(Clone, Debug)]
pub struct Job {
    /// The build.
    pub build: BuildId,
    /// The request.
    pub requested: Requested,
    /// Which attempt at it this is, from 1.
    pub attempt: u32,
}

impl Job {
    /// The job of an accepted build.
    pub fn new(build: &BuildId, accepted: &Accepted) -> Self {
        Self {
            build: build.clone(),
            requested: (*accepted.requested).clone(),
            attempt: accepted.attempt_count,
        }
    }
}

/// How an attempt ended. Nothing of it runs any more.
#[derive(Debug)]
pub enum Ended {
    /// The template is there. Its artifact must not be let go before the log has been told.
    Ready(Box<Snapshotted>, Box<Artifact>),
    /// It failed.
    Failed(Failure),
    /// It was told to stop.
    Stopped {
        /// What was running and was killed.
        killed: Vec<String>,
    },
}

/// Why a phase did not end well.
#[derive(Debug)]
enum Interruption {
    Failed(Failure),
    Stopped { killed: Vec<String> },
}

impl From<Failure> for Interruption {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<ReportError> for Interruption {
    /// An attempt that may report nothing any more has been cancelled or replaced; the log knows.
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Event(DispatchError::Rejected(
                Rejection::CancelRequested | Rejection::StaleFence { .. } | Rejection::Finished,
            ))
            | ReportError::Lines => Self::Stopped { killed: Vec::new() },
            ReportError::Event(error) => Self::Failed(failures::internal(&error)),
        }
    }
}

/// What the phases of one attempt share.
struct Attempt<'a> {
    services: &'a Services,
    job: &'a Job,
    reporter: Reporter,
    stop: CancellationToken,
    /// What it holds of the host.
    holdings: Holdings,
    /// The secret values of the request, if there are any.
    secrets: Option<Arc<Secrets>>,
    mask: Mask,
}

/// A template that is there.
struct Template {
    artifact: Artifact,
    /// Whether an earlier build made it.
    reused: bool,
    /// The names of the variables that a Dockerfile sets.
    env_keys: Vec<String>,
}

/// Builds `job`, until it ends or `stop` is cancelled; what it holds of the host meanwhile is in `holdings`.
pub async fn run(
    services: &Services,
    job: Job,
    reporter: Reporter,
    stop: CancellationToken,
    holdings: Holdings,
) -> Ended {
    let secrets = services.vault.get(&job.build);
    let mask = match hiding(secrets.clone(), services.limits.secrets).await {
        Ok(mask) => mask,
        Err(error) => return Ended::Failed(failures::internal(&error)),
    };
    let attempt = Attempt {
        services,
        job: &job,
        reporter: reporter.masked(mask.clone()),
        stop,
        holdings,
        secrets,
        mask: mask.clone(),
    };
    match attempt.build().await {
        Ok(template) => {
            let Template {
                artifact,
                reused,
                env_keys,
            } = template;
            let snapshotted = settle::snapshotted(&job, &artifact, &env_keys, reused);
            Ended::Ready(snapshotted, Box::new(artifact))
        }
        Err(Interruption::Failed(failure)) => Ended::Failed(failures::masked(failure, &mask)),
        Err(Interruption::Stopped { killed }) => Ended::Stopped { killed },
    }
}

/// What hides the values of `secrets`. Made where it may take its time: values can be long.
async fn hiding(secrets: Option<Arc<Secrets>>, limits: SecretLimits) -> Result<Mask, JoinError> {
    tokio::task::spawn_blocking(move || {
        let values = secrets.iter().flat_map(|secrets| secrets.values());
        let exposed = values.map(|(id, value)| (id, value.expose_secret()));
        Mask::new(exposed, &limits)
    })
    .await
}

impl Attempt<'_> {
    async fn build(&self) -> Result<Template, Interruption> {
        let (base, plan) = match &self.job.requested.definition.source {
            Source::Declarative {
                base_image,
                steps,
                build_envs,
            } => {
                let base = self.resolve_base(base_image).await?;
                let plan = self.plan_steps(&base, steps, build_envs).await?;
                self.tell_files(steps, &plan).await?;
                (base, plan)
            }
            Source::Dockerfile {
                text,
                path,
                build_args,
                target,
            } => {
                let source = dockerfile::Source {
                    text,
                    path: path.as_deref().unwrap_or(dockerfile::NAME),
                    build_args,
                    target: target.as_deref(),
                };
                let base = Box::pin(self.build_dockerfile(&source)).await?;
                let plan = self.plan_steps(&base, &[], &BTreeMap::new()).await?;
                (base, plan)
            }
        };
        let runtime = settle::runtime(&self.job.requested.definition, &base.defaults);
        // What the whole is known by is known before anything runs, unless a commit has to be asked for.
        let (recipes, chain, made) = if let Some((recipes, chain)) = plan.recipes() {
            (recipes, chain, None)
        } else {
            let built = self.run_steps(&base, &plan).await?;
            (Vec::new(), built.chain, Some(built.layers))
        };
        let beneath = match &base.origin {
            Origin::Dockerfile { .. } => {
                key::beneath_built(base.key, plan.bypass.map(|_| plan.nonce))
            }
            Origin::Image(_) | Origin::Template { .. } => chain.beneath(key::KIND, plan.bypass),
        };
        let key = key::artifact(
            beneath,
            plan.bypass,
            self.job,
            &base,
            &runtime,
            self.services,
        );
        let found = self.find_artifact(&key, recipes).await?;
        let (artifact, reused) = match (found, made) {
            (Some(artifact), _) => (artifact, true),
            (None, made) => {
                let layers = match made {
                    Some(layers) => layers,
                    None => self.run_steps(&base, &plan).await?.layers,
                };
                let made = self.make_artifact(&layers, &base, &runtime, &key);
                (Box::pin(made).await?, false)
            }
        };
        Ok(Template {
            artifact,
            reused,
            env_keys: base.env_keys,
        })
    }

    /// From layers to a published artifact.
    async fn make_artifact(
        &self,
        layers: &[Layer],
        base: &base::Base,
        runtime: &settle::Settled,
        key: &key::ArtifactKey,
    ) -> Result<Artifact, Interruption> {
        let disk = self.make_disk(layers).await?;
        let captured = self.capture_machine(disk, runtime).await?;
        self.publish(captured, layers, base, runtime, key).await
    }

    /// Looks for a finished artifact of the same inputs. `recipes` are those of the steps beneath, if none
    /// of them was run yet.
    async fn find_artifact(
        &self,
        key: &key::ArtifactKey,
        recipes: Vec<Recipe>,
    ) -> Result<Option<Artifact>, Interruption> {
        let phase = self.reporter.begin(Phase::Cache).await?;
        let entry = key.subject();
        let found = if let Some(reason) = key.bypass {
            self.reporter
                .event(Event::CacheBypassed(CacheBypassed { entry, reason }))
                .await?;
            None
        } else {
            let found = self.services.artifacts.find(&key.digest).await;
            let found = found.map_err(|error| failures::artifact(&error))?;
            let (found, unusable) = self.buildable(found).await?;
            let memory = self.services.layers.recipes();
            let (recipe, place) = (key.recipe.clone(), self.purpose().place(None));
            let event = if found.is_some() {
                memory.note(recipe, place).await;
                Event::CacheHit(entry)
            } else {
                let difference = match unusable {
                    Some(why) => Some(why),
                    None => memory.explain(recipe, place, recipes).await,
                };
                Event::CacheMissed(CacheMissed { entry, difference })
            };
            self.reporter.event(event).await?;
            found
        };
        self.reporter.end(phase).await?;
        Ok(found)
    }

    /// The artifact, if another template can be built on it; else why it cannot. Reusing it then
    /// would leave its template unusable as a base however often it is built.
    async fn buildable(
        &self,
        found: Option<Artifact>,
    ) -> Result<(Option<Artifact>, Option<String>), Interruption> {
        let Some(artifact) = found else {
            return Ok((None, None));
        };
        match self.layers_of(&artifact).await? {
            Ok(_) => Ok((Some(artifact), None)),
            Err(error) => Ok((None, Some(error.to_string()))),
        }
    }

    /// Publishes what was captured, under its key.
    async fn publish(
        &self,
        captured: machine::CapturedMachine,
        layers: &[Layer],
        base: &base::Base,
        runtime: &settle::Settled,
        key: &key::ArtifactKey,
    ) -> Result<Artifact, Interruption> {
        let phase = self.reporter.begin(Phase::Finalize).await?;
        let description =
            settle::description(self.job, base, runtime, &captured, layers, self.services);
        let store = &self.services.artifacts;
        let artifact = store
            .publish(captured.staging, description)
            .await
            .map_err(|error| failures::artifact(&error))?;
        // While the build still holds the layers.
        self.services.cache().keep(&artifact);
        store
            .link(&key.digest, artifact.id())
            .await
            .map_err(|error| failures::artifact(&error))?;
        let memory = self.services.layers.recipes();
        let place = self.purpose().place(None);
        memory.note(key.recipe.clone(), place).await;
        let manifest = &artifact.manifest;
        let bytes = manifest.rootfs.bytes + manifest.memory.bytes + manifest.device_state.bytes;
        let stored = CacheStored {
            entry: key.subject(),
            bytes,
        };
        self.reporter.event(Event::CacheStored(stored)).await?;
        self.reporter.end(phase).await?;
        Ok(artifact)
    }

    /// Stops here if the attempt was told to.
    fn go_on(&self) -> Result<(), Interruption> {
        if self.stop.is_cancelled() {
            return Err(Interruption::Stopped { killed: Vec::new() });
        }
        Ok(())
    }

    /// Waits for `work`, or drops it when the attempt is told to stop; `what` it was is told then.
    async fn unless_stopped<T>(
        &self,
        what: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, Interruption> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                Err(Interruption::Stopped { killed: vec![what.to_owned()] })
            }
            done = work => Ok(done),
        }
    }
}
