//! One build, from its base to its artifact: the phases, in order, on one page.

mod base;
mod disk;
mod failures;
mod files;
mod key;
mod machine;
mod settle;
mod startup;
mod steps;

use commands::dispatch::DispatchError;
use domain::build::{
    Accepted, CacheBypassed, CacheMissed, CacheStored, Event, Phase, Rejection, Requested,
    Snapshotted,
};
use domain::failure::Failure;
use domain::ids::BuildId;
use tokio_util::sync::CancellationToken;

use crate::artifact::Artifact;
use crate::layers::{Layer, Recipe};
use crate::report::{ReportError, Reporter};
use crate::services::Services;

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
}

/// Builds `job`, until it ends or `stop` is cancelled.
pub async fn run(
    services: &Services,
    job: Job,
    reporter: Reporter,
    stop: CancellationToken,
) -> Ended {
    let attempt = Attempt {
        services,
        job: &job,
        reporter,
        stop,
    };
    match attempt.build().await {
        Ok((artifact, reused)) => {
            let snapshotted = settle::snapshotted(&job, &artifact, reused);
            Ended::Ready(snapshotted, Box::new(artifact))
        }
        Err(Interruption::Failed(failure)) => Ended::Failed(failure),
        Err(Interruption::Stopped { killed }) => Ended::Stopped { killed },
    }
}

impl Attempt<'_> {
    /// The artifact, and whether an earlier build made it.
    async fn build(&self) -> Result<(Artifact, bool), Interruption> {
        let base = self.resolve_base().await?;
        let plan = self.plan_steps(&base).await?;
        self.tell_files(&plan).await?;
        let runtime = settle::runtime(&self.job.requested.definition, &base.defaults);
        // What the whole is known by is known before anything runs, unless a commit has to be asked for.
        let (recipes, chain, made) = if let Some((recipes, chain)) = plan.recipes() {
            (recipes, chain, None)
        } else {
            let built = self.run_steps(&base, &plan).await?;
            (Vec::new(), built.chain, Some(built.layers))
        };
        let key = key::artifact(
            &chain,
            plan.bypass,
            self.job,
            &base,
            &runtime,
            self.services,
        );
        if let Some(artifact) = self.find_artifact(&key, recipes).await? {
            return Ok((artifact, true));
        }
        let layers = match made {
            Some(layers) => layers,
            None => self.run_steps(&base, &plan).await?.layers,
        };
        let disk = self.make_disk(&layers).await?;
        let captured = self.capture_machine(disk, &runtime).await?;
        let artifact = self
            .publish(captured, &layers, &base, &runtime, &key)
            .await?;
        Ok((artifact, false))
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
