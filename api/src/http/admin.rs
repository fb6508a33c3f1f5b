//! The operator's door: a socket in the data folder that only its owner can open. Whoever can open
//! it could as well read and change the data itself, so there are no keys here.

mod events;

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};

use super::body::Body;
use super::entry::{body, guarded};
use super::error::ApiError;
use super::query::Parameters;
use super::{reply, request_id, route};
use crate::service::App;
use crate::service::cache::CacheError;
use crate::service::operator::{self, OperatorError};
use crate::wire::admin::NewKey;
use crate::wire::cache::{Collect, Kind};

/// The largest body that is read here.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Answers an operator's command.
pub async fn entry(request: HttpRequest, payload: Payload, app: Data<App>) -> HttpResponse {
    let app = app.into_inner();
    let id = request_id::of(&request, &app);
    let mut body = body(&request, payload, &app);
    guarded(&id, answer(&request, &mut body, &app)).await
}

async fn answer(
    request: &HttpRequest,
    body: &mut Body,
    app: &Arc<App>,
) -> Result<HttpResponse, ApiError> {
    let path = request.uri().path();
    let segments: Vec<String> = path
        .trim_start_matches('/')
        .split('/')
        .map(route::decode)
        .collect::<Result<_, _>>()?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (request.method().as_str(), segments.as_slice()) {
        ("GET", ["admin", "status"]) => {
            let ready = app.not_ready().is_none();
            reply::json(StatusCode::OK, &serde_json::json!({"ready": ready}))
        }
        ("GET", ["admin", "keys"]) => {
            let keys = operator::list_keys(&app.dispatcher)
                .await
                .map_err(refused)?;
            reply::json(StatusCode::OK, &keys)
        }
        ("POST", ["admin", "keys"]) => {
            let bytes = body.bytes(BODY_BYTES_MAX).await?;
            let new: NewKey = serde_json::from_slice(&bytes)
                .map_err(|err| ApiError::BadRequest(err.to_string()))?;
            let created = operator::create_key(&app.dispatcher, &app.ids, new)
                .await
                .map_err(refused)?;
            refresh_keys(app).await?;
            reply::json(StatusCode::CREATED, &created)
        }
        ("DELETE", ["admin", "keys", id]) => {
            operator::revoke_key(&app.dispatcher, &app.ids, id)
                .await
                .map_err(refused)?;
            refresh_keys(app).await?;
            Ok(reply::no_content())
        }
        ("GET", ["admin", "templates", reference]) => {
            let parameters = Parameters::read(request.query_string())?;
            let owner = parameters.get("owner").unwrap_or("default");
            let resolved = operator::resolve(&app.views, owner, reference).map_err(refused)?;
            reply::json(StatusCode::OK, &resolved)
        }
        (method, ["admin", "events", rest @ ..]) => {
            let parameters = Parameters::read(request.query_string())?;
            events::answer(method, rest, &parameters, app).await
        }
        (method, ["admin", "cache", rest @ ..]) => cache(method, rest, request, body, app).await,
        _ => Err(ApiError::RouteNotFound),
    }
}

/// What is kept to be used again.
async fn cache(
    method: &str,
    segments: &[&str],
    request: &HttpRequest,
    body: &mut Body,
    app: &App,
) -> Result<HttpResponse, ApiError> {
    let parameters = Parameters::read(request.query_string())?;
    let kind = parameters
        .get("kind")
        .map(|word| serde_json::from_value::<Kind>(word.into()))
        .transpose()
        .map_err(|_| ApiError::field("kind", "must be layer, artifact or blob"))?;
    match (method, segments) {
        ("GET", []) => {
            let list = app.desk.list(kind).await.map_err(unanswered)?;
            reply::json(StatusCode::OK, &list)
        }
        ("POST", ["gc"]) => {
            let bytes = body.bytes(BODY_BYTES_MAX).await?;
            let wanted: Collect = serde_json::from_slice(&bytes)
                .map_err(|err| ApiError::BadRequest(err.to_string()))?;
            let collected = app.desk.collect(wanted).await.map_err(unanswered)?;
            reply::json(StatusCode::OK, &collected)
        }
        ("GET", ["entries", key]) => {
            let explanation = app.desk.explain(key, kind).await.map_err(unanswered)?;
            reply::json(StatusCode::OK, &explanation)
        }
        ("DELETE", ["entries", key]) => {
            let eviction = app.desk.evict(key, kind).await.map_err(unanswered)?;
            reply::json(StatusCode::OK, &eviction)
        }
        _ => Err(ApiError::RouteNotFound),
    }
}

fn unanswered(err: CacheError) -> ApiError {
    match err {
        CacheError::Ambiguous { .. } | CacheError::NoKey => ApiError::BadRequest(err.to_string()),
        err @ (CacheError::Artifacts(_)
        | CacheError::Layers(_)
        | CacheError::Blobs(_)
        | CacheError::Views(_)
        | CacheError::Stalled(_)
        | CacheError::Log(_)
        | CacheError::Load(_)
        | CacheError::Listing(_)
        | CacheError::Record(_)
        | CacheError::Uploads(_)
        | CacheError::Interrupted(_)) => ApiError::internal(err),
    }
}

/// The change holds from the moment of the answer.
async fn refresh_keys(app: &App) -> Result<(), ApiError> {
    let (keys, _) = app
        .dispatcher
        .load_keys()
        .await
        .map_err(crate::service::accept::dispatch_error)?;
    app.keys.replace(&keys);
    Ok(())
}

fn refused(err: OperatorError) -> ApiError {
    match err {
        OperatorError::Invalid(_) | OperatorError::Label => ApiError::BadRequest(err.to_string()),
        OperatorError::UnknownKey(_) => ApiError::KeyNotFound(err.to_string()),
        OperatorError::UnknownTemplate { .. } => ApiError::BadReference(err.to_string()),
        err @ (OperatorError::Entropy(_)
        | OperatorError::Load(_)
        | OperatorError::Record(_)
        | OperatorError::Views(_)) => ApiError::internal(err),
    }
}
