//! Templates: listing them, looking one up, and changing one as a whole.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use domain::ids::TemplateId;
use domain::name::TemplateRef;
use projections::Views;
use projections::builds::BuildRow;
use projections::templates::TemplateRow;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::body::Body;
use super::error::ApiError;
use super::query::Parameters;
use super::reply;
use super::route::{Part, Target};
use super::{aliases, history, tag_history, tags};
use crate::normalise;
use crate::service::keys::Caller;
use crate::service::templates::{self, Meant};
use crate::service::{App, past, present};
use crate::wire::template::TemplateInfo;

/// Answers a request for a template, or for what belongs to it.
///
/// # Errors
/// [`ApiError`].
pub async fn answer(
    app: &Arc<App>,
    caller: Caller,
    target: Target,
    method: &str,
    parameters: &Parameters,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    let reference = &target.reference;
    match target.part {
        Part::Whole if method == "DELETE" => delete(app, caller, reference).await,
        Part::Whole => get(app, &caller, reference, parameters).await,
        Part::Tags if method == "POST" => tags::assign(app, &caller, reference, body).await,
        Part::Tags => tags::list(app, &caller, reference),
        Part::Tag(tag) => tags::remove(app, &caller, reference, &tag).await,
        Part::TagHistory(tag) => tag_history::list(app, &caller, reference, &tag, parameters).await,
        Part::TagRollback(tag) => tag_history::roll_back(app, &caller, reference, &tag, body).await,
        Part::Aliases => aliases::list(app, &caller, reference),
        Part::Alias(alias) => aliases::remove(app, caller, reference, &alias).await,
        Part::Rename => rename(app, caller, reference, body).await,
        Part::Visibility => set_visibility(app, &caller, reference, body).await,
        Part::Builds => history::list(app, &caller, reference, parameters).await,
    }
}

/// Whether `reference` names a template to the caller.
///
/// # Errors
/// [`ApiError::Unavailable`] if the views cannot be read.
pub fn exists(app: &App, caller: &Caller, reference: &str) -> Result<bool, ApiError> {
    match templates::find(app, caller, reference) {
        Ok(_) => Ok(true),
        Err(ApiError::TemplateNotFound(_)) => Ok(false),
        Err(err) => Err(err),
    }
}

/// `GET /v1/templates`: the templates that the caller sees, as a bare array: its own, those of
/// others that are public, and the builtin one.
///
/// # Errors
/// [`ApiError::InvalidFields`] or [`ApiError::Unavailable`].
pub async fn list(
    app: &Arc<App>,
    caller: &Caller,
    parameters: &Parameters,
) -> Result<HttpResponse, ApiError> {
    let fields = parameters.fields()?;
    let (app, owner) = (Arc::clone(app), caller.owner.clone());
    let listing = tokio::task::spawn_blocking(move || {
        let rows = app.views.list(&owner)?;
        let mut templates = Vec::with_capacity(rows.len().saturating_add(1));
        templates.push(present::builtin(&app.config.builtins.base.image));
        for row in &rows {
            templates.push(info(&app.views, row)?);
        }
        templates.sort_by(|one, other| {
            (&one.namespace_slug, &one.name).cmp(&(&other.namespace_slug, &other.name))
        });
        let templates = templates
            .into_iter()
            .map(|info| project(info, fields.as_deref()));
        let templates: Vec<Shown> = templates.collect::<Result<_, ApiError>>()?;
        crate::wire::ascii::to_vec(&templates).map_err(ApiError::internal)
    });
    Ok(reply::json_bytes(StatusCode::OK, listing.await??))
}

/// `GET /v1/templates/refs/{ref}`: one template; as it was, and what the reference meant, if the
/// caller says when.
///
/// # Errors
/// [`ApiError::TemplateNotFound`] or [`ApiError::InvalidFields`].
async fn get(
    app: &Arc<App>,
    caller: &Caller,
    reference: &str,
    parameters: &Parameters,
) -> Result<HttpResponse, ApiError> {
    let fields = parameters.fields()?;
    let views = match parameters.get("at") {
        None => app.views.clone(),
        Some(at) => {
            let position = past::position(app, at).await?;
            past::of_reference(app, caller, reference, position).await?
        }
    };
    let (app, caller, reference) = (Arc::clone(app), caller.clone(), reference.to_owned());
    let looking = tokio::task::spawn_blocking(move || {
        let info = described(&views, &app, &caller, &reference)?;
        project(info, fields.as_deref())
    });
    reply::json(StatusCode::OK, &looking.await??)
}

/// The template that `reference` means. Without a tag it means the template as a whole, also if
/// none of its builds has the tag `default`; a tag or build that is written must be there.
fn described(
    views: &Views,
    app: &App,
    caller: &Caller,
    reference: &str,
) -> Result<TemplateInfo, ApiError> {
    let (row, parsed) = match templates::find_in(views, app, caller, reference)? {
        Meant::Builtin(image) => return Ok(present::builtin(&image)),
        Meant::Template(row, parsed) => (row, parsed),
    };
    if let Some(found) = views.resolve(&caller.owner, &parsed)? {
        return Ok(present::template(&found.template, Some(&found.build)));
    }
    let is_whole = match &parsed {
        TemplateRef::Id(_) => true,
        TemplateRef::Named { qualifier, .. } => qualifier.is_none(),
    };
    if is_whole && row.ready.is_some() {
        info(views, &row)
    } else {
        Err(templates::no_build(&row, reference))
    }
}

/// `DELETE /v1/templates/refs/{ref}`: the whole template, also if the reference has a tag.
async fn delete(app: &Arc<App>, caller: Caller, reference: &str) -> Result<HttpResponse, ApiError> {
    let row = templates::own(app, &caller, reference)?;
    templates::delete(app, caller, row).await?;
    Ok(reply::no_content())
}

/// `POST /v1/templates/refs/{ref}/rename`: the old name stays as an alias.
async fn rename(
    app: &Arc<App>,
    caller: Caller,
    reference: &str,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    let limits = &app.config.limits;
    let json = body.required_json(limits.json_body_bytes_max).await?;
    let row = templates::own(app, &caller, reference)?;
    let to = normalise::new_name(&json, &row.namespace, limits)?;
    let id = row.id.clone();
    templates::rename(app, caller, row, to).await?;
    changed(app, &id)
}

/// `PATCH /v1/templates/refs/{ref}/visibility`
async fn set_visibility(
    app: &Arc<App>,
    caller: &Caller,
    reference: &str,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    let limits = &app.config.limits;
    let json = body.required_json(limits.json_body_bytes_max).await?;
    let row = templates::own(app, caller, reference)?;
    let visibility = normalise::visibility(&json, limits)?;
    templates::set_visibility(app, caller, &row, visibility).await?;
    changed(app, &row.id)
}

/// The answer with a template that was changed; also if somebody has deleted it since.
///
/// # Errors
/// [`ApiError::Unavailable`] if the views cannot be read.
pub(super) fn changed(app: &App, id: &TemplateId) -> Result<HttpResponse, ApiError> {
    let row = app.views.template(id)?;
    let row = row.ok_or_else(|| ApiError::TemplateNotFound(id.to_string()))?;
    reply::json(StatusCode::OK, &info(&app.views, &row)?)
}

fn info(views: &Views, row: &TemplateRow) -> Result<TemplateInfo, ApiError> {
    Ok(present::template(row, shown_build(views, row)?.as_ref()))
}

/// The build whose defaults a template shows: its latest.
fn shown_build(views: &Views, template: &TemplateRow) -> Result<Option<BuildRow>, ApiError> {
    match &template.ready {
        None => Ok(None),
        Some(ready) => Ok(views.build(&ready.build_id)?),
    }
}

/// A template, or as much of it as was asked for, in that order.
enum Shown {
    Whole(Box<TemplateInfo>),
    Fields(Vec<(String, Value)>),
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Whole(info) => info.serialize(serializer),
            Self::Fields(fields) => {
                serializer.collect_map(fields.iter().map(|(key, value)| (key, value)))
            }
        }
    }
}

fn project(info: TemplateInfo, fields: Option<&[String]>) -> Result<Shown, ApiError> {
    let Some(fields) = fields else {
        return Ok(Shown::Whole(Box::new(info)));
    };
    let mut whole = serde_json::to_value(info).map_err(ApiError::internal)?;
    let shown = fields.iter().filter_map(|field| {
        // What a template does not have is left out.
        let value = whole.get_mut(field)?.take();
        Some((field.clone(), value))
    });
    Ok(Shown::Fields(shown.collect()))
}
