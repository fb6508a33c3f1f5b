//! What a request would build: answers of `validate` and `plan`.

use std::collections::BTreeMap;

use domain::definition::Readiness;
use serde::Serialize;

use super::Object;
use super::build::BuildConfig;

/// Whether a request would be accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Validation {
    /// Whether it would be.
    pub valid: bool,
    /// Why not.
    pub errors: Vec<ValidationError>,
    /// What its sender may not have meant.
    pub warnings: Vec<String>,
}

/// Why a request would not be accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ValidationError {
    /// The code that a build would be refused with.
    pub code: &'static str,
    /// What is wrong, in a sentence that begins with the field.
    pub message: String,
    /// The field, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// What a request would build.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// `native` or `buildkit`.
    pub build_backend: &'static str,
    /// `declarative`, `dockerfile`, `oci_import` or `template_base`.
    pub source_type: &'static str,
    /// The digest of the definition, as the build's record will show it.
    pub source_digest: String,
    /// The digest of all that decides the result, as far as it is known before the build.
    pub plan_digest: String,
    /// The digest of the Dockerfile's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile_digest: Option<String>,
    /// The files of the context; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_manifest: Option<ContextManifestSummary>,
    /// The steps, and what machines start with.
    pub build_plan: BuildPlan,
    /// The machine.
    pub build_config: BuildConfig,
    /// What its sender may not have meant.
    pub warnings: Vec<String>,
    /// Whether the base image is pulled with credentials, which a retry has to bring again.
    pub requires_base_image_auth: bool,
}

/// The files of a context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContextManifestSummary {
    /// The stored listing, by its digest.
    pub context_manifest_id: String,
    /// The digest of the listing.
    pub context_digest: String,
    /// How many files it lists, folders not counted.
    pub file_count: u64,
    /// The sum of their sizes.
    pub total_bytes: u64,
}

/// The steps of a build, and what machines of its template start with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BuildPlan {
    /// What the base means: an image, or one build of a template.
    pub base_template: String,
    /// The commands that run, in their order.
    pub run_steps: Vec<String>,
    /// Every step: an object with one key, the kind of step.
    pub build_steps: Vec<Object>,
    /// The variables that steps see and machines do not; their values are never told.
    pub build_envs: BTreeMap<String, &'static str>,
    /// The variables of machines, in their order, each with its untold value.
    pub env_assignments: Vec<(String, &'static str)>,
    /// What of a Dockerfile means nothing here.
    pub ignored_instructions: Vec<String>,
    /// The same, with the lines that they begin on; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored_instruction_warnings: Vec<IgnoredInstruction>,
    /// The ids of the secrets that the build is given; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secret_ids: Vec<String>,
    /// The start command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_cmd: Option<String>,
    /// The user of machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_user: Option<String>,
    /// Their working folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_workdir: Option<String>,
    /// When the start command counts as up. The stored form is the wire's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
}

/// An instruction of a Dockerfile that means nothing here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IgnoredInstruction {
    /// The instruction's word, in capitals.
    pub instruction: String,
    /// The line that it begins on, from 1.
    pub line: u64,
}
