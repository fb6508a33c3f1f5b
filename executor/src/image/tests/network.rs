//! Mirrors, and networks that fail.

use super::*;
use crate::image::fixture::{Fault, FlakyNetwork, free_port};

/// A client that asks `mirror` for the images of `registry`.
fn mirrored(registry: &str, mirror: &str, mirrors_only: bool) -> Registry {
    let mirror = Mirror {
        host: mirror.to_owned(),
        plain_http: true,
    };
    let config = RegistryConfig {
        mirrors: BTreeMap::from([(registry.to_owned(), vec![mirror])]),
        mirrors_only,
        plain_http_hosts: BTreeSet::from([registry.to_owned()]),
        ..RegistryConfig::default()
    };
    open(config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_is_asked_first_and_the_registry_after_it() {
    let (origin, mirror) = (TestRegistry::start().await, TestRegistry::start().await);
    let layers = two_layers(Compression::Gzip);
    origin.push(&Layout::image(&layers), "at/origin:1").await;
    mirror
        .push(&Layout::image(&layers[..1]), "at/mirror:1")
        .await;
    origin.push(&Layout::image(&layers), "at/both:1").await;
    mirror.push(&Layout::image(&layers[..1]), "at/both:1").await;
    let registry = mirrored(&origin.host(), &mirror.host(), false);
    for (name, layer_count) in [("at/origin", 2), ("at/mirror", 1), ("at/both", 1)] {
        let image = reference(format!("{}/{name}:1", origin.host()));
        let resolved = registry.resolve(&image, &ANONYMOUS).await.unwrap();
        assert_eq!(resolved.layers.len(), layer_count, "{name}");
        let store = Store::new();
        let pulled = registry
            .pull(&resolved, &ANONYMOUS, &store.store, &|_| ())
            .await
            .unwrap();
        assert_eq!(pulled.len(), layer_count, "{name}");
    }

    let registry = mirrored(&origin.host(), &mirror.host(), true);
    let error = failure(&registry, format!("{}/at/origin:1", origin.host())).await;
    assert_eq!(error.reason(), ImageFailure::NotFound, "{error:?}");
    assert!(
        error
            .to_string()
            .ends_with(&format!("at registry `{}`", mirror.host())),
        "{error}"
    );
    // The canonical name stands for the registry whose mirror has it.
    let library = Layout::image(&layers[..1]);
    mirror.push(&library, "library/debian:bookworm").await;
    let registry = mirrored("docker.io", &mirror.host(), true);
    let resolved = registry
        .resolve(&reference("debian:bookworm".to_owned()), &ANONYMOUS)
        .await
        .unwrap();
    assert_eq!(resolved.layers.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_is_taken_up_where_it_broke() {
    let server = TestRegistry::start().await;
    let mut noise = vec![0; 600_000];
    getrandom::fill(&mut noise).unwrap();
    let layer = TestLayer::new(
        &Sample::new().file("noise", &noise).end(),
        Compression::Gzip,
    );
    let size = u64::try_from(layer.bytes.len()).unwrap();
    server.push(&Layout::image(&[layer]), "app:1").await;
    let image = reference(format!("{}/app:1", server.host()));
    let resolved = client(&[&server.host()])
        .resolve(&image, &ANONYMOUS)
        .await
        .unwrap();

    let network =
        FlakyNetwork::before(&server, vec![Fault::Cut(250_000), Fault::Cut(250_000)]).await;
    let registry = mirrored(&server.host(), &network.host(), true);
    let store = Store::new();
    let pulled = registry
        .pull(&resolved, &ANONYMOUS, &store.store, &|_| ())
        .await
        .unwrap();
    assert_eq!(
        std::fs::read(pulled[0].path().join("noise")).unwrap(),
        noise
    );
    assert!(network.connections() >= 3);
    // Nothing but heads of answers came twice.
    assert!(
        network.bytes() < size + 50_000,
        "{} of {size} bytes",
        network.bytes()
    );

    // Only so often.
    let network = FlakyNetwork::before(&server, vec![Fault::Cut(50_000); 20]).await;
    let registry = mirrored(&server.host(), &network.host(), true);
    let store = Store::new();
    let error = registry
        .pull(&resolved, &ANONYMOUS, &store.store, &|_| ())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), ImageFailure::Pull, "{error:?}");
    assert!(
        network.connections() <= 6,
        "{} connections",
        network.connections()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_stumbles_is_asked_again() {
    let server = TestRegistry::start().await;
    server
        .push(&Layout::image(&two_layers(Compression::Gzip)), "app:1")
        .await;
    for status in [503, 429, 500] {
        let network = FlakyNetwork::before(&server, vec![Fault::Status(status); 2]).await;
        let image = reference(format!("{}/app:1", network.host()));
        let registry = client(&[&network.host()]);
        registry.resolve(&image, &ANONYMOUS).await.unwrap();

        let network = FlakyNetwork::before(&server, vec![Fault::Status(status); 100]).await;
        let image = reference(format!("{}/app:1", network.host()));
        let error = client(&[&network.host()])
            .resolve(&image, &ANONYMOUS)
            .await
            .unwrap_err();
        assert_eq!(error.reason(), ImageFailure::Pull, "{error:?}");
        assert!(
            network.connections() <= 6,
            "{} connections",
            network.connections()
        );
    }
    for (status, reason) in [
        (401, ImageFailure::Unauthorized),
        (403, ImageFailure::Unauthorized),
        (404, ImageFailure::NotFound),
    ] {
        let network = FlakyNetwork::before(&server, vec![Fault::Status(status); 100]).await;
        let image = reference(format!("{}/app:1", network.host()));
        let error = client(&[&network.host()])
            .resolve(&image, &ANONYMOUS)
            .await
            .unwrap_err();
        assert_eq!(error.reason(), reason, "{status}: {error:?}");
        assert!(
            network.connections() <= 2,
            "{} connections",
            network.connections()
        );
    }
}

#[tokio::test]
async fn a_registry_that_is_away_is_a_failed_pull() {
    let host = format!("127.0.0.1:{}", free_port().await);
    let error = failure(&client(&[&host]), format!("{host}/app:1")).await;
    assert_eq!(error.reason(), ImageFailure::Pull, "{error:?}");
    assert_eq!(
        error.to_string(),
        format!("image `{host}/app:1` could not be pulled from registry `{host}`")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_http_is_only_spoken_to_hosts_that_are_listed() {
    let server = TestRegistry::start().await;
    server
        .push(&Layout::image(&two_layers(Compression::Gzip)), "app:1")
        .await;
    let registry = open(RegistryConfig {
        private_hosts: BTreeSet::from([server.host()]),
        ..RegistryConfig::default()
    });
    let error = failure(&registry, format!("{}/app:1", server.host())).await;
    assert_eq!(error.reason(), ImageFailure::Pull, "{error:?}");
}
