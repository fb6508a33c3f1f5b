//! Little that asks for much: of the disk, of memory, of time.

use super::{LayerLimits, Line, Sample, refused, refused_on, shows, stack};

/// A GNU sparse file of the given size with one byte at `offset`.
fn sparse(name: &str, real_bytes: [u8; 12], offset: u64) -> Sample {
    Sample::new().member(b'S', name, b"x", |header| {
        let gnu = header.as_gnu_mut().unwrap();
        let slot = &mut gnu.sparse[0];
        slot.offset = format!("{offset:011o}\0").into_bytes().try_into().unwrap();
        slot.numbytes = *b"00000000001\0";
        gnu.realsize = real_bytes;
    })
}

const GIB: [u8; 12] = *b"10000000000\0";

fn tight() -> LayerLimits {
    LayerLimits {
        entries_max: 1000,
        content_bytes_max: 1000,
        archive_bytes_max: 1 << 20,
        names_walked_max: 2000,
        ledger_bytes_max: 64 << 10,
        ..LayerLimits::default()
    }
}

pub(super) const TABLE: &[Line] = &[
    ("a sparse file of 8 exabytes", |_| {
        refused(
            sparse("s", *b"\x80\0\0\0\x70\0\0\0\0\0\0\0", 0),
            "the content of its files exceeds",
        )
    }),
    ("a sparse file of a terabyte", |_| {
        refused(
            sparse("s", *b"\x80\0\0\0\0\0\x01\0\0\0\0\0", 0),
            "the content of its files exceeds",
        )
    }),
    ("a sparse file of a gibibyte", |_| {
        shows(
            sparse("s", GIB, 1 << 29),
            ["f s: 1073741824 bytes in 8 blocks"],
        )
    }),
    ("a sparse file's map out of order", |_| {
        refused(
            Sample::new().member(b'S', "s", b"xx", |header| {
                let gnu = header.as_gnu_mut().unwrap();
                for (slot, offset) in gnu.sparse.iter_mut().zip([b'7', b'3']) {
                    slot.offset[..1].copy_from_slice(&[offset]);
                    slot.numbytes[..1].copy_from_slice(b"1");
                }
                gnu.realsize[..2].copy_from_slice(b"77");
            }),
            "a sparse file's map is out of order",
        )
    }),
    ("a sparse file's map without an end", |_| {
        let mut block = [0_u8; 512];
        block[504] = 1;
        let sample = Sample::new().member(b'S', "s", b"", |header| {
            header.as_gnu_mut().unwrap().set_is_extended(true);
        });
        refused(sample.raw(&block.repeat(3000)), "a sparse map exceeds")
    }),
    ("a sparse file in PAX format, of terabytes", |_| {
        refused(
            Sample::new()
                .pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.realsize", b"9999999999999"),
                ])
                .file("s", "1\n0\n1\nx"),
            "a sparse file in PAX format, which is not supported",
        )
    }),
    ("entries without an end", |_| {
        let many = (0..1001).fold(Sample::new(), |sample, _| sample.file(".wh..wh.x", ""));
        refused(many, "its entries exceeds 1000").within(tight())
    }),
    ("zeros without an end", |_| {
        refused(
            Sample::new().raw(&vec![0; 2 << 20]),
            "the archive exceeds 1048576",
        )
        .within(tight())
    }),
    ("files that are too much together", |_| {
        refused(
            Sample::new().file("a", [0; 600]).file("b", [0; 600]),
            "the content of its files exceeds 1000",
        )
        .within(tight())
    }),
    ("hard links that copy too much from beneath", |_| {
        refused_on(
            [
                Sample::new().file("a", [0; 600]),
                Sample::new().file("b", [0; 600]),
                Sample::new().hard_link("c", "a").hard_link("d", "b"),
            ],
            "the content of its files exceeds 1000",
        )
        .within(tight())
    }),
    ("a hard link to a hole of a gibibyte beneath", |_| {
        stack(
            [sparse("s", GIB, 1 << 29), Sample::new().hard_link("t", "s")],
            [
                "f s: 1073741824 bytes in 8 blocks",
                "f t: 1073741824 bytes in 8 blocks",
            ],
        )
    }),
    ("an extension header of 8 gibibytes", |_| {
        refused(
            Sample::new().member(b'x', "e", b"", |header| header.set_size(1 << 33)),
            "the names and attributes of an entry exceeds",
        )
    }),
    ("a long name of 8 gibibytes", |_| {
        refused(
            Sample::new().member(b'L', "e", b"", |header| header.set_size(1 << 33)),
            "the names and attributes of an entry exceeds",
        )
    }),
    ("a record of two mebibytes", |_| {
        refused(
            Sample::new()
                .pax(&[("comment", &vec![b'x'; 2 << 20])])
                .file("f", ""),
            "the names and attributes of an entry exceeds",
        )
    }),
    ("extension headers without an end", |_| {
        let many = (0..3000).fold(Sample::new(), |sample, _| {
            sample.member(b'g', "e", b"", |_| ())
        });
        refused(many, "the names and attributes of an entry exceeds")
    }),
    ("folders in folders", |_| {
        let deep = "d/".repeat(2000);
        refused(
            Sample::new().folder(deep, 0o755),
            "the paths of its folders exceeds 65536",
        )
        .within(LayerLimits {
            names_walked_max: 1 << 30,
            ..tight()
        })
    }),
    ("deep paths, over and over", |_| {
        let deep = format!("{}x", "d/".repeat(300));
        let many = (0..10).fold(Sample::new(), |sample, _| sample.file(&deep, "x"));
        refused(
            many,
            "the number of names on the way to its entries exceeds 2000",
        )
        .within(LayerLimits {
            ledger_bytes_max: 1 << 20,
            ..tight()
        })
    }),
    ("links whose ways double", |_| {
        let bomb = (0..40).fold(Sample::new(), |sample, n| {
            let next = format!("b{}", n + 1);
            sample.symlink(format!("b{n}"), format!("{next}/../{next}"))
        });
        refused(bomb.file("b0/x", ""), "too many links")
    }),
    ("links to deep paths", |_| {
        let deep = "d/".repeat(500);
        let sample = Sample::new().symlink("l", &deep);
        let many = (0..5).fold(sample, |sample, n| sample.file(format!("l/{n}"), ""));
        refused(
            many,
            "the number of names on the way to its entries exceeds 2000",
        )
        .within(LayerLimits {
            ledger_bytes_max: 1 << 20,
            ..tight()
        })
    }),
    ("a path made long by links", |_| {
        let deep = "d/".repeat(1500);
        refused(
            Sample::new()
                .file(format!("{deep}x"), "x")
                .symlink("l", &deep)
                .file(format!("l/{deep}y"), "y"),
            "a path, its links resolved, exceeds",
        )
    }),
];
