//! A request becomes a build.

use std::collections::BTreeSet;
use std::sync::Arc;

use commands::DispatchError;
use domain::build::{self, Build, PinnedBase, Requested, RetryRequest};
use domain::definition::{Backend, SourceType};
use domain::ids::{BuildId, TemplateId};
use domain::name::{SecretId, TemplateName};
use executor::vault::Secrets;
use projections::builds::BuildRow;

use super::App;
use super::admission::Entering;
use super::bases;
use super::context;
use super::keys::Caller;
use super::names;
use super::once::{self, Accepted, Keyed, Terms, Way};
use crate::http::error::ApiError;
use crate::normalise::{BuildRequest, Refusal, Retry};

/// Accepts `request` on its `terms`, and waits until the build is visible.
///
/// Goes on when the caller has gone: a build is accepted whole or not at all.
///
/// # Errors
/// [`ApiError`], [`ApiError::WaitingBuilds`] among them; nothing was accepted then, except after
/// [`ApiError::NotVisibleYet`]. [`ApiError::Conflict`] if the key of the terms belongs to another request.
pub async fn accept(
    app: &Arc<App>,
    caller: Caller,
    request: BuildRequest,
    terms: Terms,
) -> Result<Accepted, ApiError> {
    let runtime = app.runtime.clone();
    let app = Arc::clone(app);
    runtime
        .spawn(async move { accept_on(&app, &caller, request, terms).await })
        .await?
}

async fn accept_on(
    app: &App,
    caller: &Caller,
    request: BuildRequest,
    terms: Terms,
) -> Result<Accepted, ApiError> {
    if let Some(key) = terms.key {
        // Inlined files are hashed, which takes a while.
        let hashing = tokio::task::spawn_blocking(move || (request.digest(), request));
        let (digest, request) = hashing.await?;
        let keyed = Keyed { key, digest };
        let _turn = match once::first(app, caller, &keyed).await? {
            Ok(turn) => turn,
            Err(earlier) => return Ok(earlier),
        };
        return accept_whole(app, caller, request, Some(keyed), false).await;
    }
    let wanted = request.name.clone().filter(|_| terms.joins);
    let Some(name) = wanted.filter(|_| request.secrets.is_empty()) else {
        return accept_whole(app, caller, request, None, false).await;
    };
    let _turn = once::flight(app, caller, &name).await?;
    accept_whole(app, caller, request, None, true).await
}

async fn accept_whole(
    app: &App,
    caller: &Caller,
    mut request: BuildRequest,
    keyed: Option<Keyed>,
    joins: bool,
) -> Result<Accepted, ApiError> {
    let limits = &app.config.limits;
    // Whoever joins a build does not wait in line, and that is seen later.
    let entering = match enter(app, caller) {
        Err(refusal) if !joins => return Err(refusal),
        entering => entering,
    };
    // First of all: it costs little, and what is missing is said before files are kept.
    let base = bases::resolve(app, caller, &request)?;
    let files = std::mem::take(&mut request.context);
    let secrets = std::mem::take(&mut request.secrets);
    let claim = request.claim;
    // Nothing that the request refers to is evicted before the log says that it is needed.
    let _held = app.uploads.hold().await;
    let stored = context::store(files, &caller.owner, &app.uploads, &app.blobs, limits).await?;
    let mut requested = requested(app, caller, request, base, stored, &secrets)?;
    if joins && let Some(row) = once::under_way(app, caller, &requested).await? {
        let way = Way::Joined;
        return Ok(Accepted { row, way });
    }
    let _entering = entering?;
    requested.template_id = names::take(app, caller, &requested, claim).await?;
    mark(&mut requested, keyed);
    request_build(app, caller, requested, secrets).await
}

/// Notes the key that a request came with.
fn mark(requested: &mut Requested, keyed: Option<Keyed>) {
    if let Some(Keyed { key, digest }) = keyed {
        (requested.idempotency_key, requested.request_digest) = (Some(key), Some(digest));
    }
}

/// What will be recorded of a request; its template id is a new one.
///
/// # Errors
/// [`ApiError::TooLarge`].
pub(super) fn requested(
    app: &App,
    caller: &Caller,
    mut request: BuildRequest,
    base: Option<PinnedBase>,
    stored: context::Stored,
    secrets: &Secrets,
) -> Result<Requested, ApiError> {
    request.definition.context = stored.context;
    let template_id = app.ids.new_template_id();
    let requested = Requested {
        definition_digest: request.definition.digest(),
        definition: request.definition,
        owner: caller.owner.clone(),
        namespace: request.namespace,
        name: request.name.unwrap_or_else(|| generated_name(&template_id)),
        template_id,
        tags: request.tags,
        backend: request.backend,
        source_type: match &base {
            Some(_) => SourceType::TemplateBase,
            None => request.source_type,
        },
        base,
        registry_auth: secrets.registry_kinds(),
        retry_of: None,
        arrivals: stored.arrivals,
        idempotency_key: None,
        request_digest: None,
        max_attempts: app.config.executor.max_attempts,
    };
    check_size(&requested, app.config.limits.definition_bytes_max)?;
    Ok(requested)
}

/// The files of a build are kept for a while after its end, and no longer.
async fn check_files(app: &App, of: &BuildId, requested: &Requested) -> Result<(), ApiError> {
    let Some(context) = &requested.definition.context else {
        return Ok(());
    };
    let there = app.desk.has_context(&context.digest).await;
    if there.map_err(ApiError::internal)? {
        return Ok(());
    }
    Err(ApiError::RebuildRequired(format!(
        "the files of the build `{of}` are no longer kept: build the template anew"
    )))
}

/// Accepts a retry of the finished build `of` and waits until the new build is visible.
///
/// Goes on when the caller has gone, as [`accept`] does.
///
/// # Errors
/// [`ApiError::Transition`] while `of` is not finished, [`ApiError::RebuildRequired`] if its files
/// are no longer kept, [`ApiError::Conflict`] if its template was
/// deleted, [`ApiError::Invalid`] if `retry` brings other secrets than `of` had; nothing was
/// accepted then.
pub async fn accept_retry(
    app: &Arc<App>,
    caller: Caller,
    of: BuildId,
    retry: Retry,
    terms: Terms,
) -> Result<Accepted, ApiError> {
    let runtime = app.runtime.clone();
    let app = Arc::clone(app);
    let accepting = async move {
        let keyed = terms.key.map(|key| Keyed {
            key,
            digest: retry.digest(&of),
        });
        let mut _turn = None;
        if let Some(keyed) = &keyed {
            _turn = match once::first(&app, &caller, keyed).await? {
                Ok(turn) => Some(turn),
                Err(earlier) => return Ok(earlier),
            };
        }
        let _entering = enter(&app, &caller)?;
        let _held = app.uploads.hold().await;
        let (state, _) = app
            .dispatcher
            .load_build(&of)
            .await
            .map_err(dispatch_error)?;
        let (request, secrets) = retry_of(&state, retry)?;
        let mut requested =
            build::retry(&of, &state, request).map_err(|rejection| refused(&state, &rejection))?;
        names::check_there(&app, &requested.template_id).await?;
        check_files(&app, &of, &requested).await?;
        mark(&mut requested, keyed);
        request_build(&app, &caller, requested, secrets).await
    };
    runtime.spawn(accepting).await?
}

fn enter(app: &App, caller: &Caller) -> Result<Entering, ApiError> {
    let count_max = app.config.limits.waiting_build_count_max;
    app.admission.enter(&app.views, &caller.owner, count_max)
}

/// The retry of the build in `state`, with its credentials by host.
fn retry_of(state: &Build, retry: Retry) -> Result<(RetryRequest, Secrets), ApiError> {
    let Retry {
        mut request,
        mut secrets,
        auth,
    } = retry;
    if let Some(accepted) = state.accepted() {
        let source = &accepted.requested.definition.source;
        auth.place(source, &mut secrets).map_err(Refusal::from)?;
    }
    request.registry_auth = secrets.registry_kinds();
    Ok((request, secrets))
}

/// Why the build in `state` is not retried.
fn refused(state: &Build, rejection: &build::Rejection) -> ApiError {
    if let build::Rejection::SecretsDiffer { missing, extra } = rejection {
        let list = |ids: &BTreeSet<SecretId>| {
            let ids: Vec<&str> = ids.iter().map(SecretId::as_str).collect();
            if ids.is_empty() {
                "none".to_owned()
            } else {
                ids.join(", ")
            }
        };
        let message = format!(
            "must hold values for exactly the original build's secrets (missing: {}; unknown: {})",
            list(missing),
            list(extra)
        );
        return ApiError::field("build_secrets", message);
    }
    if let build::Rejection::CredentialsMissing { hosts } = rejection {
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let message = format!(
            "is needed again: the original build had credentials for {}, and they are not kept",
            hosts.join(", ")
        );
        let backend = state.accepted().map(|accepted| accepted.requested.backend);
        let field = match backend {
            Some(Backend::Buildkit) => "registry_auth",
            Some(Backend::Native) | None => "base_image_auth",
        };
        return ApiError::field(field, message);
    }
    ApiError::Transition(format!("{rejection}; wait for its end, or cancel it"))
}

/// Records the request of a new build and waits until it is visible.
///
/// Its secret values are kept first: a worker that reads the request finds them.
async fn request_build(
    app: &App,
    caller: &Caller,
    requested: Requested,
    secrets: Secrets,
) -> Result<Accepted, ApiError> {
    let id = app.ids.new_build_id();
    if !secrets.is_empty() {
        let kept = app.vault.put(id.clone(), secrets);
        kept.map_err(|full| ApiError::unavailable("too many builds with credentials wait", full))?;
    }
    let command = build::Command::Request(Box::new(requested));
    let done = app.dispatcher.build(&id, app.meta(caller), command).await;
    let done = done.map_err(|error| {
        app.vault.remove(&id);
        dispatch_error(error)
    })?;
    if let Some(appended) = done.appended {
        let visible = app.views.wait_for(appended.position, app.read_your_write());
        if let Err(stalled) = visible.await {
            tracing::error!(build.id = id.as_str(), error = %stalled, "a build is not visible yet");
            return Err(ApiError::NotVisibleYet(id));
        }
    }
    let row = visible(app, &id)?;
    Ok(Accepted { row, way: Way::New })
}

fn visible(app: &App, id: &BuildId) -> Result<BuildRow, ApiError> {
    app.views
        .build(id)?
        .ok_or_else(|| ApiError::NotVisibleYet(id.clone()))
}

/// A name for a template that was given none: it is as unique as the id that it is made of.
fn generated_name(id: &TemplateId) -> TemplateName {
    let ulid = id.as_str().trim_start_matches(TemplateId::PREFIX);
    format!("template-{ulid}")
        .parse()
        .expect("lower-case letters and digits behind `template-` are a name")
}

/// The event log has a bound for an event; what will not fit is refused before a name is taken.
fn check_size(requested: &Requested, bytes_max: usize) -> Result<(), ApiError> {
    let bytes = serde_json::to_vec(requested).map_err(ApiError::internal)?;
    if bytes.len() > bytes_max {
        return Err(ApiError::TooLarge {
            what: "the definition, without its files,",
            bytes_max: u64::try_from(bytes_max).unwrap_or(u64::MAX),
        });
    }
    Ok(())
}

/// A failure of dispatching that is not the caller's fault.
pub(crate) fn dispatch_error<R: std::error::Error + Send + Sync + 'static>(
    err: DispatchError<R>,
) -> ApiError {
    match err {
        DispatchError::Log(err) => err.into(),
        err @ DispatchError::Contended { .. } => {
            ApiError::unavailable("too many want to change the same thing", err)
        }
        err @ (DispatchError::Rejected(_) | DispatchError::Corrupt { .. }) => {
            ApiError::internal(err)
        }
    }
}
