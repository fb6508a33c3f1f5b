//! Answering a host that wants to know who asks: `Basic`, or a token that its token service gives.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::credentials::{Credentials, Password};
use super::error::Answer;
use super::registry::Inner;
use super::wire::{Ask, refusal};
use super::{ecr, gcp};

/// What a host answers to a request without authorization, as far as it is understood.
enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

#[derive(Deserialize)]
struct Token {
    token: Option<SecretString>,
    access_token: Option<SecretString>,
}

/// The header that answers the challenge in `response`, which came from `host`.
///
/// A token service is the host's choice and gets the credentials, as the protocol wants; it is
/// asked for the right to pull `repository` and for nothing else.
pub(super) async fn answer(
    registry: &Inner,
    response: &Response,
    host: &str,
    repository: &str,
    credentials: &Credentials,
) -> Result<HeaderValue, Answer> {
    let challenge = challenge(response.headers()).ok_or(Answer::Unauthorized)?;
    let password = password(registry, host, credentials).await?;
    match (challenge, password) {
        (Challenge::Basic, Some(password)) => basic(&password),
        (Challenge::Basic, None) => Err(Answer::Unauthorized),
        (Challenge::Bearer { realm, service }, password) => {
            let mut url = Url::parse(&realm)
                .map_err(|_| Answer::Final("its token service has no address".to_owned()))?;
            registry.wire.check_scheme(&url)?;
            if let Some(service) = service {
                url.query_pairs_mut().append_pair("service", &service);
            }
            let scope = format!("repository:{repository}:pull");
            url.query_pairs_mut().append_pair("scope", &scope);
            let authorization = password.as_ref().map(basic).transpose()?;
            token(registry, &url, authorization).await
        }
    }
}

/// Of several challenges, the one for a token.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut basic = None;
    for header in headers.get_all(WWW_AUTHENTICATE) {
        let challenges = http_auth::parse_challenges(header.to_str().ok()?).unwrap_or_default();
        for challenge in challenges {
            let parameter = |name: &str| {
                let mut found = challenge.params.iter();
                let (_, value) = found.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
                Some(value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm")
            {
                let service = parameter("service");
                return Some(Challenge::Bearer { realm, service });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}

/// The credentials as a name and a password, exchanged for those where that is needed.
pub(super) async fn password(
    registry: &Inner,
    host: &str,
    credentials: &Credentials,
) -> Result<Option<Password>, Answer> {
    // Whoever brought them was told already; here it is made sure.
    credentials
        .check_registry(host)
        .map_err(|error| Answer::Exchange(error.to_string()))?;
    let (wire, now) = (&registry.wire, registry.clock.now());
    match credentials {
        Credentials::Anonymous => Ok(None),
        Credentials::Basic { username, password } => Ok(Some(Password {
            username: username.clone(),
            password: password.clone(),
        })),
        Credentials::AwsEcr(key) => {
            let endpoint = registry.ecr_endpoint.as_ref();
            ecr::exchange(wire, key, endpoint, now).await.map(Some)
        }
        Credentials::GcpServiceAccount(account) => {
            let endpoint = registry.gcp_token_endpoint.as_ref();
            gcp::exchange(wire, account, endpoint, now).await.map(Some)
        }
    }
}

fn basic(password: &Password) -> Result<HeaderValue, Answer> {
    let plain = Zeroizing::new(format!(
        "{}:{}",
        password.username,
        password.password.expose_secret()
    ));
    sensitive(&Zeroizing::new(format!(
        "Basic {}",
        STANDARD.encode(plain.as_bytes())
    )))
}

async fn token(
    registry: &Inner,
    url: &Url,
    authorization: Option<HeaderValue>,
) -> Result<HeaderValue, Answer> {
    let ask = Ask {
        authorization,
        ..Ask::default()
    };
    let response = registry.wire.get(url, &ask).await?;
    if !response.status().is_success() {
        return Err(refusal(&response));
    }
    let body = registry
        .wire
        .read(response, registry.limits.token_bytes_max);
    let body = Zeroizing::new(body.await?);
    let token: Option<Token> = serde_json::from_slice(&body).ok();
    let token = token.and_then(|token| token.token.or(token.access_token));
    // The body is not repeated: it may hold the token.
    let token =
        token.ok_or_else(|| Answer::failed("its token service gave no token".to_owned()))?;
    sensitive(&Zeroizing::new(format!("Bearer {}", token.expose_secret())))
}

/// A header whose value no text form shows.
fn sensitive(text: &str) -> Result<HeaderValue, Answer> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Answer::Exchange("the credentials have characters that no header can carry".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}
