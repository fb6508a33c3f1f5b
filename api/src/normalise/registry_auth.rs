//! Credentials for registries: read into values without a text form. No mistake repeats one.

mod images;

use std::collections::BTreeSet;

use domain::definition::Source;
use executor::image::ecr::AwsKey;
use executor::image::gcp::ServiceAccount;
use executor::image::{Credentials, ImageReference};
use executor::vault::Secrets;
use serde_json::Value;
use zeroize::Zeroizing;

use super::fields::{FieldProblem, Fields};
use super::secrets::SECRET_COUNT_MAX;
use images::Images;

/// The longest text of credentials: a service account's JSON fits easily.
const CREDENTIAL_BYTES_MAX: usize = 64 * 1024;

/// The credentials that a request brings, not yet held against what it builds.
#[derive(Debug, Default)]
pub struct RegistryAuth {
    /// For the registry of the base image.
    base: Option<Credentials>,
    /// For each host that the list `registry_auth` names, in its order.
    hosts: Vec<(String, Credentials)>,
}

/// What `base_image_auth` and `registry_auth` hold, as far as it is right.
pub(super) fn read(top: Fields<'_>) -> RegistryAuth {
    RegistryAuth {
        base: top.within("base_image_auth", credentials).flatten(),
        hosts: registries(top),
    }
}

fn registries(top: Fields<'_>) -> Vec<(String, Credentials)> {
    let mut seen = BTreeSet::new();
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
        if !seen.insert(host.clone()) {
            entry.problem("registry", "is named twice in this request");
        }
        if let Err(wrong) = credentials.check_registry(&host) {
            entry.problem("auth", wrong.to_string());
        }
        Some((host, credentials))
    })
}

impl RegistryAuth {
    /// Adds the credentials to `secrets`, by the hosts that a build of `source` shows them to.
    ///
    /// # Errors
    /// Credentials that no image of the source is there for, by their fields.
    pub fn place(self, source: &Source, secrets: &mut Secrets) -> Result<(), Vec<FieldProblem>> {
        if self.base.is_none() && self.hosts.is_empty() {
            return Ok(());
        }
        match source {
            Source::Declarative { base_image, .. } => {
                let base = || match base_image.parse::<ImageReference>() {
                    Ok(image) => Ok(image.registry().to_owned()),
                    Err(_) => Err(of_base(
                        "is for images in registries, and `base_image` names none",
                    )),
                };
                self.add(base, secrets)
            }
            Source::Dockerfile {
                text,
                build_args,
                target,
                ..
            } => {
                let images = Images::read(text, build_args, target.as_deref())
                    .map_err(|problem| vec![problem])?;
                let hosts: Vec<&str> = self.hosts.iter().map(|(host, _)| host.as_str()).collect();
                let problems = images.problems(&hosts);
                if !problems.is_empty() {
                    return Err(problems);
                }
                self.add(|| images.base().map(str::to_owned), secrets)
            }
        }
        .map_err(|problem| vec![problem])
    }

    /// Adds the credentials by their hosts; `base` tells the host of the base image.
    fn add(
        self,
        base: impl FnOnce() -> Result<String, FieldProblem>,
        secrets: &mut Secrets,
    ) -> Result<(), FieldProblem> {
        for (host, credentials) in self.hosts {
            secrets.add_registry(host, credentials);
        }
        let Some(credentials) = self.base else {
            return Ok(());
        };
        let host = base()?;
        if secrets.registry(&host).is_some() {
            let message = format!("and registry_auth both have credentials for `{host}`");
            return Err(of_base(message));
        }
        credentials
            .check_registry(&host)
            .map_err(|wrong| of_base(wrong.to_string()))?;
        secrets.add_registry(host, credentials);
        Ok(())
    }
}

fn of_base(message: impl Into<String>) -> FieldProblem {
    FieldProblem::new("base_image_auth", message)
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
