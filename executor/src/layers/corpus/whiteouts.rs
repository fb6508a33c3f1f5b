//! Names that are instructions: whiteouts, opaque marks, and what looks like overlayfs's own.

use super::{Line, Sample, inside, refused, refused_on, shows, stack, xattr};

fn base() -> Sample {
    Sample::new().file("d/old", "1").file("f", "1")
}

pub(super) const TABLE: &[Line] = &[
    ("a whiteout without a name", |_| {
        refused_on(
            [base(), Sample::new().file(".wh.", "")],
            "it removes no name",
        )
    }),
    ("a whiteout of .", |_| {
        refused_on(
            [base(), Sample::new().file("d/.wh..", "")],
            "it removes no name",
        )
    }),
    ("a whiteout of ..", |_| {
        refused_on(
            [base(), Sample::new().file("d/.wh...", "")],
            "it removes no name",
        )
    }),
    ("a whiteout that goes up", |_| {
        refused(Sample::new().file("../.wh.canary", ""), "its path goes up")
    }),
    ("a whiteout through a link to the host", |host| {
        inside(
            Sample::new()
                .symlink("out", host)
                .file("out/.wh.file", "")
                .file("out/new", "x"),
            host,
            "f new=x",
            [&format!("l out>{host}")],
        )
    }),
    ("a whiteout through a link of a lower layer", |_| {
        stack(
            [
                base().symlink("l", "d"),
                Sample::new().file("l/.wh.old", ""),
            ],
            ["d d", "f f=1", "l l>d"],
        )
    }),
    ("a whiteout that is a link", |_| {
        stack(
            [base(), Sample::new().symlink(".wh.f", "/etc/hostname")],
            ["d d", "f d/old=1"],
        )
    }),
    ("a whiteout that is a folder with data", |_| {
        let top = Sample::new().folder(".wh.d", 0o755);
        stack([base(), top], ["f f=1"])
    }),
    ("a whiteout with data", |_| {
        let top = Sample::new().file(".wh.f", [7; 2000]).file("g", "2");
        stack([base(), top], ["d d", "f d/old=1", "f g=2"])
    }),
    ("a file below a whiteout's name", |_| {
        refused(Sample::new().file(".wh.d/x", ""), "reserved")
    }),
    ("a whiteout of nothing", |_| {
        shows(
            Sample::new().file("d/.wh.x", "").file("f", "1"),
            ["d d", "f f=1"],
        )
    }),
    ("a folder removed and made anew in one layer", |_| {
        stack(
            [base(), Sample::new().file("d/new", "2").file(".wh.d", "")],
            ["d d", "f d/new=2", "f f=1"],
        )
    }),
    (
        "a folder removed, its file removed, and made anew above",
        |_| {
            stack(
                [
                    base(),
                    Sample::new().file(".wh.d", "").file("d/.wh.old", ""),
                    Sample::new().file("d/newer", "3"),
                ],
                ["d d", "f d/newer=3", "f f=1"],
            )
        },
    ),
    ("an opaque mark that is a folder", |_| {
        let top = Sample::new().folder("d/.wh..wh..opq", 0o755);
        stack(
            [base(), top.file("d/new", "2")],
            ["d d", "f d/new=2", "f f=1"],
        )
    }),
    ("an opaque mark behind what it keeps", |_| {
        let top = Sample::new().file("d/new", "2").file("d/.wh..wh..opq", "");
        stack([base(), top], ["d d", "f d/new=2", "f f=1"])
    }),
    ("an opaque root", |_| {
        let top = Sample::new().file(".wh..wh..opq", "").file("g", "2");
        stack([base(), top], ["f g=2"])
    }),
    ("an opaque mark in the place of a file", |_| {
        refused(
            Sample::new().file("f", "x").file("f/.wh..wh..opq", ""),
            "in the place of a folder",
        )
    }),
    ("a file below an opaque mark", |_| {
        refused(Sample::new().file("d/.wh..wh..opq/x", ""), "reserved")
    }),
    ("marks of other drivers", |_| {
        shows(
            Sample::new()
                .file(".wh..wh.aufs", "x")
                .folder(".wh..wh.plnk", 0o700)
                .file("d/.wh..wh.unknown", "x")
                .file("f", "x"),
            ["f f=x"],
        )
    }),
    ("a name that only looks like a whiteout", |_| {
        shows(
            Sample::new().file("..wh.f", "x").file("x.wh.f", "x"),
            ["f ..wh.f=x", "f x.wh.f=x"],
        )
    }),
    ("a hard link to a file that is removed before", |_| {
        refused_on(
            [base(), Sample::new().file(".wh.f", "").hard_link("x", "f")],
            "a hard link to a removed file",
        )
    }),
    ("a hard link to a file that is removed behind", |_| {
        refused_on(
            [base(), Sample::new().hard_link("x", "f").file(".wh.f", "")],
            "it removes the target of a hard link",
        )
    }),
    (
        "a hard link to a file whose folder is removed behind",
        |_| {
            let top = Sample::new().hard_link("x", "d/old");
            refused_on(
                [base(), top.file(".wh.d", "")],
                "it removes the target of a hard link",
            )
        },
    ),
    ("a hard link to a file that is hidden behind", |_| {
        let top = Sample::new().hard_link("x", "d/old");
        refused_on(
            [base(), top.file(".wh..wh..opq", "")],
            "it removes the target of a hard link",
        )
    }),
    ("a character device 0:0", |_| {
        refused_on(
            [base(), Sample::new().device(b'3', "f", 0, 0)],
            "would remove a file",
        )
    }),
    ("a device whose major number the kernel cuts to 0:0", |_| {
        refused_on(
            [base(), Sample::new().device(b'3', "f", 4096, 0)],
            "a device's number",
        )
    }),
    ("a device whose minor number the kernel cuts to 0:0", |_| {
        refused_on(
            [base(), Sample::new().device(b'3', "f", 0, 1 << 20)],
            "a device's number",
        )
    }),
    ("an opaque attribute", |_| {
        let top = Sample::new().pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")]);
        refused_on([base(), top.folder("d", 0o755)], "steer the mount")
    }),
    ("a redirect to the host", |_| {
        let top = Sample::new().pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/../../etc")]);
        refused_on([base(), top.folder("d", 0o755)], "steer the mount")
    }),
    ("a metadata-only copy", |_| {
        let top = Sample::new().pax(&[("SCHILY.xattr.trusted.overlay.metacopy", b"")]);
        refused_on([base(), top.file("f", "2")], "steer the mount")
    }),
    ("a whiteout attribute", |_| {
        let top = Sample::new().pax(&[("SCHILY.xattr.trusted.overlay.whiteout", b"y")]);
        refused_on([base(), top.file("f", "")], "steer the mount")
    }),
    ("marks of an unprivileged overlay", |_| {
        let top = Sample::new().pax(&[
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.kept", b"1"),
        ]);
        stack(
            [base(), top.folder("d", 0o755)],
            ["d d", "f d/old=1", "f f=1"],
        )
        .looked_at(|view| {
            assert_eq!(xattr(&view.join("d"), "user.overlay.opaque"), None);
            assert_eq!(xattr(&view.join("d"), "user.kept").unwrap(), b"1");
        })
    }),
];
