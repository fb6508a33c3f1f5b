//! What goes wrong with a request: one enum, and one match that gives it its status and code.

use std::collections::BTreeMap;
use std::error::Error as StdError;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder};
use domain::failure::FailurePhase;
use domain::ids::BuildId;
use serde_json::Value;

use crate::normalise::{FieldProblem, Refusal};
use crate::wire::Object;
use crate::wire::error::{ErrorBody, FailureDetail};

/// A cause that is logged and never told to the caller.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// Why a request was not answered as its caller hoped.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Fields of the request are wrong.
    #[error("{}", invalid_message(.problems, *.total))]
    Invalid {
        /// The first mistakes.
        problems: Vec<FieldProblem>,
        /// How many there are.
        total: usize,
    },
    /// The body is not JSON. What stands there is not repeated: it may be secret.
    #[error("the body is not JSON: it cannot be read at line {line}, column {column}")]
    MalformedJson {
        /// Where it stops making sense.
        line: usize,
        /// Where in the line.
        column: usize,
    },
    /// The request itself is malformed, for example its path.
    #[error("{0}")]
    BadRequest(String),
    /// `fields=` names something that templates do not have.
    #[error("fields: `{0}` is not a field of a template")]
    InvalidFields(String),
    /// No key, or one that opens nothing.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// There is no such template, or the caller may not know of it.
    #[error("there is no template `{0}`")]
    TemplateNotFound(String),
    /// A reference means nothing; the text says what there is instead.
    #[error("{0}")]
    BadReference(String),
    /// The caller may know of it and may not do this to it.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such name kept for the caller, or no longer.
    #[error("there is no such claim; it may have ended, or been used up")]
    ClaimNotFound,
    /// Something that belongs to a template is not there.
    #[error("{0}")]
    NotFound(String),
    /// The caller has as much of it as anybody may have.
    #[error("{0}")]
    Quota(String),
    /// The caller has as many builds waiting as anybody may have.
    #[error("{count_max} of your builds wait already, and no more may")]
    WaitingBuilds {
        /// The bound.
        count_max: usize,
    },
    /// There is no such key.
    #[error("{0}")]
    KeyNotFound(String),
    /// There is no such build, or it is somebody else's.
    #[error("there is no build `{0}`")]
    BuildNotFound(String),
    /// Nobody announced this upload.
    #[error("no upload `{0}` was announced: ask /v1/templates/blobs/preflight first")]
    UploadNotFound(String),
    /// There is nothing at this path.
    #[error("there is nothing at this path")]
    RouteNotFound,
    /// The path does not know this method.
    #[error("this path takes {}", .allowed.join(" and "))]
    MethodNotAllowed {
        /// What it takes.
        allowed: Vec<&'static str>,
    },
    /// Something is larger than allowed.
    #[error("{what} is larger than {bytes_max} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The bound.
        bytes_max: u64,
    },
    /// The body stopped arriving.
    #[error("the body did not arrive: nothing came for {waited_ms} ms, or the connection broke")]
    BodyBroken {
        /// How long it was waited.
        waited_ms: u64,
    },
    /// A file's content was announced or sent wrongly.
    #[error("{message}")]
    Upload {
        /// What is wrong.
        message: String,
        /// A word for it.
        reason: &'static str,
        /// `preflight` or `blob_upload`.
        phase: FailurePhase,
        /// The file, as the caller knows it.
        subject: String,
    },
    /// Somebody else has what is wanted.
    #[error("{0}")]
    Conflict(String),
    /// The build cannot be made again from what is kept.
    #[error("{0}")]
    RebuildRequired(String),
    /// The build is not in the state that this needs.
    #[error("{0}")]
    Transition(String),
    /// It will be possible, and is not yet.
    #[error("{0} cannot be served by this version yet")]
    NotImplemented(String),
    /// Too much is under way.
    #[error("{0}; try again in a moment")]
    Busy(&'static str),
    /// Something that is needed does not answer.
    #[error("{message}; try again in a moment")]
    Unavailable {
        /// What.
        message: &'static str,
        /// Why.
        #[source]
        cause: Option<Cause>,
    },
    /// The service cannot build yet, or no longer.
    #[error("the service is not ready: {0}")]
    NotReady(&'static str),
    /// The build was accepted, but its state cannot be shown yet.
    #[error("the build `{0}` was accepted, but its state cannot be read yet")]
    NotVisibleYet(BuildId),
    /// The build that was waited for failed.
    #[error("{}", .failure.message)]
    BuildFailed {
        /// The build.
        build: BuildId,
        /// Why.
        failure: Box<FailureDetail>,
    },
    /// The build that was waited for goes on, and the caller is not kept waiting any longer.
    #[error("{why}; the build `{build}` goes on")]
    NotOver {
        /// The build.
        build: BuildId,
        /// Why nobody waits any longer.
        why: String,
    },
    /// A defect of the service.
    #[error("the service has failed; the operator finds the cause by the request id")]
    Internal(#[source] Option<Cause>),
}

fn invalid_message(problems: &[FieldProblem], total: usize) -> String {
    let Some(first) = problems.first() else {
        return "the request is wrong".to_owned();
    };
    let first = match first.field.as_str() {
        "" => format!("the body {}", first.message),
        field => format!("{field}: {}", first.message),
    };
    match total.saturating_sub(1) {
        0 => first,
        more => format!("{first} (and {more} more)"),
    }
}

impl ApiError {
    /// One wrong field.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid {
            problems: vec![FieldProblem {
                field: field.into(),
                message: message.into(),
            }],
            total: 1,
        }
    }

    /// A defect, with its cause.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self::Internal(Some(cause.into()))
    }

    /// Something needed that does not answer, with the cause.
    pub fn unavailable(message: &'static str, cause: impl Into<Cause>) -> Self {
        Self::Unavailable {
            message,
            cause: Some(cause.into()),
        }
    }

    /// The code that clients act on.
    pub fn code(&self) -> &'static str {
        self.parts().1
    }

    /// Whether another request would fare better, and this one never will.
    pub fn is_about_the_request(&self) -> bool {
        let (status, _) = self.parts();
        status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED
    }

    fn parts(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Invalid { .. } | Self::MalformedJson { .. } | Self::BadRequest(_) => {
                (StatusCode::BAD_REQUEST, "invalid_request")
            }
            Self::InvalidFields(_) => (StatusCode::BAD_REQUEST, "invalid_fields"),
            Self::Upload { .. } => (StatusCode::BAD_REQUEST, "file_upload_error"),
            Self::Unauthorized(_) => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::TemplateNotFound(_) | Self::BadReference(_) => {
                (StatusCode::NOT_FOUND, "template_not_found")
            }
            Self::BuildNotFound(_) => (StatusCode::NOT_FOUND, "template_build_not_found"),
            Self::UploadNotFound(_)
            | Self::KeyNotFound(_)
            | Self::NotFound(_)
            | Self::RouteNotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::ClaimNotFound => (StatusCode::NOT_FOUND, "template_name_claim_not_found"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
            // No 429: that would make the client try again at once, and waiting does not help.
            Self::Quota(_) => (StatusCode::FORBIDDEN, "QUOTA_EXCEEDED"),
            // Waiting does help here: the client tries again, but for the stream.
            Self::WaitingBuilds { .. } => (StatusCode::TOO_MANY_REQUESTS, "QUOTA_EXCEEDED"),
            Self::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, "invalid_request"),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "invalid_request"),
            Self::BodyBroken { .. } => (StatusCode::REQUEST_TIMEOUT, "invalid_request"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            Self::RebuildRequired(_) => (StatusCode::CONFLICT, "rebuild_required"),
            Self::Transition(_) => (StatusCode::CONFLICT, "transition_conflict"),
            Self::NotImplemented(_) => (StatusCode::NOT_IMPLEMENTED, "not_implemented"),
            Self::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "capacity_exceeded"),
            Self::Unavailable { .. } | Self::NotVisibleYet(_) | Self::NotReady(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "database_error")
            }
            Self::BuildFailed { failure, .. } => (failed_status(failure), failure.code),
            Self::NotOver { .. } => (StatusCode::SERVICE_UNAVAILABLE, "build_error"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
        }
    }

    fn body(&self, request_id: &str) -> ErrorBody {
        let mut body = ErrorBody {
            error: self.to_string(),
            code: self.parts().1,
            request_id: request_id.to_owned(),
            build_id: None,
            error_detail: None,
            retryable: None,
            suggested_action: None,
            details: Object::new(),
        };
        match self {
            Self::Invalid { problems, total } => {
                let problems: Value = problems
                    .iter()
                    .map(|problem| {
                        serde_json::json!({"field": problem.field, "message": problem.message})
                    })
                    .collect();
                body.details.insert("problems".to_owned(), problems);
                body.details
                    .insert("problem_count".to_owned(), (*total).into());
            }
            Self::Upload { .. } => body.error_detail = self.upload_detail(),
            Self::Unauthorized(_) => {
                body.suggested_action =
                    Some("Send `Authorization: Bearer <key>` with a key of this service.".into());
            }
            Self::BuildFailed { build, failure } => {
                body.build_id = Some(build.to_string());
                body.retryable = Some(failure.retryable);
                body.suggested_action = Some(failure.suggested_action.clone());
                body.error_detail = Some(FailureDetail::clone(failure));
            }
            Self::NotVisibleYet(build) | Self::NotOver { build, .. } => {
                body.build_id = Some(build.to_string());
                body.details
                    .insert("build_id".to_owned(), build.as_str().into());
                body.suggested_action = Some("Ask for the build by its id.".to_owned());
            }
            Self::WaitingBuilds { .. } => {
                body.retryable = Some(true);
                body.suggested_action =
                    Some("Wait until one of them is taken, or cancel one.".to_owned());
            }
            Self::Busy(_) | Self::Unavailable { .. } | Self::NotReady(_) => {
                body.retryable = Some(true);
            }
            Self::MalformedJson { .. }
            | Self::BadRequest(_)
            | Self::InvalidFields(_)
            | Self::TemplateNotFound(_)
            | Self::BadReference(_)
            | Self::Forbidden(_)
            | Self::ClaimNotFound
            | Self::NotFound(_)
            | Self::Quota(_)
            | Self::KeyNotFound(_)
            | Self::BuildNotFound(_)
            | Self::UploadNotFound(_)
            | Self::RouteNotFound
            | Self::MethodNotAllowed { .. }
            | Self::TooLarge { .. }
            | Self::BodyBroken { .. }
            | Self::Conflict(_)
            | Self::RebuildRequired(_)
            | Self::Transition(_)
            | Self::NotImplemented(_)
            | Self::Internal(_) => {}
        }
        body
    }

    /// The client's closed shape of a failed upload.
    fn upload_detail(&self) -> Option<FailureDetail> {
        let Self::Upload {
            message,
            reason,
            phase,
            subject,
        } = self
        else {
            return None;
        };
        let details = BTreeMap::from([
            ("reason".to_owned(), Value::from(*reason)),
            ("blob".to_owned(), subject.as_str().into()),
        ]);
        Some(FailureDetail {
            code: "file_upload_error",
            message: message.clone(),
            phase: phase.as_str(),
            retryable: true,
            suggested_action: "Build again; do not change the files while they are sent."
                .to_owned(),
            step_index: None,
            attempt: None,
            max_attempts: None,
            build_id: None,
            details,
        })
    }

    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        if matches!(self, Self::Unauthorized(_)) {
            let bearer = HeaderValue::from_static("Bearer");
            return Some((header::WWW_AUTHENTICATE, bearer));
        }
        if let Self::MethodNotAllowed { allowed } = self {
            let allowed = HeaderValue::from_str(&allowed.join(", ")).ok()?;
            return Some((header::ALLOW, allowed));
        }
        if matches!(self, Self::WaitingBuilds { .. }) {
            // Three further tries of the client: long enough for a build to end, short enough to sit out.
            return Some((header::RETRY_AFTER, HeaderValue::from_static("5")));
        }
        matches!(self, Self::Busy(_) | Self::Unavailable { .. })
            .then(|| (header::RETRY_AFTER, HeaderValue::from_static("1")))
    }

    /// The answer. What is our fault is logged here, once, with all its causes.
    pub fn response(&self, request_id: &str) -> HttpResponse {
        let (status, code) = self.parts();
        let expected = matches!(
            self,
            Self::NotImplemented(_)
                | Self::NotReady(_)
                | Self::BuildFailed { .. }
                | Self::NotOver { .. }
        );
        if status.is_server_error() && !expected {
            tracing::error!(
                status = status.as_u16(),
                code,
                error = domain::causes::chain(self),
                "failed"
            );
        } else {
            tracing::debug!(status = status.as_u16(), code, "refused");
        }
        let mut response = HttpResponseBuilder::new(status);
        response.insert_header((header::CONTENT_TYPE, "application/json"));
        if let Some(header) = self.header() {
            response.insert_header(header);
        }
        // Texts and numbers alone: they have a JSON form.
        response.body(crate::wire::ascii::to_vec(&self.body(request_id)).unwrap_or_default())
    }
}

/// The status of a build that failed: the definition's fault, or one that may not be there the next
/// time.
fn failed_status(failure: &FailureDetail) -> StatusCode {
    if failure.code == "internal_error" {
        StatusCode::INTERNAL_SERVER_ERROR
    } else if failure.retryable {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::BAD_REQUEST
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let Refusal { problems, total } = refusal;
        Self::Invalid { problems, total }
    }
}

impl From<projections::store::StoreError> for ApiError {
    fn from(err: projections::store::StoreError) -> Self {
        Self::unavailable("the views cannot be read", err)
    }
}

impl From<domain::ports::LogError> for ApiError {
    fn from(err: domain::ports::LogError) -> Self {
        match err {
            domain::ports::LogError::TooLarge { bytes_max, .. } => Self::TooLarge {
                what: "the definition, without its files,",
                bytes_max: u64::try_from(bytes_max).unwrap_or(u64::MAX),
            },
            err @ (domain::ports::LogError::Conflict { .. }
            | domain::ports::LogError::Unavailable(_)
            | domain::ports::LogError::OutcomeUnknown(_)
            | domain::ports::LogError::Damaged { .. }) => {
                Self::unavailable("the event log cannot be written", err)
            }
        }
    }
}

impl From<tokio::task::JoinError> for ApiError {
    fn from(err: tokio::task::JoinError) -> Self {
        Self::internal(err)
    }
}
