//! What a template is made from: a base image and steps, or a Dockerfile.

use domain::definition::{Backend, Source, SourceType};
use serde_json::Value;

use super::context::{ContextFile, Listing};
use super::fields::Fields;
use super::{dockerfile, steps};
use crate::limits::Limits;

/// The longest image reference: a host, a path of 255 and a digest fit easily.
const BASE_IMAGE_BYTES_MAX: usize = 512;

/// The source of a request, as far as it could be read.
#[derive(Debug)]
pub(super) struct ReadSource {
    /// The source, if there is one.
    pub(super) source: Option<Source>,
    /// Whether it is a Dockerfile.
    pub(super) is_dockerfile: bool,
    /// Which engine builds it.
    pub(super) backend: Backend,
    /// Where the template comes from.
    pub(super) source_type: SourceType,
}

pub(super) fn source(top: Fields<'_>, context: &[ContextFile], limits: &Limits) -> ReadSource {
    let is_dockerfile = top.has("dockerfile");
    match (is_dockerfile, top.has("base_image")) {
        (true, true) => top.problem(
            "base_image",
            "a request has either dockerfile or base_image, not both",
        ),
        (false, false) => top.problem(
            "base_image",
            "is required (or dockerfile, for a build from a Dockerfile)",
        ),
        (true, false) | (false, true) => {}
    }
    backend(top, is_dockerfile);
    if is_dockerfile {
        let steps = top.list("steps", limits.step_count_max);
        if steps.is_some_and(|steps| !steps.is_empty()) {
            top.problem("steps", "a build from a Dockerfile has no steps");
        }
        ReadSource {
            source: dockerfile::dockerfile(top, context, limits),
            is_dockerfile,
            backend: Backend::Buildkit,
            source_type: SourceType::Dockerfile,
        }
    } else {
        declarative(top, context, limits)
    }
}

fn backend(top: Fields<'_>, is_dockerfile: bool) {
    match top.get("build_backend").map(Value::as_str) {
        Some(Some("native")) if is_dockerfile => top.problem(
            "build_backend",
            "`native` cannot build a Dockerfile; leave it out or say `buildkit`",
        ),
        Some(Some("buildkit")) if !is_dockerfile => top.problem(
            "build_backend",
            "`buildkit` builds Dockerfiles only; leave it out or say `native`",
        ),
        None | Some(Some("native" | "buildkit")) => {}
        Some(Some(_) | None) => top.problem("build_backend", "must be `native` or `buildkit`"),
    }
}

fn declarative(top: Fields<'_>, context: &[ContextFile], limits: &Limits) -> ReadSource {
    for key in ["build_args", "build_target", "dockerfile_path"] {
        if top.has(key) {
            top.problem(key, "belongs to a build from a Dockerfile");
        }
    }
    let base_image = base_image(top);
    let build_envs = top.env("build_envs", limits);
    let steps = steps::steps(top, &Listing::of(context), limits);
    let source_type = if top.has("steps") {
        SourceType::Declarative
    } else {
        SourceType::OciImport
    };
    ReadSource {
        source: base_image.map(|base| Source::Declarative {
            base_image: base.to_owned(),
            steps,
            build_envs,
        }),
        is_dockerfile: false,
        backend: Backend::Native,
        source_type,
    }
}

fn base_image(top: Fields<'_>) -> Option<&str> {
    let base = top.text("base_image", BASE_IMAGE_BYTES_MAX)?;
    if base.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(base);
    }
    top.problem(
        "base_image",
        "must be the reference of an image or a template, for example `debian:bookworm`",
    );
    None
}
