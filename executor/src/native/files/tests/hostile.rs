//! A corpus of contexts and root filesystems that a copy must not be led astray by, one line a case.

use std::os::unix::fs::FileTypeExt as _;

use domain::definition::{ContextEntry, ContextKind, ContextManifest};
use rustix::fs::{Mode, OFlags};

use super::*;
use crate::layers::sample::listing;
use crate::native::context::find;

/// A case: its name, what the root filesystem holds (it is told the path of a folder of the host), the
/// files of the context, the destination, and what comes of it.
struct Line {
    name: &'static str,
    image: fn(&World, &Path),
    context: &'static [&'static str],
    dst: &'static str,
    then: Then,
}

enum Then {
    /// The root filesystem is this, beside `etc/passwd`.
    Shows(&'static [&'static str]),
    /// The step fails with this.
    Fails(&'static str),
}

use Then::{Fails, Shows};

fn nothing(_: &World, _: &Path) {}

const DEEP: &str = "d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/x";

const TABLE: &[Line] = &[
    Line {
        name: "names with control characters, separators and blanks",
        image: nothing,
        context: &["a\nb", "a\u{1b}[2J", "a\\b", "a\u{2028}b", " ", "-rf"],
        dst: "/",
        then: Shows(&[
            "f  =one",
            "f -rf=one",
            "f a\nb=one",
            "f a\u{1b}[2J=one",
            "f a\\b=one",
            "f a\u{2028}b=one",
        ]),
    },
    Line {
        name: "names that differ by case or composition only",
        image: nothing,
        context: &["A", "a", "e\u{301}", "\u{e9}"],
        dst: "/",
        then: Shows(&["f A=one", "f a=one", "f e\u{301}=one", "f \u{e9}=one"]),
    },
    Line {
        name: "names that image archives take for instructions",
        image: nothing,
        context: &[".wh..wh..opq", ".wh.etc"],
        dst: "/",
        then: Shows(&["f .wh..wh..opq=one", "f .wh.etc=one"]),
    },
    Line {
        name: "a destination that goes up",
        image: nothing,
        context: &["outside"],
        dst: "/../../../../../outside/../",
        then: Shows(&["f outside=one"]),
    },
    Line {
        name: "a link to the host, absolute",
        image: |world, host| symlink(host, world.path("out")).unwrap(),
        context: &["outside"],
        dst: "/out/keep/../",
        then: Shows(&["HOST", "l out>HOST"]),
    },
    Line {
        name: "a link to the host, relative",
        image: |world, _| symlink("../../..", world.path("up")).unwrap(),
        context: &["outside"],
        dst: "/up/up/",
        then: Shows(&["f outside=one", "l up>../../.."]),
    },
    Line {
        name: "a link to a file of the host in the last place",
        image: |world, _| symlink("../outside", world.path("outside")).unwrap(),
        context: &["outside"],
        dst: "/",
        then: Fails("cannot copy to `/outside`: Too many levels of symbolic links"),
    },
    Line {
        name: "a link like those of /proc",
        image: |world, _| {
            std::fs::create_dir(world.path("proc")).unwrap();
            symlink("/proc/self/root", world.path("proc/here")).unwrap();
        },
        context: &["outside"],
        dst: "/proc/here/",
        then: Shows(&[
            "d proc",
            "l proc/here>/proc/self/root",
            "d proc/self",
            "d proc/self/root",
            "f proc/self/root/outside=one",
        ]),
    },
    Line {
        name: "links to each other",
        image: |world, _| {
            symlink("b", world.path("a")).unwrap();
            symlink("a", world.path("b")).unwrap();
        },
        context: &["x"],
        dst: "/a/",
        then: Fails("Too many levels of symbolic links"),
    },
    Line {
        name: "a file in the place of a folder",
        image: |world, _| std::fs::write(world.path("f"), "").unwrap(),
        context: &["x"],
        dst: "/f/x",
        then: Fails("cannot make `/f/x`: it is not a folder"),
    },
    Line {
        name: "a pipe in the place of the file",
        image: |world, _| {
            let pipe = world.path("x");
            let (at, kind) = (rustix::fs::CWD, rustix::fs::FileType::Fifo);
            rustix::fs::mknodat(at, &pipe, kind, Mode::RUSR, 0).unwrap();
            let made = std::fs::symlink_metadata(pipe).unwrap();
            assert!(made.file_type().is_fifo());
        },
        context: &["x"],
        dst: "/",
        then: Shows(&["f x=one"]),
    },
    Line {
        name: "a disk in the place of the file",
        image: |world, _| {
            let (at, kind) = (rustix::fs::CWD, rustix::fs::FileType::BlockDevice);
            let device = rustix::fs::makedev(254, 254);
            rustix::fs::mknodat(at, world.path("x"), kind, Mode::RUSR, device).unwrap();
        },
        context: &["x"],
        dst: "/",
        then: Shows(&["f x=one"]),
    },
    Line {
        name: "a pipe in the place of a folder",
        image: |world, _| {
            let (at, kind) = (rustix::fs::CWD, rustix::fs::FileType::Fifo);
            rustix::fs::mknodat(at, world.path("d"), kind, Mode::RUSR, 0).unwrap();
        },
        context: &["x"],
        dst: "/d/",
        then: Fails("cannot make `/d/`: it is not a folder"),
    },
    Line {
        name: "a folder in the place of the file",
        image: |world, _| std::fs::create_dir(world.path("x")).unwrap(),
        context: &["x"],
        dst: "/",
        then: Fails("cannot copy to `/x`: it is a folder"),
    },
    Line {
        name: "folders in folders",
        image: nothing,
        context: &[DEEP],
        dst: "/",
        then: Shows(&["DEEP"]),
    },
];

fn context(paths: &[&str]) -> ContextManifest {
    let file = |path: &&str| ContextEntry {
        path: (*path).to_owned(),
        mode: 0o644,
        kind: ContextKind::File {
            digest: Digest::of(b"one"),
            bytes: 3,
        },
    };
    ContextManifest::new(paths.iter().map(file).collect()).unwrap()
}

/// Everything of the host beside the root filesystem, with the times of any touch.
fn outside(world: &World) -> Vec<String> {
    let root = world.path("");
    walkdir::WalkDir::new(world.host.path())
        .sort_by_file_name()
        .into_iter()
        .map(|entry| entry.unwrap())
        .filter(|entry| !entry.path().starts_with(&root))
        .map(|entry| {
            let status = entry.metadata().unwrap();
            let touched = (status.ctime(), status.ctime_nsec());
            let what = (status.mode(), status.uid(), status.len(), status.ino());
            format!("{} {what:?} {touched:?}", entry.path().display())
        })
        .collect()
}

/// The lines of a case, its abbreviations written out.
fn written_out(lines: &[&str], host: &Path) -> Vec<String> {
    let folders = |path: &str| {
        let all = path.match_indices('/').map(|(at, _)| &path[..at]);
        all.map(|folder| format!("d {folder}")).collect::<Vec<_>>()
    };
    let mut written = vec!["d etc".to_owned(), "f etc/passwd".to_owned()];
    for line in lines {
        match *line {
            "HOST" => {
                let path = format!("{}/outside", host.display());
                written.extend(folders(&path[1..]));
                written.push(format!("f {}=one", &path[1..]));
            }
            "DEEP" => {
                written.extend(folders(DEEP));
                written.push(format!("f {DEEP}=one"));
            }
            line => written.push(line.replace("HOST", host.to_str().unwrap())),
        }
    }
    written.sort_unstable_by(|one, other| one[2..].cmp(&other[2..]));
    written
}

#[test]
fn a_copy_is_right_or_refused_and_never_outside() {
    let mut failed = Vec::new();
    for line in TABLE {
        let world = World::new();
        let host = world.host.path().to_owned();
        (line.image)(&world, &host);
        let before = outside(&world);
        let source = find(Some(&context(line.context)), ".").unwrap();
        let done = world.make(&plain(copy(vec![source], line.dst)));
        let mut shown = listing(&world.path(""));
        for shown in &mut shown {
            if shown.starts_with("f etc/passwd=") {
                shown.truncate("f etc/passwd".len());
            }
        }
        let is_right = match (&line.then, &done) {
            (Shows(lines), Ok(())) => shown == written_out(lines, &host),
            (Fails(why), Err(error)) => error.contains(why),
            (Shows(_), Err(_)) | (Fails(_), Ok(())) => false,
        };
        if !is_right || outside(&world) != before {
            failed.push(format!("{}: {done:?} {shown:#?}", line.name));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// A step can nest folders deeper than any path, and deeper than the stack of a thread takes.
#[test]
fn folders_nested_without_end_are_removed() {
    let world = World::new();
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let mut folder = rustix::fs::open(world.path(""), flags, Mode::empty()).unwrap();
    for _ in 0..5000 {
        rustix::fs::mkdirat(&folder, "deeper", Mode::RWXU).unwrap();
        folder = rustix::fs::openat(&folder, "deeper", flags, Mode::empty()).unwrap();
    }
    let (path, recursive, force) = ("/deeper".to_owned(), true, false);
    let removal = Change::Remove {
        path,
        recursive,
        force,
    };
    world.make(&removal).unwrap();
    assert!(!world.path("deeper").exists());
}

#[tokio::test]
async fn folders_of_a_lower_layer_are_removed_and_those_nested_too_deep_not_renamed() {
    let mut world = World::new();
    for depth in [190, 250] {
        let deep = "d/".repeat(depth);
        std::fs::create_dir_all(world.path(&format!("a{depth}/{deep}"))).unwrap();
    }
    let mount = on_a_layer(&mut world).await;
    rename(&world, "/a190", "/b", false).unwrap();
    let error = rename(&world, "/a250", "/c", false).unwrap_err();
    assert_eq!(
        error,
        "cannot rename `/a250`: its folders are nested deeper than 200 levels"
    );
    for path in ["/a250", "/b", "/etc"] {
        let (path, recursive, force) = (path.to_owned(), true, false);
        let removal = Change::Remove {
            path,
            recursive,
            force,
        };
        world.make(&removal).unwrap();
    }
    // What was begun of the second, which fails its step, is all that is left.
    let left = std::fs::read_dir(mount.path()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["c"]);
    world.view = View::open(world.host.path()).unwrap();
    drop(mount);
}
