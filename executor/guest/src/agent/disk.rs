//! The machine's disk: its sizes, and stopping changes to its file system.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use guest::protocol::DiskInfo;

use super::failure::{Doing as _, Failure};
use super::sys;

// From <linux/fs.h>.
const FIFREEZE: libc::c_ulong = 0xc004_5877;
const FITHAW: libc::c_ulong = 0xc004_5878;
const BLKGETSIZE64: libc::c_ulong = 0x8008_1272;

const DEVICE: &str = "/dev/vda";

/// The root file system, opened once: a frozen one may not be opened in every way.
#[derive(Debug)]
pub(crate) struct Disk {
    root: File,
    frozen: bool,
}

impl Disk {
    /// Opens the root file system.
    pub(crate) fn open() -> Result<Self, Failure> {
        let root = File::open("/").doing(|| "open /".to_owned())?;
        Ok(Self {
            root,
            frozen: false,
        })
    }

    /// Writes everything back and stops changes; a frozen file system stays frozen.
    pub(crate) fn freeze(&mut self) -> Result<(), Failure> {
        if self.frozen {
            return Ok(());
        }
        sys::sync_all();
        sys::ioctl_number(&self.root, FIFREEZE, 0).doing(|| "freeze the file system".to_owned())?;
        self.frozen = true;
        Ok(())
    }

    /// Allows changes again; does nothing if they are allowed.
    pub(crate) fn thaw(&mut self) -> Result<(), Failure> {
        if !self.frozen {
            return Ok(());
        }
        sys::ioctl_number(&self.root, FITHAW, 0).doing(|| "thaw the file system".to_owned())?;
        self.frozen = false;
        Ok(())
    }
}

/// The sizes of the device, of the file system in it, and of what files may use.
pub(crate) fn sizes() -> Result<DiskInfo, Failure> {
    let device = File::open(DEVICE).doing(|| format!("open {DEVICE}"))?;
    let mut device_bytes = 0_u64;
    sys::ioctl_value(device.as_fd(), BLKGETSIZE64, &mut device_bytes)
        .doing(|| format!("ask for the size of {DEVICE}"))?;
    let sizes =
        sys::file_system_sizes(Path::new("/")).doing(|| "ask for the size of /".to_owned())?;
    Ok(DiskInfo {
        device_bytes,
        filesystem_bytes: superblock_bytes(&device)?,
        usable_bytes: sizes.f_blocks.saturating_mul(sizes.f_frsize),
        free_bytes: sizes.f_bavail.saturating_mul(sizes.f_frsize),
    })
}

/// The size that the ext4 superblock states: `df` leaves out the file system's own tables.
fn superblock_bytes(device: &File) -> Result<u64, Failure> {
    // The superblock is at byte 1024. In it: 4-byte block count at 0x4, log2 of the block size in
    // KiB at 0x18, feature flags at 0x60, high half of the block count at 0x150.
    const AT: u64 = 1024;
    const FEATURE_64BIT: u32 = 0x80;
    let word = |offset: u64| {
        let mut bytes = [0_u8; 4];
        device
            .read_exact_at(&mut bytes, AT + offset)
            .map(|()| u32::from_le_bytes(bytes))
            .doing(|| format!("read the superblock of {DEVICE}"))
    };
    let high = if word(0x60)? & FEATURE_64BIT == 0 {
        0
    } else {
        word(0x150)?
    };
    let blocks = u64::from(high) << 32 | u64::from(word(0x4)?);
    let block_bytes = 1024_u64.checked_shl(word(0x18)?).unwrap_or_default();
    Ok(blocks.saturating_mul(block_bytes))
}
