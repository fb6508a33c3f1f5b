//! Credentials of clouds: exchanged at doubles that check what they are sent as the clouds do.

use aws_lc_rs::rsa::KeyPair as RsaKey;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::double::{Asked, Content, Double, Reply};
use super::guarded::named;
use super::*;
use crate::image::ecr::{AwsKey, tests::expected};
use crate::image::gcp::{InvalidServiceAccount, ServiceAccount};

const ECR_HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const GCP_HOST: &str = "europe-docker.pkg.dev";

fn aws(secret: &str, token: Option<&str>) -> AwsKey {
    let token = token.map(str::to_owned);
    AwsKey::new(
        "AKIDEXAMPLE".into(),
        secret.into(),
        token,
        "eu-west-1".into(),
    )
    .unwrap()
}

/// `GetAuthorizationToken`, as documented.
fn ecr_answers(asked: &Asked) -> Reply {
    let key = aws(
        "right",
        Some(asked.header("x-amz-security-token")).filter(|token| !token.is_empty()),
    );
    let authorization = asked.header("authorization");
    let names = authorization
        .split_once("SignedHeaders=")
        .and_then(|(_, rest)| rest.split_once(','));
    let Some((names, _)) = names else {
        return Reply::status(400);
    };
    let headers: Vec<(&str, String)> = names
        .split(';')
        .map(|name| (name, asked.header(name).to_owned()))
        .collect();
    for needed in ["host", "x-amz-date", "x-amz-target"] {
        assert!(names.contains(needed), "{needed} is not signed");
    }
    assert_eq!(asked.method, "POST");
    assert_eq!(
        asked.header("x-amz-target"),
        "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
    );
    assert_eq!(asked.header("content-type"), "application/x-amz-json-1.1");
    assert_eq!(asked.header("x-amz-date"), "20150830T123600Z");
    if authorization != expected(&key, &headers, "/", &asked.body) {
        return Reply::status(403);
    }
    let token = STANDARD.encode("AWS:ecr-password");
    let data = json!({"authorizationToken": token, "expiresAt": 1.0, "proxyEndpoint": "https://e"});
    Reply::ok(json!({"authorizationData": [data]}).to_string())
}

/// A cloud: its token service, and its registry that wants what the service gives.
async fn cloud(
    authorization: &'static str,
    service: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> Double {
    let mut content = Content::default();
    let image = content.image(|_, _| ());
    content.tag("1", &image);
    Double::start(move |asked| {
        if !asked.target.starts_with("/v2/") {
            return service(asked);
        }
        if asked.header("authorization") == authorization {
            return content.reply(asked);
        }
        Reply::status(401).with("WWW-Authenticate", "Basic realm=\"r\",service=\"ecr\"")
    })
    .await
}

fn client_of(double: &Double) -> Registry {
    let endpoint = Some(format!("http://{}/", double.host()));
    let config = RegistryConfig {
        plain_http_hosts: [ECR_HOST, GCP_HOST].map(str::to_owned).into(),
        ecr_endpoint: endpoint.clone(),
        gcp_token_endpoint: endpoint,
        ..RegistryConfig::default()
    };
    named(config, double)
}

#[tokio::test]
async fn an_aws_key_is_exchanged_for_a_password() {
    let double = cloud("Basic QVdTOmVjci1wYXNzd29yZA==", ecr_answers).await;
    let registry = client_of(&double);
    let image = reference(format!("{ECR_HOST}/app:1"));
    for key in [aws("right", None), aws("right", Some("session"))] {
        registry
            .resolve(&image, &Credentials::AwsEcr(key))
            .await
            .unwrap();
    }
    let wrong = Credentials::AwsEcr(aws("wr0ng-key", None));
    let error = registry.resolve(&image, &wrong).await.unwrap_err();
    assert_eq!(error.reason(), ImageFailure::Unauthorized, "{error:?}");
    assert!(
        error
            .to_string()
            .ends_with("AWS refused the key with status 403"),
        "{error}"
    );
    assert!(!format!("{error:?}{wrong:?}").contains("wr0ng-key"));
    // A registry that is none of AWS's is not told anything.
    let before = double.asked().len();
    let elsewhere = reference(format!("{GCP_HOST}/app:1"));
    let error = registry
        .resolve(&elsewhere, &Credentials::AwsEcr(aws("right", None)))
        .await;
    assert_eq!(error.unwrap_err().reason(), ImageFailure::Unauthorized);
    assert_eq!(double.asked().len(), before + 1);
}

/// A service account with a new key, and the public half of it.
fn account() -> (Value, Vec<u8>) {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    let key = RsaKey::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
    let base64 = STANDARD.encode(der.as_ref());
    let lines: Vec<&str> = base64
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        lines.join("\n")
    );
    let account = json!({
        "type": "service_account",
        "client_email": "puller@project.iam.gserviceaccount.com",
        "private_key": pem,
        "private_key_id": "key-1",
        "token_uri": "https://oauth2.googleapis.com/token",
        "project_id": "project",
    });
    (account, key.public_key().as_ref().to_vec())
}

/// The token endpoint, as documented: a form with a signed assertion.
fn google_answers(asked: &Asked, public_key: &[u8]) -> Reply {
    assert_eq!(
        asked.header("content-type"),
        "application/x-www-form-urlencoded"
    );
    let form = std::str::from_utf8(&asked.body).unwrap();
    let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
    let assertion = form.strip_prefix(grant).expect("the documented form");
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let header: Value = serde_json::from_slice(&decode(header)).unwrap();
    assert_eq!(
        header,
        json!({"alg": "RS256", "typ": "JWT", "kid": "key-1"})
    );
    let claims: Value = serde_json::from_slice(&decode(claims)).unwrap();
    let expected = json!({
        "iss": "puller@project.iam.gserviceaccount.com",
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "aud": format!("http://{}/", asked.header("host")),
        "iat": 1_440_938_160,
        "exp": 1_440_938_760,
    });
    assert_eq!(claims, expected);
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key);
    if key.verify(signed.as_bytes(), &decode(signature)).is_err() {
        return Reply::status(400);
    }
    Reply::ok(r#"{"access_token": "ya29.token", "expires_in": 3599, "token_type": "Bearer"}"#)
}

#[tokio::test]
async fn a_service_account_is_exchanged_for_a_token() {
    let (document, public_key) = account();
    let basic = "Basic b2F1dGgyYWNjZXNzdG9rZW46eWEyOS50b2tlbg==";
    let double = cloud(basic, move |asked| google_answers(asked, &public_key)).await;
    let registry = client_of(&double);
    let image = reference(format!("{GCP_HOST}/app:1"));
    let right = ServiceAccount::from_json(&document.to_string()).unwrap();
    registry
        .resolve(&image, &Credentials::GcpServiceAccount(right))
        .await
        .unwrap();

    // The same account with a key that is not its own.
    let mut other = document.clone();
    other["private_key"] = account().0["private_key"].clone();
    let other =
        Credentials::GcpServiceAccount(ServiceAccount::from_json(&other.to_string()).unwrap());
    let error = registry.resolve(&image, &other).await.unwrap_err();
    assert_eq!(error.reason(), ImageFailure::Unauthorized, "{error:?}");
    assert!(
        error
            .to_string()
            .ends_with("refused the service account with status 400"),
        "{error}"
    );
    let shown = format!("{other:?}");
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
}

#[test]
fn accounts_that_cannot_be_used_are_refused_without_their_content() {
    let (document, _) = account();
    let with = |key: &str, value: Value| {
        let mut changed = document.clone();
        changed[key] = value;
        changed.to_string()
    };
    for (text, expected) in [
        ("{pl4nted".to_owned(), InvalidServiceAccount::Malformed),
        ("[]".to_owned(), InvalidServiceAccount::Malformed),
        (
            with("client_email", json!(null)),
            InvalidServiceAccount::Malformed,
        ),
        (
            with("type", json!("authorized_user")),
            InvalidServiceAccount::OtherType,
        ),
        (
            with("token_uri", json!("https://pl4nted.example/token")),
            InvalidServiceAccount::TokenUri,
        ),
        (
            with("private_key", json!("pl4nted")),
            InvalidServiceAccount::Key,
        ),
    ] {
        let error = ServiceAccount::from_json(&text).unwrap_err();
        assert_eq!(error, expected);
        assert!(!format!("{error} {error:?}").contains("pl4nted"));
    }
}
