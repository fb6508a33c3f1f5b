//! What is too much, or damaged, is refused.

use super::*;

#[test]
fn loops_and_chains_of_links_end() {
    refused(
        Sample::new()
            .symlink("a", "b")
            .symlink("b", "a")
            .file("a/x", ""),
        "too many links",
    );
    let chain = |length: u32| {
        (0..length).fold(Sample::new(), |sample, n| {
            sample.symlink(format!("l{n}"), format!("l{}", n + 1))
        })
    };
    refused(chain(41).file("l0/x", ""), "too many links");
    let world = World::new();
    world.unpack(&chain(40).file("l0/x", "x").end()).unwrap();
    assert_eq!(std::fs::read(world.target().join("l40/x")).unwrap(), b"x");
    // Each link doubles the way: the links are counted, not the names.
    let bomb = (0..40).fold(Sample::new(), |sample, n| {
        let next = format!("b{}", n + 1);
        sample.symlink(format!("b{n}"), format!("{next}/../{next}"))
    });
    refused(bomb.file("b0/x", ""), "too many links");
}

#[test]
fn names_have_the_bounds_of_linux() {
    let long = "n".repeat(255);
    makes(Sample::new().file(&long, "x"), &[&format!("f {long}=x")]);
    refused(Sample::new().file("n".repeat(256), "x"), "cannot ");
    refused(
        Sample::new().file("a/".repeat(2047) + "ab", ""),
        "a path exceeds",
    );
    refused(
        Sample::new().pax(&[("path", b"a\0b")]).file("x", ""),
        "contains NUL",
    );
    refused(
        Sample::new().symlink("l", "t".repeat(4096)),
        "a path exceeds",
    );
    refused(Sample::new().symlink("l", ""), "cannot create");

    // Links can make a path longer than the archive spells it.
    let deep = "d/".repeat(1500);
    let sample = Sample::new()
        .file(format!("{deep}x"), "x")
        .symlink("l", &deep)
        .file(format!("l/{deep}y"), "");
    refused(sample, "its links resolved");

    let world = World::new();
    let name: &[u8] = b"caf\xe9\xff\n";
    world.unpack(&Sample::new().file(name, "x").end()).unwrap();
    let found = std::fs::read_dir(world.target())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(found.file_name().as_bytes(), name);
}

#[test]
fn folders_can_be_deep() {
    let world = World::new();
    let path = "d/".repeat(900);
    world
        .unpack(&Sample::new().file(format!("{path}x"), "x").end())
        .unwrap();
    assert_eq!(
        std::fs::read(world.target().join(path).join("x")).unwrap(),
        b"x"
    );
}

#[test]
fn bombs_do_not_go_off() {
    let limits = LayerLimits {
        entries_max: 3,
        content_bytes_max: 1000,
        archive_bytes_max: 100_000,
        ..LayerLimits::default()
    };
    for (sample, expected) in [
        (
            Sample::new()
                .file("a", "")
                .file("b", "")
                .file("c", "")
                .file("d", ""),
            "its entries exceeds 3",
        ),
        (
            Sample::new().file("a", [0; 600]).file("b", [0; 600]),
            "the content of its files exceeds 1000",
        ),
        (
            Sample::new().member(b'0', "a", b"", |header| header.set_size(1 << 40)),
            "a file exceeds 100000",
        ),
        (
            Sample::new().raw(&vec![0; 200_000]),
            "the archive exceeds 100000",
        ),
    ] {
        let error = World::new()
            .unpack_limited(&sample.end(), &limits)
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    // Extension headers are not read before their size is known to be sane.
    for kind in [b'x', b'g', b'L', b'K'] {
        let huge = Sample::new().member(kind, "e", b"", |header| header.set_size(1 << 33));
        refused(huge, "the names and attributes of an entry exceeds");
    }
    let many = (0..3000).fold(Sample::new(), |sample, _| {
        sample.member(b'g', "e", b"", |_| ())
    });
    refused(many, "the names and attributes of an entry exceeds");
}

/// A GNU sparse file of `real_bytes` bytes with data at the given offsets.
fn sparse(name: &str, real_bytes: &[u8; 12], map: &[(u64, &[u8])]) -> Sample {
    let data: Vec<u8> = map.iter().flat_map(|(_, data)| data.to_vec()).collect();
    Sample::new().member(b'S', name, &data, |header| {
        let gnu = header.as_gnu_mut().unwrap();
        for (slot, (offset, data)) in gnu.sparse.iter_mut().zip(map) {
            slot.offset
                .copy_from_slice(format!("{offset:011o}\0").as_bytes());
            slot.numbytes
                .copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        }
        gnu.realsize = *real_bytes;
    })
}

#[test]
fn sparse_files_keep_their_holes() {
    // 1 GiB with four bytes in its middle.
    let world = World::new();
    let sample = sparse("s", b"10000000000\0", &[(1 << 29, b"data")]);
    world.unpack(&sample.end()).unwrap();
    let status = world.status("s");
    assert_eq!(status.len(), 1 << 30);
    assert!(
        status.blocks() * 512 < 1 << 20,
        "{} blocks",
        status.blocks()
    );

    let world = World::new();
    let sample = sparse("s", b"00000000030\0", &[(2, b"ab"), (10, b"c")]);
    world.unpack(&sample.end()).unwrap();
    let mut expected = vec![0; 24];
    expected[2..4].copy_from_slice(b"ab");
    expected[10] = b'c';
    assert_eq!(std::fs::read(world.target().join("s")).unwrap(), expected);
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let exabyte = b"\x80\0\0\0\x10\0\0\0\0\0\0\0";
    refused(
        sparse("s", exabyte, &[(0, b"x")]),
        "the content of its files exceeds",
    );
    refused(
        sparse("s", b"00000000001\0", &[(5, b"x")]),
        "exceeds its size",
    );
    refused(
        sparse("s", b"00000000030\0", &[(5, b"xyz"), (6, b"x")]),
        "out of order",
    );
    let short = sparse("s", b"00000000030\0", &[(5, b"x")]).member(b'S', "t", b"xyz", |_| ());
    refused(short, "does not add up");
    refused(
        Sample::new()
            .pax(&[("GNU.sparse.major", b"1")])
            .file("x", "x"),
        "a sparse file in PAX format, which is not supported",
    );
}

#[test]
fn damaged_archives_are_refused() {
    let whole = Sample::new().file("a", [b'x'; 700]).file("b", "y").cut();
    for (bytes, expected) in [
        (&whole[..400], "ends within a header"),
        (&whole[..600], "ends within a file"),
        (&whole[..1400], "ends within a file"),
        (&whole[..1700], "ends within a header"),
    ] {
        let error = World::new().unpack(bytes).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    // An archive may end without its end mark.
    assert_eq!(World::new().unpack(&whole).unwrap().entries, 2);
    let mut damaged = whole;
    damaged[3] ^= 1;
    let error = World::new().unpack(&damaged).unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");

    refused(
        Sample::new().member(b'M', "x", b"", |_| ()),
        "an entry of type 'M'",
    );
    refused(
        Sample::new().raw(&Sample::new().member(b'L', "x", b"name", |_| ()).cut()),
        "without its member",
    );
    refused(
        Sample::new()
            .member(b'x', "x", b"99 a=b\n", |_| ())
            .file("f", ""),
        "a PAX record",
    );
    refused(
        Sample::new().member(b'0', "x", b"", |header| header.set_uid(u64::from(u32::MAX))),
        "out of range",
    );
    refused(
        Sample::new().pax(&[("uid", b"4294967296")]).file("f", ""),
        "out of range",
    );
    refused(
        Sample::new().member(b'0', "x", b"", |header| {
            header.as_old_mut().mode = *b"rw-r--r-";
        }),
        "a mode",
    );
}
