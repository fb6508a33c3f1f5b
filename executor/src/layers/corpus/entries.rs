//! Odd names, odd kinds, odd attributes, and names that come more than once.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use super::{Line, Sample, refused, refused_on, shows, stack, xattr};

pub(super) const TABLE: &[Line] = &[
    ("an empty name", |_| {
        refused(Sample::new().file("", "x"), "its path is empty")
    }),
    ("a file called .", |_| {
        refused(
            Sample::new().file(".", "x"),
            "the root can only be a folder",
        )
    }),
    ("a link called ./.", |host| {
        refused(
            Sample::new().symlink("./.", host),
            "the root can only be a folder",
        )
    }),
    ("a root with a mode", |_| {
        shows(Sample::new().folder("./", 0o711).file("x", "x"), ["f x=x"])
            .looked_at(|view| assert_eq!(view.metadata().unwrap().mode() & 0o7777, 0o711))
    }),
    ("a name that is not UTF-8", |_| {
        shows(
            Sample::new().file(b"a\xff\xfe", "x"),
            ["f a\u{fffd}\u{fffd}=x"],
        )
        .looked_at(|view| {
            assert!(view.join(OsStr::from_bytes(b"a\xff\xfe")).is_file());
        })
    }),
    (
        "names with a newline, control characters and separators",
        |_| {
            shows(
                Sample::new()
                    .file("a\nb", "1")
                    .file("a\u{1b}[2J", "2")
                    .file("a\\b", "3")
                    .file("a\u{2028}b", "4")
                    .file("-rf *", "5"),
                [
                    "f -rf *=5",
                    "f a\nb=1",
                    "f a\u{1b}[2J=2",
                    "f a\\b=3",
                    "f a\u{2028}b=4",
                ],
            )
        },
    ),
    ("names that differ by case or by composition only", |_| {
        shows(
            Sample::new()
                .file("A", "1")
                .file("a", "2")
                .file("e\u{301}", "3")
                .file("\u{e9}", "4"),
            ["f A=1", "f a=2", "f e\u{301}=3", "f \u{e9}=4"],
        )
    }),
    ("a name of 255 bytes", |_| {
        let name = "n".repeat(255);
        shows(Sample::new().file(&name, "x"), [&format!("f {name}=x")])
    }),
    ("a name of 256 bytes", |_| {
        refused(
            Sample::new().file("n".repeat(256), "x"),
            "File name too long",
        )
    }),
    ("a path of 4096 bytes", |_| {
        refused(
            Sample::new().file("a/".repeat(2047) + "ab", ""),
            "a path exceeds 4095",
        )
    }),
    ("a path of 100000 bytes", |_| {
        refused(
            Sample::new().file("a/".repeat(50_000), ""),
            "a path exceeds 4095",
        )
    }),
    ("a link's target of 4096 bytes", |_| {
        refused(
            Sample::new().symlink("l", "t".repeat(4096)),
            "a path exceeds 4095",
        )
    }),
    ("a link to nothing", |_| {
        refused(Sample::new().symlink("l", ""), "cannot create `l`")
    }),
    ("a file whose name ends like a folder's", |_| {
        shows(
            Sample::new().file("d/", [7; 700]).file("d/x", "x"),
            ["d d", "f d/x=x"],
        )
    }),
    ("a file, a folder, a link and a file of one name", |_| {
        shows(
            Sample::new()
                .file("x", "1")
                .folder("x", 0o755)
                .file("x/y", "2")
                .symlink("x", "/etc")
                .file("x", "last"),
            ["f x=last"],
        )
    }),
    ("a file beneath a file", |_| {
        refused(
            Sample::new().file("f", "x").file("f/x", "x"),
            "in the place of a folder",
        )
    }),
    ("a folder in the place of a lower file", |_| {
        stack(
            [
                Sample::new().file("x/old", "1"),
                Sample::new().file("x", "2"),
                Sample::new().folder("x", 0o755).file("x/new", "3"),
            ],
            ["d x", "f x/new=3"],
        )
    }),
    ("a file in the place of a lower folder", |_| {
        stack(
            [
                Sample::new().file("x/old", "1"),
                Sample::new().file("x", "2"),
            ],
            ["f x=2"],
        )
    }),
    ("a folder that is a link beneath", |_| {
        stack(
            [
                Sample::new().symlink("x", "y").file("y/old", "1"),
                Sample::new().folder("x", 0o755).file("x/new", "2"),
            ],
            ["d x", "f x/new=2", "d y", "f y/old=1"],
        )
    }),
    ("folders that nothing describes, of a lower layer", |_| {
        let base = Sample::new().member(b'5', "tmp", b"", |header| {
            header.set_mode(0o1777);
            header.set_uid(5);
            header.set_mtime(42);
        });
        stack(
            [base, Sample::new().file("tmp/a/x", "x")],
            ["d tmp", "d tmp/a", "f tmp/a/x=x"],
        )
        .looked_at(|view| {
            let status = |path: &str| {
                let status = view.join(path).metadata().unwrap();
                (status.mode() & 0o7777, status.uid(), status.mtime())
            };
            assert_eq!(status("tmp"), (0o1777, 5, 42));
            assert_eq!(status("tmp/a"), (0o755, 0, 1_700_000_000));
        })
    }),
    (
        "a folder of a lower layer, described behind its files",
        |_| {
            let base = Sample::new().pax(&[("SCHILY.xattr.user.old", b"1")]);
            let top = Sample::new().file("d/x", "x").folder("d", 0o711);
            stack([base.folder("d", 0o700), top], ["d d", "f d/x=x"]).looked_at(|view| {
                let folder = view.join("d");
                assert_eq!(folder.metadata().unwrap().mode() & 0o7777, 0o711);
                assert_eq!(xattr(&folder, "user.old"), None);
            })
        },
    ),
    ("devices and pipes", |_| {
        shows(
            Sample::new()
                .device(b'3', "null", 1, 3)
                .device(b'4', "disk", 8, 1)
                .device(b'4', "zero", 0, 0)
                .device(b'3', "last", 4095, (1 << 20) - 1)
                .member(b'6', "pipe", b"", |_| ()),
            [
                "b disk 8:1",
                "c last 4095:1048575",
                "c null 1:3",
                "p pipe",
                "b zero 0:0",
            ],
        )
    }),
    ("a socket", |_| {
        refused(
            Sample::new().member(b's', "socket", b"", |_| ()),
            "an entry of type 's'",
        )
    }),
    ("a continued volume", |_| {
        refused(
            Sample::new().member(b'M', "x", b"", |_| ()),
            "an entry of type 'M'",
        )
    }),
    (
        "setuid, owners up to the last, and fractions of seconds",
        |_| {
            shows(
                Sample::new()
                    .pax(&[("uid", b"4294967294"), ("mtime", b"1.123456789")])
                    .member(b'0', "f", b"x", |header| header.set_mode(0o6755)),
                ["f f=x"],
            )
            .looked_at(|view| {
                let status = view.join("f").metadata().unwrap();
                assert_eq!(
                    (status.uid(), status.mode() & 0o7777),
                    (u32::MAX - 1, 0o6755)
                );
                assert_eq!((status.mtime(), status.mtime_nsec()), (1, 123_456_789));
            })
        },
    ),
    ("file capabilities are kept and labels left out", |_| {
        shows(
            Sample::new()
                .pax(&[
                    (
                        "SCHILY.xattr.security.capability",
                        b"\x01\0\0\x02\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                    ),
                    ("SCHILY.xattr.security.selinux", b"label"),
                    ("SCHILY.xattr.security.ima", b"x"),
                ])
                .file("f", "x"),
            ["f f=x"],
        )
        .looked_at(|view| {
            let file = view.join("f");
            assert_eq!(xattr(&file, "security.capability").unwrap()[4], b'\n');
            assert_eq!(xattr(&file, "security.selinux"), None);
            assert_eq!(xattr(&file, "security.ima"), None);
        })
    }),
    ("file capabilities that are none", |_| {
        refused(
            Sample::new()
                .pax(&[("SCHILY.xattr.security.capability", b"x")])
                .file("f", "x"),
            "cannot set the attributes of `f`",
        )
    }),
    ("an access control list", |_| {
        refused(
            Sample::new()
                .pax(&[("SCHILY.xattr.system.posix_acl_default", b"\x02\0\0\0")])
                .folder("d", 0o755),
            "access control lists",
        )
    }),
    ("an attribute of no kind", |_| {
        refused(
            Sample::new()
                .pax(&[("SCHILY.xattr.nonsense", b"x")])
                .file("f", "x"),
            "attributes of other kinds",
        )
    }),
    ("an attribute without a name", |_| {
        refused(
            Sample::new().pax(&[("SCHILY.xattr.", b"x")]).file("f", "x"),
            "the name of an extended attribute",
        )
    }),
    ("an attribute of a link that no link has", |_| {
        refused(
            Sample::new()
                .pax(&[("SCHILY.xattr.user.note", b"x")])
                .symlink("l", "x"),
            "cannot set the attributes of `l`",
        )
    }),
    (
        "an attribute that is larger than a file has room for",
        |_| {
            refused(
                Sample::new()
                    .pax(&[("SCHILY.xattr.user.large", &[b'x'; 60_000])])
                    .file("f", "x"),
                "more room than a file has",
            )
        },
    ),
    ("an attribute that is larger than any", |_| {
        refused_on(
            [
                Sample::new().file("f", "x"),
                Sample::new()
                    .pax(&[("SCHILY.xattr.user.large", &[b'x'; 70_000])])
                    .file("f", "x"),
            ],
            "cannot set the attributes of `f`",
        )
    }),
];
