//! Namespaces: whose they are, as far as the caller may know.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use domain::name::Namespace;

use super::error::ApiError;
use super::reply;
use crate::service::App;
use crate::service::keys::Caller;
use crate::wire::template::NamespaceInfo;

/// `GET /v1/templates/namespaces/{slug}`: the system's, the caller's own, or one with a public
/// template. Of any other nobody is told whether it is there.
///
/// # Errors
/// [`ApiError::NotFound`].
pub fn get(app: &App, caller: &Caller, slug: &str) -> Result<HttpResponse, ApiError> {
    let unknown = || {
        let slug: String = slug.chars().take(80).collect();
        ApiError::NotFound(format!("there is no namespace `{slug}`"))
    };
    let namespace: Namespace = slug.parse().map_err(|_| unknown())?;
    let is_system = namespace == Namespace::system();
    let is_default = namespace == caller.namespace;
    if !is_system && !is_default && !app.views.has_public(&namespace)? {
        return Err(unknown());
    }
    let info = NamespaceInfo {
        slug: namespace.to_string(),
        kind: if is_system { "system" } else { "user" },
        is_default,
    };
    reply::json(StatusCode::OK, &info)
}
