//! Requests that are only looked at: what a build would record, and nothing recorded.

mod dockerfile;
mod plan;
mod remarks;

use std::sync::Arc;

use buildkit::dockerfile::Dockerfile;
use domain::build::{PinnedBase, Requested};
use domain::definition::Source;
use executor::image::ImageReference;

use super::accept::requested;
use super::context::{self, Stored};
use super::keys::Caller;
use super::uploads::Announced;
use super::{App, bases};
use crate::http::body::Json;
use crate::http::error::ApiError;
use crate::normalise::{self, BuildRequest};

/// What a request would build.
#[derive(Debug)]
pub struct Inspection {
    /// What would be recorded of it, under ids that nobody will use.
    requested: Requested,
    /// Its Dockerfile, if it has one.
    dockerfile: Option<Dockerfile>,
    /// Fields of the request that mean nothing here.
    ignored_fields: Vec<String>,
}

/// Looks at the request in `body`; the contents of its files are `contents`, by their index.
///
/// # Errors
/// [`ApiError`], as a build would be refused.
pub async fn inspect(
    app: &Arc<App>,
    caller: &Caller,
    body: Json,
    contents: &[Option<Announced>],
) -> Result<Inspection, ApiError> {
    let (state, owner) = (Arc::clone(app), caller.owner.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let bounds = normalise::Bounds {
            limits: &state.config.limits,
            executor: &state.config.executor,
        };
        let request = normalise::build_request(&body, &owner, bounds)?;
        let dockerfile = dockerfile::read(&request.definition.source)?;
        Ok::<_, ApiError>((request, dockerfile, normalise::ignored_fields(&body)))
    });
    let (mut request, dockerfile, ignored_fields) = reading.await??;
    let base = bases::resolve(app, caller, &request)?;
    check_image(&request, base.as_ref())?;
    let files = std::mem::take(&mut request.context);
    let secrets = std::mem::take(&mut request.secrets);
    let limits = &app.config.limits;
    let context = context::look(
        files,
        contents,
        &caller.owner,
        &app.uploads,
        &app.blobs,
        limits,
    );
    let stored = Stored {
        context: context.await?,
        arrivals: None,
    };
    Ok(Inspection {
        requested: requested(app, caller, request, base, stored, &secrets)?,
        dockerfile,
        ignored_fields,
    })
}

/// What is no template must read as an image. A build says so only when it begins.
fn check_image(request: &BuildRequest, base: Option<&PinnedBase>) -> Result<(), ApiError> {
    let (None, Source::Declarative { base_image, .. }) = (base, &request.definition.source) else {
        return Ok(());
    };
    match base_image.parse::<ImageReference>() {
        Ok(_) => Ok(()),
        Err(invalid) => {
            let problem = format!("is neither a template nor the reference of an image: {invalid}");
            Err(ApiError::field("base_image", problem))
        }
    }
}
