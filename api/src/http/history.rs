//! The builds of a template, the newest first: contract/behaviour.md section 3.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use domain::definition::{Backend, SourceType};
use domain::name::{Qualifier, TemplateRef};
use projections::builds::{BuildFilter, BuildStatus, Cursor};
use projections::templates::TemplateRow;

use super::error::ApiError;
use super::query::Parameters;
use super::reply;
use crate::limits::{PAGE_BUILD_COUNT_DEFAULT, PAGE_BUILD_COUNT_MAX};
use crate::service::keys::Caller;
use crate::service::templates::{self, Meant};
use crate::service::{App, present};
use crate::wire::ascii;
use crate::wire::build::BuildList;

const STATUSES: [BuildStatus; 5] = [
    BuildStatus::Waiting,
    BuildStatus::Building,
    BuildStatus::Ready,
    BuildStatus::Error,
    BuildStatus::Cancelled,
];
const BACKENDS: [Backend; 2] = [Backend::Native, Backend::Buildkit];
const SOURCE_TYPES: [SourceType; 4] = [
    SourceType::Declarative,
    SourceType::Dockerfile,
    SourceType::OciImport,
    SourceType::TemplateBase,
];

/// `GET /v1/templates/refs/{ref}/builds` and `GET /v1/templates/{id}/builds`: the caller's builds
/// of the template as a whole, whichever tag or build the reference names; of a public template of
/// somebody else, none.
///
/// # Errors
/// [`ApiError::TemplateNotFound`], also if it was deleted; [`ApiError::Invalid`], naming the filter.
pub async fn list(
    app: &Arc<App>,
    caller: &Caller,
    reference: &str,
    parameters: &Parameters,
) -> Result<HttpResponse, ApiError> {
    let filter = BuildFilter {
        owner: Some(caller.owner.clone()),
        status: word(parameters, "status", &STATUSES, BuildStatus::as_str)?,
        backend: word(parameters, "backend", &BACKENDS, present::backend)?,
        source_type: word(
            parameters,
            "source_type",
            &SOURCE_TYPES,
            present::source_type,
        )?,
    };
    let cursor = cursor(parameters)?;
    let count_max = parameters.page_size(PAGE_BUILD_COUNT_DEFAULT, PAGE_BUILD_COUNT_MAX)?;
    let (app, caller, reference) = (Arc::clone(app), caller.clone(), reference.to_owned());
    let listing = tokio::task::spawn_blocking(move || {
        let Some(template) = listed(&app, &caller, &reference)? else {
            return ascii::to_vec(&BuildList::default()).map_err(ApiError::internal);
        };
        let page = app
            .views
            .builds_of_template(&template.id, &filter, cursor, count_max)?;
        let list = BuildList {
            builds: page
                .items
                .iter()
                .map(|row| present::build(row, Some(&template), &app.config.retention))
                .collect(),
            next_cursor: page.next.map(|cursor| cursor.to_string()),
        };
        ascii::to_vec(&list).map_err(ApiError::internal)
    });
    Ok(reply::json_bytes(StatusCode::OK, listing.await??))
}

/// The template whose builds are listed; none if it is a builtin one, which nobody built. A tag that
/// is written must be there; a build need not be ready.
fn listed(app: &App, caller: &Caller, reference: &str) -> Result<Option<TemplateRow>, ApiError> {
    match templates::find(app, caller, reference)? {
        Meant::Builtin(_) => Ok(None),
        Meant::Template(row, meant) => match meant {
            TemplateRef::Named {
                qualifier: Some(Qualifier::Tag(_)),
                ..
            } => templates::seen(app, caller, reference).map(Some),
            TemplateRef::Named { .. } | TemplateRef::Id(_) => Ok(Some(*row)),
        },
    }
}

/// The value of a filter, which is one of `known`.
fn word<T: Copy>(
    parameters: &Parameters,
    name: &str,
    known: &[T],
    text: impl Fn(T) -> &'static str,
) -> Result<Option<T>, ApiError> {
    let Some(asked) = parameters.get(name) else {
        return Ok(None);
    };
    let found = known.iter().copied().find(|known| text(*known) == asked);
    found.map(Some).ok_or_else(|| {
        let known: Vec<&str> = known.iter().copied().map(text).collect();
        ApiError::field(name, format!("must be one of {}", known.join(", ")))
    })
}

fn cursor(parameters: &Parameters) -> Result<Option<Cursor>, ApiError> {
    let cursor = parameters.get("cursor").map(str::parse::<Cursor>);
    cursor
        .transpose()
        .map_err(|invalid| ApiError::field("cursor", invalid.to_string()))
}
