//! What is done to templates by hand.
//!
//! A reference is looked up in the views, which show everything that was answered for; what stands
//! against a change is decided on the template's own stream.

use std::sync::Arc;

use commands::{DispatchError, Done};
use domain::ids::BuildId;
use domain::name::{Qualifier, Tag, TemplateName, TemplateRef};
use domain::namespace;
use domain::template::{Command, Rejection, Template, Visibility, decide};
use projections::Views;
use projections::builds::BuildStatus;
use projections::templates::TemplateRow;

use super::accept::dispatch_error;
use super::keys::Caller;
use super::{App, names};
use crate::http::error::ApiError;

/// What is repeated of a reference that means nothing.
const SHOWN_CHARS_MAX: usize = 200;
/// How many of the tags that there are instead are named.
const TAGS_NAMED_MAX: usize = 20;

/// What a reference means to a caller.
#[derive(Clone, Debug, PartialEq)]
pub enum Meant {
    /// A builtin template, which is made from this image.
    Builtin(String),
    /// A template, and the reference with its namespace written out.
    Template(Box<TemplateRow>, TemplateRef),
}

/// The template that `text` names to `caller`, whatever its qualifier says.
///
/// # Errors
/// [`ApiError::TemplateNotFound`], also if it is somebody else's and private.
pub fn find(app: &App, caller: &Caller, text: &str) -> Result<Meant, ApiError> {
    find_in(&app.views, app, caller, text)
}

/// The template that `text` named to `caller` as `views` show it. Somebody else's must be there for
/// the caller to this day: what its owner has hidden or deleted since stays so.
///
/// # Errors
/// As [`find`].
pub fn find_in(views: &Views, app: &App, caller: &Caller, text: &str) -> Result<Meant, ApiError> {
    let unknown = || not_found(text);
    let reference = parse(caller, text)?;
    if let Some(image) = app.config.builtins.image(&reference) {
        return Ok(Meant::Builtin(image.to_owned()));
    }
    let row = views.find(&caller.owner, &reference)?;
    let row = row.ok_or_else(unknown)?;
    if row.owner != caller.owner {
        let now = app.views.template(&row.id)?;
        now.filter(|now| now.visible_to(&caller.owner))
            .ok_or_else(unknown)?;
    }
    Ok(Meant::Template(Box::new(row), reference))
}

/// What `text` refers to, with its namespace written out.
///
/// # Errors
/// [`ApiError::TemplateNotFound`]: nothing is called so.
pub fn parse(caller: &Caller, text: &str) -> Result<TemplateRef, ApiError> {
    let reference = text.parse().map_err(|_| not_found(text))?;
    Ok(caller.qualified(reference))
}

fn not_found(text: &str) -> ApiError {
    ApiError::TemplateNotFound(text.chars().take(SHOWN_CHARS_MAX).collect())
}

/// The template that `text` names to `caller`, to be looked at as a whole. A tag or build that is
/// written must be there.
///
/// # Errors
/// [`ApiError::TemplateNotFound`]; [`ApiError::Forbidden`] for a builtin one.
pub fn seen(app: &App, caller: &Caller, text: &str) -> Result<TemplateRow, ApiError> {
    let (row, reference) = custom(app, caller, text)?;
    let is_there = match &reference {
        TemplateRef::Id(_)
        | TemplateRef::Named {
            qualifier: None, ..
        } => true,
        TemplateRef::Named { .. } => app.views.resolve(&caller.owner, &reference)?.is_some(),
    };
    if is_there {
        Ok(row)
    } else {
        Err(no_build(&row, text))
    }
}

/// The caller's own template that `text` names, to be changed as a whole.
///
/// # Errors
/// As [`seen`]; and [`ApiError::Forbidden`] if it is somebody else's.
pub fn own(app: &App, caller: &Caller, text: &str) -> Result<TemplateRow, ApiError> {
    let row = seen(app, caller, text)?;
    check_own(caller, &row)?;
    Ok(row)
}

/// The caller's own template that `text` names, and the build of it that is meant.
///
/// # Errors
/// As [`own`]; [`ApiError::Transition`] if the build is written and is not ready, or has expired.
pub fn own_build(
    app: &App,
    caller: &Caller,
    text: &str,
) -> Result<(TemplateRow, BuildId), ApiError> {
    let (row, reference) = custom(app, caller, text)?;
    check_own(caller, &row)?;
    if let Some(found) = app.views.resolve(&caller.owner, &reference)? {
        return Ok((row, found.build.build_id));
    }
    if let TemplateRef::Named {
        qualifier: Some(Qualifier::Build(id)),
        ..
    } = &reference
        && let Some(build) = app.views.build(id)?
        && build.template_id == row.id
        && !build.is_usable()
    {
        if build.status == BuildStatus::Ready {
            return Err(refused(Rejection::Expired(build.build_id)));
        }
        let status = build.status.as_str();
        return Err(ApiError::Transition(format!(
            "the build `{id}` is not ready: it is `{status}`"
        )));
    }
    Err(no_build(&row, text))
}

/// A template that somebody made.
fn custom(app: &App, caller: &Caller, text: &str) -> Result<(TemplateRow, TemplateRef), ApiError> {
    match find(app, caller, text)? {
        Meant::Template(row, reference) => Ok((*row, reference)),
        Meant::Builtin(_) => Err(ApiError::Forbidden(format!(
            "`{text}` is a builtin template: it has no tags of its own and cannot be changed"
        ))),
    }
}

fn check_own(caller: &Caller, row: &TemplateRow) -> Result<(), ApiError> {
    if row.owner == caller.owner {
        return Ok(());
    }
    Err(ApiError::Forbidden(format!(
        "`{}/{}` belongs to somebody else: it can be looked at and built on, not changed",
        row.namespace, row.name
    )))
}

/// The reference means a template and none of its builds; says what there is instead.
pub fn no_build(row: &TemplateRow, text: &str) -> ApiError {
    let text: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    ApiError::BadReference(format!(
        "`{text}` means no finished build of the template `{}/{}`; {}",
        row.namespace,
        row.name,
        tags_there_are(row)
    ))
}

/// The tags that can be asked for instead of one that is not there.
pub fn tags_there_are(row: &TemplateRow) -> String {
    let tags: Vec<&str> = row
        .tags
        .keys()
        .map(Tag::as_str)
        .take(TAGS_NAMED_MAX)
        .collect();
    match tags.as_slice() {
        [] => "it has no tags".to_owned(),
        tags => format!("it has the tags {}", tags.join(", ")),
    }
}

/// Points tags to a build of the template that is ready, and waits until that is visible.
///
/// # Errors
/// [`ApiError::Conflict`] if the template was deleted at the same time; [`ApiError::Transition`] if
/// the build's artifact has expired.
pub async fn assign(
    app: &App,
    caller: &Caller,
    row: &TemplateRow,
    build: BuildId,
    tags: Vec<Tag>,
) -> Result<(), ApiError> {
    let count_max = app.config.limits.template_tag_count_max;
    let new = tags.iter().filter(|tag| !row.tags.contains_key(*tag));
    // Those that builds bring come on top: a build cannot be refused when it is ready.
    if row.tags.len().saturating_add(new.count()) > count_max {
        return Err(ApiError::Quota(format!(
            "a template has at most {count_max} tags; remove one first"
        )));
    }
    change(app, caller, row, Command::AssignTags { tags, build }).await
}

/// Takes a tag away, and waits until that is visible.
///
/// # Errors
/// [`ApiError::NotFound`] if the template does not have it.
pub async fn remove_tag(
    app: &App,
    caller: &Caller,
    row: &TemplateRow,
    tag: &str,
) -> Result<(), ApiError> {
    let found = tag.parse().ok().and_then(|tag: Tag| {
        let build = row.tags.get(&tag)?.build_id.clone();
        Some(Command::RemoveTag { tag, build })
    });
    let command = found.ok_or_else(|| {
        let tag: String = tag.chars().take(SHOWN_CHARS_MAX).collect();
        ApiError::NotFound(format!("the template has no tag `{tag}`"))
    })?;
    change(app, caller, row, command).await
}

/// Shows the template to others, or to nobody else, and waits until that is visible.
///
/// # Errors
/// [`ApiError::TemplateNotFound`] if the template was deleted at the same time.
pub async fn set_visibility(
    app: &App,
    caller: &Caller,
    row: &TemplateRow,
    visibility: Visibility,
) -> Result<(), ApiError> {
    change(app, caller, row, Command::SetVisibility { visibility }).await
}

/// Calls the template `to`; what it was called becomes an alias. Waits until that is visible.
///
/// Goes on when the caller has gone: a rename that ends half-way keeps others from the name.
///
/// # Errors
/// [`ApiError::Conflict`] if the name is not to be had, or the template was deleted at the same
/// time; [`ApiError::Quota`] if it has too many aliases.
pub async fn rename(
    app: &Arc<App>,
    caller: Caller,
    row: TemplateRow,
    to: TemplateName,
) -> Result<(), ApiError> {
    let runtime = app.runtime.clone();
    let app = Arc::clone(app);
    let renaming = async move { rename_whole(&app, &caller, &row, &to).await };
    runtime.spawn(renaming).await?
}

async fn rename_whole(
    app: &App,
    caller: &Caller,
    row: &TemplateRow,
    to: &TemplateName,
) -> Result<(), ApiError> {
    for _ in 0..names::ATTEMPTS_MAX {
        let template = app.dispatcher.load_template(&row.id).await;
        let (template, _) = template.map_err(dispatch_error)?;
        let command = Command::Rename {
            namespace: row.namespace.clone(),
            // Whoever was never renamed is called as it was made.
            first: row.name.clone(),
            to: to.clone(),
            seen: template.version().unwrap_or_default(),
        };
        // No name is taken for what the template itself stands against.
        decide(&template, command.clone()).map_err(refused)?;
        if let Some(seen) = template.version()
            && !template.goes_by(to, &row.name)
        {
            names::take_also(app, caller, &row.namespace, to, &row.id, seen).await?;
        }
        let renaming = app.dispatcher.template(&row.id, app.meta(caller), command);
        match renaming.await {
            Ok(done) => return app.shown(done.appended).await,
            // The name is held for another version than the present one.
            Err(DispatchError::Rejected(Rejection::Changed)) => {}
            Err(err) => return Err(failed(err)),
        }
    }
    Err(names::contended())
}

/// Lets an alias no longer mean the template, and waits until that is visible.
///
/// Goes on when the caller has gone, as [`rename`] does.
///
/// # Errors
/// [`ApiError::NotFound`] if the template does not have it; [`ApiError::TemplateNotFound`] if the
/// template was deleted at the same time.
pub async fn remove_alias(
    app: &Arc<App>,
    caller: Caller,
    row: TemplateRow,
    alias: TemplateName,
) -> Result<(), ApiError> {
    let runtime = app.runtime.clone();
    let app = Arc::clone(app);
    let removing = async move {
        let command = Command::RemoveAlias {
            namespace: row.namespace.clone(),
            alias: alias.clone(),
        };
        change(&app, &caller, &row, command).await?;
        names::free_if_left(&app, &caller, &row.namespace, &alias).await?;
        Ok(())
    };
    runtime.spawn(removing).await?
}

/// Deletes the template with its names and tags, and waits until that is visible.
///
/// Goes on when the caller has gone, as [`rename`] does.
///
/// # Errors
/// [`ApiError::Conflict`] if somebody else changed the template at the same time: what is deleted
/// is what the caller has seen.
pub async fn delete(app: &Arc<App>, caller: Caller, row: TemplateRow) -> Result<(), ApiError> {
    let runtime = app.runtime.clone();
    let app = Arc::clone(app);
    let deleting = async move {
        dispatch(&app, &caller, &row, Command::Delete { seen: row.version }).await?;
        let command = namespace::Command::ReleaseAll {
            template_id: row.id.clone(),
        };
        let released = app
            .dispatcher
            .names(&row.namespace, app.meta(&caller), command);
        let done = released.await.map_err(dispatch_error)?;
        app.shown(done.appended).await
    };
    runtime.spawn(deleting).await?
}

/// Gives a template a command, and waits until what came of it is visible.
async fn change(
    app: &App,
    caller: &Caller,
    row: &TemplateRow,
    command: Command,
) -> Result<(), ApiError> {
    let done = dispatch(app, caller, row, command).await?;
    app.shown(done.appended).await
}

async fn dispatch(
    app: &App,
    caller: &Caller,
    row: &TemplateRow,
    command: Command,
) -> Result<Done<Template>, ApiError> {
    // The contract knows no conflict of these: what was deleted at the same time is not there.
    let misses = match command {
        Command::SetVisibility { .. } | Command::RemoveAlias { .. } | Command::Delete { .. } => {
            true
        }
        Command::Rename { .. }
        | Command::AssignTags { .. }
        | Command::RemoveTag { .. }
        | Command::ExpireArtifact { .. }
        | Command::PurgeArtifact { .. } => false,
    };
    let dispatched = app.dispatcher.template(&row.id, app.meta(caller), command);
    dispatched.await.map_err(|err| match err {
        DispatchError::Rejected(Rejection::Deleted) if misses => {
            ApiError::TemplateNotFound(format!("{}/{}", row.namespace, row.name))
        }
        err @ (DispatchError::Rejected(_)
        | DispatchError::Contended { .. }
        | DispatchError::Corrupt { .. }
        | DispatchError::Log(_)) => failed(err),
    })
}

fn failed(err: DispatchError<Rejection>) -> ApiError {
    match err {
        DispatchError::Rejected(rejection) => refused(rejection),
        err @ (DispatchError::Contended { .. }
        | DispatchError::Corrupt { .. }
        | DispatchError::Log(_)) => dispatch_error(err),
    }
}

/// The template was there a moment ago, so that it is gone or different is somebody else's doing.
fn refused(rejection: Rejection) -> ApiError {
    match rejection {
        Rejection::Deleted => {
            ApiError::Conflict("the template was deleted at the same time".to_owned())
        }
        Rejection::Changed => ApiError::Conflict(rejection.to_string()),
        Rejection::UnknownAlias(_) | Rejection::UnknownTag(_) => {
            ApiError::NotFound(rejection.to_string())
        }
        Rejection::Expired(_) | Rejection::NotExpired(_) => {
            ApiError::Transition(rejection.to_string())
        }
        Rejection::TooManyAliases => ApiError::Quota(rejection.to_string()),
        Rejection::NoTags => ApiError::field("tags", rejection.to_string()),
    }
}
