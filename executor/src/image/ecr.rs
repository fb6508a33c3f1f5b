//! Passwords of Amazon's container registry: `GetAuthorizationToken`, signed with Signature Version 4.

use std::fmt::Write as _;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;
use domain::time::Timestamp;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::credentials::{Password, WrongRegistry};
use super::error::Answer;
use super::wire::{Posted, Wire};

const SERVICE: &str = "ecr";
const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
const BODY: &str = "{}";

/// A key of AWS and the region that it is used in.
#[derive(Clone, Debug)]
pub struct AwsKey {
    access_key_id: String,
    secret_access_key: SecretString,
    session_token: Option<SecretString>,
    region: String,
}

/// The text is no region of AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no AWS region, for example `eu-west-1`")]
pub struct InvalidRegion;

impl AwsKey {
    /// A key for a region; temporary keys come with a session token.
    ///
    /// # Errors
    /// [`InvalidRegion`]: the region becomes part of a host's name.
    pub fn new(
        access_key_id: String,
        secret_access_key: String,
        session_token: Option<String>,
        region: String,
    ) -> Result<Self, InvalidRegion> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let edges = |text: &str| text.starts_with('-') || text.ends_with('-');
        if !(4..=32).contains(&region.len()) || !region.bytes().all(allowed) || edges(&region) {
            return Err(InvalidRegion);
        }
        Ok(Self {
            access_key_id,
            secret_access_key: secret_access_key.into(),
            session_token: session_token.map(SecretString::from),
            region,
        })
    }

    pub(super) fn check_registry(&self, host: &str) -> Result<(), WrongRegistry> {
        let fits = host.split_once(".dkr.ecr").is_some_and(|(account, rest)| {
            let rest = rest.strip_prefix("-fips").unwrap_or(rest);
            account.len() == 12
                && account.bytes().all(|byte| byte.is_ascii_digit())
                && rest == format!(".{}.{}", self.region, self.domain())
        });
        if fits {
            return Ok(());
        }
        Err(WrongRegistry(format!(
            "aws_ecr credentials for the region `{region}` are for ACCOUNT.dkr.ecr.{region}.{domain}, not for `{host}`",
            region = self.region,
            domain = self.domain(),
        )))
    }

    pub(super) fn secret_bytes(&self) -> usize {
        let token = self.session_token.as_ref();
        self.access_key_id.len()
            + self.secret_access_key.expose_secret().len()
            + token.map_or(0, |token| token.expose_secret().len())
    }

    fn domain(&self) -> &'static str {
        if self.region.starts_with("cn-") {
            "amazonaws.com.cn"
        } else {
            "amazonaws.com"
        }
    }

    fn endpoint(&self) -> Result<Url, Answer> {
        let text = format!("https://api.{SERVICE}.{}.{}/", self.region, self.domain());
        Url::parse(&text).map_err(Answer::failed)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authorization {
    authorization_data: Vec<AuthorizationData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizationData {
    authorization_token: SecretString,
}

/// Asks for a password, at the region's endpoint or at the one that the operator set.
pub(super) async fn exchange(
    wire: &Wire,
    key: &AwsKey,
    endpoint: Option<&Url>,
    now: Timestamp,
) -> Result<Password, Answer> {
    let url = match endpoint {
        Some(url) => url.clone(),
        None => key.endpoint()?,
    };
    let headers = signed_headers(key, &url, now)?;
    let body = BODY.as_bytes().to_vec();
    let body = match wire.post(&url, headers, body).await? {
        Posted::Done(body) => body,
        Posted::Refused(status) => {
            return Err(Answer::Exchange(format!(
                "AWS refused the key with status {status}"
            )));
        }
    };
    let answer: Authorization = serde_json::from_slice(&body).map_err(|_| unreadable())?;
    let data = answer.authorization_data.first().ok_or_else(unreadable)?;
    let decoded = STANDARD.decode(data.authorization_token.expose_secret());
    let decoded = Zeroizing::new(decoded.map_err(|_| unreadable())?);
    let text = std::str::from_utf8(&decoded).map_err(|_| unreadable())?;
    let (username, password) = text.split_once(':').ok_or_else(unreadable)?;
    Ok(Password {
        username: username.to_owned(),
        password: password.to_owned().into(),
    })
}

// The body is not repeated: it may hold the password.
fn unreadable() -> Answer {
    Answer::failed("AWS answered with something else than a password".to_owned())
}

fn signed_headers(key: &AwsKey, url: &Url, now: Timestamp) -> Result<HeaderMap, Answer> {
    let time = DateTime::from_timestamp_micros(now.unix_micros()).unwrap_or_default();
    let amz_date = time.format("%Y%m%dT%H%M%SZ").to_string();
    let host = match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or_default().to_owned(),
    };
    // In the order of their names, as the signature wants them.
    let mut headers = vec![
        ("content-type", CONTENT_TYPE.to_owned()),
        ("host", host),
        ("x-amz-date", amz_date.clone()),
    ];
    if let Some(token) = &key.session_token {
        headers.push(("x-amz-security-token", token.expose_secret().to_owned()));
    }
    headers.push(("x-amz-target", TARGET.to_owned()));
    let request = Signed {
        method: "POST",
        path: url.path(),
        headers: &headers,
        body: BODY.as_bytes(),
        amz_date: &amz_date,
        service: SERVICE,
    };
    headers.push(("authorization", request.authorization(key)));
    headers
        .into_iter()
        .map(|(name, text)| {
            let mut value = HeaderValue::try_from(text).map_err(|_| unsendable())?;
            value.set_sensitive(true);
            Ok((HeaderName::from_static(name), value))
        })
        .collect()
}

fn unsendable() -> Answer {
    Answer::Exchange("the AWS key has characters that no header can carry".to_owned())
}

/// A request as it is signed.
struct Signed<'a> {
    method: &'a str,
    path: &'a str,
    /// Lower-case names, sorted.
    headers: &'a [(&'a str, String)],
    body: &'a [u8],
    amz_date: &'a str,
    service: &'a str,
}

impl Signed<'_> {
    /// The value of the `Authorization` header.
    fn authorization(&self, key: &AwsKey) -> String {
        let date = self.amz_date.get(..8).unwrap_or_default();
        let scope = format!("{date}/{}/{}/aws4_request", key.region, self.service);
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let mut canonical = Zeroizing::new(format!("{}\n{}\n\n", self.method, self.path));
        for (name, value) in self.headers {
            canonical.push_str(name);
            canonical.push(':');
            canonical.push_str(value.trim());
            canonical.push('\n');
        }
        canonical.push('\n');
        canonical.push_str(&names);
        canonical.push('\n');
        canonical.push_str(&hex(digest::digest(&digest::SHA256, self.body).as_ref()));
        let request = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{request}", self.amz_date);

        let secret = Zeroizing::new(format!("AWS4{}", key.secret_access_key.expose_secret()));
        let mut derived = mac(secret.as_bytes(), date.as_bytes());
        for part in [&key.region, self.service, "aws4_request"] {
            derived = mac(derived.as_ref(), part.as_bytes());
        }
        let signature = hex(mac(derived.as_ref(), text.as_bytes()).as_ref());
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            key.access_key_id
        )
    }
}

fn mac(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    fn key(region: &str) -> Result<AwsKey, InvalidRegion> {
        AwsKey::new("AKIDEXAMPLE".into(), SECRET.into(), None, region.into())
    }

    /// The signature that the request must have, for doubles of the service.
    pub(in crate::image) fn expected(
        key: &AwsKey,
        headers: &[(&str, String)],
        path: &str,
        body: &[u8],
    ) -> String {
        let date = headers.iter().find(|(name, _)| *name == "x-amz-date");
        let signed = Signed {
            method: "POST",
            path,
            headers,
            body,
            amz_date: &date.unwrap().1,
            service: SERVICE,
        };
        signed.authorization(key)
    }

    /// AWS publishes these requests and their signatures as a test suite of the algorithm.
    #[test]
    fn signatures_are_those_of_the_published_examples() {
        let headers = [
            ("host", "example.amazonaws.com".to_owned()),
            ("x-amz-date", "20150830T123600Z".to_owned()),
        ];
        for (method, signature) in [
            (
                "GET",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "POST",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
        ] {
            let signed = Signed {
                method,
                path: "/",
                headers: &headers,
                body: b"",
                amz_date: "20150830T123600Z",
                service: "service",
            };
            assert_eq!(
                signed.authorization(&key("us-east-1").unwrap()),
                format!(
                    "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                     SignedHeaders=host;x-amz-date, Signature={signature}"
                )
            );
        }
    }

    #[test]
    fn only_the_region_s_own_registries_are_asked() {
        let key = key("eu-west-1").unwrap();
        for host in [
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr-fips.eu-west-1.amazonaws.com",
        ] {
            assert_eq!(key.check_registry(host), Ok(()), "{host}");
        }
        for host in [
            "123456789012.dkr.ecr.us-east-1.amazonaws.com",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com.cn",
            "evil.example.dkr.ecr.eu-west-1.amazonaws.com",
            "12345678901x.dkr.ecr.eu-west-1.amazonaws.com",
            "123456789012.dkr.ecr.eu-west-1.amazonaws.com:5000",
            "127.0.0.1:5000",
            "docker.io",
        ] {
            let error = key.check_registry(host).unwrap_err().to_string();
            assert!(error.contains(host) && !error.contains(SECRET), "{error}");
        }
    }

    #[test]
    fn a_region_is_part_of_a_host_s_name_and_nothing_else() {
        for region in [
            "",
            "evil.example/",
            "a@b",
            "eu-west-1.evil",
            "-eu-west",
            "EU-WEST-1",
        ] {
            assert_eq!(key(region).unwrap_err(), InvalidRegion, "{region}");
        }
        let endpoint = |region| key(region).unwrap().endpoint().unwrap().to_string();
        assert_eq!(
            endpoint("eu-west-1"),
            "https://api.ecr.eu-west-1.amazonaws.com/"
        );
        assert_eq!(
            endpoint("cn-north-1"),
            "https://api.ecr.cn-north-1.amazonaws.com.cn/"
        );
        assert!(!format!("{:?}", key("eu-west-1")).contains(SECRET));
    }
}
