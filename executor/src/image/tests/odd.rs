//! Registries that answer oddly, and documents that no tool of ours would push.

use super::double::{Content, Double, Reply};
use super::*;

async fn serving(content: Content) -> Double {
    Double::start(move |asked| content.reply(asked)).await
}

async fn resolve(double: &Double) -> Result<ResolvedImage, ImageError> {
    let registry = client(&[&double.host()]);
    let image = reference(format!("{}/app:1", double.host()));
    registry.resolve(&image, &ANONYMOUS).await
}

#[tokio::test]
async fn an_index_may_lead_to_an_index() {
    let mut content = Content::default();
    let index = "application/vnd.oci.image.index.v1+json";
    let ours = content.image(|_, _| ());
    let mut attestation = content.image(|_, manifest| manifest["annotations"] = json!({"a": "b"}));
    attestation["platform"] = json!({"os": "linux", "architecture": "amd64"});
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let arm = content.image(|config, _| config["architecture"] = json!("arm64"));
    // Nothing says for which platform these are, so each is looked at.
    let inner =
        json!({"schemaVersion": 2, "mediaType": index, "manifests": [attestation, arm, ours]});
    let inner = content.add_json(index, &inner);
    let outer = content.add_json(index, &json!({"schemaVersion": 2, "manifests": [inner]}));
    content.tag("1", &outer);
    let resolved = resolve(&serving(content).await).await.unwrap();
    assert_eq!(
        resolved.manifest_digest.to_string(),
        ours["digest"].as_str().unwrap()
    );
}

#[tokio::test]
async fn what_an_index_offers_instead_is_told() {
    let mut content = Content::default();
    let index = "application/vnd.oci.image.index.v1+json";
    let mut entry = |architecture: &str, variant: &str| {
        let mut image = content.image(|config, _| config["architecture"] = json!(architecture));
        image["platform"] =
            json!({"os": "linux", "architecture": architecture, "variant": variant});
        image
    };
    let mut manifests = vec![
        entry("arm64", "v8"),
        entry("amd64", "v3"),
        entry("s390x", ""),
    ];
    let unsaid = content.image(|config, _| {
        config["os"] = json!("windows");
    });
    manifests.push(unsaid);
    let outer = content.add_json(index, &json!({"schemaVersion": 2, "manifests": manifests}));
    content.tag("1", &outer);
    let error = resolve(&serving(content).await).await.unwrap_err();
    assert_eq!(error.reason(), ImageFailure::UnsupportedPlatform);
    let offered = "it offers: linux/amd64/v3, linux/arm64/v8, linux/s390x, windows/amd64";
    assert!(error.to_string().ends_with(offered), "{error}");

    let mut content = Content::default();
    let empty = content.add_json(index, &json!({"schemaVersion": 2, "manifests": []}));
    content.tag("1", &empty);
    let error = resolve(&serving(content).await).await.unwrap_err();
    assert!(
        error.to_string().ends_with("it offers: no platform"),
        "{error}"
    );
}

#[tokio::test]
async fn indexes_that_lead_on_and_on_are_refused() {
    let mut content = Content::default();
    let index = "application/vnd.oci.image.index.v1+json";
    let mut inner = content.image(|_, _| ());
    for _ in 0..20 {
        inner = content.add_json(index, &json!({"schemaVersion": 2, "manifests": [inner]}));
    }
    content.tag("1", &inner);
    let double = serving(content).await;
    let error = resolve(&double).await.unwrap_err();
    assert_eq!(error.reason(), ImageFailure::Unsafe, "{error:?}");
    assert_eq!(double.asked().len(), limits().index_documents_max);
}

#[tokio::test]
async fn documents_of_other_kinds_are_refused() {
    let layer_type = |media_type: &'static str| {
        move |_: &mut Value, manifest: &mut Value| {
            manifest["layers"][0]["mediaType"] = json!(media_type);
            manifest["layers"][0]["urls"] = json!(["http://127.0.0.1:9/layer"]);
        }
    };
    let check = async |change: &dyn Fn(&mut Value, &mut Value), expected: &str| {
        let mut content = Content::default();
        let image = content.image(|config, manifest| change(config, manifest));
        content.tag("1", &image);
        let error = resolve(&serving(content).await).await.unwrap_err();
        assert_eq!(error.reason(), ImageFailure::Unsafe, "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    let foreign = "a layer is not kept by the registry";
    check(
        &layer_type("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        foreign,
    )
    .await;
    check(
        &layer_type("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        foreign,
    )
    .await;
    check(
        &layer_type("application/vnd.in-toto+json"),
        "unsupported format",
    )
    .await;
    check(
        &|_, manifest| manifest["schemaVersion"] = json!(1),
        "schema version 1",
    )
    .await;
    check(
        &|_, manifest| manifest["manifests"] = json!([]),
        "neither an image's nor an index",
    )
    .await;
    let index = json!("application/vnd.oci.image.index.v1+json");
    check(
        &|_, manifest| manifest["mediaType"] = index.clone(),
        "neither",
    )
    .await;
}

#[tokio::test]
async fn a_manifest_without_an_end_is_not_read_to_it() {
    let double = Double::start(|_| Reply {
        endless: true,
        ..Reply::ok(vec![b' '; 64 * 1024])
    })
    .await;
    let error = resolve(&double).await.unwrap_err();
    assert_eq!(error.reason(), ImageFailure::Unsafe, "{error:?}");
    // What the kernel buffers comes on top.
    let bound = limits().manifest_bytes_max + (16 << 20);
    assert!(double.sent_bytes() < bound, "{} bytes", double.sent_bytes());
    assert_eq!(double.asked().len(), 1);
}

#[tokio::test]
async fn a_registry_is_left_alone_as_long_as_it_asks() {
    let mut content = Content::default();
    let image = content.image(|_, _| ());
    content.tag("1", &image);
    let count = std::sync::atomic::AtomicUsize::new(0);
    let double = Double::start(move |asked| {
        if count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
            return Reply::status(429).with("Retry-After", "1");
        }
        content.reply(asked)
    })
    .await;
    let before = tokio::time::Instant::now();
    resolve(&double).await.unwrap();
    // Its own wait would be a millisecond.
    assert!(before.elapsed().as_millis() >= 1000);

    let double = Double::start(|_| Reply::status(503).with("Retry-After", "3600")).await;
    let error = resolve(&double).await.unwrap_err();
    assert_eq!(error.reason(), ImageFailure::Pull, "{error:?}");
    assert_eq!(double.asked().len(), 1);
}

#[tokio::test]
async fn a_request_that_is_wrong_is_not_repeated() {
    for status in [400, 405, 416] {
        let double = Double::start(move |_| Reply::status(status)).await;
        let error = resolve(&double).await.unwrap_err();
        assert_eq!(error.reason(), ImageFailure::Pull, "{error:?}");
        assert_eq!(double.asked().len(), 1, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_part_of_a_layer_than_was_asked_for_is_not_taken() {
    let mut content = Content::default();
    let image = content.image(|_, _| ());
    content.tag("1", &image);
    let double = Double::start(move |asked| {
        let reply = content.reply(asked);
        match asked.header("range") {
            "" if asked.target.contains("/blobs/") && reply.body.len() > 1000 => {
                // The first part of it, and then the connection ends.
                Reply::ok(&reply.body[..500])
            }
            "" => reply,
            _ => Reply {
                status: 206,
                ..reply
            }
            .with("Content-Range", "bytes 7-8/9"),
        }
    })
    .await;
    let registry = client(&[&double.host()]);
    let image = reference(format!("{}/app:1", double.host()));
    let resolved = registry.resolve(&image, &ANONYMOUS).await.unwrap();
    let store = Store::new();
    let pulled = registry
        .pull(&resolved, &ANONYMOUS, &store.store, &|_| ())
        .await;
    let error = pulled.unwrap_err();
    assert_eq!(error.reason(), ImageFailure::Pull, "{error:?}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("another part"), "{source}");
}
