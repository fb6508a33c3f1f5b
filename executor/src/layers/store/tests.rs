use std::convert::Infallible;
use std::sync::atomic::AtomicUsize;

use super::*;

/// A store in a temporary folder.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("layers")
    }

    fn open(&self) -> LayerStore {
        LayerStore::open(self.root(), LayerLimits::default()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.root())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "lock")
            .collect();
        names.sort_unstable();
        names
    }
}

fn key(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

/// Puts a layer with one file of `bytes` bytes in the store.
async fn put(store: &LayerStore, name: &str, bytes: usize) -> Layer {
    let (layer, _) = store
        .get_or_build(key(name), |staging| async move {
            std::fs::write(staging.path().join("file"), vec![1; bytes]).unwrap();
            Ok::<_, Infallible>(())
        })
        .await
        .unwrap();
    layer
}

/// Waits until `condition` holds.
async fn eventually(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), holds)
        .await
        .expect("the condition came to hold");
}

#[tokio::test]
async fn a_layer_survives_its_process() {
    let world = World::new();
    let store = world.open();
    let layer = put(&store, "a", 10_000).await;
    assert!(layer.content_bytes() >= 10_000);
    assert_eq!(store.content_bytes(), layer.content_bytes());
    let bytes = layer.content_bytes();
    drop((layer, store));

    let store = world.open();
    assert_eq!(store.content_bytes(), bytes);
    let layer = store.get(&key("a")).unwrap();
    assert_eq!(
        std::fs::read(layer.path().join("file")).unwrap().len(),
        10_000
    );
    assert_eq!(world.names(), [key("a").hex()]);
    assert!(store.get(&key("b")).is_none());
}

#[tokio::test]
async fn one_process_owns_the_store() {
    let world = World::new();
    let store = world.open();
    let second = LayerStore::open(world.root(), LayerLimits::default());
    assert!(
        matches!(second, Err(StoreError::Owned { .. })),
        "{second:?}"
    );
    drop(store);
    world.open();
}

#[tokio::test]
async fn a_root_without_room_for_mount_options_is_refused() {
    for root in ["/tmp/".to_owned() + &"x".repeat(200), "relative".to_owned()] {
        let refused = LayerStore::open(root.into(), LayerLimits::default());
        assert!(
            matches!(refused, Err(StoreError::UnusableRoot { .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn leftovers_of_a_crash_are_removed_at_the_next_start() {
    let world = World::new();
    drop(put(&world.open(), "whole", 1).await);
    let make = |name: &str, meta: Option<String>| {
        let folder = world.root().join(name);
        std::fs::create_dir_all(folder.join("diff/deep/er")).unwrap();
        if let Some(meta) = meta {
            std::fs::write(folder.join("meta.json"), meta).unwrap();
        }
    };
    let meta = |key: Digest, format: u32| {
        Some(format!(
            r#"{{"format":{format},"key":"{key}","content_bytes":1}}"#
        ))
    };
    make(".tmp-new-1", None);
    make(".tmp-evicted-2", meta(key("whole"), 1));
    make(&key("undescribed").hex(), None);
    make(&key("torn").hex(), Some("{\"format\":1".to_owned()));
    make(&key("renamed").hex(), meta(key("other"), 1));
    make(&key("future").hex(), meta(key("future"), 2));

    let store = world.open();
    assert_eq!(world.names(), [key("whole").hex()]);
    assert!(store.get(&key("whole")).is_some());
}

#[tokio::test]
async fn a_layer_whose_content_is_gone_is_rebuilt() {
    let world = World::new();
    let store = world.open();
    let path = put(&store, "a", 1).await.path().to_owned();
    std::fs::remove_dir_all(&path).unwrap();
    assert!(store.get(&key("a")).is_none());
    assert_eq!(store.content_bytes(), 0);
    let layer = put(&store, "a", 1).await;
    assert!(layer.path().join("file").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_callers_build_once() {
    let world = World::new();
    let store = world.open();
    let builds = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(tokio::sync::Notify::new());
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (store, builds, gate) = (store.clone(), Arc::clone(&builds), Arc::clone(&gate));
            tokio::spawn(async move {
                let build = |staging: Staging| async move {
                    builds.fetch_add(1, Ordering::SeqCst);
                    gate.notified().await;
                    std::fs::write(staging.path().join("file"), "x").unwrap();
                    Ok::<_, Infallible>(())
                };
                store.get_or_build(key("a"), build).await.unwrap().1
            })
        })
        .collect();
    eventually(|| builds.load(Ordering::SeqCst) == 1).await;
    gate.notify_one();
    let mut built = 0;
    for caller in callers {
        built += usize::from(caller.await.unwrap() == Provenance::Built);
    }
    assert_eq!((built, builds.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn after_a_failed_build_the_next_caller_builds() {
    let world = World::new();
    let store = world.open();
    let failing = store.get_or_build(key("a"), |staging| async move {
        std::fs::write(staging.path().join("half"), "x").unwrap();
        tokio::task::yield_now().await;
        Err("broken")
    });
    let working = store.get_or_build(key("a"), |staging| async move {
        assert!(!staging.path().join("half").exists());
        Ok::<_, &str>(())
    });
    let (failed, worked) = tokio::join!(failing, working);
    assert!(
        matches!(failed, Err(BuildError::Build("broken"))),
        "{failed:?}"
    );
    assert_eq!(worked.unwrap().1, Provenance::Built);
    eventually(|| world.names() == [key("a").hex()]).await;
}

#[tokio::test]
async fn a_dropped_build_leaves_nothing_once_its_writer_stops() {
    let world = World::new();
    let store = world.open();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let build = store.get_or_build(key("a"), |staging| async move {
        sender.send(staging.clone()).unwrap();
        std::future::pending::<Result<(), Infallible>>().await
    });
    let dropped = tokio::time::timeout(std::time::Duration::from_millis(20), build).await;
    assert!(dropped.is_err());
    let writer = receiver.await.unwrap();
    // The writer still has its folder, and ends in peace.
    std::fs::write(writer.path().join("file"), "x").unwrap();
    drop(writer);
    eventually(|| world.names().is_empty()).await;
    assert_eq!(put(&store, "a", 1).await.key(), &key("a"));
}

#[tokio::test]
async fn eviction_takes_the_longest_unused_and_never_what_is_in_use() {
    let world = World::new();
    let store = world.open();
    let a = put(&store, "a", 50_000).await;
    for name in ["b", "c", "d"] {
        put(&store, name, 50_000).await;
    }
    store.get(&key("b")).unwrap();
    let each = a.content_bytes();

    // `a` is the oldest, but in use.
    let evicted = store.evict_to(3 * each).await.unwrap();
    assert_eq!(evicted.layers, [key("c")]);
    assert_eq!(evicted.content_bytes, each);
    let evicted = store.evict_to(0).await.unwrap();
    assert_eq!(evicted.layers, [key("d"), key("b")]);
    assert_eq!(world.names(), [key("a").hex()]);
    assert!(a.path().join("file").exists());
    assert_eq!(store.content_bytes(), each);

    drop(a);
    assert_eq!(store.evict_to(0).await.unwrap().layers, [key("a")]);
    assert_eq!(store.content_bytes(), 0);
    assert_eq!(world.names(), [""; 0]);
}

#[tokio::test]
async fn the_order_of_use_survives_a_restart() {
    let world = World::new();
    let store = world.open();
    for name in ["a", "b", "c"] {
        put(&store, name, 1).await;
    }
    let used = |name: &str| {
        let meta = world.root().join(key(name).hex()).join("meta.json");
        std::fs::metadata(meta).unwrap().modified().unwrap()
    };
    // The kernel's clock of file times ticks slowly: use `a` until it counts as later.
    eventually(|| {
        store.get(&key("a")).unwrap();
        used("a") > used("c") && used("a") > used("b")
    })
    .await;
    drop(store);
    // Stamps under way hold no store, so the lock is free.
    let store = world.open();
    let evicted = store.evict_to(0).await.unwrap();
    assert_eq!(evicted.layers.last(), Some(&key("a")));
}

#[tokio::test]
async fn a_stack_is_evicted_from_its_top() {
    let world = World::new();
    let store = world.open();
    let mut layers = Vec::new();
    for name in ["base", "middle", "top"] {
        layers.push(put(&store, name, 1).await);
    }
    store.stack(&layers);
    drop(layers);
    let evicted = store.evict_to(0).await.unwrap();
    assert_eq!(evicted.layers, [key("top"), key("middle"), key("base")]);
}

mod needs;
