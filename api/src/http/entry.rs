//! Where every request comes in: its id, its route, its caller, and an answer in the contract's
//! shape whatever happens.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use actix_web::http::header::{CONTENT_LENGTH, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::FutureExt as _;
use tracing::Instrument as _;

use super::body::Body;
use super::error::ApiError;
use super::query::Parameters;
use super::route::Route;
use super::{
    auth, blobs, builds, claims, create, diff, events, inspect, lineage, logs, metrics, namespaces,
    openapi, promote, reply, request_id, templates, terms, webhooks,
};
use crate::service::App;

/// Answers a request.
pub async fn entry(request: HttpRequest, payload: Payload, app: Data<App>) -> HttpResponse {
    let app = app.into_inner();
    let _open = app.open.token();
    let id = request_id::of(&request, &app);
    let span = tracing::info_span!(
        "request",
        request.id = id,
        method = %request.method(),
        route = tracing::field::Empty,
        owner = tracing::field::Empty,
    );
    let since = Instant::now();
    let mut body = body(&request, payload, &app);
    let answering = answer(&request, &mut body, &app);
    let response = guarded(&id, answering).instrument(span).await;
    let route = Route::find(request.uri().path()).map_or("none", |route| route.name());
    let status = response.status().as_u16();
    app.metrics.answered(route, status, since.elapsed());
    // A refusal that comes before the whole body was read would not be read by the client.
    body.drain(app.config.limits.refused_body_bytes_max).await;
    response
}

/// The answer of `answering`, also if it is refused or panics; with the request's id.
pub async fn guarded(
    request_id: &str,
    answering: impl Future<Output = Result<HttpResponse, ApiError>>,
) -> HttpResponse {
    let mut response = match AssertUnwindSafe(answering).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(refusal)) => refusal.response(request_id),
        Err(_) => {
            // The panic hook has said where; what it said may hold anything, so it goes no further.
            tracing::error!("a handler panicked");
            ApiError::Internal(None).response(request_id)
        }
    };
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(request_id::HEADER, value);
    }
    response
}

/// The body of `request`.
pub(super) fn body(request: &HttpRequest, payload: Payload, app: &App) -> Body {
    let declared = request.headers().get(CONTENT_LENGTH);
    let declared = declared.and_then(|value| value.to_str().ok()?.parse().ok());
    Body::new(payload, declared, &app.config.limits)
}

async fn answer(
    request: &HttpRequest,
    body: &mut Body,
    app: &Arc<App>,
) -> Result<HttpResponse, ApiError> {
    // The path as it was sent: decoded segments would hide where they end.
    let route = Route::find(request.uri().path())?;
    tracing::Span::current().record("route", route.name());
    let allowed = route.methods();
    if !allowed.is_empty() && !allowed.contains(&request.method().as_str()) {
        return Err(ApiError::MethodNotAllowed { allowed });
    }
    if route.is_public() {
        return public(&route, app);
    }
    let caller = auth::caller(request.headers(), &app.keys, &app.config.limits)?;
    tracing::Span::current().record("owner", caller.owner.as_str());
    let parameters = Parameters::read(request.query_string())?;
    let terms = || terms::read(request.headers(), &app.config.limits);
    match route {
        Route::Health | Route::Ready | Route::OpenApi => public(&route, app),
        Route::Metrics => metrics::get(app),
        Route::Events => events::get(app, &caller, request.headers(), &parameters).await,
        Route::Machines => reply::json(StatusCode::OK, &[(); 0]),
        Route::Templates if request.method() == Method::POST => {
            create::create(app, caller, body).await
        }
        Route::Templates => templates::list(app, &caller, &parameters).await,
        Route::Template(targets) => {
            let method = request.method().as_str();
            let exists = |reference: &str| templates::exists(app, &caller, reference);
            let target = targets.choose(method, exists)?;
            tracing::Span::current().record("route", target.name());
            templates::answer(app, caller, target, method, &parameters, body).await
        }
        Route::Claims => claims::reserve(app, &caller, body).await,
        Route::Claim(token) => claims::release(app, &caller, &token).await,
        Route::Namespace(slug) => namespaces::get(app, &caller, &slug),
        Route::BuildStream => builds::build(app, caller, terms()?, body).await,
        Route::Builds => builds::start(app, caller, terms()?, body).await,
        Route::Build(id) => builds::status(app, &caller, &id, &parameters).await,
        Route::BuildLogs(id) => logs::get(app, &caller, &id, &parameters),
        Route::BuildEvents(id) => events::trail(app, &caller, &id, &parameters).await,
        Route::CancelBuild(id) => builds::cancel(app, &caller, &id, body).await,
        Route::RetryBuild(id) => builds::retry(app, caller, &id, terms()?, body).await,
        Route::PromoteBuild(id) => promote::promote(app, &caller, &id, body).await,
        Route::BuildLineage(id) => lineage::get(app, &caller, &id).await,
        Route::BuildDiff(id) => diff::get(app, &caller, &id, &parameters).await,
        Route::BuildTimeline(id) => lineage::timeline(app, &caller, &id).await,
        Route::Validate => inspect::validate(app, &caller, body).await,
        Route::Plan => inspect::plan(app, &caller, body).await,
        Route::Preflight => blobs::preflight(app, &caller, body).await,
        Route::Blob(id) => blobs::put(app, &caller, &id, body).await,
        Route::Webhooks if request.method() == Method::POST => {
            webhooks::register(app, &caller, body).await
        }
        Route::Webhooks => webhooks::list(app, &caller),
        Route::Webhook(id) => match request.method().as_str() {
            "PATCH" => webhooks::pause(app, &caller, &id, body).await,
            "DELETE" => webhooks::delete(app, &caller, &id).await,
            _ => webhooks::get(app, &caller, &id).await,
        },
        Route::ReplayWebhook(id) => webhooks::replay(app, &caller, &id, body).await,
        Route::Deliveries(id) => webhooks::deliveries(app, &caller, &id, &parameters).await,
        Route::Redeliver(id, delivery) => webhooks::redeliver(app, &caller, &id, &delivery).await,
        Route::Later(what) => Err(ApiError::NotImplemented(what.to_owned())),
    }
}

/// What answers everybody.
fn public(route: &Route, app: &App) -> Result<HttpResponse, ApiError> {
    if matches!(route, Route::OpenApi) {
        return Ok(openapi::get());
    }
    let asked = matches!(route, Route::Ready);
    let not_ready = asked.then(|| app.not_ready()).flatten();
    match not_ready {
        None => reply::json(StatusCode::OK, &serde_json::json!({"status": "ok"})),
        Some(message) => Err(ApiError::NotReady(message)),
    }
}
