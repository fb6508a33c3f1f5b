//! Who goes by which name. Two streams have a say: a namespace's decides who *holds* a name, a
//! template's own which names it *goes by*. A template goes by a name only after it holds it, and
//! lets go of it only after it no longer goes by it, so nobody else ever has a name that means it.
//!
//! What a crash between the two leaves, and what becomes of that:
//!
//! | crash in | leaves | until |
//! |---|---|---|
//! | a rename, before the template is called so | a name that means nothing and that others do not get | the rename is repeated; or anything else is done to the template, and somebody wants the name |
//! | the removal of an alias, before it is released | the same | somebody wants the name |
//! | a deletion, before the names are released | the same | somebody wants the name |
//!
//! Whoever wants a name that its holder has left ([`Standing::Left`]) releases it first. The
//! protocol is played through, with crashes, in `domain::namespace::protocol`.

use commands::{DispatchError, Done};
use domain::Digest;
use domain::build::Requested;
use domain::ids::TemplateId;
use domain::name::{Namespace, TemplateName};
use domain::namespace::{Command, Hold, Names, Rejection};
use domain::recorded::Version;
use domain::template::{Standing, Template};

use super::App;
use super::accept::dispatch_error;
use super::keys::Caller;
use crate::http::error::ApiError;

/// How often something is begun again because somebody else was faster.
pub(super) const ATTEMPTS_MAX: u32 = 16;

/// The template that a build of this name is one of: a new one, or the owner's own that is called
/// so.
///
/// # Errors
/// [`ApiError::Conflict`] if the name is somebody else's, or kept for somebody else, or an alias;
/// [`ApiError::ClaimNotFound`] if the claim that the name is wanted by does not keep it.
pub(super) async fn take(
    app: &App,
    caller: &Caller,
    requested: &Requested,
    claim: Option<Digest>,
) -> Result<TemplateId, ApiError> {
    let (namespace, name) = (&requested.namespace, &requested.name);
    for _ in 0..ATTEMPTS_MAX {
        let command = Command::Take {
            name: name.clone(),
            template_id: requested.template_id.clone(),
            owner: caller.owner.clone(),
            claim,
            now: app.clock.0.now(),
        };
        let names = change(app, caller, namespace, name, command).await?.state;
        let Some(hold) = names.holder(name) else {
            let what = format!("the name `{name}` was taken and has no holder");
            return Err(ApiError::internal(what));
        };
        if hold.template_id == requested.template_id {
            return Ok(hold.template_id.clone());
        }
        match standing(app, name, hold).await? {
            Standing::Name => return Ok(hold.template_id.clone()),
            Standing::Alias => {
                return Err(ApiError::Conflict(format!(
                    "`{name}` is an alias of a template that has another name: build that one, or remove the alias"
                )));
            }
            Standing::Pending => {
                return Err(ApiError::Conflict(format!(
                    "a template is being renamed to `{name}`"
                )));
            }
            Standing::Left => {
                free_if_left(app, caller, namespace, name).await?;
            }
        }
    }
    Err(contended())
}

/// Makes sure that a template was not deleted: what is built for one that was, nobody would see.
///
/// # Errors
/// [`ApiError::Conflict`] if it was.
pub(super) async fn check_there(app: &App, id: &TemplateId) -> Result<(), ApiError> {
    let template = app.dispatcher.load_template(id).await;
    let (template, _) = template.map_err(dispatch_error)?;
    if template == Template::Deleted {
        let message = "the build's template was deleted; build it anew under its name";
        return Err(ApiError::Conflict(message.to_owned()));
    }
    Ok(())
}

/// Has `name` held for the template `id`, which has another one, for a rename of its stream's
/// version `renaming`.
///
/// # Errors
/// [`ApiError::Conflict`] if the name is another template's, or kept for somebody else.
pub(super) async fn take_also(
    app: &App,
    caller: &Caller,
    namespace: &Namespace,
    name: &TemplateName,
    id: &TemplateId,
    renaming: Version,
) -> Result<(), ApiError> {
    let command = Command::TakeAlso {
        name: name.clone(),
        template_id: id.clone(),
        owner: caller.owner.clone(),
        renaming,
        now: app.clock.0.now(),
    };
    change(app, caller, namespace, name, command).await?;
    Ok(())
}

/// Gives the names a command that wants `name`. If another template holds the name and has left
/// it, it is released first.
///
/// # Errors
/// [`ApiError::Conflict`] if the name is not to be had, [`ApiError::Quota`].
pub(super) async fn change(
    app: &App,
    caller: &Caller,
    namespace: &Namespace,
    name: &TemplateName,
    command: Command,
) -> Result<Done<Names>, ApiError> {
    for _ in 0..ATTEMPTS_MAX {
        let meta = app.meta(caller);
        match app.dispatcher.names(namespace, meta, command.clone()).await {
            Ok(done) => return Ok(done),
            Err(DispatchError::Rejected(Rejection::Taken(_)))
                if free_if_left(app, caller, namespace, name).await? => {}
            Err(DispatchError::Rejected(rejection)) => {
                return Err(refused(app, namespace, rejection)?);
            }
            Err(
                err @ (DispatchError::Contended { .. }
                | DispatchError::Corrupt { .. }
                | DispatchError::Log(_)),
            ) => return Err(dispatch_error(err)),
        }
    }
    Err(contended())
}

/// Why a name is not to be had.
fn refused(app: &App, namespace: &Namespace, rejection: Rejection) -> Result<ApiError, ApiError> {
    Ok(match rejection {
        Rejection::Claimed(name) => {
            let until = app.views.claim_on(namespace, &name)?;
            let until =
                until.map_or_else(String::new, |claim| format!(" until {}", claim.expires_at));
            ApiError::Conflict(format!("the name `{name}` is reserved{until}"))
        }
        rejection @ Rejection::TooManyClaims(_) => ApiError::Quota(rejection.to_string()),
        Rejection::UnknownClaim => ApiError::ClaimNotFound,
        rejection @ Rejection::Taken(_) => ApiError::Conflict(rejection.to_string()),
    })
}

/// Releases a name if its holder has left it; false if somebody has it.
pub(super) async fn free_if_left(
    app: &App,
    caller: &Caller,
    namespace: &Namespace,
    name: &TemplateName,
) -> Result<bool, ApiError> {
    let names = app.dispatcher.load_names(namespace).await;
    let (names, _) = names.map_err(dispatch_error)?;
    let Some(hold) = names.holder(name) else {
        return Ok(true);
    };
    if standing(app, name, hold).await? != Standing::Left {
        return Ok(false);
    }
    let command = Command::Release {
        name: name.clone(),
        hold: hold.clone(),
    };
    let released = app.dispatcher.names(namespace, app.meta(caller), command);
    released.await.map_err(dispatch_error)?;
    Ok(true)
}

async fn standing(app: &App, name: &TemplateName, hold: &Hold) -> Result<Standing, ApiError> {
    let template = app.dispatcher.load_template(&hold.template_id).await;
    let (template, _) = template.map_err(dispatch_error)?;
    Ok(template.standing(name, hold.renaming))
}

/// Others were always faster.
pub(super) fn contended() -> ApiError {
    ApiError::Unavailable {
        message: "too many want to change the same thing",
        cause: None,
    }
}
