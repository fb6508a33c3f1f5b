//! The run of a Dockerfile: by a daemon that answers, and by another one if that is lost.

use std::path::{Path, PathBuf};

use buildkit::daemon::{Address, Lease, NoDaemon};
use buildkit::invocation::{Invocation, Network};
use buildkit::run::RunError;
use domain::failure::{Failure, FailureReason};
use secrecy::{ExposeSecret as _, SecretSlice};

use super::super::{Attempt, Interruption, failures};
use super::context::{context_dir, dockerfile_dir};
use super::failure::Told;
use super::observer::Observer;
use super::prepare::Prepared;
use super::{Source, failure};
use crate::report::ReportError;

/// The folder with the image in the folder of a build.
pub(super) fn output_dir(scratch: &Path) -> PathBuf {
    scratch.join("image")
}

impl Attempt<'_> {
    /// Runs the build; afterwards there is an image in `scratch`.
    pub(super) async fn run_buildkit(
        &self,
        source: &Source<'_>,
        prepared: &Prepared,
        scratch: &Path,
    ) -> Result<(), Interruption> {
        let mut lost: Option<(Address, Failure)> = None;
        loop {
            let avoid: Vec<Address> = lost.iter().map(|(address, _)| address.clone()).collect();
            let lease = self.services.buildkit.lease(&avoid);
            let lease = self
                .unless_stopped("the search for a BuildKit daemon", lease)
                .await?;
            let (lease, is_last) = match (lease, &lost) {
                (Ok(lease), lost) => (lease, lost.is_some()),
                // That another one is not there is not what went wrong.
                (Err(_), Some((_, failure))) => return Err(failure.clone().into()),
                (Err(error), None) => return Err(unavailable(&error).into()),
            };
            let invocation = self.invocation(source, prepared, scratch).await?;
            let Some(failure) = self.run_at(&lease, invocation, scratch).await? else {
                return Ok(());
            };
            let address = lease.address().clone();
            if is_last || failure.reason != FailureReason::BuilderUnavailable {
                return Err(failure.into());
            }
            let text = format!(
                "{} The build starts again at another daemon, if there is one.",
                failure.message
            );
            self.reporter.warn(text).await?;
            lost = Some((address, failure));
        }
    }

    /// Runs the build at one daemon; how it failed, if it did.
    async fn run_at(
        &self,
        lease: &Lease,
        invocation: Invocation,
        scratch: &Path,
    ) -> Result<Option<Failure>, Interruption> {
        let mut observer = Observer::new(self, lease.address().clone());
        let run = buildkit::run::run(lease, invocation, scratch, &mut observer, &self.stop);
        let outcome = Box::pin(run).await;
        observer.ended();
        observer.end_lines().await?;
        let failed = match outcome {
            Ok(()) => return Ok(None),
            Err(RunError::Failed(failed)) => *failed,
            Err(error) => return Err(interruption(error)),
        };
        let step = failed.step.as_ref();
        let told = Told {
            tail: step.and_then(|step| observer.tail(step.index)),
            is_offline: !self.job.requested.definition.config.internet_access,
        };
        Ok(Some(failure::of(failed, told)))
    }

    async fn invocation(
        &self,
        source: &Source<'_>,
        prepared: &Prepared,
        scratch: &Path,
    ) -> Result<Invocation, Interruption> {
        let requested = &self.job.requested;
        let definition = &requested.definition;
        let stages = prepared.dockerfile.stages().iter();
        let values = self.secrets.iter().flat_map(|secrets| secrets.values());
        let secrets = values.map(|(id, value)| {
            let copy: SecretSlice<u8> = value.expose_secret().to_vec().into();
            (id.to_string(), copy)
        });
        Ok(Invocation {
            context: context_dir(scratch),
            dockerfile_dir: dockerfile_dir(scratch),
            dockerfile_name: source.path.to_owned(),
            build_args: source.build_args.clone(),
            target: source.target.map(str::to_owned),
            no_cache: definition.skip_cache,
            stages: stages.map(|stage| stage.name.clone()).collect(),
            network: if definition.config.internet_access {
                Network::Default
            } else {
                Network::None
            },
            images: prepared.policy(),
            cache_namespace: requested.owner.to_string(),
            secrets: secrets.collect(),
            registries: self.logins(prepared).await?,
            output: output_dir(scratch),
        })
    }
}

fn unavailable(error: &NoDaemon) -> Failure {
    let message = format!("The Dockerfile cannot be built: {error}.");
    Failure::new(FailureReason::BuilderUnavailable, message)
}

/// A run that ended for another reason than the build itself.
fn interruption(error: RunError<ReportError>) -> Interruption {
    match error {
        RunError::Failed(failed) => failure::of(*failed, Told::default()).into(),
        RunError::Stopped => Interruption::Stopped {
            killed: vec!["the BuildKit build".to_owned()],
        },
        RunError::TimedOut { seconds } => {
            let message = format!("The Dockerfile was not built within {seconds} s.");
            Failure::new(FailureReason::Timeout, message).into()
        }
        RunError::Observer(error) => error.into(),
        RunError::Invalid(error) => {
            let message = format!("The Dockerfile cannot be built: {error}.");
            Failure::new(FailureReason::NotPermitted, message).into()
        }
        RunError::Setup { what, source } => failures::io(what, &source).into(),
    }
}
