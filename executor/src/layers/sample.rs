//! Archives for tests, written byte by byte so that they can be as bad as a stranger's.

/// A tar archive that is being written.
pub(crate) struct Sample {
    bytes: Vec<u8>,
}

impl Sample {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// A member with every field of its header open to `change`; the checksum comes last.
    pub(crate) fn member(
        mut self,
        kind: u8,
        path: impl AsRef<[u8]>,
        data: &[u8],
        change: impl FnOnce(&mut tar::Header),
    ) -> Self {
        let path = path.as_ref();
        if path.len() > 100 {
            self.append(b'L', b"././@LongLink", path, |_| ());
        }
        self.append(kind, path, data, change);
        self
    }

    fn append(
        &mut self,
        kind: u8,
        path: &[u8],
        data: &[u8],
        change: impl FnOnce(&mut tar::Header),
    ) {
        let mut header = tar::Header::new_gnu();
        let name = &path[..path.len().min(100)];
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(u64::try_from(data.len()).unwrap());
        change(&mut header);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        let padded = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(padded, 0);
    }

    pub(crate) fn file(self, path: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        self.member(b'0', path, data.as_ref(), |_| ())
    }

    pub(crate) fn folder(self, path: impl AsRef<[u8]>, mode: u32) -> Self {
        self.member(b'5', path, b"", |header| header.set_mode(mode))
    }

    pub(crate) fn link(self, kind: u8, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        let target = target.as_ref();
        let long = target.len() > 100;
        let this = if long {
            self.member(b'K', "././@LongLink", target, |_| ())
        } else {
            self
        };
        this.member(kind, path, b"", |header| {
            let target = &target[..target.len().min(100)];
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
        })
    }

    pub(crate) fn symlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.link(b'2', path, target)
    }

    pub(crate) fn hard_link(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.link(b'1', path, target)
    }

    pub(crate) fn device(self, kind: u8, path: &str, major: u32, minor: u32) -> Self {
        self.member(kind, path, b"", |header| {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        })
    }

    /// PAX records for the next member.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            // The length counts its own digits.
            let length = (1..9)
                .map(|digits| rest + digits)
                .find(|length| length.to_string().len() + rest == *length);
            data.extend_from_slice(format!("{} {key}=", length.unwrap()).as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.member(b'x', "PaxHeaders/x", &data, |_| ())
    }

    /// Bytes as they are.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The archive with its end.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }

    /// The archive without its end.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.bytes
    }
}

/// The bytes of a file above which a listing gives its size and the blocks that it takes.
const LISTED_BYTES_MAX: u64 = 1 << 20;

/// What a tree holds, sorted: `d path`, `f path=content`, `l path>target`, `c path 1:3`, `b`, `p`; for a
/// large file `f path: BYTES bytes in BLOCKS blocks`.
pub(crate) fn listing(root: &std::path::Path) -> Vec<String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let mut lines = Vec::new();
    for entry in walkdir::WalkDir::new(root).min_depth(1) {
        let entry = entry.unwrap();
        let status = entry.metadata().unwrap();
        let path = entry
            .path()
            .strip_prefix(root)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let kind = status.file_type();
        let device = || {
            format!(
                "{}:{}",
                rustix::fs::major(status.rdev()),
                rustix::fs::minor(status.rdev())
            )
        };
        lines.push(if kind.is_dir() {
            format!("d {path}")
        } else if kind.is_symlink() {
            format!(
                "l {path}>{}",
                std::fs::read_link(entry.path()).unwrap().display()
            )
        } else if kind.is_file() && status.len() > LISTED_BYTES_MAX {
            let blocks = status.blocks();
            format!("f {path}: {} bytes in {blocks} blocks", status.len())
        } else if kind.is_file() {
            let content = std::fs::read(entry.path()).unwrap();
            format!("f {path}={}", String::from_utf8_lossy(&content))
        } else if kind.is_fifo() {
            format!("p {path}")
        } else if kind.is_block_device() {
            format!("b {path} {}", device())
        } else {
            format!("c {path} {}", device())
        });
    }
    lines.sort_unstable_by(|a, b| a[2..].cmp(&b[2..]));
    lines
}
