//! Templates: listing and looking up.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use domain::name::{Owner, TemplateRef};
use projections::builds::BuildRow;
use projections::templates::TemplateRow;
use serde_json::Value;

use super::error::ApiError;
use super::query::Parameters;
use super::reply;
use crate::service::keys::Caller;
use crate::service::{App, present};
use crate::wire::Object;
use crate::wire::template::TemplateInfo;

/// `GET /v1/templates`: the templates that the caller sees, as a bare array.
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
        let templates = rows.iter().map(|row| {
            let build = shown_build(&app, row)?;
            project(&present::template(row, build.as_ref()), fields.as_deref())
        });
        let templates: Vec<Value> = templates.collect::<Result<_, ApiError>>()?;
        crate::wire::ascii::to_vec(&templates).map_err(ApiError::internal)
    });
    Ok(reply::json_bytes(StatusCode::OK, listing.await??))
}

/// `GET /v1/templates/refs/{ref}`: one template.
///
/// # Errors
/// [`ApiError::TemplateNotFound`] or [`ApiError::InvalidFields`].
pub async fn get(
    app: &Arc<App>,
    caller: &Caller,
    reference: &str,
    parameters: &Parameters,
) -> Result<HttpResponse, ApiError> {
    let fields = parameters.fields()?;
    let (app, owner, reference) = (Arc::clone(app), caller.owner.clone(), reference.to_owned());
    let looking = tokio::task::spawn_blocking(move || {
        let found = find(&app, &owner, &reference)?;
        let (template, build) = found.ok_or_else(|| {
            let shown: String = reference.chars().take(200).collect();
            ApiError::TemplateNotFound(shown)
        })?;
        let info = present::template(&template, build.as_ref());
        project(&info, fields.as_deref())
    });
    reply::json(StatusCode::OK, &looking.await??)
}

/// The template that `reference` means. Without a tag it means the template as a whole, also if
/// none of its builds has the tag `default`; a tag or build that is written must be there.
fn find(
    app: &App,
    owner: &Owner,
    reference: &str,
) -> Result<Option<(TemplateRow, Option<BuildRow>)>, ApiError> {
    let Ok(reference) = reference.parse::<TemplateRef>() else {
        return Ok(None);
    };
    if let Some(found) = app.views.resolve(owner, &reference)? {
        return Ok(Some((found.template, Some(found.build))));
    }
    let whole = match &reference {
        TemplateRef::Id(_) => true,
        TemplateRef::Named { qualifier, .. } => qualifier.is_none(),
    };
    let Some(template) = app.views.find(owner, &reference)? else {
        return Ok(None);
    };
    if !whole || template.ready.is_none() {
        return Ok(None);
    }
    let build = shown_build(app, &template)?;
    Ok(Some((template, build)))
}

/// The build whose defaults a template shows: its latest.
fn shown_build(app: &App, template: &TemplateRow) -> Result<Option<BuildRow>, ApiError> {
    match &template.ready {
        None => Ok(None),
        Some(ready) => Ok(app.views.build(&ready.build_id)?),
    }
}

/// The whole template, or the asked keys of it in the asked order.
fn project(info: &TemplateInfo, fields: Option<&[String]>) -> Result<Value, ApiError> {
    let whole = serde_json::to_value(info).map_err(ApiError::internal)?;
    let (Value::Object(mut whole), Some(fields)) = (whole.clone(), fields) else {
        return Ok(whole);
    };
    let keys = fields.iter().filter_map(|field| {
        let value = whole.remove(field)?;
        Some((field.clone(), value))
    });
    Ok(Value::Object(keys.collect::<Object>()))
}
