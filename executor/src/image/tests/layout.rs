//! Images in folders.

use super::*;

const WORDS: &str = "the image that was built";

async fn open_layout(layout: &Layout) -> Result<LayoutImage, ImageError> {
    let folder = layout.path().to_owned();
    LayoutImage::open(folder, WORDS, &limits()).await
}

/// What comes of opening and importing.
async fn import_failure(layout: &Layout) -> ImageError {
    match open_layout(layout).await {
        Err(error) => error,
        Ok(image) => {
            let imported = image.import(&Store::new().store, None, &|_| ()).await;
            imported.unwrap_err()
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_s_image_gives_the_layers_that_its_registry_would() {
    let server = TestRegistry::start().await;
    let registry = client(&[&server.host()]);
    let layout = Layout::image(&two_layers(Compression::Gzip));
    server.push(&layout, "app:1").await;
    let store = Store::new();
    let image = reference(format!("{}/app:1", server.host()));
    let resolved = registry.resolve(&image, &ANONYMOUS).await.unwrap();
    let pulled = registry
        .pull(&resolved, &ANONYMOUS, &store.store, &|_| ())
        .await
        .unwrap();

    // The same content, and one layer more.
    let mut layers = two_layers(Compression::Plain);
    let top = Sample::new().file("d/c", "3").end();
    layers.push(TestLayer::new(&top, Compression::Zstd));
    let layout = Layout::image(&layers);
    let image = open_layout(&layout).await.unwrap();
    assert_eq!(image.config.env, ["PATH=/bin"]);
    // What is in the store is not read.
    for layer in &image.layers[..2] {
        std::fs::remove_file(layout.blob_path(&layer.digest)).unwrap();
    }
    let seen = Mutex::new(Vec::new());
    let note = |progress: PullProgress| {
        if let LayerStage::Stored { provenance } = progress.stage {
            seen.lock().unwrap().push(provenance);
        }
    };
    let imported = image.import(&store.store, None, &note).await.unwrap();
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen, [Provenance::Hit, Provenance::Hit, Provenance::Built]);
    let keys = |layers: &[Layer]| layers.iter().map(|layer| *layer.key()).collect::<Vec<_>>();
    assert_eq!(keys(&imported[..2]), keys(&pulled));
    let (mut view, below) = (store.view(&imported), store.view(&pulled));
    view.retain(|line| !below.contains(line));
    assert_eq!(view.len(), 1, "{view:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_s_image_that_is_not_what_it_says_is_refused() {
    let layers = || {
        vec![TestLayer::new(
            &Sample::new().file("f", "1").end(),
            Compression::Plain,
        )]
    };
    let lies = Layout::image_with(
        &layers(),
        |config| config["rootfs"]["diff_ids"] = json!([Digest::of(b"else").to_string()]),
        |_| (),
    );
    let error = import_failure(&lies).await;
    assert!(matches!(
        error,
        ImageError::DigestMismatch {
            what: "a layer's content",
            ..
        }
    ));
    assert!(error.to_string().starts_with(WORDS), "{error}");

    for change in [
        |path: &std::path::Path| std::fs::write(path, "else").unwrap(),
        |path: &std::path::Path| {
            let longer = [std::fs::read(path).unwrap(), vec![0; 1024]].concat();
            std::fs::write(path, longer).unwrap();
        },
    ] {
        let damaged = Layout::image(&layers());
        change(&damaged.blob_path(&Digest::of(&layers()[0].bytes)));
        let error = import_failure(&damaged).await;
        assert_eq!(error.reason(), ImageFailure::Unsafe, "{error:?}");
    }

    let missing = Layout::image(&layers());
    std::fs::remove_file(missing.path().join("index.json")).unwrap();
    let error = import_failure(&missing).await;
    assert!(
        matches!(&error, ImageError::Folder { file, .. } if file == "index.json"),
        "{error:?}"
    );

    let arm = Layout::image_with(
        &layers(),
        |config| config["architecture"] = json!("arm64"),
        |_| (),
    );
    let error = import_failure(&arm).await;
    assert!(
        matches!(error, ImageError::UnsupportedPlatform { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_documents_of_a_folder_have_their_bounds() {
    let layout = Layout::image(&[]);
    let bounds = [
        ImageLimits {
            manifest_bytes_max: 10,
            ..limits()
        },
        ImageLimits {
            config_bytes_max: 10,
            ..limits()
        },
    ];
    for limits in bounds {
        let opened = LayoutImage::open(layout.path().to_owned(), WORDS, &limits).await;
        let error = opened.unwrap_err();
        assert!(matches!(error, ImageError::Refused { .. }), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_somebody_has_something_against_is_not_kept() {
    let layout = Layout::image(&two_layers(Compression::Plain));
    let image = open_layout(&layout).await.unwrap();
    let store = Store::new();
    let inspect: Inspect = std::sync::Arc::new(|index, folder| {
        assert_eq!(folder.join("d/b").exists(), index == 1);
        index == 0
    });
    let imported = image.import(&store.store, Some(&inspect), &|_| ()).await;
    let error = imported.unwrap_err();
    let top = &image.layers[1];
    assert!(matches!(error, ImageError::Rejected { layer, .. } if layer == top.digest));
    let bottom = chain_key(None, &image.layers[0].diff_id);
    assert!(
        store
            .store
            .get(&chain_key(Some(&bottom), &top.diff_id))
            .is_none()
    );
    // What is there is not looked at again.
    image.import(&store.store, None, &|_| ()).await.unwrap();
    image
        .import(&store.store, Some(&inspect), &|_| ())
        .await
        .unwrap();
}
