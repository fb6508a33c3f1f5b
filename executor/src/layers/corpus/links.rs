//! Paths and links that try to leave the layer, and hard links to what is not theirs.

use std::os::unix::fs::MetadataExt as _;

use super::{Line, Sample, inside, refused, refused_on, shows, stack};

pub(super) const TABLE: &[Line] = &[
    ("a path that goes up", |_| {
        refused(
            Sample::new().file("../canary/file", "x"),
            "its path goes up",
        )
    }),
    ("a path that goes up in its middle", |_| {
        refused(
            Sample::new().file("d/../../canary/file", "x"),
            "its path goes up",
        )
    }),
    ("a path that goes up and down again", |_| {
        refused(Sample::new().file("d/../file", "x"), "its path goes up")
    }),
    ("a folder called ..", |_| {
        refused(Sample::new().folder("d/..", 0o777), "its path goes up")
    }),
    ("an absolute path", |_| {
        shows(Sample::new().file("/etc//./x", "x"), ["d etc", "f etc/x=x"])
    }),
    ("an absolute path of the host", |host| {
        inside(
            Sample::new().file(format!("{host}/file"), "dead"),
            host,
            "f file=dead",
            [],
        )
    }),
    ("a write through an absolute link to the host", |host| {
        inside(
            Sample::new().symlink("out", host).file("out/file", "dead"),
            host,
            "f file=dead",
            [&format!("l out>{host}")],
        )
    }),
    ("a write through a relative link", |_| {
        shows(
            Sample::new()
                .symlink("up", "../../../../..")
                .file("up/file", "x"),
            ["f file=x", "l up>../../../../.."],
        )
    }),
    ("a write through links through links", |_| {
        shows(
            Sample::new()
                .symlink("a", "b/c")
                .symlink("b", "/d")
                .symlink("d/c", "../../e")
                .file("a/x", "x"),
            [
                "l a>b/c",
                "l b>/d",
                "d d",
                "l d/c>../../e",
                "d e",
                "f e/x=x",
            ],
        )
    }),
    ("a folder over a link to the host", |host| {
        shows(
            Sample::new()
                .symlink("d", host)
                .folder("d", 0o700)
                .file("d/file", "x"),
            ["d d", "f d/file=x"],
        )
    }),
    ("a file over a link to a file of the host", |host| {
        shows(
            Sample::new()
                .symlink("f", format!("{host}/file"))
                .file("f", "own"),
            ["f f=own"],
        )
    }),
    ("a write through a link of a lower layer", |host| {
        let mut case = inside(
            Sample::new().file("out/file", "dead"),
            host,
            "f file=dead",
            [&format!("l out>{host}")],
        );
        case.layers
            .insert(0, Sample::new().symlink("out", host).end());
        case
    }),
    ("a write through /proc/self/root", |_| {
        shows(
            Sample::new()
                .symlink("p", "/proc/self/root")
                .file("p/x", "x"),
            [
                "l p>/proc/self/root",
                "d proc",
                "d proc/self",
                "d proc/self/root",
                "f proc/self/root/x=x",
            ],
        )
    }),
    ("a dangling absolute link", |_| {
        shows(
            Sample::new()
                .symlink("var/run", "/run")
                .file("var/run/x", "x"),
            ["d run", "f run/x=x", "d var", "l var/run>/run"],
        )
    }),
    ("a loop of links", |_| {
        let sample = Sample::new().symlink("a", "b").symlink("b", "a");
        refused(sample.file("a/x", "x"), "too many links")
    }),
    ("a link to itself across layers", |_| {
        refused_on(
            [
                Sample::new().symlink("a", "a"),
                Sample::new().file("a/x", "x"),
            ],
            "too many links",
        )
    }),
    ("a hard link to a file of the host", |host| {
        let target = format!("{host}/file");
        refused(Sample::new().hard_link("x", target), "does not exist")
    }),
    ("a hard link through a link to the host", |host| {
        let sample = Sample::new().symlink("l", host);
        refused(sample.hard_link("x", "l/file"), "does not exist")
    }),
    ("a hard link that goes up", |_| {
        refused(
            Sample::new().hard_link("x", "../canary/file"),
            "its path goes up",
        )
    }),
    (
        "a hard link to a link to the host, then a write to it",
        |host| {
            shows(
                Sample::new()
                    .symlink("l", format!("{host}/file"))
                    .hard_link("x", "l")
                    .file("x", "own"),
                [&format!("l l>{host}/file"), "f x=own"],
            )
        },
    ),
    ("a hard link to a folder", |_| {
        let sample = Sample::new().folder("d", 0o755);
        refused(sample.hard_link("x", "d"), "a hard link to a folder")
    }),
    ("a hard link to the root", |_| {
        refused(Sample::new().hard_link("x", "/"), "a hard link to a folder")
    }),
    ("hard links to each other", |_| {
        refused(
            Sample::new().hard_link("a", "b").hard_link("b", "a"),
            "does not exist",
        )
    }),
    ("a hard link to itself", |_| {
        refused(Sample::new().hard_link("a", "a"), "cannot link `a`")
    }),
    ("a hard link in the place of its target's folder", |_| {
        refused(
            Sample::new().file("d/f", "x").hard_link("d", "d/f"),
            "its target's folder",
        )
    }),
    ("a hard link to a link of the layer", |_| {
        shows(
            Sample::new().symlink("s", "f").hard_link("t", "s"),
            ["l s>f", "l t>f"],
        )
    }),
    ("a hard link to a file beneath", |_| {
        let base = Sample::new().member(b'0', "f", b"x", |header| header.set_mode(0o4711));
        stack(
            [base, Sample::new().hard_link("d/g", "f")],
            ["d d", "f d/g=x", "f f=x"],
        )
        .looked_at(|view| {
            let [f, g] = ["f", "d/g"].map(|path| view.join(path).metadata().unwrap());
            assert_eq!((f.ino(), f.mode() & 0o7777), (g.ino(), 0o4711));
        })
    }),
    ("a hard link to a link beneath", |_| {
        stack(
            [
                Sample::new().symlink("s", "gone"),
                Sample::new().hard_link("t", "s"),
            ],
            ["l s>gone", "l t>gone"],
        )
    }),
    ("a hard link to a device beneath", |_| {
        stack(
            [
                Sample::new().device(b'3', "null", 1, 3),
                Sample::new().hard_link("zero", "null"),
            ],
            ["c null 1:3", "c zero 1:3"],
        )
    }),
    ("a hard link to a file that a lower layer removed", |_| {
        refused_on(
            [
                Sample::new().file("f", "x"),
                Sample::new().file(".wh.f", ""),
                Sample::new().hard_link("x", "f"),
            ],
            "does not exist",
        )
    }),
    ("a hard link to a file that is replaced later", |_| {
        stack(
            [
                Sample::new().file("f", "1"),
                Sample::new().hard_link("x", "f").file("f", "2"),
            ],
            ["f f=2", "f x=1"],
        )
    }),
];
