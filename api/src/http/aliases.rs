//! The names that a template had before, and that still mean it.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use domain::name::TemplateName;
use projections::templates::TemplateRow;

use super::error::ApiError;
use super::reply;
use crate::service::App;
use crate::service::keys::Caller;
use crate::service::templates::{self, Meant};
use crate::wire::template::AliasInfo;

/// `GET …/aliases`: the aliases as a bare array, by name. A builtin template has none.
///
/// # Errors
/// [`ApiError::TemplateNotFound`].
pub fn list(app: &App, caller: &Caller, reference: &str) -> Result<HttpResponse, ApiError> {
    if let Meant::Builtin(_) = templates::find(app, caller, reference)? {
        return reply::json(StatusCode::OK, &[(); 0]);
    }
    let row = templates::seen(app, caller, reference)?;
    let aliases = row.aliases.iter().map(|(alias, since)| AliasInfo {
        alias_ref: format!("{}/{alias}", row.namespace),
        created_at: since.to_string(),
    });
    reply::json(StatusCode::OK, &aliases.collect::<Vec<_>>())
}

/// `DELETE …/aliases/{alias}`: the alias as `namespace/name` or as a name.
///
/// # Errors
/// [`ApiError::TemplateNotFound`] or [`ApiError::Forbidden`]; [`ApiError::NotFound`] if the
/// template does not have the alias.
pub async fn remove(
    app: &Arc<App>,
    caller: Caller,
    reference: &str,
    alias: &str,
) -> Result<HttpResponse, ApiError> {
    let row = templates::own(app, &caller, reference)?;
    let name = read(&row, alias).ok_or_else(|| {
        let alias: String = alias.chars().take(200).collect();
        ApiError::NotFound(format!("the template has no alias `{alias}`"))
    })?;
    templates::remove_alias(app, caller, row, name).await?;
    Ok(reply::no_content())
}

/// The name of an alias, which is in the template's own namespace.
fn read(row: &TemplateRow, alias: &str) -> Option<TemplateName> {
    match alias.split_once('/') {
        None => alias.parse().ok(),
        Some((namespace, name)) if namespace == row.namespace.as_str() => name.parse().ok(),
        Some(_) => None,
    }
}
