//! Access tokens of Google Cloud: a service account's signed assertion, exchanged for a token.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::time::Timestamp;
use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::credentials::{Password, WrongRegistry};
use super::error::Answer;
use super::wire::{Posted, Wire};

/// Where Google exchanges assertions for tokens.
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";
/// What the token is for; Artifact Registry knows no narrower scope.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// The name that goes with an access token.
const USERNAME: &str = "oauth2accesstoken";
/// How long an assertion holds; it is used at once.
const ASSERTION_SECONDS: i64 = 600;

/// A service account of Google Cloud.
#[derive(Clone, Debug)]
pub struct ServiceAccount {
    client_email: String,
    private_key_id: Option<String>,
    /// PKCS #8.
    private_key: SecretSlice<u8>,
}

/// A service account cannot be used. Its text never repeats what is in the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidServiceAccount {
    /// No JSON object with the texts of a service account.
    #[error("is not the JSON of a service account (`client_email` and `private_key` are needed)")]
    Malformed,
    /// Credentials of another kind.
    #[error("its `type` is not `service_account`")]
    OtherType,
    /// The key cannot be read.
    #[error("its `private_key` is not an RSA key in PEM (`BEGIN PRIVATE KEY`)")]
    Key,
    /// It would be exchanged elsewhere.
    #[error("its `token_uri` is not `https://oauth2.googleapis.com/token`")]
    TokenUri,
}

#[derive(Deserialize)]
struct AccountDocument {
    #[serde(rename = "type")]
    kind: Option<String>,
    client_email: String,
    private_key: SecretString,
    private_key_id: Option<String>,
    token_uri: Option<String>,
}

impl ServiceAccount {
    /// Reads the JSON of a service account.
    ///
    /// # Errors
    /// [`InvalidServiceAccount`].
    pub fn from_json(text: &str) -> Result<Self, InvalidServiceAccount> {
        let document: AccountDocument =
            serde_json::from_str(text).map_err(|_| InvalidServiceAccount::Malformed)?;
        if document.kind.is_some_and(|kind| kind != "service_account") {
            return Err(InvalidServiceAccount::OtherType);
        }
        if document.token_uri.is_some_and(|uri| uri != TOKEN_URI) {
            return Err(InvalidServiceAccount::TokenUri);
        }
        let pem = document.private_key.expose_secret().as_bytes();
        let key =
            PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| InvalidServiceAccount::Key)?;
        RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).map_err(|_| InvalidServiceAccount::Key)?;
        Ok(Self {
            client_email: document.client_email,
            private_key_id: document.private_key_id,
            private_key: key.secret_pkcs8_der().to_vec().into(),
        })
    }

    pub(super) fn secret_bytes(&self) -> usize {
        self.client_email.len() + self.private_key.expose_secret().len()
    }

    /// A signed statement that this account asks `audience` for a token.
    fn assertion(&self, audience: &str, now: Timestamp) -> Result<SecretString, Answer> {
        let unusable = |_| Answer::Exchange("the service account's key cannot sign".to_owned());
        let issued = now.unix_micros().div_euclid(1_000_000);
        let header = match &self.private_key_id {
            Some(id) => json!({"alg": "RS256", "typ": "JWT", "kid": id}),
            None => json!({"alg": "RS256", "typ": "JWT"}),
        };
        let claims = json!({
            "iss": self.client_email,
            "scope": SCOPE,
            "aud": audience,
            "iat": issued,
            "exp": issued.saturating_add(ASSERTION_SECONDS),
        });
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let signed = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let key = RsaKeyPair::from_pkcs8(self.private_key.expose_secret())
            .map_err(|_| Answer::Exchange("the service account's key is unusable".to_owned()))?;
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            signed.as_bytes(),
            &mut signature,
        )
        .map_err(unusable)?;
        Ok(format!("{signed}.{}", encode(&signature)).into())
    }
}

/// Tokens open everything that the account may read, so only Google's registries are shown one.
pub(super) fn check_registry(host: &str) -> Result<(), WrongRegistry> {
    let below = |suffix: &str| {
        let name = host
            .strip_suffix(suffix)
            .and_then(|name| name.strip_suffix('.'));
        name.is_some_and(|name| !name.is_empty())
    };
    if host == "gcr.io" || below("gcr.io") || below("pkg.dev") {
        return Ok(());
    }
    Err(WrongRegistry(format!(
        "gcp_artifact_registry credentials are for hosts below pkg.dev and gcr.io, not for `{host}`"
    )))
}

#[derive(Deserialize)]
struct Token {
    access_token: SecretString,
}

/// Exchanges the account for an access token, at Google or where the operator set it.
pub(super) async fn exchange(
    wire: &Wire,
    account: &ServiceAccount,
    endpoint: Option<&Url>,
    now: Timestamp,
) -> Result<Password, Answer> {
    let url = match endpoint {
        Some(url) => url.clone(),
        None => Url::parse(TOKEN_URI).map_err(Answer::failed)?,
    };
    let assertion = account.assertion(url.as_str(), now)?;
    let body = format!(
        "grant_type={}&assertion={}",
        GRANT.replace(':', "%3A"),
        assertion.expose_secret()
    );
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, form)]);
    let body: Zeroizing<Vec<u8>> = match wire.post(&url, headers, body.into_bytes()).await? {
        Posted::Done(body) => body,
        Posted::Refused(status) => {
            return Err(Answer::Exchange(format!(
                "Google refused the service account with status {status}"
            )));
        }
    };
    // The body is not repeated: it may hold the token.
    let token: Token = serde_json::from_slice(&body).map_err(|_| {
        Answer::failed("Google answered with something else than a token".to_owned())
    })?;
    Ok(Password {
        username: USERNAME.to_owned(),
        password: token.access_token,
    })
}
