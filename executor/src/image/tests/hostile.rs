//! Hostile layers as a registry serves them: pushed as images, pulled, and refused or made harmless.

use super::*;

/// Bounds under which a small bomb is as good as a large one.
fn tight() -> LayerLimits {
    LayerLimits {
        archive_bytes_max: 8 << 20,
        content_bytes_max: 8 << 20,
        ..LayerLimits::default()
    }
}

fn layer(archive: &[u8], compression: Compression) -> TestLayer {
    TestLayer::new(archive, compression)
}

/// 64 MiB of zeros in one file.
fn bomb() -> Vec<u8> {
    Sample::new().file("zeros", vec![0; 64 << 20]).end()
}

/// A layer whose bytes are cut, or go on behind their end.
fn changed(mut layer: TestLayer, change: impl FnOnce(&mut Vec<u8>)) -> TestLayer {
    change(&mut layer.bytes);
    layer
}

fn refused_layers() -> Vec<(&'static str, Vec<TestLayer>, &'static str)> {
    let base = || layer(&Sample::new().file("f", "1").end(), Compression::Gzip);
    let on_base = |archive: Sample| vec![base(), layer(&archive.end(), Compression::Gzip)];
    let plain = Sample::new().file("f", [7; 5000]).end();
    let lied = TestLayer {
        diff_id: Digest::of(b"another"),
        ..layer(&plain, Compression::Gzip)
    };
    vec![
        (
            "up",
            on_base(Sample::new().file("../../canary", "dead")),
            "its path goes up",
        ),
        (
            "host-link",
            on_base(Sample::new().hard_link("x", "/etc/hostname")),
            "a hard link to a file that does not exist",
        ),
        (
            "device",
            on_base(Sample::new().device(b'3', "f", 4096, 0)),
            "a device's number",
        ),
        (
            "redirect",
            on_base(
                Sample::new()
                    .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")])
                    .folder("d", 0o755),
            ),
            "steer the mount",
        ),
        (
            "gzip-bomb",
            vec![layer(&bomb(), Compression::Gzip)],
            "exceeds 8388608",
        ),
        (
            "zstd-bomb",
            vec![layer(&bomb(), Compression::Zstd)],
            "exceeds 8388608",
        ),
        (
            "zeros-behind-the-end",
            vec![layer(
                &Sample::new().raw(&vec![0; 64 << 20]).end(),
                Compression::Zstd,
            )],
            "the archive exceeds 8388608",
        ),
        (
            "cut",
            vec![changed(layer(&plain, Compression::Gzip), |bytes| {
                bytes.truncate(bytes.len() / 2);
            })],
            "the archive cannot be read",
        ),
        (
            "more",
            vec![changed(layer(&plain, Compression::Gzip), |bytes| {
                bytes.extend_from_slice(b"more");
            })],
            "the archive cannot be read",
        ),
        ("lie", vec![lied], "a layer's content should have digest"),
    ]
}

/// What is beside the store, which no layer may touch.
fn canary(store: &Store) -> (i64, i64, Vec<u8>) {
    let path = store.dir.path().join("canary");
    let status = std::fs::metadata(&path).unwrap();
    (
        status.ctime(),
        status.ctime_nsec(),
        std::fs::read(path).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_layers_of_a_registry_are_refused_and_leave_nothing() {
    let server = TestRegistry::start().await;
    let registry = client(&[&server.host()]);
    for (name, layers, why) in refused_layers() {
        server
            .push(&Layout::image(&layers), &format!("{name}:1"))
            .await;
        let image = reference(format!("{}/{name}:1", server.host()));
        let resolved = registry.resolve(&image, &ANONYMOUS).await.unwrap();
        let store = Store::within(tight());
        std::fs::write(store.dir.path().join("canary"), "alive").unwrap();
        let before = canary(&store);
        let error = registry
            .pull(&resolved, &ANONYMOUS, &store.store, &|_| ())
            .await
            .unwrap_err();
        let text = domain::causes::chain(&error);
        assert!(text.contains(why), "{name}: {text}");
        assert_eq!(error.reason(), ImageFailure::Unsafe, "{name}: {text}");
        assert_eq!(canary(&store), before, "{name}");
        // The layers beneath may stay; what was refused does not, in any state.
        let whole = layers.len() - 1;
        let removed = async {
            while names(&store).len() > whole {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let patience = std::time::Duration::from_secs(30);
        let removed = tokio::time::timeout(patience, removed).await;
        assert!(removed.is_ok(), "{name} left {:?}", names(&store));
        assert!(store.store.content_bytes() < 1 << 20, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_that_try_to_leave_are_made_harmless() {
    let server = TestRegistry::start().await;
    let registry = client(&[&server.host()]);
    let layers = [
        Sample::new().symlink("out", "../../..").file("gone", "1"),
        Sample::new()
            .file("out/canary", "dead")
            .file("out/.wh.gone", ""),
    ]
    .map(|archive| layer(&archive.end(), Compression::Zstd));
    server.push(&Layout::image(&layers), "out:1").await;
    let image = reference(format!("{}/out:1", server.host()));
    let resolved = registry.resolve(&image, &ANONYMOUS).await.unwrap();
    let store = Store::within(tight());
    std::fs::write(store.dir.path().join("canary"), "alive").unwrap();
    let before = canary(&store);
    let pulled = registry
        .pull(&resolved, &ANONYMOUS, &store.store, &|_| ())
        .await
        .unwrap();
    assert_eq!(store.view(&pulled), ["f canary=dead", "l out>../../.."]);
    assert_eq!(canary(&store), before);
}

/// The folders of the store, finished or not.
fn names(store: &Store) -> Vec<String> {
    let entries = std::fs::read_dir(store.store.root()).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lock")
        .collect()
}
