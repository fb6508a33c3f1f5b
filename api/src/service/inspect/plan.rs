//! The plan of a request: what it means once everything that it leaves open is filled in. It is a
//! function of the request, of the templates that it refers to, and of nothing else.

use std::collections::BTreeMap;

use domain::Digest;
use domain::build::{PinnedBase, Requested};
use domain::definition::{Source, Step};
use domain::digest::Hasher;
use executor::image::ImageReference;
use executor::native::step::{Action, Ambient};
use serde_json::Value;

use super::{Inspection, dockerfile};
use crate::http::error::ApiError;
use crate::service::present;
use crate::wire::Object;
use crate::wire::build::BuildConfig;
use crate::wire::plan::{BuildPlan, ContextManifestSummary, Plan};

/// What stands for the value of a variable, which may be secret: the client writes the same.
pub(super) const UNTOLD: &str = "[REDACTED]";

impl Inspection {
    /// The plan.
    ///
    /// # Errors
    /// [`ApiError::Internal`], which is a defect.
    pub fn plan(&self) -> Result<Plan, ApiError> {
        let Requested {
            definition,
            definition_digest,
            backend,
            source_type,
            registry_auth,
            ..
        } = &self.requested;
        let dockerfile_digest = match &definition.source {
            Source::Dockerfile { text, .. } => Some(Digest::of(text.as_bytes()).to_string()),
            Source::Declarative { .. } => None,
        };
        let context_manifest = definition
            .context
            .as_ref()
            .map(|context| ContextManifestSummary {
                context_manifest_id: format!("ctx_{}", context.digest.hex()),
                context_digest: context.digest.to_string(),
                file_count: context.file_count,
                total_bytes: context.total_bytes,
            });
        Ok(Plan {
            build_backend: present::backend(*backend),
            source_type: present::source_type(*source_type),
            source_digest: definition_digest.to_string(),
            plan_digest: self.digest().to_string(),
            dockerfile_digest,
            context_manifest,
            build_plan: self.build_plan()?,
            build_config: BuildConfig::from(&definition.config),
            warnings: self.remarks(),
            requires_base_image_auth: !registry_auth.is_empty(),
        })
    }

    /// The digest of all that decides the result and is known before the build. What an image's tag
    /// points to is not; what a template's does, is.
    fn digest(&self) -> Digest {
        let mut definition = self.requested.definition.clone();
        if let Source::Declarative { base_image, .. } = &mut definition.source {
            *base_image = match &self.requested.base {
                Some(PinnedBase::Template(base)) => base.artifact.to_string(),
                Some(PinnedBase::Builtin { .. }) | None => self.base(),
            };
        }
        Hasher::new("plan/v1")
            .field(definition.digest().as_bytes())
            .finish()
    }

    /// What the base means: a build of a template, or an image.
    fn base(&self) -> String {
        let image = match (&self.requested.base, &self.requested.definition.source) {
            (Some(PinnedBase::Template(base)), _) => return base.reference().to_string(),
            (Some(PinnedBase::Builtin { image }), _) => image,
            (None, Source::Declarative { base_image, .. }) => base_image,
            (None, Source::Dockerfile { .. }) => return String::new(),
        };
        let canonical = image.parse::<ImageReference>();
        canonical.map_or_else(|_| image.clone(), |image| image.to_string())
    }

    fn build_plan(&self) -> Result<BuildPlan, ApiError> {
        let definition = &self.requested.definition;
        let mut plan = BuildPlan {
            base_template: self.base(),
            run_steps: Vec::new(),
            build_steps: Vec::new(),
            build_envs: BTreeMap::new(),
            env_assignments: untold(&definition.runtime.default_envs).collect(),
            ignored_instructions: Vec::new(),
            ignored_instruction_warnings: Vec::new(),
            secret_ids: definition
                .secret_ids
                .iter()
                .map(ToString::to_string)
                .collect(),
            start_cmd: definition.start_cmd.clone(),
            default_user: definition.runtime.default_user.clone(),
            default_workdir: definition.runtime.default_workdir.clone(),
            readiness: definition.runtime.readiness.clone(),
        };
        match &definition.source {
            Source::Declarative {
                steps, build_envs, ..
            } => {
                plan.build_envs = untold(build_envs).collect();
                plan.run_steps = commands(steps);
                plan.build_steps = steps.iter().map(tagged).collect::<Result<_, _>>()?;
            }
            Source::Dockerfile { build_args, .. } => {
                if let Some(dockerfile) = &self.dockerfile {
                    dockerfile::fill(&mut plan, dockerfile, build_args);
                }
            }
        }
        Ok(plan)
    }
}

/// Variables whose values are not told.
fn untold(variables: &BTreeMap<String, String>) -> impl Iterator<Item = (String, &'static str)> {
    variables.keys().map(|name| (name.clone(), UNTOLD))
}

/// What shells will be given, in the order of the steps.
fn commands(steps: &[Step]) -> Vec<String> {
    let somewhere = Ambient {
        env: BTreeMap::new(),
        user: "root".to_owned(),
        workdir: "/".to_owned(),
    };
    // Neither the files of a context nor the working folder enter a command.
    let actions = steps
        .iter()
        .filter_map(|step| somewhere.action(step, None).ok());
    actions
        .filter_map(|action| match action {
            Action::Run(command) => Some(command.script),
            Action::Clone(clone) => Some(clone.outline().script),
            Action::Nothing | Action::Change(_) => None,
        })
        .collect()
}

/// A step under the name of its kind: `{"AptInstall": {"packages": […]}}`.
fn tagged(step: &Step) -> Result<Object, ApiError> {
    let value = serde_json::to_value(step).map_err(ApiError::internal)?;
    let Value::Object(mut fields) = value else {
        return Err(ApiError::internal("a step is stored as an object"));
    };
    let Some(Value::String(action)) = fields.remove("action") else {
        return Err(ApiError::internal("a stored step names its kind"));
    };
    Ok(Object::from_iter([(
        pascal(&action),
        Value::Object(fields),
    )]))
}

/// `make_dir` as `MakeDir`.
fn pascal(words: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    words.split('_').map(capital).collect()
}
