//! The route table: the whole API on one page.
//!
//! Routes are found on the raw path, segment by segment, and only then is each segment decoded: a
//! reference travels as one segment with `%2F` in it (contract/behaviour.md section 2). Nothing
//! ever redirects; a trailing slash means the same path.

mod target;

pub use target::{Part, Target, Targets};

use super::error::ApiError;

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(strum::EnumIter))]
pub enum Route {
    /// `GET /healthz`: the process answers.
    Health,
    /// `GET /readyz`: everything that builds need is there.
    Ready,
    /// `GET /openapi.json`: what there is.
    OpenApi,
    /// `GET /metrics`: figures about the service.
    Metrics,
    /// `GET /v1/events`: the caller's part of the log.
    Events,
    /// `GET /v1/machines`: for the client's doctor.
    Machines,
    /// `GET /v1/templates`, and `POST /v1/templates`: builds and answers when it is over.
    Templates,
    /// `POST /v1/templates/build`: builds and streams the log.
    BuildStream,
    /// `POST /v1/templates/builds`: builds in the background.
    Builds,
    /// `GET /v1/templates/builds/{id}`
    Build(String),
    /// `GET /v1/templates/builds/{id}/logs`
    BuildLogs(String),
    /// `GET /v1/templates/builds/{id}/events`
    BuildEvents(String),
    /// `POST /v1/templates/builds/{id}/cancel`
    CancelBuild(String),
    /// `POST /v1/templates/builds/{id}/retry`
    RetryBuild(String),
    /// `POST /v1/templates/builds/{id}/promote`
    PromoteBuild(String),
    /// `GET /v1/templates/builds/{id}/lineage`
    BuildLineage(String),
    /// `GET /v1/templates/builds/{id}/diff`
    BuildDiff(String),
    /// `GET /v1/templates/builds/{id}/timeline`
    BuildTimeline(String),
    /// `POST /v1/templates/validate`: whether a request would be accepted.
    Validate,
    /// `POST /v1/templates/plan`: what a request would build.
    Plan,
    /// `POST /v1/templates/blobs/preflight`
    Preflight,
    /// `PUT /v1/templates/blobs/{id}`
    Blob(String),
    /// `POST /v1/templates/claims`
    Claims,
    /// `DELETE /v1/templates/claims/{claim_token}`
    Claim(String),
    /// `GET /v1/templates/namespaces/{slug}`
    Namespace(String),
    /// `GET /v1/webhooks` and `POST /v1/webhooks`
    Webhooks,
    /// `GET`, `PATCH` and `DELETE /v1/webhooks/{id}`
    Webhook(String),
    /// `POST /v1/webhooks/{id}/replay`
    ReplayWebhook(String),
    /// `GET /v1/webhooks/{id}/deliveries`
    Deliveries(String),
    /// `POST /v1/webhooks/{id}/deliveries/{delivery}/redeliver`
    Redeliver(String, String),
    /// Everything below `/v1/templates/refs/{ref}` and `/v1/templates/{id}`.
    #[cfg_attr(test, strum(disabled))]
    Template(Targets),
    /// Published, and not served yet.
    Later(&'static str),
}

/// What cannot be a template's id or name in a path, because something else is there.
const FIXED: [&str; 8] = [
    "blobs",
    "build",
    "builds",
    "claims",
    "namespaces",
    "plan",
    "refs",
    "validate",
];

impl Route {
    /// Where `raw_path` leads to.
    ///
    /// # Errors
    /// [`ApiError::RouteNotFound`], or [`ApiError::BadRequest`] if a segment is badly encoded.
    pub fn find(raw_path: &str) -> Result<Self, ApiError> {
        let path = raw_path.strip_prefix('/').unwrap_or(raw_path);
        let path = path.strip_suffix('/').unwrap_or(path);
        let segments: Vec<String> = path.split('/').map(decode).collect::<Result<_, _>>()?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let found = match segments.as_slice() {
            ["healthz"] => Self::Health,
            ["readyz"] => Self::Ready,
            ["openapi.json"] => Self::OpenApi,
            ["metrics"] => Self::Metrics,
            ["v1", "events"] => Self::Events,
            ["v1", "machines"] => Self::Machines,
            ["v1", "templates", rest @ ..] => return Self::find_template(rest),
            ["v1", "webhooks", rest @ ..] => return Self::find_webhook(rest),
            ["v1", "template-warm-pools", ..] => Self::Later("template warm pools"),
            _ => return Err(ApiError::RouteNotFound),
        };
        Ok(found)
    }

    fn find_template(rest: &[&str]) -> Result<Self, ApiError> {
        let found = match rest {
            [] => Self::Templates,
            ["build"] => Self::BuildStream,
            ["builds"] => Self::Builds,
            ["builds", id] => Self::Build((*id).to_owned()),
            ["builds", id, "logs"] => Self::BuildLogs((*id).to_owned()),
            ["builds", id, "events"] => Self::BuildEvents((*id).to_owned()),
            ["builds", id, "cancel"] => Self::CancelBuild((*id).to_owned()),
            ["builds", id, "retry"] => Self::RetryBuild((*id).to_owned()),
            ["builds", id, "promote"] => Self::PromoteBuild((*id).to_owned()),
            ["builds", id, "lineage"] => Self::BuildLineage((*id).to_owned()),
            ["builds", id, "diff"] => Self::BuildDiff((*id).to_owned()),
            ["builds", id, "timeline"] => Self::BuildTimeline((*id).to_owned()),
            ["blobs", "preflight"] => Self::Preflight,
            ["blobs", id] => Self::Blob((*id).to_owned()),
            ["validate"] => Self::Validate,
            ["plan"] => Self::Plan,
            ["claims"] => Self::Claims,
            ["claims", token] if !token.is_empty() => Self::Claim((*token).to_owned()),
            ["namespaces", slug] if !slug.is_empty() => Self::Namespace((*slug).to_owned()),
            ["refs", below @ ..] => Self::Template(Targets::below_refs(below)?),
            [id, below @ ..] if !FIXED.contains(id) => {
                Self::Template(Targets::below_id(id, below)?)
            }
            _ => return Err(ApiError::RouteNotFound),
        };
        Ok(found)
    }

    fn find_webhook(rest: &[&str]) -> Result<Self, ApiError> {
        let found = match rest {
            [] => Self::Webhooks,
            [id] if !id.is_empty() => Self::Webhook((*id).to_owned()),
            [id, "replay"] => Self::ReplayWebhook((*id).to_owned()),
            [id, "deliveries"] => Self::Deliveries((*id).to_owned()),
            [id, "deliveries", delivery, "redeliver"] => {
                Self::Redeliver((*id).to_owned(), (*delivery).to_owned())
            }
            _ => return Err(ApiError::RouteNotFound),
        };
        Ok(found)
    }

    /// The methods that the path takes; empty: any, because nothing is served there yet.
    pub fn methods(&self) -> Vec<&'static str> {
        let methods: &[&str] = match self {
            Self::Health | Self::Ready => &["GET", "HEAD"],
            Self::Templates | Self::Webhooks => &["GET", "POST"],
            Self::Webhook(_) => &["GET", "PATCH", "DELETE"],
            Self::OpenApi
            | Self::Metrics
            | Self::Events
            | Self::Machines
            | Self::Build(_)
            | Self::BuildLogs(_)
            | Self::BuildEvents(_)
            | Self::BuildLineage(_)
            | Self::BuildDiff(_)
            | Self::BuildTimeline(_)
            | Self::Namespace(_)
            | Self::Deliveries(_) => &["GET"],
            Self::BuildStream
            | Self::Builds
            | Self::CancelBuild(_)
            | Self::RetryBuild(_)
            | Self::PromoteBuild(_)
            | Self::Validate
            | Self::Plan
            | Self::Claims
            | Self::Preflight
            | Self::ReplayWebhook(_)
            | Self::Redeliver(..) => &["POST"],
            Self::Blob(_) => &["PUT"],
            Self::Claim(_) => &["DELETE"],
            Self::Template(targets) => return targets.methods(),
            Self::Later(_) => &[],
        };
        methods.to_vec()
    }

    /// Whether the path answers to everybody.
    pub fn is_public(&self) -> bool {
        matches!(self, Self::Health | Self::Ready | Self::OpenApi)
    }

    /// The route as logs name it, without what callers put into it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Health => "/healthz",
            Self::Ready => "/readyz",
            Self::OpenApi => "/openapi.json",
            Self::Metrics => "/metrics",
            Self::Events => "/v1/events",
            Self::Machines => "/v1/machines",
            Self::Templates => "/v1/templates",
            Self::BuildStream => "/v1/templates/build",
            Self::Builds => "/v1/templates/builds",
            Self::Build(_) => "/v1/templates/builds/{build_id}",
            Self::BuildLogs(_) => "/v1/templates/builds/{build_id}/logs",
            Self::BuildEvents(_) => "/v1/templates/builds/{build_id}/events",
            Self::CancelBuild(_) => "/v1/templates/builds/{build_id}/cancel",
            Self::RetryBuild(_) => "/v1/templates/builds/{build_id}/retry",
            Self::PromoteBuild(_) => "/v1/templates/builds/{build_id}/promote",
            Self::BuildLineage(_) => "/v1/templates/builds/{build_id}/lineage",
            Self::BuildDiff(_) => "/v1/templates/builds/{build_id}/diff",
            Self::BuildTimeline(_) => "/v1/templates/builds/{build_id}/timeline",
            Self::Validate => "/v1/templates/validate",
            Self::Plan => "/v1/templates/plan",
            Self::Preflight => "/v1/templates/blobs/preflight",
            Self::Blob(_) => "/v1/templates/blobs/{blob_id}",
            Self::Claims => "/v1/templates/claims",
            Self::Claim(_) => "/v1/templates/claims/{claim_token}",
            Self::Namespace(_) => "/v1/templates/namespaces/{slug}",
            Self::Webhooks => "/v1/webhooks",
            Self::Webhook(_) => "/v1/webhooks/{webhook_id}",
            Self::ReplayWebhook(_) => "/v1/webhooks/{webhook_id}/replay",
            Self::Deliveries(_) => "/v1/webhooks/{webhook_id}/deliveries",
            Self::Redeliver(..) => "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
            Self::Template(targets) => targets.name(),
            Self::Later(_) => "later",
        }
    }
}

/// Decodes one segment of a path.
///
/// # Errors
/// [`ApiError::BadRequest`] if a `%` is not followed by two hex digits or the result is no UTF-8.
pub fn decode(segment: &str) -> Result<String, ApiError> {
    let malformed = || ApiError::BadRequest("the path is not valid percent-encoded UTF-8".into());
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = char::from(rest.next()?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(malformed());
        };
        bytes.push(high << 4 | low);
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_names_win_over_templates_and_what_comes_later_is_known() {
        for (path, route) in [
            ("/v1/templates/build", Route::BuildStream),
            ("/v1/templates/", Route::Templates),
            ("/v1/templates/claims", Route::Claims),
            (
                "/v1/templates/claims/tnc_1%2F2",
                Route::Claim("tnc_1/2".into()),
            ),
            (
                "/v1/templates/namespaces/acme",
                Route::Namespace("acme".into()),
            ),
            ("/v1/templates/builds/tags", Route::Build("tags".into())),
        ] {
            assert_eq!(Route::find(path).unwrap(), route, "{path}");
        }
        for path in ["/v1/template-warm-pools", "/v1/template-warm-pools/x/drain"] {
            assert!(matches!(Route::find(path), Ok(Route::Later(_))), "{path}");
        }
    }

    #[test]
    fn other_paths_lead_nowhere() {
        for path in [
            "/",
            "",
            "//",
            "/v1",
            "/v2/templates",
            "/v1/templates/refs",
            "/v1/templates/refs/",
            "/v1/templates/refs//x",
            "/v1/templates/refs/x/y/z",
            "/v1/templates/refs/x/rename/y",
            "/v1/templates/x/y",
            "/v1/templates/x/tags/v1/y",
            "/v1/templates/builds/x/tags",
            "/v1/templates/claims//",
            "/v1/templates/namespaces",
            "/v1//templates",
            "/v1%2Ftemplates",
        ] {
            let found = Route::find(path);
            assert!(matches!(found, Err(ApiError::RouteNotFound)), "{path}");
        }
        for path in ["/v1/templates/refs/%zz", "/%ff", "/%2"] {
            assert!(matches!(Route::find(path), Err(ApiError::BadRequest(_))));
        }
    }
}
