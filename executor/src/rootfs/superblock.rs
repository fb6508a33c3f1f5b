//! What an ext4 image says about itself: its size, what is in use, and which inodes are.
//!
//! Offsets and flags are those of the kernel's `Documentation/filesystems/ext4`: "Super Block",
//! "Block Group Descriptors", "Block and Inode Bitmaps".

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Where the superblock is in the image, and how long it is, in bytes.
const SUPERBLOCK: (u64, usize) = (1024, 1024);
const MAGIC: u16 = 0xef53;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_META_BG: u32 = 0x10;
/// The size of a group descriptor without [`INCOMPAT_64BIT`], in bytes.
const DESCRIPTOR_BYTES_SMALL: u64 = 32;
/// The group's inode table is known to be zero where it is not used.
pub(super) const GROUP_TABLE_ZEROED: u16 = 0x4;
/// The group's inode bitmap is not written: no inode of it is in use.
const GROUP_INODE_UNINIT: u16 = 0x1;

/// The numbers of a superblock that are of use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) block_bytes: u64,
    pub(super) blocks: u64,
    pub(super) free_blocks: u64,
    pub(super) blocks_per_group: u64,
    inodes: u32,
    inodes_per_group: u32,
    inode_bytes: u64,
    first_data_block: u64,
    descriptor_bytes: u64,
}

impl Superblock {
    /// The size of the file system, in bytes.
    pub(super) fn total_bytes(&self) -> u64 {
        self.blocks.saturating_mul(self.block_bytes)
    }

    /// What files, folders and the file system's own structures take, in bytes.
    pub(super) fn used_bytes(&self) -> u64 {
        let used = self.blocks.saturating_sub(self.free_blocks);
        used.saturating_mul(self.block_bytes)
    }

    /// The size of a block group, in bytes.
    pub(super) fn group_bytes(&self) -> u64 {
        self.blocks_per_group.saturating_mul(self.block_bytes)
    }
}

/// Reads the superblock of an image. Blocks.
pub(super) fn read(path: &Path) -> io::Result<Superblock> {
    read_from(&File::open(path)?)
}

fn read_from(image: &File) -> io::Result<Superblock> {
    let mut bytes = [0; SUPERBLOCK.1];
    image.read_exact_at(&mut bytes, SUPERBLOCK.0)?;
    parse(&bytes).ok_or_else(|| io::Error::other("not an ext4 superblock that is understood"))
}

fn parse(bytes: &[u8]) -> Option<Superblock> {
    let wide =
        |low, high| Some(u64::from(u32_at(bytes, low)?) | u64::from(u32_at(bytes, high)?) << 32);
    let incompatible = u32_at(bytes, 0x60)?;
    if u16_at(bytes, 0x38)? != MAGIC || incompatible & INCOMPAT_META_BG != 0 {
        return None;
    }
    let is_64bit = incompatible & INCOMPAT_64BIT != 0;
    let superblock = Superblock {
        block_bytes: 1024_u64.checked_shl(u32_at(bytes, 0x18)?.min(6))?,
        blocks: if is_64bit {
            wide(0x04, 0x150)?
        } else {
            u32_at(bytes, 0x04)?.into()
        },
        free_blocks: if is_64bit {
            wide(0x0c, 0x158)?
        } else {
            u32_at(bytes, 0x0c)?.into()
        },
        blocks_per_group: u32_at(bytes, 0x20)?.into(),
        inodes: u32_at(bytes, 0x00)?,
        inodes_per_group: u32_at(bytes, 0x28)?,
        inode_bytes: u16_at(bytes, 0x58)?.into(),
        first_data_block: u32_at(bytes, 0x14)?.into(),
        descriptor_bytes: if is_64bit {
            u16_at(bytes, 0xfe)?.into()
        } else {
            DESCRIPTOR_BYTES_SMALL
        },
    };
    (superblock.inodes_per_group > 0 && superblock.blocks_per_group > 0).then_some(superblock)
}

/// What the descriptor of a block group says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) flags: u16,
    inode_bitmap: u64,
    /// The part of its inode table that was never used, in bytes of the image.
    pub(super) unused_table: (u64, u64),
}

/// The descriptors of all block groups, in order. Blocks.
pub(super) fn groups(path: &Path) -> io::Result<Vec<Group>> {
    let image = File::open(path)?;
    groups_from(&image, &read_from(&image)?)
}

fn groups_from(image: &File, superblock: &Superblock) -> io::Result<Vec<Group>> {
    let table = (superblock.first_data_block + 1) * superblock.block_bytes;
    let length = usize::try_from(superblock.descriptor_bytes).map_err(io::Error::other)?;
    let mut descriptor = vec![0; length];
    let mut groups = Vec::new();
    for index in 0..superblock.inodes.div_ceil(superblock.inodes_per_group) {
        let at = table + u64::from(index) * superblock.descriptor_bytes;
        image.read_exact_at(&mut descriptor, at)?;
        let group = group(&descriptor, superblock)
            .ok_or_else(|| io::Error::other("a group descriptor makes no sense"))?;
        groups.push(group);
    }
    Ok(groups)
}

fn group(bytes: &[u8], superblock: &Superblock) -> Option<Group> {
    // Without 64bit the descriptor ends before the high halves.
    let high = |at| u32_at(bytes, at).unwrap_or(0);
    let block = |low, high| u64::from(low) | u64::from(high) << 32;
    let unused =
        u32::from(u16_at(bytes, 0x1c)?) | u32::from(u16_at(bytes, 0x32).unwrap_or(0)) << 16;
    let used = superblock.inodes_per_group.checked_sub(unused)?;
    let table = block(u32_at(bytes, 0x08)?, high(0x28)).checked_mul(superblock.block_bytes)?;
    let bytes_of = |inodes: u32| u64::from(inodes) * superblock.inode_bytes;
    Some(Group {
        flags: u16_at(bytes, 0x12)?,
        inode_bitmap: block(u32_at(bytes, 0x04)?, high(0x24)),
        unused_table: (
            table.checked_add(bytes_of(used))?,
            table.checked_add(bytes_of(superblock.inodes_per_group))?,
        ),
    })
}

/// The numbers of all inodes that are in use, in order. Blocks.
pub(super) fn inodes_in_use(path: &Path) -> io::Result<Vec<u32>> {
    let image = File::open(path)?;
    let superblock = read_from(&image)?;
    let bitmap_bytes = superblock.inodes_per_group.div_ceil(8);
    let mut bitmap = vec![0; usize::try_from(bitmap_bytes).map_err(io::Error::other)?];
    let mut in_use = Vec::new();
    // Inodes are numbered from 1.
    let mut first = 1_u32;
    for group in groups_from(&image, &superblock)? {
        let numbers = first..first.saturating_add(superblock.inodes_per_group);
        first = numbers.end;
        if group.flags & GROUP_INODE_UNINIT != 0 {
            continue;
        }
        let at = group.inode_bitmap.saturating_mul(superblock.block_bytes);
        image.read_exact_at(&mut bitmap, at)?;
        let bits = bitmap
            .iter()
            .flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1));
        in_use.extend(
            numbers
                .zip(bits)
                .filter(|&(_, bit)| bit == 1)
                .map(|(number, _)| number),
        );
    }
    Ok(in_use)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_le_bytes(field))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_is_no_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, [0; 64]).unwrap();
        assert_eq!(
            read(&path).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        std::fs::write(&path, vec![0; 4096]).unwrap();
        assert_eq!(
            read(&path).unwrap_err().to_string(),
            "not an ext4 superblock that is understood"
        );
    }
}
