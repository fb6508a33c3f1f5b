//! Answers about the past: what `at` means, and the views as they were then.

use domain::ports::EventReader as _;
use domain::recorded::Position;
use domain::time::Timestamp;
use projections::Views;
use projections::builds::BuildRow;
use projections::past::PastError;

use super::keys::Caller;
use super::{App, templates};
use crate::http::error::ApiError;
use crate::wire::position::WirePosition;

/// The parameter that says when.
const AT: &str = "at";

/// The position that `at` means: itself, or that of the last event not later than it. The views show
/// that event.
///
/// # Errors
/// [`ApiError::Invalid`] if it is neither a position nor a time, or nothing has happened there yet.
pub async fn position(app: &App, at: &str) -> Result<Position, ApiError> {
    let position = if let Ok(WirePosition(position)) = at.parse() {
        if position > app.log.head() {
            return Err(ApiError::field(AT, "lies behind the last event"));
        }
        position
    } else {
        let time = time(at)?;
        if time > app.clock.0.now() {
            return Err(ApiError::field(AT, "lies in the future"));
        }
        let found = app.log.position_at(time).await;
        found.map_err(|err| ApiError::unavailable("the event log cannot be read", err))?
    };
    let shown = app.views.wait_for(position, app.read_your_write()).await;
    shown.map_err(|stalled| ApiError::unavailable("the views are behind", stalled))?;
    Ok(position)
}

fn time(at: &str) -> Result<Timestamp, ApiError> {
    // A plus that is not encoded arrives as a space.
    at.replace(' ', "+").parse().map_err(|_| {
        ApiError::field(
            AT,
            "must be a position that this service gave, or a time as in RFC 3339",
        )
    })
}

/// Views that show the build `row` as it was.
///
/// # Errors
/// [`ApiError::Invalid`] if too much has happened to it; [`ApiError::Unavailable`].
pub async fn of_build(app: &App, row: &BuildRow, at: Position) -> Result<Views, ApiError> {
    let _room = app.past_views.acquire().await.map_err(ApiError::internal)?;
    let folding = app.views.build_at(&app.log, row, at);
    folding.await.map_err(refused)
}

/// Views that show what `reference` meant to the caller.
///
/// # Errors
/// As [`of_build`]; [`ApiError::TemplateNotFound`] if it cannot refer to anything.
pub async fn of_reference(
    app: &App,
    caller: &Caller,
    reference: &str,
    at: Position,
) -> Result<Views, ApiError> {
    let reference = templates::parse(caller, reference)?;
    let _room = app.past_views.acquire().await.map_err(ApiError::internal)?;
    let folding = app
        .views
        .reference_at(&app.log, &caller.owner, &reference, at);
    folding.await.map_err(refused)
}

fn refused(err: PastError) -> ApiError {
    match err {
        PastError::TooLong { .. } => ApiError::field(AT, format!("is too late: {err}")),
        PastError::Log(err) => ApiError::unavailable("the event log cannot be read", err),
        PastError::Store(err) => err.into(),
        PastError::Interrupted(err) => ApiError::internal(err),
    }
}
