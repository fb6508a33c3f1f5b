//! The store on a real file system.

use std::os::unix::fs::FileExt as _;

use domain::Digest;
use domain::time::Timestamp;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::manifest::tests::description;
use super::*;
use crate::cache::Cache;
use crate::layers::LayerStore;
use crate::limits::layers::LayerLimits;

async fn store(dir: &Path) -> ArtifactStore {
    ArtifactStore::open(dir.join("store"), ArtifactLimits::default())
        .await
        .unwrap()
}

/// Stages files of which two are sparse.
async fn staged(store: &ArtifactStore) -> Staging {
    let staging = store.stage().await.unwrap();
    for (part, bytes) in [(Part::Rootfs, 8 << 20), (Part::Memory, 4 << 20)] {
        let file = File::create(staging.path(part)).unwrap();
        file.set_len(bytes).unwrap();
        file.write_all_at(b"data", 1 << 20).unwrap();
    }
    fs::write(staging.path(Part::DeviceState), "state").unwrap();
    staging
}

async fn published(store: &ArtifactStore) -> Artifact {
    let staging = staged(store).await;
    store.publish(staging, description()).await.unwrap()
}

/// The names in the store, without the folder of keys.
fn names(store: &ArtifactStore) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(&store.root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != KEYS)
        .collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn what_is_published_is_found_whole_and_unchangeable() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let staging = staged(&store).await;
    fs::write(staging.dir().join("vmm.log"), "stray").unwrap();
    fs::create_dir(staging.dir().join("scratch")).unwrap();
    std::os::unix::fs::chown(staging.path(Part::Memory), Some(65534), Some(65534)).unwrap();
    let artifact = store.publish(staging, description()).await.unwrap();

    assert_eq!(names(&store), [artifact.id().to_string()]);
    let found = store.get(artifact.id()).await.unwrap();
    assert_eq!(
        (&found.dir, &found.manifest),
        (&artifact.dir, &artifact.manifest)
    );
    found.verify().await.unwrap();
    let content = fs::read(found.path(Part::Rootfs)).unwrap();
    assert_eq!(found.manifest.rootfs.digest, Digest::of(&content));
    let rootfs = fs::metadata(found.path(Part::Rootfs)).unwrap();
    assert_eq!(rootfs.len(), 8 << 20);
    assert!(rootfs.blocks() * 512 < 1 << 20, "the image lost its holes");
    let mut files: Vec<String> = fs::read_dir(&found.dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            let name = entry.file_name().into_string().unwrap();
            format!("{name} {:o} {}", metadata.mode(), metadata.uid())
        })
        .collect();
    files.sort_unstable();
    let user = rustix::process::geteuid().as_raw();
    let expected = ["device-state", "manifest.json", "memory", "rootfs.ext4"];
    assert_eq!(files, expected.map(|name| format!("{name} 100444 {user}")));
    assert_eq!(fs::metadata(&found.dir).unwrap().mode(), 0o40_711);
    assert_eq!(store.list().await.unwrap(), [artifact.id().clone()]);
}

#[tokio::test]
async fn the_same_content_is_one_artifact() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let first = published(&store).await;
    let later = Description {
        created_at: Timestamp::from_unix_micros(1).unwrap(),
        ..description()
    };
    let staging = staged(&store).await;
    let second = store.publish(staging, later).await.unwrap();
    assert_eq!(second.manifest, first.manifest);
    assert_eq!(names(&store).len(), 1);
}

#[tokio::test]
async fn two_that_publish_the_same_at_once_both_succeed() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let (one, two) = tokio::join!(published(&store), published(&store));
    assert_eq!(one.id(), two.id());
    assert_eq!(names(&store), [one.id().to_string()]);
}

#[tokio::test]
async fn nothing_incomplete_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    for part in Part::ALL {
        let staging = staged(&store).await;
        fs::remove_file(staging.path(part)).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", staging.path(part)).unwrap();
        let expected = staging.path(part);
        let error = store.publish(staging, description()).await.unwrap_err();
        assert!(
            matches!(&error, ArtifactError::Incomplete { path } if *path == expected),
            "{error}"
        );
        assert_eq!(names(&store), Vec::<String>::new());
    }
    let mut long = description();
    long.runtime.start_cmd = Some("x".repeat(2 << 20));
    let staging = staged(&store).await;
    let error = store.publish(staging, long).await.unwrap_err();
    assert!(
        matches!(error, ArtifactError::ManifestTooLarge { .. }),
        "{error}"
    );
    assert_eq!(names(&store), Vec::<String>::new());
}

#[tokio::test]
async fn damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let artifact = published(&store).await;
    let memory = fs::OpenOptions::new()
        .write(true)
        .open(artifact.path(Part::Memory))
        .unwrap();
    memory.write_all_at(b"X", 1 << 20).unwrap();
    store.get(artifact.id()).await.unwrap();
    let error = artifact.verify().await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("is damaged: memory was changed"),
        "{error}"
    );
    memory.set_len(1 << 20).unwrap();
    let error = store.get(artifact.id()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("memory has 1048576 bytes instead of 4194304"),
        "{error}"
    );
    fs::remove_file(artifact.path(Part::Memory)).unwrap();
    let error = store.get(artifact.id()).await.unwrap_err();
    assert!(error.to_string().ends_with("memory is missing"), "{error}");
    fs::write(artifact.dir.join(MANIFEST), "{}").unwrap();
    let error = store.get(artifact.id()).await.unwrap_err();
    assert!(
        error.to_string().ends_with("the manifest has no version"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_in_use_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let made = published(&store).await;
    let id = made.id().clone();
    // As another process would have it.
    let other = self::store(dir.path()).await;
    let error = other.remove(&id).await.unwrap_err();
    assert!(matches!(error, ArtifactError::InUse { .. }), "{error}");
    let found = store.get(&id).await.unwrap();
    drop(made);
    let error = other.remove(&id).await.unwrap_err();
    assert!(matches!(error, ArtifactError::InUse { .. }), "{error}");
    let clone = found.clone();
    drop(found);
    let error = other.remove(&id).await.unwrap_err();
    assert!(matches!(error, ArtifactError::InUse { .. }), "{error}");
    drop(clone);
    other.remove(&id).await.unwrap();
    assert_eq!(names(&store), Vec::<String>::new());
    let error = store.get(&id).await.unwrap_err();
    assert!(matches!(error, ArtifactError::Missing { .. }), "{error}");
    let error = store.remove(&id).await.unwrap_err();
    assert!(matches!(error, ArtifactError::Missing { .. }), "{error}");
}

#[tokio::test]
async fn opening_sweeps_what_was_abandoned_and_not_what_is_staged() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let staging = staged(&store).await;
    let abandoned = store.root.join(".tmp-abandoned");
    fs::create_dir(&abandoned).unwrap();
    fs::write(abandoned.join("memory"), "x").unwrap();
    let again = self::store(dir.path()).await;
    assert!(!abandoned.exists());
    assert_eq!(names(&store).len(), 1);
    let artifact = again.publish(staging, description()).await.unwrap();
    assert_eq!(names(&store), [artifact.id().to_string()]);
}

#[tokio::test]
async fn a_dropped_staging_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    drop(staged(&store).await);
    assert_eq!(names(&store), Vec::<String>::new());
}

#[tokio::test]
async fn a_key_leads_to_its_artifact_as_long_as_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let key = Digest::of(b"key");
    let path = store.root.join(KEYS).join(key.hex());
    assert!(store.find(&key).await.unwrap().is_none());

    let artifact = published(&store).await;
    store.link(&key, artifact.id()).await.unwrap();
    // Links survive a restart.
    let again = self::store(dir.path()).await;
    let found = again.find(&key).await.unwrap().unwrap();
    assert_eq!(found.id(), artifact.id());
    assert_eq!(names(&store), [artifact.id().to_string()]);

    fs::write(artifact.path(Part::DeviceState), "damaged").unwrap();
    assert!(store.find(&key).await.unwrap().is_none());
    assert!(!path.exists());

    let gone = ArtifactId::of(&Digest::of(b"gone"));
    store.link(&key, &gone).await.unwrap();
    assert!(path.exists());
    assert!(store.find(&key).await.unwrap().is_none());
    assert!(!path.exists());

    for text in ["", "art_x\n", "../../etc/passwd\n", &"x".repeat(1000)] {
        fs::write(&path, text).unwrap();
        assert!(store.find(&key).await.unwrap().is_none());
        assert!(!path.exists(), "{text:?}");
    }
}

#[tokio::test]
async fn a_file_from_another_file_system_is_adopted_with_its_holes() {
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            if let Err(error) = unmount(&self.0, UnmountFlags::DETACH) {
                eprintln!("cannot unmount {}: {error}", self.0.display());
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    mount(
        "tmpfs",
        &elsewhere,
        "tmpfs",
        MountFlags::empty(),
        Some(c"size=16m"),
    )
    .unwrap();
    let elsewhere = Mounted(elsewhere);
    for home in [elsewhere.0.as_path(), dir.path()] {
        let from = home.join("image");
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"data", 32 << 20).unwrap();
        let digest = sparse::digest(&from).unwrap();
        let staging = store.stage().await.unwrap();
        staging.adopt(Part::Rootfs, &from).await.unwrap();
        assert!(!from.exists());
        let to = staging.path(Part::Rootfs);
        assert_eq!(sparse::digest(&to).unwrap(), digest);
        assert!(fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20);
    }
    let staging = store.stage().await.unwrap();
    let error = staging
        .adopt(Part::Memory, &dir.path().join("none"))
        .await
        .unwrap_err();
    assert!(matches!(error, ArtifactError::Io { .. }), "{error}");
}

/// The layers that [`description`] names, in a store of their own.
async fn layers(dir: &Path) -> LayerStore {
    let layers = LayerStore::open(dir.join("layers"), LayerLimits::default()).unwrap();
    let mut stack = Vec::new();
    for key in description().layers {
        let build = |_| async { Ok::<_, std::convert::Infallible>(()) };
        stack.push(layers.get_or_build(key, build).await.unwrap().0);
    }
    layers.stack(&stack);
    layers
}

#[tokio::test]
async fn the_layers_of_an_artifact_stay_after_a_restart_until_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let artifacts = store(dir.path()).await;
    let id = published(&artifacts).await.id().clone();
    // A store that has just been opened knows of no pins.
    let cache = Cache::over(layers(dir.path()).await, artifacts)
        .await
        .unwrap();
    assert_eq!(cache.layers.evict_to(0).await.unwrap().layers, []);
    let claim = cache.artifacts.claim(&id).await.unwrap();
    cache.remove(claim).await.unwrap();
    let evicted = cache.layers.evict_to(0).await.unwrap();
    let topmost_first: Vec<Digest> = description().layers.into_iter().rev().collect();
    assert_eq!(evicted.layers, topmost_first);
}

#[tokio::test]
async fn a_list_shows_what_artifacts_take_who_holds_them_and_when_they_were_used() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let held = published(&store).await;
    let key = Digest::of(b"key");
    store.link(&key, held.id()).await.unwrap();
    assert_eq!(store.links().await.unwrap(), [(key, held.id().clone())]);
    let listed = |stored: Vec<StoredArtifact>| {
        let [one] = stored.as_slice() else {
            panic!("{stored:?}")
        };
        one.clone()
    };
    let one = listed(store.stored().await.unwrap());
    assert!(one.in_use && one.disk_bytes < 1 << 20, "{one:?}");
    let id = held.id().clone();
    drop(held);
    let before = listed(store.stored().await.unwrap());
    assert!(!before.in_use);
    // The kernel's clock of file times ticks slowly: use it until that counts as later.
    let used = async {
        loop {
            drop(store.find(&key).await.unwrap().unwrap());
            let after = listed(store.stored().await.unwrap());
            if after.used_at > before.used_at {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), used)
        .await
        .expect("a use is noted");
    // A damaged one is listed as well.
    let manifest = store.root.join(id.as_str()).join(MANIFEST);
    fs::remove_file(manifest).unwrap();
    assert!(listed(store.stored().await.unwrap()).manifest.is_none());
}

#[tokio::test]
async fn a_claimed_artifact_is_given_to_nobody_and_comes_back_if_it_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let id = published(&store).await.id().clone();
    let claim = store.claim(&id).await.unwrap();
    let again = store.claim(&id).await.unwrap_err();
    assert!(matches!(again, ArtifactError::InUse { .. }), "{again}");
    drop(claim);
    let held = store.get(&id).await.unwrap();
    let refused = store.claim(&id).await.unwrap_err();
    assert!(matches!(refused, ArtifactError::InUse { .. }), "{refused}");
    drop(held);
    store.claim(&id).await.unwrap().remove().await.unwrap();
    let gone = store.claim(&id).await.unwrap_err();
    assert!(matches!(gone, ArtifactError::Missing { .. }), "{gone}");
}
