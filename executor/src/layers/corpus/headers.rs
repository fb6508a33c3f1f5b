//! Headers that contradict their archive, or themselves.

use std::os::unix::fs::MetadataExt as _;

use super::{Line, Sample, case, refused, refused_bytes, shows};

/// A file whose size field is as given, before another one.
fn sized(size: [u8; 12]) -> Sample {
    Sample::new()
        .member(b'0', "a", b"", |header| header.as_old_mut().size = size)
        .file("b", "x")
}

pub(super) const TABLE: &[Line] = &[
    ("a size larger than the data", |_| {
        refused_bytes(
            Sample::new()
                .member(b'0', "a", b"short", |header| header.set_size(100_000))
                .end(),
            "it ends within a file",
        )
    }),
    ("a size smaller than the data", |_| {
        refused(
            Sample::new().member(b'0', "a", &[b'x'; 600], |header| header.set_size(3)),
            "a header's checksum is wrong",
        )
    }),
    ("a size above all bounds", |_| {
        refused(sized(*b"\x80\0\0\0\x40\0\0\0\0\0\0\0"), "a file exceeds")
    }),
    ("a negative size", |_| {
        refused(
            sized(*b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"),
            "a size is not a number",
        )
    }),
    ("a size that overflows", |_| {
        refused(
            sized(*b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            "a size is not a number",
        )
    }),
    ("a size in digits that are not octal", |_| {
        refused(sized(*b"0000000009\0\0"), "a size is not a number")
    }),
    ("a size with a minus sign", |_| {
        refused(sized(*b"-0000000001\0"), "a size is not a number")
    }),
    ("a mode that is no number", |_| {
        refused(
            Sample::new().member(b'0', "x", b"", |header| {
                header.as_old_mut().mode = *b"rw-r--r-";
            }),
            "a mode is not a number",
        )
    }),
    ("an owner of minus one", |_| {
        refused(
            Sample::new().member(b'0', "x", b"", |header| {
                header.as_old_mut().uid = [0xff; 8];
            }),
            "an owner or group out of range",
        )
    }),
    ("an owner of 32 bits and one more", |_| {
        refused(
            Sample::new().pax(&[("uid", b"4294967296")]).file("f", ""),
            "an owner or group out of range",
        )
    }),
    ("a group that means none to the kernel", |_| {
        refused(
            Sample::new().pax(&[("gid", b"4294967295")]).file("f", ""),
            "an owner or group out of range",
        )
    }),
    ("the first and the last time", |_| {
        shows(
            Sample::new()
                .pax(&[("mtime", b"9223372036854775807.999999999")])
                .file("late", "")
                .pax(&[("mtime", b"-9223372036854775807.5")])
                .file("early", ""),
            ["f early=", "f late="],
        )
        .looked_at(|view| {
            // The filesystem's own first and last.
            assert!(view.join("early").metadata().unwrap().mtime() < 0);
            assert!(view.join("late").metadata().unwrap().mtime() > 1 << 32);
        })
    }),
    ("a time that is no number", |_| {
        refused(
            Sample::new().pax(&[("mtime", b"1e9")]).file("f", ""),
            "a PAX time",
        )
    }),
    ("a checksum that is wrong", |_| {
        let mut bytes = Sample::new().file("a", "x").end();
        bytes[3] ^= 1;
        refused_bytes(bytes, "a header's checksum is wrong")
    }),
    ("an end within a header", |_| {
        refused_bytes(
            Sample::new().file("a", "x").cut()[..300].to_vec(),
            "it ends within a header",
        )
    }),
    ("an end within a file's padding", |_| {
        refused_bytes(
            Sample::new().file("a", "x").cut()[..700].to_vec(),
            "it ends within a file",
        )
    }),
    ("no archive at all", |_| {
        refused_bytes(
            b"#!/bin/sh\nexit 0\n".repeat(100),
            "a header's checksum is wrong",
        )
    }),
    ("an empty stream", |_| {
        case(vec![Vec::new()], super::Then::Shows(Vec::new(), |_| ()))
    }),
    ("data behind the end", |_| {
        let mut bytes = Sample::new().file("a", "x").end();
        bytes.extend(Sample::new().file("b", "y").end());
        case(
            vec![bytes],
            super::Then::Shows(vec!["f a=x".to_owned()], |_| ()),
        )
    }),
    ("an extension header without its member", |_| {
        refused(
            Sample::new()
                .file("a", "x")
                .member(b'L', "l", b"name", |_| ()),
            "an extension header without its member",
        )
    }),
    ("a record that is longer than its header", |_| {
        refused(
            Sample::new()
                .member(b'x', "x", b"99 path=x\n", |_| ())
                .file("f", ""),
            "a PAX record",
        )
    }),
    ("a record of no length", |_| {
        refused(
            Sample::new()
                .member(b'x', "x", b"0 path=x\n", |_| ())
                .file("f", ""),
            "a PAX record",
        )
    }),
    ("a record without an end", |_| {
        refused(
            Sample::new()
                .member(b'x', "x", b"9 path=xx", |_| ())
                .file("f", ""),
            "a PAX record",
        )
    }),
    ("a record with NUL in a path", |_| {
        refused(
            Sample::new().pax(&[("path", b"a\0b")]).file("x", ""),
            "a path contains NUL",
        )
    }),
    ("a record with NUL in a target", |_| {
        refused(
            Sample::new()
                .pax(&[("linkpath", b"a\0b")])
                .symlink("x", "y"),
            "a path contains NUL",
        )
    }),
    ("a record with NUL in an attribute's name", |_| {
        refused(
            Sample::new()
                .pax(&[("SCHILY.xattr.user.a\0b", b"x")])
                .file("x", ""),
            "the name of an extended attribute",
        )
    }),
    ("a record that says another path", |_| {
        shows(
            Sample::new()
                .pax(&[("path", b"d/real")])
                .file("../canary", "x"),
            ["d d", "f d/real=x"],
        )
    }),
    ("a record that says a path that goes up", |_| {
        refused(
            Sample::new()
                .pax(&[("path", b"../canary/file")])
                .file("f", "x"),
            "its path goes up",
        )
    }),
    ("a record that hides a header in data", |_| {
        let hidden = Sample::new().file("hidden", "x").cut();
        shows(
            Sample::new()
                .pax(&[("size", hidden.len().to_string().as_bytes())])
                .member(b'0', "f", &hidden, |header| header.set_size(0)),
            [&format!("f f={}", String::from_utf8_lossy(&hidden))],
        )
    }),
    ("records for the whole archive", |_| {
        shows(
            Sample::new()
                .member(b'g', "g", b"18 path=../canary\n", |_| ())
                .file("f", "x"),
            ["f f=x"],
        )
    }),
    ("a folder and a link with a size", |_| {
        shows(
            Sample::new()
                .member(b'5', "d", b"", |header| header.set_size(4096))
                .member(b'2', "l", b"", |header| {
                    header.set_size(1 << 40);
                    header.as_old_mut().linkname[..1].copy_from_slice(b"x");
                })
                .file("f", "x"),
            ["d d", "f f=x", "l l>x"],
        )
    }),
    ("a device without a number", |_| {
        refused(
            Sample::new().member(b'3', "x", b"", |header| {
                header.as_gnu_mut().unwrap().dev_major = *b"garbage\0";
            }),
            "a device's number",
        )
    }),
];
