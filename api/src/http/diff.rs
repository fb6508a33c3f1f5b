//! What differs between two builds.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;

use super::error::ApiError;
use super::query::Parameters;
use super::{builds, reply};
use crate::service::App;
use crate::service::actors::Labels;
use crate::service::diff::{Side, compare};
use crate::service::keys::Caller;
use crate::service::owners::request_of;
use crate::wire::ascii;

/// `GET /v1/templates/builds/{id}/diff?with={id}`: from the build in the path to the other one. Both
/// are the caller's own; they may be of different templates, and not be over.
///
/// # Errors
/// [`ApiError::BuildNotFound`] if one is not there, or is somebody else's; [`ApiError::Invalid`]
/// without the other one.
pub async fn get(
    app: &Arc<App>,
    caller: &Caller,
    id: &str,
    parameters: &Parameters,
) -> Result<HttpResponse, ApiError> {
    let before = builds::own(app, caller, id)?;
    let with = parameters
        .get("with")
        .ok_or_else(|| ApiError::field("with", "is required: the id of the other build"))?;
    let after = builds::own(app, caller, with)?;
    let requests = (
        request_of(&app.log, &before.build_id).await?,
        request_of(&app.log, &after.build_id).await?,
    );
    let labels = Labels::of(app, &caller.owner).await?;
    let app = Arc::clone(app);
    // Long definitions take a while to be compared.
    let answering = tokio::task::spawn_blocking(move || {
        let before = Side::read(&app, before, requests.0)?;
        let after = Side::read(&app, after, requests.1)?;
        ascii::to_vec(&compare(&before, &after, &labels)).map_err(ApiError::internal)
    });
    Ok(reply::json_bytes(StatusCode::OK, answering.await??))
}
