//! Images are made, grown and checked by the real e2fsprogs; views are real overlays.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::*;

/// Runs a program of the test's own and gives what it printed.
#[track_caller]
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A mount that goes with the test.
struct Mounted(PathBuf);

impl Mounted {
    fn overlay(lower: &[&Path], at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let lower: Vec<&str> = lower.iter().map(|path| text(path)).collect();
        let options = std::ffi::CString::new(format!("lowerdir={}", lower.join(":"))).unwrap();
        mount(
            "overlay",
            at,
            "overlay",
            MountFlags::RDONLY,
            Some(options.as_c_str()),
        )
        .unwrap();
        Self(at.to_owned())
    }

    fn tmpfs(options: &std::ffi::CStr, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        mount("tmpfs", at, "tmpfs", MountFlags::empty(), Some(options)).unwrap();
        Self(at.to_owned())
    }

    fn image(image: &Path, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        run("mount", &["-o", "loop,ro,noload", text(image), text(at)]);
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.0, UnmountFlags::DETACH) {
            eprintln!("cannot unmount {}: {error}", self.0.display());
        }
    }
}

/// Waits until the file system's clock shows another second than now: what depends on it would
/// else be equal by chance.
async fn another_second(dir: &Path) {
    let probe = dir.join(".clock");
    let ctime = || {
        fs::write(&probe, "").unwrap();
        fs::metadata(&probe).unwrap().ctime()
    };
    let (began, deadline) = (
        ctime(),
        tokio::time::Instant::now() + Duration::from_secs(10),
    );
    while ctime() == began {
        assert!(tokio::time::Instant::now() < deadline, "the clock stands");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fs::remove_file(&probe).unwrap();
}

/// Two layers: a base with files of many kinds, and one that changes, hides and adds.
fn layers(dir: &Path) -> (PathBuf, PathBuf) {
    let (base, upper) = (dir.join("base"), dir.join("upper"));
    for folder in ["usr/bin", "etc/deep/er", "var/many"] {
        fs::create_dir_all(base.join(folder)).unwrap();
    }
    for index in 0..500 {
        let body = "x".repeat(index * 37 % 9000);
        fs::write(base.join(format!("var/many/file-{index:03}")), body).unwrap();
    }
    fs::write(base.join("usr/bin/tool"), vec![7; 300_000]).unwrap();
    fs::set_permissions(
        base.join("usr/bin/tool"),
        fs::Permissions::from_mode(0o4755),
    )
    .unwrap();
    fs::hard_link(base.join("usr/bin/tool"), base.join("usr/bin/twin")).unwrap();
    chown(base.join("etc/deep"), Some(1000), Some(2_000_000_000)).unwrap();
    symlink("usr/bin", base.join("bin")).unwrap();
    symlink("x".repeat(200), base.join("etc/long")).unwrap();
    run("mkfifo", &[text(&base.join("etc/pipe"))]);
    run("mknod", &[text(&base.join("etc/null")), "c", "1", "3"]);
    let tool = base.join("usr/bin/tool");
    for (name, value) in [("user.b", "two"), ("user.a", "one")] {
        rustix::fs::setxattr(
            &tool,
            name,
            value.as_bytes(),
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
    }
    let hole = fs::File::create(base.join("var/hole")).unwrap();
    hole.set_len(100 << 20).unwrap();
    fs::create_dir_all(upper.join("var/many")).unwrap();
    fs::write(upper.join("var/many/file-007"), "changed").unwrap();
    // A whiteout: file-008 is gone from the merged view.
    run(
        "mknod",
        &[text(&upper.join("var/many/file-008")), "c", "0", "0"],
    );
    fs::write(upper.join("etc-new"), "new").unwrap();
    (base, upper)
}

/// Everything about a tree that an image keeps.
fn listing(root: &Path) -> Vec<String> {
    let mut lines: Vec<String> = walkdir::WalkDir::new(root)
        .min_depth(1)
        .into_iter()
        .map(|entry| entry.unwrap())
        .filter(|entry| !entry.path().starts_with(root.join("lost+found")))
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            let kind = metadata.file_type();
            let content = if kind.is_symlink() {
                fs::read_link(entry.path()).unwrap().display().to_string()
            } else if kind.is_file() {
                Digest::of(&fs::read(entry.path()).unwrap()).hex()
            } else {
                metadata.rdev().to_string()
            };
            let links = if kind.is_dir() { 0 } else { metadata.nlink() };
            format!(
                "{} {:o} {}:{} {links} {} {content}",
                entry.path().strip_prefix(root).unwrap().display(),
                metadata.mode(),
                metadata.uid(),
                metadata.gid(),
                metadata.mtime(),
            )
        })
        .collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn the_same_content_gives_the_same_image_and_the_view_is_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let (base, upper) = layers(dir.path());
    let view = Mounted::overlay(&[&upper, &base], &dir.path().join("view"));
    let before = (listing(&base), listing(&upper));
    let options = Ext4Options::default();
    let images = ["one", "two", "three", "four"].map(|name| dir.path().join(name));

    let one = build(&view.0, &images[0], &options).await.unwrap();
    another_second(dir.path()).await;
    let two = build(&view.0, &images[1], &options).await.unwrap();
    // A copy has other inode numbers, another order of entries, and its own ctime; on tmpfs also
    // other block counts.
    let plain = dir.path().join("plain");
    run("cp", &["-a", text(&view.0), text(&plain)]);
    let three = build(&plain, &images[2], &options).await.unwrap();
    let memory = Mounted::tmpfs(c"size=64m", &dir.path().join("memory"));
    run("cp", &["-a", text(&view.0), text(&memory.0.join("copy"))]);
    let four = build(&memory.0.join("copy"), &images[3], &options)
        .await
        .unwrap();

    assert_eq!(one.digest, two.digest, "two images of the same mount");
    assert_eq!(one.digest, three.digest, "an image of a copy");
    assert_eq!(one.digest, four.digest, "an image of a copy on tmpfs");
    assert_eq!((listing(&base), listing(&upper)), before);
    let (digest, bytes) = sparse::digest(&images[0]).unwrap();
    assert_eq!((digest, bytes), (one.digest, one.size_bytes));

    fs::write(plain.join("etc-new"), "other").unwrap();
    let other = build(&plain, &images[2], &options).await.unwrap();
    assert_ne!(one.digest, other.digest, "other content");
    let leftover: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert_eq!(leftover, Vec::<String>::new());
}

#[tokio::test]
async fn an_image_has_what_the_view_has_and_the_mount_points() {
    let dir = tempfile::tempdir().unwrap();
    let (base, upper) = layers(dir.path());
    fs::create_dir(base.join("proc")).unwrap();
    symlink("var", base.join("run")).unwrap();
    let view = Mounted::overlay(&[&upper, &base], &dir.path().join("view"));
    let image = dir.path().join("image");
    let options = Ext4Options::default();
    let built = build(&view.0, &image, &options).await.unwrap();
    check(&image, &options).await.unwrap();
    let allocated = fs::metadata(&image).unwrap().blocks() * 512;
    assert!(allocated < built.size_bytes / 2, "{allocated} of {built:?}");
    assert!(built.content_bytes < built.size_bytes, "{built:?}");

    let mounted = Mounted::image(&image, &dir.path().join("mounted"));
    let added = ["dev", "sys", "tmp"];
    let (new, kept): (Vec<String>, Vec<String>) =
        listing(&mounted.0).into_iter().partition(|line| {
            added
                .iter()
                .any(|name| line.starts_with(&format!("{name} ")))
        });
    assert_eq!(kept, listing(&view.0));
    let modes: Vec<String> = new
        .iter()
        .map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(modes, ["dev 40755 0:0", "sys 40555 0:0", "tmp 41777 0:0"]);
    let tool = mounted.0.join("usr/bin/tool");
    let mut value = [0; 8];
    let length = rustix::fs::getxattr(&tool, "user.a", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"one");
    let metadata = fs::metadata(&tool).unwrap();
    assert_eq!(
        (metadata.ctime(), metadata.atime()),
        (1_700_000_000, 1_700_000_000)
    );
    assert!(fs::metadata(mounted.0.join("var/hole")).unwrap().blocks() == 0);
}

#[tokio::test]
async fn growing_keeps_the_content_and_the_order_of_sizes() {
    let dir = tempfile::tempdir().unwrap();
    let (base, _) = layers(dir.path());
    let image = dir.path().join("image");
    let options = Ext4Options::default();
    let built = build(&base, &image, &options).await.unwrap();
    let target = target_bytes(Some(2048), built.content_bytes, &options.limits);
    let grown = grow(&image, target, &options).await.unwrap();
    assert_eq!(
        grown,
        Grown {
            from_bytes: built.size_bytes,
            to_bytes: 2048 << 20
        }
    );
    check(&image, &options).await.unwrap();
    let groups = run("dumpe2fs", &[text(&image)]);
    let groups: Vec<&str> = groups
        .lines()
        .filter(|line| line.contains(": (Blocks"))
        .collect();
    assert_eq!(groups.len(), 16);
    assert!(
        groups.iter().all(|line| line.contains("ITABLE_ZEROED")),
        "{groups:#?}"
    );
    let metadata = fs::metadata(&image).unwrap();
    assert_eq!(metadata.len(), 2048 << 20);
    assert!(
        metadata.blocks() * 512 < 32 << 20,
        "{} blocks",
        metadata.blocks()
    );
    let again = grow(&image, target, &options).await.unwrap();
    assert_eq!((again.from_bytes, again.to_bytes), (target, target));
    let error = grow(&image, target - BLOCK_BYTES, &options)
        .await
        .unwrap_err();
    assert!(matches!(error, RootfsError::Shrink { .. }), "{error}");
    let error = grow(&image, target + 1, &options).await.unwrap_err();
    assert!(matches!(error, RootfsError::TooLarge { .. }), "{error}");

    let mounted = Mounted::image(&image, &dir.path().join("mounted"));
    let stat = rustix::fs::statvfs(&mounted.0).unwrap();
    let total = stat.f_blocks * stat.f_frsize;
    assert!(total > 1950 << 20, "{total}");
    assert!(listing(&mounted.0).len() > listing(&base).len());
}

#[tokio::test]
async fn growing_is_reproducible() {
    let dir = tempfile::tempdir().unwrap();
    let (base, _) = layers(dir.path());
    let options = Ext4Options::default();
    let mut digests = Vec::new();
    for name in ["one", "two"] {
        let image = dir.path().join(name);
        build(&base, &image, &options).await.unwrap();
        grow(&image, 700 << 20, &options).await.unwrap();
        another_second(dir.path()).await;
        digests.push(sparse::digest(&image).unwrap());
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test]
async fn damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (base, _) = layers(dir.path());
    let image = dir.path().join("image");
    let options = Ext4Options::default();
    build(&base, &image, &options).await.unwrap();
    run(
        "debugfs",
        &["-w", "-R", "sif /usr/bin/tool links_count 9", text(&image)],
    );
    let error = check(&image, &options).await.unwrap_err();
    assert!(matches!(error, RootfsError::Damaged { .. }), "{error}");
    fs::write(&image, vec![0; 1 << 20]).unwrap();
    let error = check(&image, &options).await.unwrap_err();
    assert!(matches!(error, RootfsError::Tool { .. }), "{error}");
    let error = check(&dir.path().join("none"), &options).await.unwrap_err();
    assert!(matches!(error, RootfsError::Tool { .. }), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_told_apart_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let view = dir.path().join("view");
    fs::create_dir(&view).unwrap();
    let disk = Mounted::tmpfs(c"size=8m", &dir.path().join("disk"));
    let image = disk.0.join("image");
    // The first is refused before anything is written, the second when the metadata is.
    for bytes in [20 << 20, (8 << 20) - 4096 * 16] {
        fs::write(view.join("file"), vec![7; bytes]).unwrap();
        let error = build(&view, &image, &Ext4Options::default())
            .await
            .unwrap_err();
        assert!(matches!(error, RootfsError::DiskFull { .. }), "{error:?}");
        assert_eq!(
            fs::read_dir(&disk.0).unwrap().count(),
            0,
            "after {bytes} bytes"
        );
    }
}

#[tokio::test]
async fn a_file_where_a_machine_mounts_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let view = dir.path().join("view");
    fs::create_dir(&view).unwrap();
    fs::write(view.join("proc"), "").unwrap();
    let error = build(&view, &dir.path().join("image"), &Ext4Options::default())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "/proc is not a folder, but a machine must mount there"
    );
}

#[tokio::test]
async fn a_view_that_is_not_there_is_an_error_and_an_empty_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (view, image) = (dir.path().join("view"), dir.path().join("image"));
    let options = Ext4Options::default();
    let error = build(&view, &image, &options).await.unwrap_err();
    assert!(matches!(error, RootfsError::View { .. }), "{error:?}");
    fs::create_dir(&view).unwrap();
    build(&view, &image, &options).await.unwrap();
    check(&image, &options).await.unwrap();
}

#[tokio::test]
async fn an_estimate_that_is_too_small_is_corrected() {
    let dir = tempfile::tempdir().unwrap();
    let view = dir.path().join("view");
    fs::create_dir(&view).unwrap();
    // Each file needs a block for its attribute, which the estimate does not know of.
    for index in 0..4000 {
        let path = view.join(index.to_string());
        fs::write(&path, "").unwrap();
        let value = vec![b'x'; 3000];
        rustix::fs::setxattr(&path, "user.big", &value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    let options = Ext4Options {
        limits: RootfsLimits {
            image_bytes_min: 1 << 20,
            journal_mib: 4,
            ..RootfsLimits::default()
        },
        ..Ext4Options::default()
    };
    let image = dir.path().join("image");
    let built = build(&view, &image, &options).await.unwrap();
    let survey = survey(&view, &options.limits).unwrap();
    assert!(built.size_bytes > geometry(&survey, 0, &options.limits).size_bytes);
    check(&image, &options).await.unwrap();
}

#[test]
fn the_target_is_whole_and_never_overflows() {
    let limits = RootfsLimits::default();
    assert_eq!(target_bytes(None, 0, &limits), 512 << 20);
    assert_eq!(target_bytes(Some(600), (88 << 20) + 1, &limits), 601 << 20);
    assert!(target_bytes(Some(u64::MAX), u64::MAX, &limits) > u64::MAX - (1 << 21));
}

#[test]
fn uuids_are_valid_and_come_from_the_identity() {
    let options = Ext4Options {
        identity: Digest::from_bytes([0xff; 32]),
        ..Ext4Options::default()
    };
    let expected = "ffffffff-ffff-8fff-bfff-ffffffffffff".to_owned();
    assert_eq!(options.uuids(), (expected.clone(), expected));
}
