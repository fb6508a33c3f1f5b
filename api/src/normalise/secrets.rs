//! Fields that carry secret values: looked at, never kept, never repeated in an error.

use std::collections::BTreeSet;

use domain::name::SecretId;
use serde_json::Value;
use zeroize::Zeroize as _;

use super::fields::Fields;

/// Keys of a request whose values are secret.
const SECRET_KEYS: [&str; 3] = ["build_secrets", "base_image_auth", "registry_auth"];

/// How many secrets or registries one request may name.
pub(super) const SECRET_COUNT_MAX: usize = 100;

/// Checks the secrets of a build from a Dockerfile.
pub(super) fn check(top: Fields<'_>, is_dockerfile: bool) {
    let list = top.list("build_secrets", SECRET_COUNT_MAX);
    if list.is_some_and(|list| !list.is_empty()) && !is_dockerfile {
        top.problem(
            "build_secrets",
            "only builds from a Dockerfile can use build secrets",
        );
        return;
    }
    let mut ids = BTreeSet::new();
    top.each("build_secrets", SECRET_COUNT_MAX, |_, secret| {
        match secret.get("id").and_then(Value::as_str) {
            None => secret.problem("id", "must be a string"),
            // A caller may have put the value where the id goes: it is not repeated.
            Some(id) if id.parse::<SecretId>().is_err() => secret.problem(
                "id",
                "must be 1 to 128 of letters, digits, `.`, `_` and `-`",
            ),
            Some(id) if !ids.insert(id.to_owned()) => {
                secret.problem("id", "is used twice in this request");
            }
            Some(_) => {}
        }
        if secret.get("value").and_then(Value::as_str).is_none() {
            secret.problem("value", "must be a string");
        }
        Some(())
    });
}

/// The ids of the secrets that a request brings; wrong ones are left out.
pub(super) fn ids(top: Fields<'_>) -> BTreeSet<SecretId> {
    let secrets = top.get("build_secrets").and_then(Value::as_array);
    let ids = secrets
        .into_iter()
        .flatten()
        .filter_map(|secret| secret.get("id")?.as_str());
    ids.filter_map(|id| id.parse().ok()).collect()
}

/// Overwrites every secret value of a request.
pub fn wipe(body: &mut Value) {
    if let Value::Object(object) = body {
        for key in SECRET_KEYS {
            if let Some(value) = object.get_mut(key) {
                wipe_texts(value);
            }
        }
    }
}

fn wipe_texts(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(list) => list.iter_mut().for_each(wipe_texts),
        Value::Object(object) => object.values_mut().for_each(wipe_texts),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
