mod double;
mod exchange;
mod guarded;
mod hostile;
mod layout;
mod network;
mod odd;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Mutex;

use domain::Digest;
use serde_json::{Value, json};

use super::fixture::{Compression, Layout, TestLayer, TestRegistry, USER};
use super::*;
use crate::layers::sample::{Sample, listing};
use crate::layers::{Layer, LayerStore, OverlayMount, Provenance, chain_key};
use crate::limits::layers::{ImageLimits, LayerLimits};

const ANONYMOUS: Credentials = Credentials::Anonymous;

fn limits() -> ImageLimits {
    ImageLimits {
        attempts_max: 3,
        backoff_first_ms: 1,
        read_timeout_ms: 20_000,
        progress_step_bytes: 1,
        ..ImageLimits::default()
    }
}

/// A client that speaks plain HTTP to these hosts.
fn client(hosts: &[&str]) -> Registry {
    let config = RegistryConfig {
        plain_http_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        ..RegistryConfig::default()
    };
    open(config)
}

fn open(config: RegistryConfig) -> Registry {
    Registry::new(config, limits(), clock()).unwrap()
}

/// When every test takes place.
fn clock() -> std::sync::Arc<dyn domain::ports::Clock> {
    let time = domain::time::Timestamp::from_unix_micros(1_440_938_160_000_000).unwrap();
    std::sync::Arc::new(commands::clock::ManualClock::at(time))
}

/// A store in a temporary folder.
struct Store {
    dir: tempfile::TempDir,
    store: LayerStore,
}

impl Store {
    fn new() -> Self {
        Self::within(LayerLimits::default())
    }

    fn within(limits: LayerLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("view")).unwrap();
        let store = LayerStore::open(dir.path().join("layers"), limits).unwrap();
        Self { dir, store }
    }

    fn view(&self, layers: &[Layer]) -> Vec<String> {
        let mount = OverlayMount::read_only(layers, &self.dir.path().join("view")).unwrap();
        listing(mount.path())
    }
}

fn reference(text: String) -> ImageReference {
    text.parse().unwrap()
}

fn two_layers(compression: Compression) -> Vec<TestLayer> {
    let base = Sample::new()
        .folder("d", 0o750)
        .file("d/a", "1")
        .file("gone", "1");
    let top = Sample::new().file("d/b", "2").file(".wh.gone", "");
    vec![
        TestLayer::new(&base.end(), compression),
        TestLayer::new(&top.end(), Compression::Plain),
    ]
}

/// Resolves and pulls; the error that comes of it.
async fn failure(registry: &Registry, image: String) -> ImageError {
    let image = reference(image);
    let resolved = match registry.resolve(&image, &ANONYMOUS).await {
        Ok(resolved) => resolved,
        Err(error) => return error,
    };
    let store = Store::new();
    let error = registry
        .pull(&resolved, &ANONYMOUS, &store.store, &|_| ())
        .await
        .unwrap_err();
    let mut parent = None;
    let all_kept = resolved.layers.iter().all(|layer| {
        let key = chain_key(parent.as_ref(), &layer.diff_id);
        parent = Some(key);
        store.store.get(&key).is_some()
    });
    assert!(!all_kept, "a refused layer was kept");
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_comes_whole_however_it_is_compressed() {
    let server = TestRegistry::start().await;
    let registry = client(&[&server.host()]);
    for (name, compression) in [
        ("plain", Compression::Plain),
        ("gzip", Compression::Gzip),
        ("zstd", Compression::Zstd),
    ] {
        let layers = two_layers(compression);
        server
            .push(&Layout::image(&layers), &format!("{name}:1"))
            .await;
        let image = reference(format!("{}/{name}:1", server.host()));
        let resolved = registry.resolve(&image, &ANONYMOUS).await.unwrap();
        assert_eq!(resolved.config.env, ["PATH=/bin"]);
        assert_eq!(resolved.layers[0].diff_id, layers[0].diff_id);

        let store = Store::new();
        let seen = Mutex::new(Vec::new());
        let progress = |progress| seen.lock().unwrap().push(progress);
        let pulled = registry
            .pull(&resolved, &ANONYMOUS, &store.store, &progress)
            .await
            .unwrap();
        assert_eq!(store.view(&pulled), ["d d", "f d/a=1", "f d/b=2"], "{name}");
        let base = chain_key(None, &layers[0].diff_id);
        assert_eq!(pulled[0].key(), &base);
        assert_eq!(pulled[1].key(), &chain_key(Some(&base), &layers[1].diff_id));
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        let stages = |layer| {
            seen.iter()
                .filter(move |progress| progress.layer_index == layer)
        };
        let total_bytes = resolved.layers[0].size_bytes;
        assert!(stages(0).any(|progress| {
            progress.stage
                == LayerStage::Transferring {
                    done_bytes: total_bytes,
                    total_bytes,
                }
        }));
        for layer in [0, 1] {
            let last = stages(layer).next_back().unwrap();
            assert_eq!(
                last.stage,
                LayerStage::Stored {
                    provenance: Provenance::Built
                }
            );
        }

        // By digest, and without a transfer.
        let pinned = registry
            .resolve(&resolved.pinned(), &ANONYMOUS)
            .await
            .unwrap();
        assert_eq!(pinned.manifest_digest, resolved.manifest_digest);
        let again = registry.pull(&pinned, &ANONYMOUS, &store.store, &|progress| {
            assert_eq!(
                progress.stage,
                LayerStage::Stored {
                    provenance: Provenance::Hit
                }
            );
        });
        assert_eq!(again.await.unwrap().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_s_own_formats_are_read() {
    let server = TestRegistry::start().await;
    let registry = client(&[&server.host()]);
    let layers = two_layers(Compression::Gzip);
    let layout = Layout::image(&layers);
    server
        .push_as(&layout, "docker:1", &["--format", "v2s2"])
        .await;
    let image = reference(format!("{}/docker:1", server.host()));
    let resolved = registry.resolve(&image, &ANONYMOUS).await.unwrap();
    assert_eq!(
        resolved.layers[0].media_type,
        "application/vnd.docker.image.rootfs.diff.tar.gzip"
    );
    let store = Store::new();
    let pulled = registry.pull(&resolved, &ANONYMOUS, &store.store, &|_| ());
    assert_eq!(
        store.view(&pulled.await.unwrap()),
        ["d d", "f d/a=1", "f d/b=2"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_index_the_image_for_this_platform_is_taken() {
    let server = TestRegistry::start().await;
    let registry = client(&[&server.host()]);
    let ours = two_layers(Compression::Gzip);
    let other = [TestLayer::new(
        &Sample::new().file("arm", "").end(),
        Compression::Gzip,
    )];
    server
        .push(
            &Layout::index(&[("arm64", &other), ("amd64", &ours)]),
            "multi:1",
        )
        .await;
    server
        .push(
            &Layout::index(&[("arm64", &other), ("s390x", &other)]),
            "foreign:1",
        )
        .await;
    let foreign = Layout::image_with(
        &other,
        |config| config["architecture"] = json!("arm64"),
        |_| (),
    );
    server.push(&foreign, "single:1").await;

    let image = reference(format!("{}/multi:1", server.host()));
    let resolved = registry.resolve(&image, &ANONYMOUS).await.unwrap();
    assert_eq!(resolved.layers[0].diff_id, ours[0].diff_id);
    for (name, offered) in [
        ("foreign", "linux/arm64, linux/s390x"),
        ("single", "linux/arm64"),
    ] {
        let error = failure(&registry, format!("{}/{name}:1", server.host())).await;
        assert_eq!(error.reason(), ImageFailure::UnsupportedPlatform);
        assert!(
            error
                .to_string()
                .ends_with(&format!("it offers: {offered}")),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_registry_lacks_is_not_found() {
    let server = TestRegistry::start().await;
    let registry = client(&[&server.host()]);
    server
        .push(&Layout::image(&two_layers(Compression::Plain)), "app:1")
        .await;
    let absent = Digest::of(b"absent");
    for name in ["app:2", "nothing/here:1", &format!("app@{absent}")] {
        let image = format!("{}/{name}", server.host());
        let error = failure(&registry, image.clone()).await;
        assert_eq!(error.reason(), ImageFailure::NotFound, "{error:?}");
        assert_eq!(
            error.to_string(),
            format!(
                "image `{image}` was not found at registry `{}`",
                server.host()
            )
        );
    }
}

/// Pushes an image; what comes of it is refused with these words.
async fn check_refused(server: &TestRegistry, layout: Layout, name: &str, expected: &str) {
    server.push(&layout, &format!("{name}:1")).await;
    let registry = client(&[&server.host()]);
    let error = failure(&registry, format!("{}/{name}:1", server.host())).await;
    assert_eq!(error.reason(), ImageFailure::Unsafe, "{name}: {error:?}");
    assert!(error.to_string().contains(expected), "{name}: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_that_are_not_what_the_image_says_are_refused() {
    let server = TestRegistry::start().await;
    let good = two_layers(Compression::Gzip);
    let check = async |change: fn(&mut Vec<TestLayer>), name, expected| {
        let mut layers = good.clone();
        change(&mut layers);
        check_refused(&server, Layout::image(&layers), name, expected).await;
    };
    let diff_id = |layers: &mut Vec<TestLayer>| layers[0].diff_id = Digest::of(b"other");
    check(diff_id, "diff-id", "a layer's content should have digest").await;
    let noise = |layers: &mut Vec<TestLayer>| layers[1].bytes = vec![7; 3000];
    check(noise, "noise", "cannot be unpacked").await;
    let truncated = |layers: &mut Vec<TestLayer>| {
        let half = layers[0].bytes.len() / 2;
        layers[0].bytes.truncate(half);
    };
    check(truncated, "truncated", "cannot be unpacked").await;
    let traversal = |layers: &mut Vec<TestLayer>| {
        layers[1] = TestLayer::new(&Sample::new().file("../x", "").end(), Compression::Zstd);
    };
    check(traversal, "traversal", "cannot be unpacked").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_contradict_themselves_are_refused() {
    let server = TestRegistry::start().await;
    let layers = two_layers(Compression::Gzip);
    let config = |change: fn(&mut Value)| Layout::image_with(&layers, change, |_| ());
    let manifest = |change: fn(&mut Value)| Layout::image_with(&layers, |_| (), change);
    for (name, layout, expected) in [
        (
            "count",
            config(|config| config["rootfs"]["diff_ids"] = json!([])),
            "it has 2 layers and 0 digests of them",
        ),
        (
            "chart",
            manifest(|manifest| manifest["config"]["mediaType"] = json!("application/vnd.helm")),
            "it is no container image but `application/vnd.helm`",
        ),
        (
            "format",
            manifest(|manifest| manifest["layers"][0]["mediaType"] = json!("application/vnd.x")),
            "the unsupported format `application/vnd.x`",
        ),
    ] {
        check_refused(&server, layout, name, expected).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_that_changed_at_the_registry_are_refused() {
    let server = TestRegistry::start().await;
    let registry = client(&[&server.host()]);
    // Each with a layer and a configuration of its own.
    let layers = |name: &str| {
        [TestLayer::new(
            &Sample::new().file(name, "1").end(),
            Compression::Plain,
        )]
    };
    let push = |name: &'static str| {
        let layout = Layout::image(&layers(name));
        let (server, registry) = (&server, &registry);
        async move {
            server.push(&layout, &format!("{name}:1")).await;
            let image = reference(format!("{}/{name}:1", server.host()));
            registry.resolve(&image, &ANONYMOUS).await.unwrap()
        }
    };
    let damage = |digest: &Digest, change: fn(&mut Vec<u8>)| {
        let path = server.blob_path(digest);
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
    };

    let layer = push("layer").await;
    damage(&layer.layers[0].digest, |bytes| {
        *bytes.last_mut().unwrap() = 1;
    });
    let error = failure(&registry, format!("{}/layer:1", server.host())).await;
    assert!(
        matches!(
            error,
            ImageError::DigestMismatch {
                what: "a layer",
                ..
            }
        ),
        "{error:?}"
    );

    let longer = push("longer").await;
    damage(&longer.layers[0].digest, |bytes| bytes.push(0));
    let error = failure(&registry, format!("{}/longer:1", server.host())).await;
    assert_eq!(error.reason(), ImageFailure::Unsafe, "{error:?}");

    // A blob that ends early is what a broken connection looks like.
    let shorter = push("shorter").await;
    damage(&shorter.layers[0].digest, |bytes| bytes.truncate(100));
    let error = failure(&registry, format!("{}/shorter:1", server.host())).await;
    assert_eq!(error.reason(), ImageFailure::Pull, "{error:?}");

    let gone = push("gone").await;
    std::fs::remove_file(server.blob_path(&gone.layers[0].digest)).unwrap();
    let error = failure(&registry, format!("{}/gone:1", server.host())).await;
    assert_eq!(error.reason(), ImageFailure::NotFound, "{error:?}");

    let manifest = push("manifest").await;
    damage(&manifest.manifest_digest, |bytes| bytes.push(b' '));
    let pinned = manifest.pinned().to_string();
    assert_eq!(
        failure(&registry, pinned).await.reason(),
        ImageFailure::Unsafe
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_registry_wants_its_user() {
    let server = TestRegistry::start_locked().await;
    let registry = client(&[&server.host()]);
    server
        .push(
            &Layout::image(&two_layers(Compression::Gzip)),
            "private/app:1",
        )
        .await;
    let image = reference(format!("{}/private/app:1", server.host()));
    let basic = |password: &str| Credentials::basic(USER.0.to_owned(), password.to_owned());
    let store = Store::new();
    let resolved = registry.resolve(&image, &basic(USER.1)).await.unwrap();
    for (wrong, said) in [
        (ANONYMOUS, "base_image_auth"),
        (basic("wrong"), "refuses the given credentials"),
    ] {
        let error = registry.resolve(&image, &wrong).await.unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(error.reason(), ImageFailure::Unauthorized, "{error:?}");
        assert!(!error.to_string().contains("wrong"), "{error}");
        let error = registry
            .pull(&resolved, &wrong, &store.store, &|_| ())
            .await
            .unwrap_err();
        assert_eq!(error.reason(), ImageFailure::Unauthorized, "{error:?}");
    }
    let pulled = registry
        .pull(&resolved, &basic(USER.1), &store.store, &|_| ())
        .await
        .unwrap();
    assert_eq!(pulled.len(), 2);
    // That everything is in the store opens the image to nobody, by digest neither.
    for image in [image.clone(), resolved.pinned()] {
        let error = registry.resolve(&image, &ANONYMOUS).await.unwrap_err();
        assert_eq!(error.reason(), ImageFailure::Unauthorized, "{error:?}");
        registry.resolve(&image, &basic(USER.1)).await.unwrap();
    }
    assert!(!format!("{:?}", basic("hush")).contains("hush"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_layers_and_concurrent_pulls_end_well() {
    let server = TestRegistry::start().await;
    let registry = client(&[&server.host()]);
    // Every layer needs the folder of the lowest, so each waits for all beneath it.
    let base = Sample::new().folder("d", 0o1777).end();
    let mut layers = vec![TestLayer::new(&base, Compression::Gzip)];
    for n in 0..12 {
        let archive = Sample::new()
            .file(format!("d/f{n:02}"), format!("{n}"))
            .end();
        layers.push(TestLayer::new(&archive, Compression::Gzip));
    }
    server.push(&Layout::image(&layers), "app:1").await;
    let image = reference(format!("{}/app:1", server.host()));
    let resolved = registry.resolve(&image, &ANONYMOUS).await.unwrap();
    let store = Store::new();
    let built = std::sync::atomic::AtomicUsize::new(0);
    let progress = |progress: PullProgress| {
        if progress.stage
            == (LayerStage::Stored {
                provenance: Provenance::Built,
            })
        {
            built.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    };
    let pull = || registry.pull(&resolved, &ANONYMOUS, &store.store, &progress);
    let (first, second, third) = tokio::join!(pull(), pull(), pull());
    assert_eq!(built.into_inner(), 13);
    assert_eq!(second.unwrap().len() + third.unwrap().len(), 26);
    let layers = first.unwrap();
    assert_eq!(store.view(&layers).len(), 13);
    let mode = std::fs::metadata(layers[12].path().join("d"))
        .unwrap()
        .mode();
    assert_eq!(mode & 0o7777, 0o1777);
}

#[test]
fn configuration_reads_from_its_file() {
    let config: RegistryConfig = serde_json::from_value(json!({
        "mirrors": {"docker.io": [{"host": "127.0.0.1:5000", "plain_http": true}, {"host": "mirror.example"}]},
        "plain_http_hosts": ["127.0.0.1:5001"],
        "private_hosts": ["registry.internal"],
    }))
    .unwrap();
    assert_eq!(config.mirrors["docker.io"].len(), 2);
    assert!(!config.mirrors["docker.io"][1].plain_http);
    assert!(serde_json::from_value::<RegistryConfig>(json!({"mirrros": {}})).is_err());
}
