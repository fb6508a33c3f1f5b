//! What the base of a request means: contract/behaviour.md sections 7 and 9.
//!
//! A template and an image are written alike. What can only be a template is one, or an error; what
//! can be either is a template that the caller sees, or else an image. What it means is decided
//! once, when the request is accepted, and kept with it.

use domain::build::{BaseTemplate, PinnedBase};
use domain::definition::Source;
use domain::ids::{BuildId, TemplateId};
use domain::name::{Namespace, Owner, Qualifier, TemplateName, TemplateRef};
use projections::Views;
use projections::templates::Resolved;

use super::App;
use super::keys::Caller;
use super::templates::tags_there_are;
use crate::http::error::ApiError;
use crate::normalise::BuildRequest;

/// What is repeated of a reference that means nothing.
const SHOWN_CHARS_MAX: usize = 200;

/// The template that the request's base means; `None`: an image, or the request has no base.
///
/// # Errors
/// [`ApiError::BadReference`] if it can only mean a template, and the caller sees none of that name
/// that is ready; [`ApiError::Invalid`] if it is not even written like one.
pub(super) fn resolve(
    app: &App,
    caller: &Caller,
    request: &BuildRequest,
) -> Result<Option<PinnedBase>, ApiError> {
    let Source::Declarative { base_image, .. } = &request.definition.source else {
        return Ok(None);
    };
    let only_template = names_template(base_image);
    if !request.secrets.is_empty() {
        // Templates have no registry: who brings credentials means an image.
        return if only_template {
            let problem = "is for images in registries; leave it out for a template";
            Err(ApiError::field("base_image_auth", problem))
        } else {
            Ok(None)
        };
    }
    let reference = match base_image.parse::<TemplateRef>() {
        Ok(reference) => reference,
        Err(error) if only_template => {
            return Err(ApiError::field("base_image", error.to_string()));
        }
        Err(_) => return Ok(None),
    };
    if let Some(image) = app.config.builtins.image(&reference) {
        let image = image.to_owned();
        return Ok(Some(PinnedBase::Builtin { image }));
    }
    if request
        .name
        .as_ref()
        .is_some_and(|name| is_bare(&reference, name))
    {
        return Ok(None);
    }
    match app.views.resolve_base(&caller.owner, &reference)? {
        Some(found) => pinned(found).map(Some),
        None if only_template => Err(missing(&app.views, &caller.owner, base_image, &reference)?),
        None => Ok(None),
    }
}

/// Whether a base can only mean a template: an id, a build, or the system's namespace, into which
/// the client puts names without one.
fn names_template(base: &str) -> bool {
    let system = base
        .split_once('/')
        .is_some_and(|(namespace, _)| namespace == Namespace::system().as_str());
    let build = base
        .rsplit_once(':')
        .is_some_and(|(_, qualifier)| qualifier.starts_with(BuildId::PREFIX));
    system || build || base.starts_with(TemplateId::PREFIX)
}

/// Whether the reference is the bare name of the very template that is to be built. That means the
/// image: `debian` made from `debian` must not start from itself when it is built again.
fn is_bare(reference: &TemplateRef, own: &TemplateName) -> bool {
    match reference {
        TemplateRef::Named {
            namespace: None,
            name,
            qualifier: None | Some(Qualifier::Tag(_)),
        } => name == own,
        TemplateRef::Named { .. } | TemplateRef::Id(_) => false,
    }
}

fn pinned(found: Resolved) -> Result<PinnedBase, ApiError> {
    let Resolved { template, build } = found;
    let Some(artifact) = build.artifact else {
        let what = format!(
            "the build `{}` is ready without an artifact",
            build.build_id
        );
        return Err(ApiError::internal(what));
    };
    Ok(PinnedBase::Template(BaseTemplate {
        namespace: template.namespace,
        name: template.name,
        template_id: template.id,
        build: build.build_id,
        artifact,
        env_keys: build
            .runtime
            .map(|runtime| runtime.env_keys)
            .unwrap_or_default(),
    }))
}

/// Says what there is instead. Somebody else's private template is as unknown as one that is not
/// there.
fn missing(
    views: &Views,
    caller: &Owner,
    written: &str,
    reference: &TemplateRef,
) -> Result<ApiError, ApiError> {
    let written: String = written.chars().take(SHOWN_CHARS_MAX).collect();
    if let Some(row) = views.find_base(caller, reference)? {
        let (namespace, name, tags) = (&row.namespace, &row.name, tags_there_are(&row));
        return Ok(ApiError::BadReference(format!(
            "base_image: `{written}` means no finished build of the template `{namespace}/{name}`; {tags}"
        )));
    }
    let message = match written.split_once('/') {
        Some((namespace, own)) if namespace == Namespace::system().as_str() => format!(
            "base_image: there is neither a builtin template `{written}` nor a template `{own}` of yours"
        ),
        Some(_) | None => format!("base_image: there is no template `{written}`"),
    };
    Ok(ApiError::BadReference(message))
}
