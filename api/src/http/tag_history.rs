//! Where a tag has pointed to, and taking it back there.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use domain::ids::BuildId;
use domain::name::Tag;
use projections::builds::BuildStatus;
use projections::templates::{TagCause, TagMove, TemplateRow};

use super::body::Body;
use super::error::ApiError;
use super::query::Parameters;
use super::{reply, templates as handlers};
use crate::limits::{PAGE_BUILD_COUNT_DEFAULT, PAGE_BUILD_COUNT_MAX};
use crate::normalise::{self, RollbackTarget};
use crate::service::actors::Labels;
use crate::service::keys::Caller;
use crate::service::{App, present, templates};
use crate::wire::ascii;
use crate::wire::position::WirePosition;
use crate::wire::tag::{TagHistory, TagMove as WireMove};

/// What is repeated of a tag that is none.
const SHOWN_CHARS_MAX: usize = 200;

/// `GET …/tags/{tag}/history`: the moves of a tag, the latest first, page by page; also of one that
/// was removed. They tell what the owner's keys did, so they are the owner's alone.
///
/// # Errors
/// [`ApiError::TemplateNotFound`] or [`ApiError::Forbidden`]; [`ApiError::NotFound`] if the template
/// has never had the tag; [`ApiError::Invalid`], naming the parameter.
pub async fn list(
    app: &Arc<App>,
    caller: &Caller,
    reference: &str,
    tag: &str,
    parameters: &Parameters,
) -> Result<HttpResponse, ApiError> {
    let row = templates::own(app, caller, reference)?;
    let tag = known(app, &row, tag)?;
    let before = parameters.get("cursor").map(str::parse::<WirePosition>);
    let before = before
        .transpose()
        .map_err(|invalid| ApiError::field("cursor", invalid.to_string()))?
        .map(|WirePosition(position)| position);
    let count_max = parameters.page_size(PAGE_BUILD_COUNT_DEFAULT, PAGE_BUILD_COUNT_MAX)?;
    let labels = Labels::of(app, &caller.owner).await?;
    let app = Arc::clone(app);
    let answering = tokio::task::spawn_blocking(move || {
        // One more than asked for shows that there is another page.
        let scanned_max = count_max.saturating_add(1);
        let mut found = app.views.tag_moves(&row.id, &tag, before, scanned_max)?;
        let has_more = found.len() > count_max;
        found.truncate(count_max);
        let last = found.last().filter(|_| has_more);
        let next_cursor = last.map(|last| WirePosition(last.position).to_string());
        let moves = found
            .into_iter()
            .map(|tag_move| shown(&app, &row, tag_move, &labels));
        let page = TagHistory {
            moves: moves.collect::<Result<_, ApiError>>()?,
            next_cursor,
        };
        ascii::to_vec(&page).map_err(ApiError::internal)
    });
    Ok(reply::json_bytes(StatusCode::OK, answering.await??))
}

/// `POST …/tags/{tag}/rollback`: points the tag to a build that it has pointed to before.
///
/// # Errors
/// As [`list`]; [`ApiError::Transition`] if the tag has never pointed there, or the build's artifact
/// is not there any more; [`ApiError::Conflict`] if the template was deleted at the same time.
pub async fn roll_back(
    app: &App,
    caller: &Caller,
    reference: &str,
    tag: &str,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    let limits = &app.config.limits;
    let json = body.required_json(limits.json_body_bytes_max).await?;
    let row = templates::own(app, caller, reference)?;
    let tag = known(app, &row, tag)?;
    let target = normalise::rollback(&json, limits)?;
    let build = target_build(app, &row, &tag, &target)?;
    templates::assign(app, caller, &row, build, vec![tag]).await?;
    handlers::changed(app, &row.id)
}

/// The tag, if the template has ever had it.
fn known(app: &App, row: &TemplateRow, text: &str) -> Result<Tag, ApiError> {
    let unknown = || {
        let text: String = text.chars().take(SHOWN_CHARS_MAX).collect();
        ApiError::NotFound(format!("the template has never had a tag `{text}`"))
    };
    let tag: Tag = text.parse().map_err(|_| unknown())?;
    let moves = app.views.tag_moves(&row.id, &tag, None, 1)?;
    if moves.is_empty() {
        return Err(unknown());
    }
    Ok(tag)
}

/// The build that a tag is taken back to.
fn target_build(
    app: &App,
    row: &TemplateRow,
    tag: &Tag,
    target: &RollbackTarget,
) -> Result<BuildId, ApiError> {
    let found = match target {
        RollbackTarget::Build(id) => app.views.tag_move_to(&row.id, tag, id)?,
        RollbackTarget::Position(position) => app.views.tag_move_at(&row.id, tag, *position)?,
    };
    let refused = |why: &str| ApiError::Transition(format!("the tag `{tag}` {why}"));
    let tag_move = found.ok_or_else(|| match target {
        RollbackTarget::Build(id) => refused(&format!("has never pointed to the build `{id}`")),
        RollbackTarget::Position(_) => refused("was not moved by the event at this position"),
    })?;
    let id = tag_move
        .build_id
        .ok_or_else(|| refused("was removed by the event at this position; delete it instead"))?;
    let build = app.views.build(&id)?;
    match build {
        Some(build) if build.is_usable() => Ok(id),
        Some(build) if build.status == BuildStatus::Ready => Err(refused(&format!(
            "cannot go back to the build `{id}`, whose artifact has expired; build it again"
        ))),
        Some(_) | None => Err(refused(&format!(
            "never pointed to `{id}` as a ready build"
        ))),
    }
}

fn shown(
    app: &App,
    row: &TemplateRow,
    tag_move: TagMove,
    labels: &Labels,
) -> Result<WireMove, ApiError> {
    let build = match &tag_move.build_id {
        Some(id) => app.views.build(id)?,
        None => None,
    };
    let asked = build.as_ref().filter(|_| tag_move.cause == TagCause::Built);
    Ok(WireMove {
        position: WirePosition(tag_move.position),
        at: tag_move.at.to_string(),
        cause: tag_move.cause.as_str(),
        by: labels.actor(&tag_move.by),
        requested_by: asked.map(|build| labels.actor(&build.triggered_by)),
        build_id: tag_move.build_id.map(|id| id.to_string()),
        previous_build_id: tag_move.previous.map(|id| id.to_string()),
        promotability: build.map(|build| present::promotability(&build, Some(row))),
    })
}
