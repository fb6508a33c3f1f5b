//! Credentials for registries: read into values without a text form. No mistake repeats one.

use executor::image::ecr::AwsKey;
use executor::image::gcp::ServiceAccount;
use executor::image::{Credentials, ImageReference};
use executor::vault::Secrets;
use serde_json::Value;
use zeroize::Zeroizing;

use super::fields::Fields;
use super::secrets::SECRET_COUNT_MAX;

/// The longest text of credentials: a service account's JSON fits easily.
const CREDENTIAL_BYTES_MAX: usize = 64 * 1024;

/// The credentials that a request brings for registries.
pub(super) fn read(top: Fields<'_>, base_image: Option<&str>) -> Secrets {
    let mut secrets = registries(top);
    let Some(credentials) = base_image_auth(top) else {
        return secrets;
    };
    // Without a base image, that is what is wrong.
    let Some(base_image) = base_image else {
        return secrets;
    };
    if let Err(problem) = add_base(&mut secrets, base_image, credentials) {
        top.problem("base_image_auth", problem);
    }
    secrets
}

/// What `base_image_auth` holds, if it is right.
pub(super) fn base_image_auth(top: Fields<'_>) -> Option<Credentials> {
    top.within("base_image_auth", credentials)?
}

/// The credentials of the list `registry_auth`, by host.
pub(super) fn registries(top: Fields<'_>) -> Secrets {
    let mut secrets = Secrets::default();
    top.each("registry_auth", SECRET_COUNT_MAX, |_, entry| {
        let credentials = entry.within("auth", credentials);
        if credentials.is_none() {
            entry.problem("auth", "is required");
        }
        let Some(host) = entry.get("registry").and_then(Value::as_str).and_then(host) else {
            entry.problem(
                "registry",
                "must be a registry's host, for example `ghcr.io`",
            );
            return None;
        };
        let credentials = credentials??;
        if secrets.registry(&host).is_some() {
            entry.problem("registry", "is named twice in this request");
        }
        if let Err(wrong) = credentials.check_registry(&host) {
            entry.problem("auth", wrong.to_string());
        }
        secrets.add_registry(host, credentials);
        Some(())
    });
    secrets
}

/// Adds the credentials for the registry of a base image.
///
/// # Errors
/// What is wrong with `base_image_auth`, in words for the caller.
pub fn add_base(
    secrets: &mut Secrets,
    base_image: &str,
    credentials: Credentials,
) -> Result<(), String> {
    let Ok(image) = base_image.parse::<ImageReference>() else {
        return Err("is for images in registries, and `base_image` names none".to_owned());
    };
    let host = image.registry();
    if secrets.registry(host).is_some() {
        return Err(format!(
            "and registry_auth both have credentials for `{host}`"
        ));
    }
    credentials
        .check_registry(host)
        .map_err(|wrong| wrong.to_string())?;
    secrets.add_registry(host.to_owned(), credentials);
    Ok(())
}

/// The host that images of this registry are named after.
fn host(registry: &str) -> Option<String> {
    const REPOSITORY: &str = "library/any";
    let image: ImageReference = format!("{registry}/{REPOSITORY}").parse().ok()?;
    (image.repository() == REPOSITORY).then(|| image.registry().to_owned())
}

fn credentials(auth: Fields<'_>) -> Option<Credentials> {
    match auth.get("kind").and_then(Value::as_str) {
        Some("basic") => {
            let (username, password) = (text(auth, "username"), text(auth, "password"));
            Some(Credentials::basic(username?, password?))
        }
        Some("aws_ecr") => aws_ecr(auth),
        Some("gcp_artifact_registry") => gcp(auth),
        Some(_) | None => {
            auth.problem("kind", "must be basic, aws_ecr or gcp_artifact_registry");
            None
        }
    }
}

fn aws_ecr(auth: Fields<'_>) -> Option<Credentials> {
    let (id, secret) = (text(auth, "access_key_id"), text(auth, "secret_access_key"));
    let region = text(auth, "region");
    let token = if auth.has("session_token") {
        Some(text(auth, "session_token")?)
    } else {
        None
    };
    match AwsKey::new(id?, secret?, token, region?) {
        Ok(key) => Some(Credentials::AwsEcr(key)),
        Err(invalid) => {
            auth.problem("region", invalid.to_string());
            None
        }
    }
}

fn gcp(auth: Fields<'_>) -> Option<Credentials> {
    const KEY: &str = "service_account_json";
    let json = match auth.get(KEY) {
        Some(object @ Value::Object(_)) => object.to_string(),
        Some(Value::String(_)) => text(auth, KEY)?,
        Some(_) => {
            auth.problem(KEY, "must be an object or its JSON text");
            return None;
        }
        None => {
            auth.problem(KEY, "is required");
            return None;
        }
    };
    match ServiceAccount::from_json(&Zeroizing::new(json)) {
        Ok(account) => Some(Credentials::GcpServiceAccount(account)),
        Err(invalid) => {
            auth.problem(KEY, invalid.to_string());
            None
        }
    }
}

/// A text that is sent to a registry or a token service as it is.
fn text(auth: Fields<'_>, key: &str) -> Option<String> {
    let problem = match auth.get(key) {
        Some(Value::String(text)) if text.is_empty() => "must not be empty",
        Some(Value::String(text)) if text.len() > CREDENTIAL_BYTES_MAX => "is too long",
        Some(Value::String(text)) => return Some(text.clone()),
        Some(_) => "must be a string",
        None => "is required",
    };
    auth.problem(key, problem);
    None
}
