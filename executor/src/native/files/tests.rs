mod hostile;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use domain::Digest;
use rustix::fs::{Timespec, Timestamps};

use super::*;
use crate::layers::OverlayMount;
use crate::native::context::{Below, BelowKind, Source, SourceFile};
use crate::native::step::Copy;

/// A host folder with a root filesystem in it, and a blob store whose files hold their own digest's
/// preimage.
struct World {
    host: tempfile::TempDir,
    view: View,
    blobs: OpenBlob,
}

const PAST: Timespec = Timespec {
    tv_sec: 1_600_000_000,
    tv_nsec: 0,
};

const CONTENTS: [&str; 3] = ["one", "two", "three"];

impl World {
    fn new() -> Self {
        let host = tempfile::tempdir().unwrap();
        let root = host.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/passwd"), "app:x:1000:1001::/:/bin/sh\n").unwrap();
        std::fs::write(host.path().join("outside"), "host").unwrap();
        let stored = host.path().join("blobs");
        std::fs::create_dir(&stored).unwrap();
        for content in CONTENTS {
            std::fs::write(stored.join(Digest::of(content.as_bytes()).hex()), content).unwrap();
        }
        let open = move |digest: &Digest| std::fs::File::open(stored.join(digest.hex()));
        Self {
            view: View::open(&root).unwrap(),
            blobs: Arc::new(open),
            host,
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.host.path().join("root").join(path)
    }

    fn make(&self, change: &Change) -> Result<(), String> {
        let changer = Changer {
            view: &self.view,
            blobs: &self.blobs,
            account_file_bytes_max: 1024,
        };
        changer
            .make(change)
            .map_err(|error| domain::causes::chain(&error))
    }

    /// Mode, owner, group and content of a file.
    fn file(&self, path: &str) -> (u32, u32, u32, String) {
        let path = self.path(path);
        let stat = std::fs::symlink_metadata(&path).unwrap();
        let text = if stat.is_file() {
            std::fs::read_to_string(&path).unwrap()
        } else {
            String::new()
        };
        (stat.mode() & 0o7777, stat.uid(), stat.gid(), text)
    }
}

fn file(content: &str, mode: u32) -> SourceFile {
    SourceFile {
        mode,
        digest: Digest::of(content.as_bytes()),
        bytes: content.len().try_into().unwrap(),
    }
}

fn named(name: &str, content: &str) -> Source {
    Source::File {
        name: name.to_owned(),
        file: file(content, 0o640),
    }
}

fn folder() -> Source {
    Source::Dir(vec![
        Below {
            path: "deep".to_owned(),
            kind: BelowKind::Dir(0o750),
        },
        Below {
            path: "deep/two".to_owned(),
            kind: BelowKind::File(file("two", 0o600)),
        },
        Below {
            path: "one".to_owned(),
            kind: BelowKind::File(file("one", 0o755)),
        },
    ])
}

fn copy(sources: Vec<Source>, dst: &str) -> Copy {
    let into_dir = dst.ends_with('/') || sources.len() > 1;
    Copy {
        sources,
        dst: dst.to_owned(),
        into_dir,
        user: None,
        mode: None,
    }
}

fn plain(copy: Copy) -> Change {
    Change::Copy(vec![copy])
}

#[test]
fn a_file_goes_to_a_name_or_into_a_folder() {
    let world = World::new();
    std::fs::create_dir(world.path("there")).unwrap();
    for (dst, expected) in [
        ("/new/name", "new/name"),
        ("/new/folder/", "new/folder/one.txt"),
        ("/there", "there/one.txt"),
        ("//new/../up/./x", "up/x"),
    ] {
        world
            .make(&plain(copy(vec![named("one.txt", "one")], dst)))
            .unwrap();
        assert_eq!(
            world.file(expected),
            (0o640, 0, 0, "one".to_owned()),
            "{dst}"
        );
    }
    assert_eq!(world.file("new").0, 0o755);
    let several = vec![named("a", "one"), named("b", "two")];
    world.make(&plain(copy(several, "/several"))).unwrap();
    assert_eq!(world.file("several/b").3, "two");
}

#[test]
fn what_is_in_a_folder_goes_into_the_destination() {
    let world = World::new();
    std::fs::create_dir(world.path("srv")).unwrap();
    std::fs::set_permissions(world.path("srv"), std::fs::Permissions::from_mode(0o700)).unwrap();
    for dst in ["/srv", "/new/"] {
        world.make(&plain(copy(vec![folder()], dst))).unwrap();
        let at = |path: &str| world.file(&format!("{}/{path}", dst.trim_matches('/')));
        assert_eq!(at("deep"), (0o750, 0, 0, String::new()));
        assert_eq!(at("deep/two"), (0o600, 0, 0, "two".to_owned()));
        assert_eq!(at("one"), (0o755, 0, 0, "one".to_owned()));
    }
    assert_eq!((world.file("srv").0, world.file("new").0), (0o700, 0o755));
}

#[test]
fn owner_and_mode_are_as_asked_for() {
    let world = World::new();
    let mut asked = copy(vec![folder()], "/opt/app");
    (asked.user, asked.mode) = (Some("app".to_owned()), Some(0o4640));
    world.make(&plain(asked.clone())).unwrap();
    assert_eq!(
        world.file("opt/app/one"),
        (0o4640, 1000, 1001, "one".to_owned())
    );
    assert_eq!(
        world.file("opt/app/deep"),
        (0o4750, 1000, 1001, String::new())
    );
    assert_eq!(world.file("opt").1, 1000);
    asked.user = Some("7".to_owned());
    world.make(&plain(asked.clone())).unwrap();
    assert_eq!(world.file("opt/app/one").1, 7);
    assert_eq!(world.file("opt/app/one").2, 7);
    asked.user = Some("who".to_owned());
    assert_eq!(
        world.make(&plain(asked)),
        Err("cannot give files to `who`: the image has no user `who`".to_owned())
    );
}

#[test]
fn a_copy_replaces_files_and_refuses_to_replace_folders() {
    let world = World::new();
    std::fs::write(world.path("old"), "a much longer text than the new one").unwrap();
    std::fs::hard_link(world.path("old"), world.path("twin")).unwrap();
    world
        .make(&plain(copy(vec![named("x", "one")], "/old")))
        .unwrap();
    assert_eq!(world.file("old").3, "one");
    assert!(world.file("twin").3.starts_with("a much"));
    std::fs::create_dir_all(world.path("dir/x")).unwrap();
    let error = world
        .make(&plain(copy(vec![named("x", "one")], "/dir/")))
        .unwrap_err();
    assert_eq!(error, "cannot copy to `/dir/x`: it is a folder");
    let error = world
        .make(&plain(copy(vec![folder()], "/old")))
        .unwrap_err();
    assert_eq!(error, "cannot make `/old`: it is not a folder");
}

#[test]
fn links_in_the_root_never_lead_outside() {
    let world = World::new();
    let host = world.host.path().to_owned();
    symlink(host.join("outside"), world.path("file")).unwrap();
    symlink("../../../../../..", world.path("up")).unwrap();
    symlink(&host, world.path("dir")).unwrap();
    symlink("/run", world.path("dangling")).unwrap();
    let outside = format!("/up{}/outside", host.display());
    for dst in [
        "/file",
        "/dir/outside",
        &outside,
        "/dangling/x",
        "/../../outside",
    ] {
        world
            .make(&plain(copy(vec![named("x", "one")], dst)))
            .unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(host.join("outside")).unwrap(),
        "host"
    );
    assert_eq!(world.file("run/x").3, "one");
    let inside = world.path(host.strip_prefix("/").unwrap().to_str().unwrap());
    assert_eq!(
        std::fs::read_to_string(inside.join("outside")).unwrap(),
        "one"
    );

    let (recursive, force) = (true, true);
    let path = format!("/dir{}", "/..".repeat(20));
    let error = world
        .make(&Change::Remove {
            path,
            recursive,
            force,
        })
        .unwrap_err();
    assert!(error.contains("the root of the file system"), "{error}");
    world
        .make(&Change::Remove {
            path: "/dir".to_owned(),
            recursive,
            force,
        })
        .unwrap();
    assert!(inside.exists() && host.join("outside").exists());
}

#[test]
fn content_that_is_not_what_was_announced_is_an_error() {
    let world = World::new();
    let blob = world
        .host
        .path()
        .join("blobs")
        .join(Digest::of(b"one").hex());
    std::fs::write(blob, "changed").unwrap();
    let error = world
        .make(&plain(copy(vec![named("x", "one")], "/x")))
        .unwrap_err();
    assert_eq!(
        error,
        "the stored content of `/x` does not match its digest"
    );
}

#[test]
fn new_folders_and_links_are_those_of_the_user_in_force() {
    let world = World::new();
    let user = "app".to_owned();
    let (path, target) = ("/srv/a/b".to_owned(), "x".to_owned());
    std::fs::create_dir(world.path("srv")).unwrap();
    let dir = Change::MakeDir {
        path: path.clone(),
        mode: Some(0o2750),
        user: user.clone(),
    };
    world.make(&dir).unwrap();
    let path = format!("{path}/links/one");
    world
        .make(&Change::MakeSymlink { target, path, user })
        .unwrap();
    let owner = |path: &str| {
        let (mode, uid, gid, _) = world.file(path);
        (mode, uid, gid)
    };
    assert_eq!(owner("srv"), (0o755, 0, 0));
    assert_eq!(owner("srv/a"), (0o755, 1000, 1001));
    assert_eq!(owner("srv/a/b"), (0o2750, 1000, 1001));
    assert_eq!(owner("srv/a/b/links"), (0o755, 1000, 1001));
    assert_eq!(owner("srv/a/b/links/one"), (0o777, 1000, 1001));
    // A number that is nobody's has the group 0, as its commands have.
    let (path, user) = ("/n".to_owned(), "7".to_owned());
    let mode = None;
    world.make(&Change::MakeDir { path, mode, user }).unwrap();
    assert_eq!(owner("n"), (0o755, 7, 0));
}

#[test]
fn folders_and_links_are_made_as_asked() {
    let world = World::new();
    let dir = |path: &str, mode| Change::MakeDir {
        path: path.to_owned(),
        mode,
        user: "root".to_owned(),
    };
    world.make(&dir("/a/b", Some(0o1777))).unwrap();
    assert_eq!((world.file("a").0, world.file("a/b").0), (0o755, 0o1777));
    world.make(&dir("/a/b", None)).unwrap();
    assert_eq!(world.file("a/b").0, 0o1777);
    assert_eq!(
        world.make(&dir("/etc/passwd/x", None)),
        Err("cannot make `/etc/passwd/x`: it is not a folder".to_owned())
    );
    let link = |target: &str, path: &str| Change::MakeSymlink {
        target: target.to_owned(),
        path: path.to_owned(),
        user: "root".to_owned(),
    };
    world.make(&link("/nowhere", "/l/link")).unwrap();
    world.make(&link("../x/name", "/a")).unwrap();
    let target = |path: &str| std::fs::read_link(world.path(path)).unwrap();
    assert_eq!(target("l/link"), Path::new("/nowhere"));
    assert_eq!(target("a/name"), Path::new("../x/name"));
    assert_eq!(
        world.make(&link("x", "/l/link")),
        Err("cannot link `/l/link`: there is something already".to_owned())
    );
}

#[test]
fn a_removal_needs_permission_for_folders_and_for_nothing() {
    let world = World::new();
    std::fs::create_dir_all(world.path("d/e")).unwrap();
    std::fs::write(world.path("d/e/f"), "").unwrap();
    symlink("d", world.path("link")).unwrap();
    let remove = |path: &str, recursive, force| {
        world.make(&Change::Remove {
            path: path.to_owned(),
            recursive,
            force,
        })
    };
    assert_eq!(
        remove("/d", false, true),
        Err("cannot remove `/d`: it is a folder".to_owned())
    );
    let missing = Err("cannot remove `/x`: there is no such file or folder".to_owned());
    assert_eq!(remove("/x", true, false), missing);
    assert_eq!(remove("/x", false, true), Ok(()));
    assert_eq!(remove("/link", true, false), Ok(()));
    assert!(world.path("d/e/f").exists());
    assert_eq!(remove("/d", true, false), Ok(()));
    assert!(!world.path("d").exists());
}

fn rename(world: &World, src: &str, dst: &str, force: bool) -> Result<(), String> {
    world.make(&Change::Rename {
        src: src.to_owned(),
        dst: dst.to_owned(),
        force,
    })
}

#[test]
fn a_rename_goes_to_a_name_or_into_a_folder_and_replaces_only_by_force() {
    let world = World::new();
    std::fs::create_dir_all(world.path("dir/sub")).unwrap();
    std::fs::write(world.path("one"), "one").unwrap();
    std::fs::write(world.path("two"), "two").unwrap();
    let there = Err("cannot rename to `/two`: there is something already".to_owned());
    assert_eq!(rename(&world, "/one", "/two", false), there);
    rename(&world, "/one", "/two", true).unwrap();
    assert_eq!(world.file("two").3, "one");
    rename(&world, "/two", "/dir", false).unwrap();
    rename(&world, "/dir/two", "/new/deep/name", false).unwrap();
    assert_eq!(world.file("new/deep/name").3, "one");
    let error = rename(&world, "/dir", "/dir/sub/x", true).unwrap_err();
    assert!(
        error.starts_with("cannot rename into itself `/dir`"),
        "{error}"
    );
    let missing = Err("cannot rename `/none`: there is no such file or folder".to_owned());
    assert_eq!(rename(&world, "/none", "/x", true), missing);
    let error = rename(&world, "/dir/sub", "/", true);
    assert_eq!(error, Ok(()));
    assert!(world.path("sub").is_dir());
}

/// Mounts a new layer over everything in the world's root so far.
async fn on_a_layer(world: &mut World) -> OverlayMount {
    use crate::layers::LayerStore;
    use crate::limits::layers::LayerLimits;

    let store = LayerStore::open(world.host.path().join("store"), LayerLimits::default()).unwrap();
    let root = world.host.path().join("root");
    let copied = |staging: crate::layers::Staging| async move {
        let tool = crate::process::Tool::new("cp")
            .args(["-a", "-T"])
            .arg(root)
            .arg(staging.path());
        tool.run_ok(std::time::Duration::from_secs(10))
            .await
            .map(drop)
    };
    let (layer, _) = store.get_or_build(Digest::ZERO, copied).await.unwrap();
    let [upper, work, target] =
        ["upper", "work", "merged"].map(|name| world.host.path().join(name));
    for dir in [&upper, &work, &target] {
        std::fs::create_dir(dir).unwrap();
    }
    let mount = OverlayMount::writable(&[layer], &upper, &work, &target).unwrap();
    world.view = View::open(&target).unwrap();
    mount
}

#[tokio::test]
async fn a_folder_of_a_lower_layer_is_renamed_whole() {
    let mut world = World::new();
    let deep = world.path("lib/app/deep");
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("file"), "content").unwrap();
    symlink("/nowhere", deep.join("link")).unwrap();
    std::fs::set_permissions(
        world.path("lib/app"),
        std::fs::Permissions::from_mode(0o2750),
    )
    .unwrap();
    std::os::unix::fs::chown(world.path("lib/app"), Some(5), Some(6)).unwrap();
    let attribute = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(world.path("lib/app"), "user.kept", b"yes", attribute).unwrap();
    let past = Timestamps {
        last_access: PAST,
        last_modification: PAST,
    };
    rustix::fs::utimensat(
        rustix::fs::CWD,
        world.path("lib/app"),
        &past,
        rustix::fs::AtFlags::empty(),
    )
    .unwrap();

    let mount = on_a_layer(&mut world).await;
    rename(&world, "/lib/app", "/opt", false).unwrap();

    let merged = world.host.path().join("merged");
    assert!(!merged.join("lib/app").exists());
    let moved = merged.join("opt");
    let stat = std::fs::metadata(&moved).unwrap();
    assert_eq!(
        (stat.mode() & 0o7777, stat.uid(), stat.gid()),
        (0o2750, 5, 6)
    );
    assert_eq!(stat.mtime(), PAST.tv_sec);
    let mut value = [0_u8; 8];
    let size = rustix::fs::getxattr(&moved, "user.kept", &mut value[..]).unwrap();
    assert_eq!(&value[..size], b"yes");
    assert_eq!(
        std::fs::read_to_string(moved.join("deep/file")).unwrap(),
        "content"
    );
    assert_eq!(
        std::fs::read_link(moved.join("deep/link")).unwrap(),
        Path::new("/nowhere")
    );
    world.view = View::open(world.host.path()).unwrap();
    drop(mount);
}
