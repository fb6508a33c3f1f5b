//! What is known of a Dockerfile before anything runs: that it can be understood, that its images are there
//! for whoever asks, that its secrets were brought, and that it wants nothing that it may not have.

use std::collections::{BTreeMap, BTreeSet};

use buildkit::dockerfile::{self, Dockerfile, DockerfileProblem, ImageUse, Word};
use buildkit::invocation::{ImagePolicy, RegistryLogin};
use domain::build::LogStream;
use domain::failure::{Failure, FailureReason};
use domain::name::SecretId;

use super::super::{Attempt, Interruption, failures};
use super::Source;
use crate::image::{ImageReference, ResolvedImage};

/// The ways to write the one platform that is built for.
const PLATFORMS: [&str; 5] = [
    "linux/amd64",
    "linux/amd64/v1",
    "linux/x86_64",
    "amd64",
    "linux",
];

/// A Dockerfile that may be built.
pub(super) struct Prepared {
    pub(super) dockerfile: Dockerfile,
    /// By what the Dockerfile calls them.
    images: BTreeMap<String, ResolvedImage>,
}

impl Prepared {
    /// The image that the final stage is made from; none if that is nothing.
    pub(super) fn base(&self) -> Option<&ResolvedImage> {
        let bottom = self.dockerfile.final_chain().pop()?;
        match &self.dockerfile.stages().get(bottom)?.base {
            dockerfile::StageBase::Image(image) => self.images.get(image),
            dockerfile::StageBase::Scratch | dockerfile::StageBase::Stage(_) => None,
        }
    }

    /// What the daemon may fetch from registries: these images, in the version that was shown to us.
    pub(super) fn policy(&self) -> ImagePolicy {
        let mut policy = ImagePolicy::new();
        for image in self.images.values() {
            let digest = image.manifest_digest.to_string();
            policy.allow(image.reference.to_string(), Some(digest));
        }
        policy
    }
}

impl Attempt<'_> {
    pub(super) async fn prepare_dockerfile(
        &self,
        source: &Source<'_>,
    ) -> Result<Prepared, Interruption> {
        let mut dockerfile = self.read_dockerfile(source).await?;
        let mut images = BTreeMap::new();
        // What an image has ONBUILD may name further ones.
        while let Some(wanted) = next_image(&dockerfile, &images) {
            let max = self.services.limits.worker.dockerfile_images_max;
            if images.len() >= max {
                let message = format!("The Dockerfile names more than {max} images.");
                return Err(Failure::new(FailureReason::NotPermitted, message).into());
            }
            let image = self.resolve_use(&wanted).await?;
            let triggers = &image.config.on_build;
            if !triggers.is_empty() {
                let added = dockerfile.add_triggers(&wanted.image, triggers);
                added.map_err(|problem| invalid(&problem))?;
            }
            images.insert(wanted.image, image);
        }
        check_platforms(&dockerfile)?;
        self.check_credentials(&images)?;
        self.check_secrets(&dockerfile)?;
        self.check_sources(&dockerfile)?;
        Ok(Prepared { dockerfile, images })
    }

    async fn read_dockerfile(&self, source: &Source<'_>) -> Result<Dockerfile, Interruption> {
        let (text, build_args) = (source.text.to_owned(), source.build_args.clone());
        let target = source.target.map(str::to_owned);
        let limits = self.services.limits.buildkit.clone();
        let read = move || dockerfile::read(&text, &build_args, target.as_deref(), &limits);
        let read = failures::blocking(read).await?;
        read.map_err(|problem| invalid(&problem).into())
    }

    async fn resolve_use(&self, wanted: &ImageUse) -> Result<ResolvedImage, Interruption> {
        let reference: ImageReference = wanted.image.parse().map_err(|error| {
            let unset = match wanted.unset.as_slice() {
                [] => String::new(),
                names => format!("; no value was given for {}", names.join(", ")),
            };
            let message = format!(
                "Line {}: `{}` is not an image reference: {error}{unset}.",
                wanted.line, wanted.image
            );
            at_line(
                Failure::new(FailureReason::BadReference, message),
                wanted.line,
            )
        })?;
        let resolved = self.resolve_reference(&reference).await;
        resolved.map_err(|interruption| match interruption {
            Interruption::Failed(mut failure) => {
                failure.message = format!("Line {}: {}", wanted.line, failure.message);
                at_line(failure, wanted.line).into()
            }
            Interruption::Stopped { killed } => Interruption::Stopped { killed },
        })
    }

    /// Credentials go to the registries of the Dockerfile's images and to no other; some that are for
    /// another one are a mistake, and the caller wants to know.
    fn check_credentials(&self, images: &BTreeMap<String, ResolvedImage>) -> Result<(), Failure> {
        let used: BTreeSet<&str> = images
            .values()
            .map(|image| image.reference.registry())
            .collect();
        let mut brought = self.job.requested.registry_auth.keys();
        let Some(unused) = brought.find(|host| !used.contains(host.as_str())) else {
            return Ok(());
        };
        let used: Vec<&str> = used.into_iter().collect();
        let message = format!(
            "The request brings credentials for the registry `{unused}`, from which no image of the Dockerfile \
             comes (they come from: {}).",
            if used.is_empty() {
                "none".to_owned()
            } else {
                used.join(", ")
            }
        );
        let failure = Failure::new(FailureReason::RegistryUnauthorized, message);
        Err(failure.with_detail("registry", unused.as_str()))
    }

    /// BuildKit itself lets a step run without a secret that it requires if its result is in the cache.
    fn check_secrets(&self, dockerfile: &Dockerfile) -> Result<(), Failure> {
        let ids = &self.job.requested.definition.secret_ids;
        let held = |id| {
            self.secrets
                .as_ref()
                .is_some_and(|secrets| secrets.value(id).is_some())
        };
        if !ids.iter().all(held) {
            let message = "The secret values of the request are gone: they lived in the memory of a \
                           service that has ended.";
            return Err(Failure::new(FailureReason::SecretsLost, message));
        }
        let brought: BTreeSet<&str> = ids.iter().map(SecretId::as_str).collect();
        let missing = dockerfile.secrets().iter().find_map(|mount| {
            let id = mount.id.known().filter(|id| !brought.contains(id))?;
            mount.required.then_some((id, mount.line))
        });
        let Some((id, line)) = missing else {
            return Ok(());
        };
        let message = format!(
            "Line {line}: a step requires the secret `{id}`, for which the request brings no value."
        );
        let failure = Failure::new(FailureReason::SecretMissing, message);
        Err(at_line(failure, line).with_detail("secret", id))
    }

    /// What the daemon would fetch by itself. Its source policy says the same later, less kindly; but by
    /// SSH it would connect before it asks any policy.
    fn check_sources(&self, dockerfile: &Dockerfile) -> Result<(), Failure> {
        let online = self.job.requested.definition.config.internet_access;
        for remote in dockerfile.remote_sources() {
            let Word::Known(source) = &remote.source else {
                continue;
            };
            let line = remote.line;
            let (reason, why) = if is_ssh(source) {
                let why = "builds have no key for SSH; use an `https://` address";
                (FailureReason::NotPermitted, why)
            } else if online {
                continue;
            } else {
                let why = "the build has no network (`internet_access` is false)";
                (FailureReason::NetworkOff, why)
            };
            let message = format!("Line {line}: `{source}` cannot be fetched: {why}.");
            return Err(at_line(Failure::new(reason, message), line));
        }
        Ok(())
    }

    /// What a reader of the log should know before the steps begin.
    pub(super) async fn tell_dockerfile(&self, prepared: &Prepared) -> Result<(), Interruption> {
        let warn = |text| self.reporter.line_of(None, LogStream::Warning, text);
        if let Some(syntax) = prepared.dockerfile.syntax() {
            let text = format!(
                "Line {}: `# syntax={}` has no effect: the builder uses its own frontend.",
                syntax.line, syntax.value
            );
            warn(text).await?;
        }
        for ignored in prepared.dockerfile.ignored() {
            let text = format!(
                "Line {}: {} is ignored: {}.",
                ignored.line, ignored.instruction, ignored.reason
            );
            warn(text).await?;
        }
        for id in self.mask.not_hidden() {
            let min = self.services.limits.secrets.masked_bytes_min;
            let text = format!(
                "The value of the secret `{id}` has fewer than {min} bytes: it is neither hidden in this \
                 log nor searched for in the result."
            );
            warn(text).await?;
        }
        let base = prepared.base().map(|image| &image.reference);
        for image in prepared
            .images
            .values()
            .filter(|image| Some(&image.reference) != base)
        {
            self.reporter
                .say(format!(
                    "Image {} is {}",
                    image.reference, image.manifest_digest
                ))
                .await?;
        }
        Ok(())
    }

    /// The credentials for the registries of the images, as names and passwords.
    pub(super) async fn logins(
        &self,
        prepared: &Prepared,
    ) -> Result<Vec<RegistryLogin>, Interruption> {
        let mut logins: Vec<RegistryLogin> = Vec::new();
        for image in prepared.images.values() {
            let reference = &image.reference;
            if logins
                .iter()
                .any(|login| login.host == reference.registry())
            {
                continue;
            }
            let credentials = self.credentials(reference)?;
            let login = self.services.registry.login(reference, &credentials);
            let login = self.unless_stopped("a login", login).await?;
            let login = login.map_err(|error| failures::image(&error))?;
            logins.extend(login.map(|login| RegistryLogin {
                host: reference.registry().to_owned(),
                user: login.username,
                password: login.password,
            }));
        }
        Ok(logins)
    }
}

/// Refuses stages for other machines: what they make would not run here.
fn check_platforms(dockerfile: &Dockerfile) -> Result<(), Failure> {
    let stages = dockerfile.needed_stages().iter();
    for stage in stages.filter_map(|index| dockerfile.stages().get(*index)) {
        let platform = stage.platform.as_deref().unwrap_or_default();
        if !platform.is_empty() && !PLATFORMS.contains(&platform.to_lowercase().as_str()) {
            let line = stage.line;
            let message =
                format!("Line {line}: templates are for linux/amd64, not for `{platform}`.");
            let failure = Failure::new(FailureReason::UnsupportedPlatform, message);
            return Err(at_line(failure, line));
        }
    }
    Ok(())
}

/// The first image that is not resolved yet.
fn next_image(
    dockerfile: &Dockerfile,
    images: &BTreeMap<String, ResolvedImage>,
) -> Option<ImageUse> {
    let mut uses = dockerfile.images().into_iter();
    uses.find(|wanted| !images.contains_key(&wanted.image))
}

/// A repository that is asked for by SSH: by a URL, or as `user@host:path`.
fn is_ssh(source: &str) -> bool {
    match source.split_once("://") {
        Some((scheme, _)) => scheme.eq_ignore_ascii_case("ssh"),
        None => true,
    }
}

fn invalid(problem: &DockerfileProblem) -> Failure {
    let message = format!("The Dockerfile cannot be built: {problem}.");
    let failure = Failure::new(FailureReason::DockerfileInvalid, message);
    match problem.line {
        Some(line) => at_line(failure, line),
        None => failure,
    }
}

/// The failure with the line that it comes from.
pub(super) fn at_line(failure: Failure, line: u32) -> Failure {
    failure.with_detail("dockerfile_line", line.to_string())
}
