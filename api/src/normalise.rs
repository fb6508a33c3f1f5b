//! From what a caller sends to what the domain knows: everything that is wrong with a request is
//! found here, before anything is recorded, and each mistake names its field.
//!
//! Pure: whether a named file has been uploaded is for [`crate::service`] to find out.

mod changes;
mod context;
mod dockerfile;
mod fields;
mod names;
mod preflight;
mod registry_auth;
mod retry;
mod runtime;
mod secrets;
mod source;
mod steps;
#[cfg(test)]
mod tests;
mod webhooks;

use std::collections::BTreeSet;

use domain::definition::{Backend, BuildConfig, Definition, SourceType};
use domain::digest::{Digest, Hasher};
use domain::name::{Namespace, Owner, Tag, TemplateName};
use executor::vault::Secrets;
use serde_json::Value;

pub use changes::{
    RollbackTarget, new_name, promoted_tags, reserved_name, rollback, tags, visibility,
};
pub use context::{ContextFile, Payload};
pub use fields::FieldProblem;
pub use preflight::{AnnouncedFile, Announcement, preflight};
pub use registry_auth::RegistryAuth;
pub use retry::{Retry, retry_request};
pub use secrets::wipe;
pub use webhooks::{new_webhook, paused, replayed};

use crate::config::Executor;
use crate::limits::Limits;
use fields::{Fields, Problems};

/// A request for a build that is right in itself.
#[derive(Debug)]
pub struct BuildRequest {
    /// Where the template lives: the caller's own namespace.
    pub namespace: Namespace,
    /// Its name; one is made if there is none.
    pub name: Option<TemplateName>,
    /// The digest of the token of the claim that keeps the name, if it is wanted by one.
    pub claim: Option<Digest>,
    /// The tags that the finished build gets; not empty.
    pub tags: Vec<Tag>,
    /// What to build; its context is not there yet.
    pub definition: Definition,
    /// The files of the context, as they were sent.
    pub context: Vec<ContextFile>,
    /// Which engine builds it.
    pub backend: Backend,
    /// Where the template comes from.
    pub source_type: SourceType,
    /// The values of its build secrets, and its credentials by host.
    pub secrets: Secrets,
}

impl BuildRequest {
    /// What it asks for: two requests with the same digest are one request that was sent twice. Values of
    /// secrets are left out, so nothing about them can be found out from it; their ids are not.
    ///
    /// # Panics
    /// Never: engines and sources are words, which have a JSON form.
    pub fn digest(&self) -> Digest {
        let definition = self.definition.digest().hex();
        let words = [
            self.namespace.as_str(),
            self.name.as_ref().map_or("", TemplateName::as_str),
            definition.as_str(),
            match self.backend {
                Backend::Native => "native",
                Backend::Buildkit => "buildkit",
            },
        ];
        let files: Vec<String> = self.context.iter().map(ContextFile::identity).collect();
        let registries = self.secrets.registry_kinds();
        let registries = registries.iter().flat_map(|(host, kind)| [host, kind]);
        let registries: Vec<&String> = registries.collect();
        Hasher::new("build-request/v1")
            .list(words.iter())
            .list(self.tags.iter().map(Tag::as_str))
            .list(files.iter())
            .list(registries.into_iter())
            .list(self.claim.iter().map(Digest::hex))
            .finish()
    }
}

/// What a request is measured against.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    /// How much of anything.
    pub limits: &'a Limits,
    /// How large a machine.
    pub executor: &'a Executor,
}

/// Why a request is no build: fields are wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The first mistakes, as they were found.
    pub problems: Vec<FieldProblem>,
    /// How many there are.
    pub total: usize,
}

impl From<Vec<FieldProblem>> for Refusal {
    fn from(problems: Vec<FieldProblem>) -> Self {
        let total = problems.len();
        Self { problems, total }
    }
}

/// The fields of a request; others are let pass.
const FIELDS: [&str; 20] = [
    "name",
    "alias",
    "claim_token",
    "tags",
    "dockerfile",
    "dockerfile_path",
    "build_args",
    "build_target",
    "base_image",
    "base_image_auth",
    "registry_auth",
    "build_backend",
    "build_config",
    "build_context",
    "build_envs",
    "build_secrets",
    "runtime_config",
    "skip_cache",
    "start_cmd",
    "steps",
];

/// Machines of requests that say nothing.
const VCPUS_DEFAULT: u32 = 2;
const MEMORY_MIB_DEFAULT: u32 = 512;

/// Reads a request of `owner`.
///
/// # Errors
/// [`Refusal`], with every mistake that was found.
pub fn build_request(
    body: &Value,
    owner: &Owner,
    bounds: Bounds<'_>,
) -> Result<BuildRequest, Refusal> {
    let problems = Problems::new(bounds.limits.problem_count_max);
    let Some(top) = Fields::top(body, &problems) else {
        return Err(problems.into_refusal());
    };
    let namespace = Namespace::of(owner);
    let name = names::name(top, &namespace);
    let claim = names::claim(top);
    let tags = names::tags(top, bounds.limits);
    let context = context::files(top, bounds.limits);
    let source = source::source(top, &context, bounds.limits);
    let runtime = runtime::runtime(top, bounds.limits);
    let start_cmd = top.command("start_cmd", bounds.limits);
    let skip_cache = top.switch("skip_cache").unwrap_or(false);
    let config = config(top, bounds.executor);
    let mut secrets = Secrets::default();
    let secret_ids = if source.is_dockerfile {
        secrets::read(top, &mut secrets, bounds.limits)
    } else {
        secrets::refuse(top);
        BTreeSet::new()
    };
    let auth = registry_auth::read(top);
    // A source that is missing has left a problem; this keeps it an error if it has not.
    let Some(definition_source) = source.source.filter(|_| problems.is_empty()) else {
        return Err(problems.into_refusal());
    };
    auth.place(&definition_source, &mut secrets)?;
    Ok(BuildRequest {
        namespace,
        name,
        claim,
        tags,
        definition: Definition {
            source: definition_source,
            context: None,
            start_cmd,
            runtime,
            config,
            skip_cache,
            secret_ids: secret_ids.into_iter().collect(),
        },
        context,
        backend: source.backend,
        source_type: source.source_type,
        secrets,
    })
}

/// The fields of a request that mean nothing here, except the client's own notes; the first ones of
/// many.
pub fn ignored_fields(body: &Value) -> Vec<String> {
    const SHOWN_COUNT_MAX: usize = 20;
    let keys = body.as_object().into_iter().flat_map(|body| body.keys());
    keys.filter(|key| !key.starts_with('_') && !FIELDS.contains(&key.as_str()))
        .map(|key| key.chars().take(80).collect())
        .take(SHOWN_COUNT_MAX)
        .collect()
}

fn config(top: Fields<'_>, executor: &Executor) -> BuildConfig {
    let mut config = BuildConfig {
        vcpus: VCPUS_DEFAULT.min(executor.vcpus_max),
        memory_mib: MEMORY_MIB_DEFAULT.clamp(executor.memory_mib_min, executor.memory_mib_max),
        disk_mb: None,
        internet_access: true,
    };
    top.within("build_config", |fields| {
        fields.only(&["vcpus", "memory_mib", "disk_mb", "internet_access"]);
        if let Some(vcpus) = fields.number_u32("vcpus", 1..=executor.vcpus_max) {
            config.vcpus = vcpus;
        }
        let memory_range = executor.memory_mib_min..=executor.memory_mib_max;
        if let Some(memory_mib) = fields.number_u32("memory_mib", memory_range) {
            config.memory_mib = memory_mib;
        }
        config.disk_mb = fields.number("disk_mb", 1..=executor.disk_mb_max);
        config.internet_access = fields.switch("internet_access").unwrap_or(true);
    });
    config
}
