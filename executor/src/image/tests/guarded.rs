//! Where a request may lead, and what it takes along.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::double::{Content, Double, Reply};
use super::*;
use crate::guard::Names;

/// Names that all mean one address.
pub(super) struct AllAt(pub(super) SocketAddr);

impl Names for AllAt {
    fn addresses(&self, _host: String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
        let address = self.0;
        Box::pin(async move { Ok(vec![address]) })
    }
}

/// A client for which every name means the double.
pub(super) fn named(config: RegistryConfig, double: &Double) -> Registry {
    let address = SocketAddr::from(([127, 0, 0, 1], double.port()));
    Registry::with_names(config, limits(), clock(), Arc::new(AllAt(address))).unwrap()
}

async fn refusal(registry: &Registry, image: &str) -> String {
    let image = reference(image.to_owned());
    let error = registry.resolve(&image, &ANONYMOUS).await.unwrap_err();
    assert_eq!(error.reason(), ImageFailure::ForbiddenAddress, "{error:?}");
    domain::causes::chain(&error)
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_followed() {
    let double = Double::start(|_| Reply::status(500)).await;
    let registry = named(RegistryConfig::default(), &double);
    for image in ["r.example/app:1", "localhost/app:1", "debian:12"] {
        let said = refusal(&registry, image).await;
        assert!(said.contains("127.0.0.1, a loopback address"), "{said}");
        assert!(said.contains("registry.private_hosts"), "{said}");
    }
    // An address needs no name.
    let said = refusal(&registry, &format!("{}/app:1", double.host())).await;
    assert!(said.contains("127.0.0.1, a loopback address"), "{said}");
    assert_eq!(double.asked().len(), 0);

    // Another port of a host that the operator named is another host.
    let host = format!("r.example:{}", double.port());
    let config = RegistryConfig {
        private_hosts: BTreeSet::from([host.clone()]),
        ..RegistryConfig::default()
    };
    let registry = named(config, &double);
    refusal(&registry, "r.example/app:1").await;
    let named_one = reference(format!("{host}/app:1"));
    let error = registry.resolve(&named_one, &ANONYMOUS).await.unwrap_err();
    assert_eq!(
        error.reason(),
        ImageFailure::Pull,
        "no TLS is spoken there: {error:?}"
    );
}

fn basic() -> Credentials {
    Credentials::basic(USER.0.to_owned(), USER.1.to_owned())
}

/// A registry that wants a password and keeps its blobs at `storage`.
async fn redirecting(storage: String, content: Content) -> Double {
    Double::start(move |asked| {
        if asked.header("authorization").is_empty() {
            return Reply::status(401).with("WWW-Authenticate", "Basic realm=\"r\"");
        }
        if asked.target.contains("/blobs/") {
            let name = asked.target.rsplit('/').next().unwrap();
            return Reply::status(307).with("Location", format!("http://{storage}/{name}"));
        }
        content.reply(asked)
    })
    .await
}

#[tokio::test]
async fn storage_that_a_registry_redirects_to_gets_no_password() {
    let mut content = Content::default();
    let image = content.image(|_, _| ());
    content.tag("1", &image);
    let kept = content.clone();
    let storage = Double::start(move |asked| kept.reply(asked)).await;
    let front = redirecting(storage.host(), content).await;
    let image = reference(format!("{}/app:1", front.host()));

    client(&[&front.host(), &storage.host()])
        .resolve(&image, &basic())
        .await
        .unwrap();
    assert!(
        front
            .asked()
            .iter()
            .any(|asked| asked.header("authorization") == "Basic YnVpbGRlcjpzM2NyZXQ=")
    );
    assert_eq!(storage.asked().len(), 1);
    assert!(
        storage
            .asked()
            .iter()
            .all(|asked| asked.header("authorization").is_empty())
    );

    // Storage that the operator did not name: neither without TLS, nor inside.
    let error = client(&[&front.host()])
        .resolve(&image, &basic())
        .await
        .unwrap_err();
    assert!(
        domain::causes::chain(&error).contains("plain_http_hosts"),
        "{error:?}"
    );
    assert_eq!(storage.asked().len(), 1);
}

#[tokio::test]
async fn a_redirect_inside_is_not_followed() {
    let mut content = Content::default();
    let image = content.image(|_, _| ());
    content.tag("1", &image);
    let inside = Double::start(|_| Reply::ok("secret")).await;
    let target = format!("https://{}/latest/meta-data", inside.host());
    let front = Double::start(move |asked| {
        if asked.target.contains("/blobs/") {
            return Reply::status(302).with("Location", target.clone());
        }
        content.reply(asked)
    })
    .await;
    let image = format!("{}/app:1", front.host());
    let said = refusal(&client(&[&front.host()]), &image).await;
    assert!(said.contains("a loopback address"), "{said}");
    assert_eq!(inside.asked().len(), 0);
}

#[tokio::test]
async fn redirects_come_to_an_end() {
    let double =
        Double::start(|asked| Reply::status(302).with("Location", asked.target.clone())).await;
    let image = reference(format!("{}/app:1", double.host()));
    let error = client(&[&double.host()])
        .resolve(&image, &ANONYMOUS)
        .await
        .unwrap_err();
    assert!(
        domain::causes::chain(&error).contains("redirects too often"),
        "{error:?}"
    );
    assert_eq!(
        double.asked().len(),
        usize::try_from(limits().redirects_max).unwrap() + 1
    );
}

#[tokio::test]
async fn a_mirror_is_not_shown_the_password_of_the_registry() {
    let mirror =
        Double::start(|_| Reply::status(401).with("WWW-Authenticate", "Basic realm=\"r\"")).await;
    let mut content = Content::default();
    let image = content.image(|_, _| ());
    content.tag("1", &image);
    let origin = Double::start(move |asked| {
        if asked.header("authorization").is_empty() {
            return Reply::status(401).with("WWW-Authenticate", "Basic realm=\"r\"");
        }
        content.reply(asked)
    })
    .await;
    let registry = open(RegistryConfig {
        mirrors: BTreeMap::from([(
            origin.host(),
            vec![Mirror {
                host: mirror.host(),
                plain_http: true,
            }],
        )]),
        plain_http_hosts: BTreeSet::from([origin.host()]),
        ..RegistryConfig::default()
    });
    let image = reference(format!("{}/app:1", origin.host()));
    registry.resolve(&image, &basic()).await.unwrap();
    assert!(!mirror.asked().is_empty());
    assert!(
        mirror
            .asked()
            .iter()
            .all(|asked| asked.header("authorization").is_empty())
    );
}

/// A registry with a token service, for the user of the tests.
async fn with_tokens(realm: Option<String>) -> Double {
    let mut content = Content::default();
    let image = content.image(|_, _| ());
    content.tag("1", &image);
    Double::start(move |asked| {
        if asked.target.starts_with("/token") {
            return match asked.header("authorization") {
                "Basic YnVpbGRlcjpzM2NyZXQ=" => Reply::ok(r#"{"token": "t0k3n"}"#),
                "" => Reply::ok(r#"{"access_token": "nobody"}"#),
                _ => Reply::status(401),
            };
        }
        if asked.header("authorization") == "Bearer t0k3n" {
            return content.reply(asked);
        }
        let realm = realm
            .clone()
            .unwrap_or_else(|| format!("http://{}/token", asked.header("host")));
        let challenge = format!(
            "Bearer realm=\"{realm}\",service=\"s, and so on\",scope=\"repository:app:pull,push\""
        );
        Reply::status(401).with("WWW-Authenticate", challenge)
    })
    .await
}

#[tokio::test]
async fn a_token_is_asked_for_where_the_registry_says() {
    let double = with_tokens(None).await;
    let registry = client(&[&double.host()]);
    let image = reference(format!("{}/app:1", double.host()));
    registry.resolve(&image, &basic()).await.unwrap();
    let asked = double.asked();
    let token = asked
        .iter()
        .find(|asked| asked.target.starts_with("/token"))
        .unwrap();
    assert_eq!(
        token.target,
        "/token?service=s%2C+and+so+on&scope=repository%3Aapp%3Apull"
    );
    // The token serves the documents that follow, too.
    assert_eq!(
        asked
            .iter()
            .filter(|asked| asked.target.starts_with("/token"))
            .count(),
        1
    );

    for credentials in [
        ANONYMOUS,
        Credentials::basic(USER.0.to_owned(), "wrong".to_owned()),
    ] {
        let error = registry.resolve(&image, &credentials).await.unwrap_err();
        assert_eq!(error.reason(), ImageFailure::Unauthorized, "{error:?}");
    }
}

#[tokio::test]
async fn a_token_service_is_not_asked_inside_or_without_tls() {
    let inside = Double::start(|_| Reply::ok(r#"{"token": "t0k3n"}"#)).await;
    for (realm, said) in [
        (
            format!("https://{}/token", inside.host()),
            "a loopback address",
        ),
        (
            format!("http://{}/token", inside.host()),
            "plain_http_hosts",
        ),
        ("file:///etc/passwd".to_owned(), "TLS is wanted"),
    ] {
        let double = with_tokens(Some(realm)).await;
        let image = reference(format!("{}/app:1", double.host()));
        let error = client(&[&double.host()])
            .resolve(&image, &basic())
            .await
            .unwrap_err();
        let chain = domain::causes::chain(&error);
        assert!(chain.contains(said), "{chain}");
    }
    assert_eq!(inside.asked().len(), 0);
}
