//! The request of a retry: what it changes, and which secrets it brings.

use std::collections::BTreeMap;

use domain::build::RetryRequest;
use domain::digest::{Digest, Hasher};
use domain::ids::BuildId;
use domain::name::{SecretId, Tag};
use executor::vault::Secrets;
use serde_json::Value;

use super::Refusal;
use super::fields::{Fields, Problems};
use super::{RegistryAuth, names, registry_auth, secrets};
use crate::limits::Limits;

/// A request for a retry that is right in itself.
#[derive(Debug)]
pub struct Retry {
    /// What it changes. The registries of its credentials are added when the original is known.
    pub request: RetryRequest,
    /// The values of its build secrets.
    pub secrets: Secrets,
    /// The credentials that it brings, for the images of the original.
    pub auth: RegistryAuth,
}

impl Retry {
    /// What it asks for of the build `of`; as [`super::BuildRequest::digest`], without values.
    pub fn digest(&self, of: &BuildId) -> Digest {
        let tags = self.request.tags.iter().flatten().map(Tag::as_str);
        let tags: Vec<&str> = tags.collect();
        let ids = self.request.secret_ids.iter().map(SecretId::as_str);
        Hasher::new("retry-request/v1")
            .field(of.as_str())
            .list(tags.into_iter())
            .list(ids)
            .finish()
    }
}

/// Reads the request of a retry.
///
/// # Errors
/// [`Refusal`], with every mistake that was found.
pub fn retry_request(body: &Value, limits: &Limits) -> Result<Retry, Refusal> {
    let problems = Problems::new(limits.problem_count_max);
    let Some(top) = Fields::top(body, &problems) else {
        return Err(problems.into_refusal());
    };
    let tags = top.has("tags").then(|| names::tags(top, limits));
    // Which secrets fit is decided by the original, so any kind of build may bring them here.
    let mut secrets = Secrets::default();
    let secret_ids = secrets::read(top, &mut secrets, limits);
    let auth = registry_auth::read(top);
    if !problems.is_empty() {
        return Err(problems.into_refusal());
    }
    let request = RetryRequest {
        tags,
        secret_ids,
        registry_auth: BTreeMap::new(),
    };
    Ok(Retry {
        request,
        secrets,
        auth,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Result<RetryRequest, Refusal> {
        retry_request(body, &Limits::default()).map(|retry| retry.request)
    }

    #[test]
    fn an_empty_request_changes_nothing() {
        let request = read(&json!({})).unwrap();
        assert_eq!((request.tags, request.secret_ids.len()), (None, 0));
    }

    #[test]
    fn tags_and_the_ids_of_secrets_are_read() {
        let body = json!({"tags": ["r1"], "build_secrets": [{"id": "token", "value": "v"}]});
        let request = read(&body).unwrap();
        assert_eq!(request.tags, Some(vec!["r1".parse().unwrap()]));
        assert_eq!(request.secret_ids, ["token".parse().unwrap()].into());
    }

    #[test]
    fn wrong_tags_are_named() {
        for tags in [json!([]), json!(["tb_x"]), json!("r1")] {
            let Err(Refusal { problems, .. }) = read(&json!({"tags": tags})) else {
                panic!("{tags} was accepted")
            };
            assert!(problems[0].field.starts_with("tags"), "{problems:?}");
        }
    }
}
