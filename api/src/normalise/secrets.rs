//! Fields that carry secret values: moved into [`Secrets`], never repeated in an error.

use std::collections::BTreeSet;

use domain::name::SecretId;
use executor::vault::Secrets;
use serde_json::Value;
use zeroize::Zeroize as _;

use super::fields::Fields;
use crate::limits::{Limits, SECRET_BYTES_MAX};

const KEY: &str = "build_secrets";

/// How many secrets or registries one request may name.
pub(super) const SECRET_COUNT_MAX: usize = 100;

/// Refuses secrets of a build that has no use for them.
pub(super) fn refuse(top: Fields<'_>) {
    let list = top.list(KEY, SECRET_COUNT_MAX);
    if list.is_some_and(|list| !list.is_empty()) {
        top.problem(KEY, "only builds from a Dockerfile can use build secrets");
    }
}

/// Adds the secrets of a request to `secrets` and gives their ids.
pub(super) fn read(top: Fields<'_>, secrets: &mut Secrets, limits: &Limits) -> BTreeSet<SecretId> {
    let mut ids = BTreeSet::new();
    let mut total_bytes: usize = 0;
    top.each(KEY, SECRET_COUNT_MAX, |_, secret| {
        secret.only(&["id", "value", "source"]);
        source(secret);
        let (id, value) = (id(secret), value(secret));
        let (id, value) = (id?, value?);
        total_bytes = total_bytes.saturating_add(value.len());
        if !ids.insert(id.clone()) {
            secret.problem("id", "is used twice in this request");
        }
        secrets.add_value(id, value.as_bytes().to_vec().into());
        Some(())
    });
    let bytes_max = limits.secret_total_bytes_max;
    if total_bytes > bytes_max {
        let message = format!("have {total_bytes} bytes together, at most {bytes_max} may be");
        top.problem(KEY, message);
    }
    ids
}

fn id(secret: Fields<'_>) -> Option<SecretId> {
    let id = secret.get("id").map(|id| id.as_str().map(str::parse));
    // A caller may have put the value where the id goes: it is not repeated.
    let problem = match id {
        None => "is required",
        Some(None) => "must be a string",
        Some(Some(Err(_))) => "must be 1 to 128 of letters, digits, `.`, `_` and `-`",
        Some(Some(Ok(id))) => return Some(id),
    };
    secret.problem("id", problem);
    None
}

/// A value is any text, of several lines too, and may be empty.
fn value(secret: Fields<'_>) -> Option<&str> {
    let problem = match secret.get("value") {
        None => "is required: variables and files are read by the client".to_owned(),
        Some(Value::String(value)) if value.len() > SECRET_BYTES_MAX => {
            let bytes = value.len();
            format!("has {bytes} bytes, at most {SECRET_BYTES_MAX} may be")
        }
        Some(Value::String(value)) => return Some(value),
        Some(_) => "must be a string".to_owned(),
    };
    secret.problem("value", problem);
    None
}

/// A remark about where the client has the value from.
fn source(secret: Fields<'_>) {
    match secret.get("source").map(Value::as_str) {
        None | Some(Some("value" | "env" | "file")) => {}
        Some(_) => secret.problem("source", "must be `value`, `env` or `file`"),
    }
}

/// Overwrites every text of a request, wherever its secret values may be.
pub fn wipe(body: &mut Value) {
    match body {
        Value::String(text) => text.zeroize(),
        Value::Array(list) => list.iter_mut().for_each(wipe),
        Value::Object(object) => object.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
