//! The initial file system of a machine: the agent as `/init`, and the modules that it loads.
//!
//! It is a cpio archive of the "newc" kind (cpio(5)), not packed: unpacking costs more than the
//! kernel's reading of a few more bytes. Equal inputs give equal bytes.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::VmmError;

/// The modules that a machine needs, in the order in which they can be loaded.
///
/// The file system driver (ext4) is part of Debian's kernel.
const MODULES: [&str; 8] = [
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_mmio.ko",
    "drivers/block/virtio_blk.ko",
    "drivers/char/virtio_console.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
];

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CONSOLE: u32 = 0o020_600;

/// Builds the archive of `agent` and the modules below `modules` (as in `/lib/modules/RELEASE`).
pub(super) fn build(agent: &Path, modules: &Path) -> Result<Vec<u8>, VmmError> {
    let program = fs::read(agent).map_err(|source| missing_agent(agent, source))?;
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "m", "newroot"] {
        archive.add(folder, FOLDER, (0, 0), &[]);
    }
    // The kernel opens it for `/init` before anything is mounted.
    archive.add("dev/console", CONSOLE, (5, 1), &[]);
    archive.add("init", PROGRAM, (0, 0), &program);
    let built_in = built_in(modules)?;
    let mut order = String::new();
    for module in MODULES {
        let path = modules.join("kernel").join(module);
        let name = module.rsplit('/').next().unwrap_or(module);
        if !path.exists() && built_in.lines().any(|line| line.ends_with(module)) {
            continue;
        }
        let bytes = fs::read(&path).map_err(VmmError::file("read the kernel module", &path))?;
        archive.add(&format!("m/{name}"), FILE, (0, 0), &bytes);
        order.push_str(name);
        order.push('\n');
    }
    archive.add("m/order", FILE, (0, 0), order.as_bytes());
    Ok(archive.finish())
}

fn missing_agent(agent: &Path, source: std::io::Error) -> VmmError {
    if source.kind() == std::io::ErrorKind::NotFound {
        return VmmError::Missing {
            part: "the guest agent",
            path: agent.to_owned(),
            remedy: "build it with `make agent`",
        };
    }
    VmmError::file("read the guest agent", agent)(source)
}

/// The list of modules that are part of the kernel itself.
fn built_in(modules: &Path) -> Result<String, VmmError> {
    let path: PathBuf = modules.join("modules.builtin");
    fs::read_to_string(&path).map_err(VmmError::file("read the list of kernel modules", &path))
}

/// A cpio archive that grows.
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        // A count of bytes that does not fit could not be loaded by the kernel either.
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let fields = [
            self.entries,
            mode,
            0, // user
            0, // group
            1, // links
            0, // time
            length(content.len()),
            0, // device
            0,
            major,
            minor,
            length(name.len() + 1),
            0, // checksum, unused
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_counted() {
        let mut archive = Archive::default();
        archive.add("a", FILE, (0, 0), b"hello");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"07070100000001000081a4"));
        // Header (110) and name (2) are aligned already; the content follows.
        assert_eq!(&bytes[112..117], b"hello");
        assert_eq!(&bytes[120..126], b"070701");
    }

    #[test]
    fn a_missing_agent_says_how_to_get_it() {
        let error = build(Path::new("/nonexistent/agent"), Path::new("/lib/modules")).unwrap_err();
        assert!(error.to_string().contains("make agent"), "{error}");
    }
}
