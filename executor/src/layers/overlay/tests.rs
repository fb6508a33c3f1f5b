mod model;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::unix::fs::MetadataExt;

use domain::Digest;
use proptest::prelude::*;

use super::*;
use crate::layers::sample::{Sample, listing};
use crate::layers::{LayerStore, chain_key, unpack};
use crate::limits::layers::LayerLimits;

/// A store, and folders to mount at.
struct World {
    store: LayerStore,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["target", "upper", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let store = LayerStore::open(dir.path().join("layers"), LayerLimits::default()).unwrap();
        Self { store, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Unpacks archives over each other, bottom first.
    async fn layers(&self, archives: Vec<Vec<u8>>) -> Vec<Layer> {
        let mut layers: Vec<Layer> = Vec::new();
        for archive in archives {
            let key = chain_key(layers.last().map(Layer::key), &Digest::of(&archive));
            let lowers = layers
                .iter()
                .rev()
                .map(|layer| layer.path().to_owned())
                .collect();
            let build = |staging: crate::layers::Staging| async move {
                unpack(
                    &archive[..],
                    staging.path(),
                    || Ok(lowers),
                    &LayerLimits::default(),
                )
                .unwrap();
                Ok::<_, Infallible>(())
            };
            layers.push(self.store.get_or_build(key, build).await.unwrap().0);
        }
        layers
    }

    fn read_only(&self, layers: &[Layer]) -> OverlayMount {
        OverlayMount::read_only(layers, &self.path("target")).unwrap()
    }

    fn writable(&self, layers: &[Layer]) -> OverlayMount {
        OverlayMount::writable(
            layers,
            &self.path("upper"),
            &self.path("work"),
            &self.path("target"),
        )
        .unwrap()
    }
}

fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(4) == path.to_str())
}

#[tokio::test]
async fn layers_merge_with_whiteouts_and_opaque_folders() {
    let world = World::new();
    let layers = world
        .layers(vec![
            Sample::new()
                .file("a", "1")
                .file("b", "1")
                .file("d/x", "1")
                .file("e/x", "1")
                .end(),
            Sample::new()
                .file("a", "2")
                .file(".wh.b", "")
                .file("d/y", "2")
                .file("e/.wh..wh..opq", "")
                .file("e/y", "2")
                .end(),
        ])
        .await;
    let mount = world.read_only(&layers);
    assert_eq!(
        listing(mount.path()),
        ["f a=2", "d d", "f d/x=1", "f d/y=2", "d e", "f e/y=2"]
    );
    let error = std::fs::write(mount.path().join("new"), "x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    mount.unmount().unwrap();
    assert!(!is_mounted(&world.path("target")));
}

#[tokio::test]
async fn an_opaque_root_hides_all_beneath() {
    let world = World::new();
    let layers = world
        .layers(vec![
            Sample::new().file("old", "1").folder("d", 0o700).end(),
            Sample::new()
                .file(".wh..wh..opq", "")
                .file("d/new", "2")
                .end(),
            Sample::new().file("top", "3").end(),
        ])
        .await;
    let mount = world.read_only(&layers);
    assert_eq!(listing(mount.path()), ["d d", "f d/new=2", "f top=3"]);
    assert_eq!(
        std::fs::metadata(mount.path().join("d")).unwrap().mode() & 0o7777,
        0o755
    );
}

#[tokio::test]
async fn one_layer_and_none_mount_too() {
    let world = World::new();
    let layers = world
        .layers(vec![Sample::new().file(".wh.x", "").file("f", "1").end()])
        .await;
    let mount = world.read_only(&layers);
    assert_eq!(listing(mount.path()), ["f f=1"]);
    drop(mount);
    let mount = world.writable(&layers);
    assert_eq!(listing(mount.path()), ["f f=1"]);
    drop(mount);

    let empty = World::new();
    let mount = empty.read_only(&[]);
    assert_eq!(listing(mount.path()), [""; 0]);
    assert!(std::fs::write(mount.path().join("x"), "").is_err());
    drop(mount);
    let mount = empty.writable(&[]);
    std::fs::write(mount.path().join("x"), "1").unwrap();
    drop(mount);
    assert_eq!(listing(&empty.path("upper")), ["f x=1"]);
}

#[tokio::test]
async fn changes_go_to_the_upper_folder_and_make_a_layer() {
    let world = World::new();
    let base = Sample::new()
        .folder("./", 0o711)
        .file("keep", "1")
        .file("gone", "1")
        .file("dir/a", "1")
        .end();
    let layers = world.layers(vec![base]).await;
    let key = Digest::of(b"step");
    let build = |staging: crate::layers::Staging| {
        let (layers, target) = (layers.clone(), world.path("target"));
        async move {
            let mount =
                OverlayMount::writable(&layers, staging.path(), staging.work_path(), &target)
                    .unwrap();
            let root = mount.path();
            std::fs::remove_file(root.join("gone")).unwrap();
            std::fs::remove_dir_all(root.join("dir")).unwrap();
            std::fs::create_dir(root.join("dir")).unwrap();
            std::fs::write(root.join("dir/b"), "2").unwrap();
            mount.unmount().unwrap();
            Ok::<_, Infallible>(())
        }
    };
    let (step, _) = world.store.get_or_build(key, build).await.unwrap();
    assert_eq!(listing(step.path()), ["d dir", "f dir/b=2", "c gone 0:0"]);
    let stack = [layers[0].clone(), step];
    let mount = world.read_only(&stack);
    assert_eq!(listing(mount.path()), ["d dir", "f dir/b=2", "f keep=1"]);
    assert_eq!(
        std::fs::metadata(mount.path()).unwrap().mode() & 0o7777,
        0o711
    );
}

#[tokio::test]
async fn a_target_with_files_is_refused() {
    let world = World::new();
    std::fs::write(world.path("target/file"), "x").unwrap();
    let error = OverlayMount::read_only(&[], &world.path("target")).unwrap_err();
    assert!(
        matches!(error, OverlayError::TargetNotEmpty { .. }),
        "{error}"
    );
    assert!(!is_mounted(&world.path("target")));
}

#[tokio::test]
async fn what_the_kernel_says_is_in_the_error() {
    let world = World::new();
    let layers = world.layers(vec![Sample::new().file("f", "1").end()]).await;
    let error = OverlayMount::writable(
        &layers,
        &world.path("upper"),
        &world.path("nowhere"),
        &world.path("target"),
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&world.path("target").display().to_string()),
        "{error}"
    );
    assert!(!is_mounted(&world.path("target")));
}

#[tokio::test]
async fn mounted_layers_are_in_use() {
    let world = World::new();
    let layers = world.layers(vec![Sample::new().file("f", "1").end()]).await;
    let mount = world.read_only(&layers);
    drop(layers);
    assert_eq!(world.store.evict_to(0).await.unwrap().layers, []);
    drop(mount);
    assert_eq!(world.store.evict_to(0).await.unwrap().layers.len(), 1);
}

#[tokio::test]
async fn a_busy_tree_is_detached() {
    let world = World::new();
    let layers = world.layers(vec![Sample::new().file("f", "1").end()]).await;
    let mount = world.read_only(&layers);
    let open = std::fs::File::open(mount.path().join("f")).unwrap();
    let error = mount.unmount().unwrap_err();
    assert!(matches!(error, OverlayError::Mount { .. }), "{error}");
    assert!(!is_mounted(&world.path("target")));
    drop(open);
}

#[tokio::test]
async fn many_layers_mount_at_once() {
    let world = World::new();
    let layer = world
        .layers(vec![Sample::new().file("f", "1").end()])
        .await
        .remove(0);
    let error = OverlayMount::read_only(&vec![layer; 500], &world.path("target")).unwrap_err();
    assert!(
        matches!(
            error,
            OverlayError::TooManyLayers {
                count: 500,
                max: 499
            }
        ),
        "{error}"
    );
    let archives = (0..60)
        .map(|n| Sample::new().file(format!("f{n:02}"), "x").end())
        .collect();
    let layers = world.layers(archives).await;
    let mount = world.read_only(&layers);
    assert_eq!(listing(mount.path()).len(), 60);
}

/// One change in a layer.
#[derive(Clone, Debug)]
enum Change {
    File(String),
    Folder(String),
    Remove(String),
    Hide(String),
}

impl Change {
    fn path(&self) -> &str {
        match self {
            Self::File(path) | Self::Folder(path) | Self::Remove(path) | Self::Hide(path) => path,
        }
    }
}

/// Path to content; `None` is a folder.
type Model = BTreeMap<String, Option<String>>;

fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.starts_with('/'))
}

fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(index, _)| &path[..index])
}

/// Leaves out changes beneath something that the same layer made a file: those are refused.
fn possible(changes: Vec<Change>) -> Vec<Change> {
    let mut files: Vec<String> = Vec::new();
    let mut kept = Vec::new();
    for change in changes {
        let path = change.path().to_owned();
        let hides = matches!(change, Change::Hide(_));
        if files
            .iter()
            .any(|file| is_within(&path, file) || (hides && path == *file))
        {
            continue;
        }
        match change {
            Change::File(_) => {
                files.retain(|file| !is_within(file, &path));
                files.push(path);
            }
            Change::Folder(_) => files.retain(|file| *file != path),
            Change::Remove(_) | Change::Hide(_) => {}
        }
        kept.push(change);
    }
    kept
}

/// What a layer does to a tree, by the words of the image specification: whiteouts first, since they
/// speak of the layers beneath, then the entries in their order.
fn apply(tree: &mut Model, layer: usize, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Remove(path) => {
                tree.retain(|other, _| other != path && !is_within(other, path));
            }
            Change::Hide(path) => tree.retain(|other, _| !is_within(other, path)),
            Change::File(_) | Change::Folder(_) => {}
        }
    }
    for (index, change) in changes.iter().enumerate() {
        let folder = |tree: &mut Model, path: &str| {
            if tree.get(path) != Some(&None) {
                tree.insert(path.to_owned(), None);
            }
        };
        for parent in parents(change.path()) {
            folder(tree, parent);
        }
        match change {
            Change::File(path) => {
                tree.retain(|other, _| !is_within(other, path));
                tree.insert(path.clone(), Some(format!("{layer}.{index}")));
            }
            Change::Folder(path) | Change::Hide(path) => folder(tree, path),
            Change::Remove(_) => {}
        }
    }
}

fn archive(layer: usize, changes: &[Change]) -> Vec<u8> {
    let mut sample = Sample::new();
    for (index, change) in changes.iter().enumerate() {
        sample = match change {
            Change::File(path) => sample.file(path, format!("{layer}.{index}")),
            Change::Folder(path) => sample.folder(path, 0o755),
            Change::Hide(path) => sample.file(format!("{path}/.wh..wh..opq"), ""),
            Change::Remove(path) => {
                let (folder, name) = path.rsplit_once('/').unwrap_or((".", path));
                sample.file(format!("{folder}/.wh.{name}"), "")
            }
        };
    }
    sample.end()
}

fn change() -> impl Strategy<Value = Change> {
    let path = "[ab](/[ab]){0,2}";
    prop_oneof![
        3 => path.prop_map(Change::File),
        2 => path.prop_map(Change::Folder),
        2 => path.prop_map(Change::Remove),
        1 => path.prop_map(Change::Hide),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_merged_view_is_what_the_specification_says(
        layers in proptest::collection::vec(proptest::collection::vec(change(), 0..8), 1..5)
    ) {
        let layers: Vec<Vec<Change>> = layers.into_iter().map(possible).collect();
        let mut model = Model::new();
        for (index, changes) in layers.iter().enumerate() {
            apply(&mut model, index, changes);
        }
        let expected: Vec<String> = model
            .into_iter()
            .map(|(path, content)| match content {
                None => format!("d {path}"),
                Some(content) => format!("f {path}={content}"),
            })
            .collect();
        let archives = layers.iter().enumerate().map(|(index, changes)| archive(index, changes)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let merged = runtime.block_on(async {
            let world = World::new();
            let layers = world.layers(archives).await;
            let mount = world.read_only(&layers);
            let mut merged = listing(mount.path());
            merged.sort_unstable_by(|a, b| a[2..].split('=').next().cmp(&b[2..].split('=').next()));
            merged
        });
        prop_assert_eq!(merged, expected);
    }
}
