mod bounds;
mod fidelity;

use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;

use super::*;
use crate::layers::sample::{Sample, listing};

/// A target folder beside a file that nothing may touch.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("into")).unwrap();
        std::fs::write(dir.path().join("canary"), "alive").unwrap();
        Self { dir }
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("into")
    }

    fn outside(&self) -> String {
        self.dir.path().to_str().unwrap().to_owned()
    }

    fn unpack(&self, archive: &[u8]) -> Result<Unpacked, UnpackError> {
        self.unpack_limited(archive, &LayerLimits::default())
    }

    fn unpack_limited(
        &self,
        archive: &[u8],
        limits: &LayerLimits,
    ) -> Result<Unpacked, UnpackError> {
        let hostname = std::fs::read("/etc/hostname").ok();
        let unpacked = unpack(archive, &self.target(), || Ok(Vec::new()), limits);
        let mut around: Vec<_> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        around.sort_unstable();
        assert_eq!(around, ["canary", "into"], "something was written outside");
        assert_eq!(
            std::fs::read(self.dir.path().join("canary")).unwrap(),
            b"alive"
        );
        assert_eq!(std::fs::read("/etc/hostname").ok(), hostname);
        unpacked
    }

    fn status(&self, path: &str) -> std::fs::Metadata {
        std::fs::symlink_metadata(self.target().join(path)).unwrap()
    }

    fn is_opaque(&self, path: &str) -> bool {
        is_opaque(&self.target().join(path))
    }
}

fn is_opaque(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

/// The archive is refused, for the reason in `expected`.
#[track_caller]
fn refused(sample: Sample, expected: &str) {
    let error = World::new().unpack(&sample.end()).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
}

/// The archive makes this tree, and nothing else anywhere.
#[track_caller]
fn makes(sample: Sample, expected: &[&str]) -> World {
    let world = World::new();
    world.unpack(&sample.end()).unwrap();
    assert_eq!(listing(&world.target()), expected);
    world
}

#[test]
fn no_path_leads_out_of_the_layer() {
    refused(Sample::new().file("../canary", "x"), "its path goes up");
    refused(
        Sample::new().file("a/../../canary", "x"),
        "its path goes up",
    );
    refused(Sample::new().folder("..", 0o755), "its path goes up");
    refused(Sample::new().symlink("a/..", "x"), "its path goes up");
    refused(
        Sample::new().hard_link("a", "../canary"),
        "its path goes up",
    );
    refused(Sample::new().file("../.wh.canary", ""), "its path goes up");
    makes(
        Sample::new().file("/etc//./x", "x"),
        &["d etc", "f etc/x=x"],
    );
}

#[test]
fn links_on_the_way_are_followed_within_the_layer_only() {
    makes(
        Sample::new()
            .symlink("up", "../../..")
            .file("up/canary", "x"),
        &["f canary=x", "l up>../../.."],
    );
    makes(
        Sample::new()
            .symlink("a", "/b")
            .symlink("b", "c/./d")
            .file("a/x", "x"),
        &["l a>/b", "l b>c/./d", "d c", "d c/d", "f c/d/x=x"],
    );
    makes(
        Sample::new()
            .folder("d", 0o755)
            .symlink("d/self", "../d/self2")
            .symlink("d/self2", "./../d")
            .file("d/self/self/x", "x"),
        &["d d", "l d/self2>./../d", "l d/self>../d/self2", "f d/x=x"],
    );

    let world = World::new();
    let outside = world.outside();
    let sample = Sample::new()
        .symlink("out", &outside)
        .file("out/canary", "dead")
        .file("out/.wh.other", "");
    world.unpack(&sample.end()).unwrap();
    let inside = world.target().join(outside.trim_start_matches('/'));
    assert_eq!(listing(&inside), ["f canary=dead"]);
}

#[test]
fn a_link_in_the_last_place_is_replaced_and_not_followed() {
    let world = World::new();
    let canary = format!("{}/canary", world.outside());
    let sample = Sample::new().symlink("f", &canary).file("f", "own");
    world.unpack(&sample.end()).unwrap();
    assert_eq!(listing(&world.target()), ["f f=own"]);

    let world = World::new();
    let sample = Sample::new()
        .symlink("d", world.outside())
        .folder("d", 0o750)
        .file("d/x", "x");
    world.unpack(&sample.end()).unwrap();
    assert_eq!(listing(&world.target()), ["d d", "f d/x=x"]);
    assert_eq!(world.status("d").mode() & 0o7777, 0o750);
}

#[test]
fn hard_links_share_files_of_the_layer_only() {
    refused(
        Sample::new().hard_link("x", "/etc/hostname"),
        "does not exist",
    );
    refused(
        Sample::new()
            .symlink("etc", "/etc")
            .hard_link("x", "etc/hostname"),
        "too many links",
    );
    refused(
        Sample::new()
            .symlink("l", "/etc")
            .folder("etc", 0o755)
            .hard_link("x", "l/hostname"),
        "does not exist",
    );
    refused(
        Sample::new().folder("d", 0o755).hard_link("x", "d"),
        "a hard link to a folder",
    );
    refused(Sample::new().hard_link("x", "/"), "a hard link to a folder");
    refused(
        Sample::new().file(".wh.f", "").hard_link("x", "f"),
        "a removed file",
    );
    refused(
        Sample::new().file("d/f", "x").hard_link("d", "d/f"),
        "its target's folder",
    );
    refused(Sample::new().hard_link("x", "x"), "cannot link");
    makes(
        Sample::new().file("f", "x").hard_link("f", "./f"),
        &["f f=x"],
    );

    let world = makes(
        Sample::new()
            .file("f", "x")
            .symlink("s", "f")
            .hard_link("d/g", "/f")
            .hard_link("t", "s"),
        &["d d", "f d/g=x", "f f=x", "l s>f", "l t>f"],
    );
    assert_eq!(world.status("f").ino(), world.status("d/g").ino());
    assert_eq!(world.status("s").ino(), world.status("t").ino());
}

#[test]
fn whiteouts_become_overlayfs_s_marks() {
    let world = World::new();
    let base = Sample::new()
        .file("d/gone", "")
        .file("d/both", "")
        .file("e/old", "")
        .symlink("l", "d");
    let top = Sample::new()
        .folder("d", 0o755)
        .file("d/.wh.gone", "")
        .file("l/.wh.both", "")
        .file("d/..wh.kept", "x")
        .file("e/.wh..wh..opq", "")
        .file("e/new", "x")
        .file(".wh..wh.plnk", "")
        .folder(".wh..wh.orph", 0o755);
    let folders = stack(&world, vec![base, top]);
    assert_eq!(
        listing(&folders[0]),
        [
            "d d",
            "f d/..wh.kept=x",
            "c d/both 0:0",
            "c d/gone 0:0",
            "d e",
            "f e/new=x"
        ]
    );
    assert!(is_opaque(&folders[0].join("e")));
    assert!(!is_opaque(&folders[0].join("d")));
}

/// Overlayfs lists a whiteout that hides nothing as a file that cannot be opened.
#[test]
fn whiteouts_of_nothing_leave_no_mark() {
    makes(
        Sample::new().file(".wh.x", "").file("d/.wh.y", ""),
        &["d d"],
    );
    let world = World::new();
    let base = Sample::new()
        .file("d/x", "")
        .file("e/x", "")
        .file("f/x", "");
    let middle = Sample::new().file(".wh.d", "").file("f/.wh.x", "");
    let top = Sample::new()
        .file("d/.wh.x", "")
        .file("e/.wh.x", "")
        .file("e/.wh..wh..opq", "")
        .file("f/.wh.x", "")
        .file("g/.wh.x", "");
    let folders = stack(&world, vec![base, middle, top]);
    assert_eq!(listing(&folders[0]), ["d d", "d e", "d f", "d g"]);
    assert_eq!(listing(&folders[1]), ["c d 0:0", "d f", "c f/x 0:0"]);
}

#[test]
fn whiteouts_speak_of_lower_layers_wherever_they_stand() {
    for sample in [
        Sample::new().file("d/new", "x").file(".wh.d", ""),
        Sample::new().file(".wh.d", "").file("d/new", "x"),
        Sample::new()
            .file(".wh.d", "")
            .folder("d", 0o755)
            .file("d/new", "x"),
        Sample::new()
            .file("d", "")
            .folder("d", 0o755)
            .file("d/new", "x"),
    ] {
        let world = makes(sample, &["d d", "f d/new=x"]);
        assert!(world.is_opaque("d"));
    }
    for sample in [
        Sample::new().file("f", "x").file(".wh.f", ""),
        Sample::new().file(".wh.f", "").file("f", "x"),
        Sample::new()
            .file(".wh.f", "")
            .file(".wh.f", "")
            .file("f", "x"),
    ] {
        makes(sample, &["f f=x"]);
    }
    let root = makes(
        Sample::new().file(".wh..wh..opq", "").file("f", "x"),
        &["f f=x"],
    );
    assert!(root.is_opaque(""));
}

#[test]
fn whiteouts_of_no_name_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.", ".wh./"] {
        refused(Sample::new().file(name, ""), "it removes no name");
    }
    refused(Sample::new().file(".wh.d/x", ""), "reserved");
    refused(Sample::new().file("a/.wh..wh..opq/x", ""), "reserved");
}

#[test]
fn instructions_to_overlayfs_are_refused() {
    refused(Sample::new().device(b'3', "x", 0, 0), "would remove a file");
    for name in ["opaque", "redirect", "metacopy", "whiteout"] {
        let key = format!("SCHILY.xattr.trusted.overlay.{name}");
        refused(
            Sample::new().pax(&[(&key, b"y")]).folder("d", 0o755),
            "steer the mount",
        );
    }
}

#[test]
fn within_an_archive_the_last_entry_of_a_name_wins() {
    makes(Sample::new().file("f", "first").file("f", "2"), &["f f=2"]);
    makes(
        Sample::new().file("d/x", "x").file("d", "file"),
        &["f d=file"],
    );
    makes(
        Sample::new().file("d/e/x", "x").symlink("d", "y"),
        &["l d>y"],
    );
    let world = makes(
        Sample::new()
            .folder("d", 0o700)
            .file("d/x", "x")
            .folder("d", 0o711),
        &["d d", "f d/x=x"],
    );
    assert_eq!(world.status("d").mode() & 0o7777, 0o711);
    refused(
        Sample::new().file("f", "x").file("f/x", "x"),
        "in the place of a folder",
    );
    refused(
        Sample::new().file("f", "x").file("f/.wh.x", ""),
        "in the place of a folder",
    );
}

#[test]
fn the_root_is_a_folder() {
    let world = makes(Sample::new().folder("./", 0o711).file("x", "x"), &["f x=x"]);
    assert_eq!(world.status("").mode() & 0o7777, 0o711);
    assert_eq!(world.status("").mtime(), 1_700_000_000);
    for root in [".", "./."] {
        refused(
            Sample::new().file(root, "x"),
            "the root can only be a folder",
        );
    }
    for root in [".", "/", "./."] {
        refused(
            Sample::new().symlink(root, "/tmp"),
            "the root can only be a folder",
        );
    }
    refused(Sample::new().file("", "x"), "its path is empty");
}

/// Unpacks archives over each other as layers, lowest first; gives their folders, nearest first.
fn stack(world: &World, archives: Vec<Sample>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = Vec::new();
    for (index, archive) in archives.into_iter().enumerate() {
        let folder = world.dir.path().join(format!("layer{index}"));
        std::fs::create_dir(&folder).unwrap();
        let lowers = folders.clone();
        unpack(
            &archive.end()[..],
            &folder,
            || Ok(lowers),
            &LayerLimits::default(),
        )
        .unwrap();
        folders.insert(0, folder);
    }
    folders
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever comes, nothing is written outside and nothing panics.
    #[test]
    fn arbitrary_entries_stay_inside(
        entries in proptest::collection::vec((0..6_usize, hostile_path(), hostile_path()), 1..12),
        damage in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
    ) {
        let mut sample = Sample::new();
        for (kind, path, target) in entries {
            sample = match kind {
                0 => sample.file(path, "x"),
                1 => sample.folder(path, 0o755),
                2 | 3 => sample.symlink(path, target),
                4 => sample.hard_link(path, target),
                _ => sample.device(b'3', &path, 1, 3),
            };
        }
        let mut bytes = sample.end();
        if let Some((index, value)) = damage {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        drop(World::new().unpack(&bytes));
    }
}

fn hostile_path() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        4 => "[abc]",
        1 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just(String::new()),
        1 => "\\.wh\\.[abc]",
        1 => Just(".wh..wh..opq".to_owned()),
        1 => Just("canary".to_owned()),
    ];
    proptest::collection::vec(name, 1..5).prop_map(|names| names.join("/"))
}
