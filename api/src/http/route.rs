//! The route table: the whole API on one page.
//!
//! Routes are found on the raw path, segment by segment, and only then is each segment decoded: a
//! reference travels as one segment with `%2F` in it (contract/behaviour.md section 2). Nothing
//! ever redirects; a trailing slash means the same path.

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
    /// `POST /v1/templates/builds/{id}/cancel`
    CancelBuild(String),
    /// `POST /v1/templates/builds/{id}/retry`
    RetryBuild(String),
    /// `POST /v1/templates/validate`: whether a request would be accepted.
    Validate,
    /// `POST /v1/templates/plan`: what a request would build.
    Plan,
    /// `POST /v1/templates/blobs/preflight`
    Preflight,
    /// `PUT /v1/templates/blobs/{id}`
    Blob(String),
    /// `GET /v1/templates/refs/{ref}`
    Template(String),
    /// `GET /v1/templates/refs/{ref}/builds`
    History(String),
    /// `GET /v1/templates/{id}/builds`
    HistoryById(String),
    /// Published, and not served yet.
    Later(&'static str),
}

/// Subresources of a reference.
const SUBRESOURCES: [&str; 4] = ["tags", "aliases", "rename", "visibility"];

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
            ["v1", "machines"] => Self::Machines,
            ["v1", "templates", rest @ ..] => return Self::find_template(rest),
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
            ["builds", id, "cancel"] => Self::CancelBuild((*id).to_owned()),
            ["builds", id, "retry"] => Self::RetryBuild((*id).to_owned()),
            ["builds", _, "promote"] => Self::Later("promoting a build"),
            ["blobs", "preflight"] => Self::Preflight,
            ["blobs", id] => Self::Blob((*id).to_owned()),
            ["validate"] => Self::Validate,
            ["plan"] => Self::Plan,
            ["claims"] | ["claims", _] => Self::Later("reserving names"),
            ["namespaces", _] => Self::Later("namespaces"),
            ["refs", name] if !name.is_empty() => Self::Template((*name).to_owned()),
            ["refs", name, "builds"] if !name.is_empty() => Self::History((*name).to_owned()),
            ["refs", namespace, name, "builds"] if !namespace.is_empty() && !name.is_empty() => {
                Self::History(format!("{namespace}/{name}"))
            }
            ["refs", _, sub] if SUBRESOURCES.contains(sub) => {
                Self::Later("changing and listing what belongs to a template")
            }
            ["refs", _, "tags" | "aliases", _] => {
                Self::Later("changing and listing what belongs to a template")
            }
            // A reference whose slash was not encoded.
            ["refs", namespace, name] if !namespace.is_empty() && !name.is_empty() => {
                Self::Template(format!("{namespace}/{name}"))
            }
            [id, "builds"] if id.starts_with("tmpl_") => Self::HistoryById((*id).to_owned()),
            [id] | [id, ..] if id.starts_with("tmpl_") => {
                Self::Later("templates by id (ask /v1/templates/refs/{id} instead)")
            }
            _ => return Err(ApiError::RouteNotFound),
        };
        Ok(found)
    }

    /// The methods that the path takes; empty: any, because nothing is served there yet.
    pub fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Health | Self::Ready => &["GET", "HEAD"],
            Self::Templates => &["GET", "POST"],
            Self::OpenApi
            | Self::Machines
            | Self::Build(_)
            | Self::BuildLogs(_)
            | Self::Template(_)
            | Self::History(_)
            | Self::HistoryById(_) => &["GET"],
            Self::BuildStream
            | Self::Builds
            | Self::CancelBuild(_)
            | Self::RetryBuild(_)
            | Self::Validate
            | Self::Plan
            | Self::Preflight => &["POST"],
            Self::Blob(_) => &["PUT"],
            Self::Later(_) => &[],
        }
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
            Self::Machines => "/v1/machines",
            Self::Templates => "/v1/templates",
            Self::BuildStream => "/v1/templates/build",
            Self::Builds => "/v1/templates/builds",
            Self::Build(_) => "/v1/templates/builds/{build_id}",
            Self::BuildLogs(_) => "/v1/templates/builds/{build_id}/logs",
            Self::CancelBuild(_) => "/v1/templates/builds/{build_id}/cancel",
            Self::RetryBuild(_) => "/v1/templates/builds/{build_id}/retry",
            Self::Validate => "/v1/templates/validate",
            Self::Plan => "/v1/templates/plan",
            Self::Preflight => "/v1/templates/blobs/preflight",
            Self::Blob(_) => "/v1/templates/blobs/{blob_id}",
            Self::Template(_) => "/v1/templates/refs/{ref}",
            Self::History(_) => "/v1/templates/refs/{ref}/builds",
            Self::HistoryById(_) => "/v1/templates/{id}/builds",
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
    fn a_reference_is_one_segment_or_two() {
        for (path, reference) in [
            ("/v1/templates/refs/my-app", "my-app"),
            ("/v1/templates/refs/my-app%3Av1", "my-app:v1"),
            ("/v1/templates/refs/acme%2Fmy-app%3Av1", "acme/my-app:v1"),
            ("/v1/templates/refs/acme/my-app:v1", "acme/my-app:v1"),
            ("/v1/templates/refs/acme%2Ftags", "acme/tags"),
            ("/v1/templates/refs/tmpl_x/", "tmpl_x"),
        ] {
            let found = Route::find(path).unwrap();
            assert_eq!(found, Route::Template(reference.to_owned()), "{path}");
        }
    }

    #[test]
    fn builds_of_a_template_stand_behind_its_reference_or_its_id() {
        let history = |name: &str| Route::History(name.to_owned());
        for (path, route) in [
            ("/v1/templates/refs/x/builds", history("x")),
            (
                "/v1/templates/refs/acme%2Fx%3Av1/builds",
                history("acme/x:v1"),
            ),
            ("/v1/templates/refs/acme/x:v1/builds/", history("acme/x:v1")),
            (
                "/v1/templates/tmpl_x/builds",
                Route::HistoryById("tmpl_x".to_owned()),
            ),
        ] {
            assert_eq!(Route::find(path).unwrap(), route, "{path}");
        }
    }

    #[test]
    fn fixed_names_win_and_what_comes_later_is_known() {
        assert_eq!(
            Route::find("/v1/templates/build").unwrap(),
            Route::BuildStream
        );
        assert_eq!(Route::find("/v1/templates/").unwrap(), Route::Templates);
        for path in [
            "/v1/templates/refs/x/tags",
            "/v1/templates/refs/x/aliases/acme%2Fy",
            "/v1/templates/builds/tb_x/promote",
            "/v1/template-warm-pools",
            "/v1/template-warm-pools/x/drain",
        ] {
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
            "/v1/templates/x",
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
