//! Errors: a flat object, always.

use std::collections::BTreeMap;

use domain::failure::Failure;
use serde::Serialize;
use serde_json::Value;

use super::Object;

/// The body of every answer with a status of 400 or above.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ErrorBody {
    /// What is wrong, in a sentence.
    pub error: String,
    /// What is wrong, in a word that clients act on.
    pub code: &'static str,
    /// The request, as `x-request-id` says it.
    pub request_id: String,
    /// The build that the request was about, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// A failed upload or build, in the client's closed shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<FailureDetail>,
    /// Whether the same request may succeed later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
    /// What the caller can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggested_action: Option<String>,
    /// More facts.
    #[serde(skip_serializing_if = "Object::is_empty")]
    pub details: Object,
}

/// Why a build or an upload failed. A closed shape: one key more, and the client throws the whole
/// error away (contract/behaviour.md section 6).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailureDetail {
    /// `build_error`, `file_upload_error`, `internal_error` or `unauthorized`.
    pub code: &'static str,
    /// What happened.
    pub message: String,
    /// Where.
    pub phase: &'static str,
    /// Whether it may succeed when it is tried again.
    pub retryable: bool,
    /// What the caller can do.
    pub suggested_action: String,
    /// The step, 1-based.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_index: Option<u32>,
    /// The attempt, 1-based.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// How many attempts there may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// The build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// More facts, `reason` among them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, Value>,
}

impl FailureDetail {
    /// The wire form of a build's failure.
    pub fn of(failure: &Failure) -> Self {
        let mut details: BTreeMap<String, Value> = failure
            .details
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
            .collect();
        details.insert("reason".to_owned(), failure.reason.as_str().into());
        if let Some(code) = failure.exit_code {
            details.insert("exit_code".to_owned(), code.into());
        }
        if !failure.stderr_tail.is_empty() {
            details.insert("stderr_tail".to_owned(), failure.stderr_tail.clone().into());
        }
        Self {
            code: failure.code(),
            message: failure.message.clone(),
            phase: failure.phase.as_str(),
            retryable: failure.reason.retryable(),
            suggested_action: failure.reason.suggested_action().to_owned(),
            step_index: failure.step_index,
            attempt: None,
            max_attempts: None,
            build_id: None,
            details,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::failure::FailureReason;

    /// The keys that the client allows, of contract/openapi.yaml, `TemplateFailureDetail`.
    const ALLOWED: [&str; 12] = [
        "code",
        "message",
        "phase",
        "retryable",
        "suggested_action",
        "step_index",
        "attempt",
        "max_attempts",
        "cache_subject",
        "build_id",
        "request_id",
        "details",
    ];

    #[test]
    fn a_failure_has_all_required_keys_and_no_other() {
        for reason in FailureReason::ALL {
            let mut failure = Failure::new(*reason, "it broke").with_detail("path", "/x");
            failure.exit_code = Some(3);
            failure.step_index = Some(2);
            failure.stderr_tail = vec!["last line".to_owned()];
            let value = serde_json::to_value(FailureDetail::of(&failure)).unwrap();
            let object = value.as_object().unwrap();
            for required in &ALLOWED[..5] {
                assert!(object.contains_key(*required), "{required}");
            }
            for key in object.keys() {
                assert!(ALLOWED.contains(&key.as_str()), "{key}");
            }
            assert!(object.values().all(|value| !value.is_null()));
            assert_eq!(value["details"]["reason"], reason.as_str());
            assert_eq!(value["details"]["exit_code"], 3);
        }
    }
}
