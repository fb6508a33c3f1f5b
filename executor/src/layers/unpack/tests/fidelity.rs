//! What was packed is what is there.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn special_files_are_what_they_were() {
    let world = makes(
        Sample::new()
            .device(b'3', "null", 1, 3)
            .device(b'4', "disk", 8, 1)
            .device(b'4', "zero", 0, 0)
            .member(b'6', "pipe", b"", |_| ())
            .symlink("link", "/nowhere/\u{e9}"),
        &[
            "b disk 8:1",
            "l link>/nowhere/\u{e9}",
            "c null 1:3",
            "p pipe",
            "b zero 0:0",
        ],
    );
    assert_eq!(world.status("pipe").mode() & 0o7777, 0o644);
    assert_eq!(world.status("link").mtime(), 1_700_000_000);
}

#[test]
fn attributes_survive() {
    // CAP_DAC_OVERRIDE and CAP_FOWNER make a newline, which is data and no end of a record.
    let capability = b"\x01\0\0\x02\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let world = World::new();
    let sample = Sample::new()
        .member(b'0', "setuid", b"x", |header| {
            header.set_mode(0o6755);
            header.set_uid(33);
            header.set_gid(2_000_000_000);
        })
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.note", b"a\nb=c"),
            ("SCHILY.xattr.security.selinux", b"label"),
            ("uid", b"2000000000"),
            ("mtime", b"1234567890.123456789"),
        ])
        .file("capable", "x")
        .pax(&[("mtime", b"0")])
        .file("old", "x")
        .pax(&[("mtime", b"-1.5")])
        .folder("older", 0o1777)
        .file("older/file", "x")
        .member(b'2', "link", b"", |header| {
            header.as_old_mut().linkname[..1].copy_from_slice(b"x");
            header.set_uid(7);
        });
    world.unpack(&sample.end()).unwrap();

    let status = world.status("setuid");
    assert_eq!(
        (status.uid(), status.gid(), status.mode() & 0o7777),
        (33, 2_000_000_000, 0o6755)
    );
    let capable = world.target().join("capable");
    assert_eq!(
        xattr(&capable, "security.capability").as_deref(),
        Some(&capability[..])
    );
    assert_eq!(
        xattr(&capable, "user.note").as_deref(),
        Some(&b"a\nb=c"[..])
    );
    assert_eq!(xattr(&capable, "security.selinux"), None);
    let status = world.status("capable");
    assert_eq!(
        (status.uid(), status.mtime(), status.mtime_nsec()),
        (2_000_000_000, 1_234_567_890, 123_456_789)
    );
    assert_eq!(world.status("old").mtime(), 0);
    let status = world.status("older");
    assert_eq!(
        (status.mtime(), status.mtime_nsec(), status.mode() & 0o7777),
        (-2, 500_000_000, 0o1777)
    );
    assert_eq!(world.status("link").uid(), 7);
}

#[test]
fn archives_of_other_writers_read_the_same() {
    // Folders that only a slash marks, sizes of members without data, names in prefix and name.
    let world = World::new();
    let sample = Sample::new()
        .member(b'\0', "old/", b"", |_| ())
        .member(b'5', "sized", b"", |header| header.set_size(4096))
        .member(b'2', "link", b"", |header| {
            header.set_size(9);
            header.as_old_mut().linkname[..1].copy_from_slice(b"x");
        })
        .member(b'7', "contiguous", b"x", |_| ())
        .member(b'g', "global", b"11 path=zz\n", |_| ())
        .pax(&[("path", b"dropped"), ("path", b"")])
        .file("kept", "x")
        .pax(&[("size", b"3"), ("path", b"sized-by-pax")])
        .member(b'0', "x", b"abc", |header| header.set_size(0));
    let mut bytes = sample.cut();
    let mut header = tar::Header::new_ustar();
    header.set_path("p/".repeat(60) + "file").unwrap();
    header.set_size(1);
    header.set_mode(0o600);
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&[b'y'; 1]);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    world.unpack(&bytes).unwrap();
    for (path, content) in [
        ("contiguous", "x"),
        ("kept", "x"),
        ("sized-by-pax", "abc"),
        (&("p/".repeat(60) + "file"), "y"),
    ] {
        assert_eq!(
            std::fs::read_to_string(world.target().join(path)).unwrap(),
            content,
            "{path}"
        );
    }
    assert!(world.status("old").is_dir() && world.status("sized").is_dir());
}

#[test]
fn folders_that_nothing_describes_are_plain() {
    let world = makes(
        Sample::new().file("a/b/c", "x"),
        &["d a", "d a/b", "f a/b/c=x"],
    );
    for path in ["", "a", "a/b"] {
        let status = world.status(path);
        let is = (status.uid(), status.mode() & 0o7777, status.mtime());
        assert_eq!(is, (0, 0o755, 1_700_000_000), "{path}");
    }
}

#[test]
fn missing_folders_are_as_the_layers_beneath_have_them() {
    let world = World::new();
    let base = Sample::new()
        .folder("./", 0o711)
        .pax(&[("SCHILY.xattr.user.kept", b"1")])
        .member(b'5', "tmp", b"", |header| {
            header.set_mode(0o1777);
            header.set_uid(5);
            header.set_mtime(42);
        })
        .folder("hidden", 0o700)
        .folder("gone", 0o700);
    let middle = Sample::new()
        .folder("./", 0o711)
        .file("hidden/.wh..wh..opq", "")
        .file(".wh.gone", "");
    let top = Sample::new()
        .file("tmp/x", "")
        .file("hidden/sub/x", "")
        .file("gone/x", "");
    let folders = stack(&world, vec![base, middle, top]);
    let status = |path: &str| std::fs::symlink_metadata(folders[0].join(path)).unwrap();
    let tmp = status("tmp");
    assert_eq!(
        (tmp.mode() & 0o7777, tmp.uid(), tmp.mtime()),
        (0o1777, 5, 42)
    );
    assert_eq!(
        xattr(&folders[0].join("tmp"), "user.kept").as_deref(),
        Some(&b"1"[..])
    );
    assert_eq!(status("").mode() & 0o7777, 0o711);
    assert_eq!(status("hidden").mode() & 0o7777, 0o700);
    assert_eq!(status("hidden/sub").mode() & 0o7777, 0o755);
    assert_eq!(status("gone").mode() & 0o7777, 0o755);
}

#[test]
fn links_of_the_layers_beneath_are_followed() {
    let world = World::new();
    let base = Sample::new()
        .symlink("lib", "usr/lib")
        .folder("usr/lib", 0o750)
        .symlink("var/run", "/run")
        .symlink("old", "usr");
    let top = Sample::new()
        .file("lib/x", "x")
        .file("var/run/pid", "1")
        .file(".wh.old", "")
        .file("old/y", "y");
    let folders = stack(&world, vec![base, top]);
    assert_eq!(
        listing(&folders[0]),
        [
            "d old",
            "f old/y=y",
            "d run",
            "f run/pid=1",
            "d usr",
            "d usr/lib",
            "f usr/lib/x=x",
            "d var"
        ]
    );
    assert_eq!(
        std::fs::metadata(folders[0].join("usr/lib"))
            .unwrap()
            .mode()
            & 0o7777,
        0o750
    );
}

#[test]
fn a_dangling_absolute_link_gets_its_target_in_the_layer() {
    makes(
        Sample::new()
            .symlink("var/run", "/run")
            .file("var/run/x", "x"),
        &["d run", "f run/x=x", "d var", "l var/run>/run"],
    );
}

#[test]
fn a_hard_link_to_a_lower_layer_s_file_copies_it() {
    let world = World::new();
    let base = Sample::new().member(b'0', "bin/tool", b"code", |header| header.set_mode(0o4755));
    let middle = Sample::new().file("bin/other", "x");
    let top = Sample::new().hard_link("bin/alias", "bin/tool");
    let folders = stack(&world, vec![base, middle, top]);
    assert_eq!(
        listing(&folders[0]),
        ["d bin", "f bin/alias=code", "f bin/tool=code"]
    );
    let status = std::fs::metadata(folders[0].join("bin/alias")).unwrap();
    assert_eq!(
        (
            status.permissions().mode() & 0o7777,
            status.nlink(),
            status.mtime()
        ),
        (0o4755, 2, 1_700_000_000)
    );
}

#[test]
fn layers_beneath_are_asked_for_only_if_needed() {
    let world = World::new();
    let sample = Sample::new()
        .folder("./", 0o755)
        .folder("d", 0o755)
        .file("d/x", "");
    let asked = || Err(UnpackError::LowersLost);
    unpack(
        &sample.end()[..],
        &world.target(),
        asked,
        &LayerLimits::default(),
    )
    .unwrap();
    let sample = Sample::new().file("e/x", "");
    let error = unpack(
        &sample.end()[..],
        &world.target(),
        asked,
        &LayerLimits::default(),
    );
    assert!(matches!(error, Err(UnpackError::LowersLost)), "{error:?}");
}

#[test]
fn the_stream_is_read_to_its_end() {
    let mut archive = std::io::Cursor::new(
        Sample::new()
            .file("a", "x")
            .raw(&[0; 512])
            .raw(&[7; 5000])
            .end(),
    );
    let world = World::new();
    unpack(
        &mut archive,
        &world.target(),
        || Ok(Vec::new()),
        &LayerLimits::default(),
    )
    .unwrap();
    assert_eq!(
        archive.position(),
        u64::try_from(archive.get_ref().len()).unwrap()
    );
}

#[test]
fn a_full_disk_is_recognised() {
    let error = |kind| UnpackError::Write {
        path: PathBuf::new(),
        action: "write",
        source: std::io::Error::from(kind),
    };
    assert!(error(std::io::ErrorKind::StorageFull).is_disk_full());
    assert!(!error(std::io::ErrorKind::PermissionDenied).is_disk_full());
}
