//! What a view holds, before it is copied: how large an image must be, and what is missing in it.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::{BLOCK_BYTES, MOUNT_POINTS, RootfsError, sparse};
use crate::limits::rootfs::RootfsLimits;

/// A directory entry is 8 bytes and the name, rounded up to 4 bytes.
const DIRENT_BYTES: u64 = 8;
/// What of a directory's block is sure to be filled, in bytes: all but the checksum's tail (12)
/// and one entry of the longest name (264) that did not fit.
const DIRENT_BLOCK_BYTES: u64 = BLOCK_BYTES - 12 - 264;
/// A symbolic link up to this length, in bytes, is kept in its inode.
const INLINE_LINK_BYTES_MAX: u64 = 59;
/// Room for what is not counted: extent trees, attribute blocks, bitmaps, descriptors.
const SLACK_BYTES: u64 = 8 << 20;
const SLACK_PERCENT: u64 = 2;
/// mke2fs refuses a journal that takes half of an image; this is the least multiple of it.
const JOURNAL_SHARE: u64 = 4;
/// Bytes of an inode in its table.
pub(super) const INODE_BYTES: u64 = 256;
/// Bytes of disk for each inode: from what mke2fs takes for an ordinary disk to the densest one
/// for trees of tiny files.
const INODE_RATIOS: [u64; 5] = [16384, 8192, 4096, 2048, 1024];
/// Inodes that are free in the fresh image, beside a tenth of those in use.
const SPARE_INODES: u64 = 1024;

/// The sums over a view. They depend on its content alone, not on the file system it lies on,
/// because the image's size and so its digest follow from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Survey {
    /// What files and long links take in whole blocks, in bytes.
    pub(super) data_bytes: u64,
    /// What the folders take in whole blocks, at most, in bytes.
    pub(super) folder_bytes: u64,
    /// Files, folders, links and devices, hard links counted once.
    pub(super) inodes: u64,
    /// The mount points that the view lacks.
    pub(super) missing: Vec<&'static str>,
}

/// The size and the density of inodes of a fresh image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) size_bytes: u64,
    pub(super) inode_ratio: u64,
}

/// Walks a view. Blocks.
pub(super) fn survey(view: &Path, limits: &RootfsLimits) -> Result<Survey, RootfsError> {
    let mut linked = HashSet::new();
    let (mut data_bytes, mut name_bytes, mut folders, mut inodes) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut entries = 0_u64;
    for entry in WalkDir::new(view) {
        let entry = entry.map_err(|error| unreadable(view, error))?;
        let metadata = entry.metadata().map_err(|error| unreadable(view, error))?;
        entries += 1;
        if entries > limits.entries_max {
            return Err(RootfsError::TooManyEntries {
                max: limits.entries_max,
            });
        }
        let name = u64::try_from(entry.file_name().len()).unwrap_or(u64::MAX);
        name_bytes += DIRENT_BYTES + name.next_multiple_of(4);
        let kind = metadata.file_type();
        if kind.is_dir() {
            folders += 1;
        } else if kind.is_socket()
            || metadata.nlink() > 1 && !linked.insert((metadata.dev(), metadata.ino()))
        {
            // mke2fs leaves sockets out; a hard link's inode counts once.
            continue;
        }
        inodes += 1;
        let size = metadata.len();
        data_bytes += if kind.is_symlink() && size > INLINE_LINK_BYTES_MAX {
            BLOCK_BYTES
        } else if kind.is_file() && size >= limits.sparse_bytes_min {
            sparse::nonzero_bytes(entry.path(), BLOCK_BYTES).map_err(|source| {
                RootfsError::View {
                    path: entry.path().to_owned(),
                    source,
                }
            })?
        } else if kind.is_file() {
            size.next_multiple_of(BLOCK_BYTES)
        } else {
            0
        };
    }
    // Each folder has the entries `.` and `..`, and its last block is not full.
    name_bytes += folders * 2 * (DIRENT_BYTES + 4);
    Ok(Survey {
        data_bytes,
        folder_bytes: (folders + name_bytes.div_ceil(DIRENT_BLOCK_BYTES)) * BLOCK_BYTES,
        inodes,
        missing: missing_mount_points(view)?,
    })
}

fn unreadable(view: &Path, error: walkdir::Error) -> RootfsError {
    let path = error.path().map_or_else(|| view.to_owned(), Path::to_owned);
    RootfsError::View {
        path,
        source: error.into(),
    }
}

/// The mount points that must be added. A link counts as one that is there: images link `/run` or
/// `/tmp` elsewhere, and a mount follows them.
fn missing_mount_points(view: &Path) -> Result<Vec<&'static str>, RootfsError> {
    let mut missing = Vec::new();
    for (name, _) in MOUNT_POINTS {
        let path: PathBuf = view.join(name);
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() || metadata.is_symlink() => {}
            Ok(_) => {
                return Err(RootfsError::MountPoint {
                    path: Path::new("/").join(name),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(name),
            Err(source) => return Err(RootfsError::View { path, source }),
        }
    }
    Ok(missing)
}

/// The image that fits what a survey found, with room to spare: `attempt` 0 by the estimate, each
/// later one half as large again.
pub(super) fn geometry(survey: &Survey, attempt: u32, limits: &RootfsLimits) -> Geometry {
    let counted = survey
        .data_bytes
        .saturating_add(survey.folder_bytes)
        .saturating_add(limits.journal_mib << 20);
    let mut wanted_bytes = counted
        .saturating_add(counted / 100 * SLACK_PERCENT)
        .saturating_add(SLACK_BYTES);
    let mut wanted_inodes = survey.inodes + survey.inodes / 10 + SPARE_INODES;
    for _ in 0..attempt {
        wanted_bytes = wanted_bytes.saturating_add(wanted_bytes / 2);
        wanted_inodes += wanted_inodes / 2;
    }
    let size = |ratio: u64, bytes: u64| {
        let share = ratio - INODE_BYTES;
        (u128::from(bytes) * u128::from(ratio) / u128::from(share))
            .try_into()
            .unwrap_or(u64::MAX)
            .max(limits.image_bytes_min)
            .max(limits.journal_mib.saturating_mul(JOURNAL_SHARE << 20))
            .saturating_add((1 << 20) - 1)
            >> 20
            << 20
    };
    let fits = INODE_RATIOS.into_iter().find_map(|inode_ratio| {
        let size_bytes = size(inode_ratio, wanted_bytes);
        (size_bytes / inode_ratio >= wanted_inodes).then_some(Geometry {
            size_bytes,
            inode_ratio,
        })
    });
    fits.unwrap_or_else(|| {
        // Only empty files and links: the inode tables are the image.
        let [.., inode_ratio] = INODE_RATIOS;
        let table_bytes = wanted_inodes.saturating_mul(inode_ratio);
        Geometry {
            size_bytes: size(inode_ratio, wanted_bytes.max(table_bytes)),
            inode_ratio,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(data_bytes: u64, inodes: u64) -> Survey {
        Survey {
            data_bytes,
            folder_bytes: 4096,
            inodes,
            missing: Vec::new(),
        }
    }

    #[test]
    fn an_ordinary_tree_gets_the_ordinary_density() {
        let geometry = geometry(&of(400 << 20, 16_000), 0, &RootfsLimits::default());
        assert_eq!(geometry.inode_ratio, 16384);
        assert!(
            geometry.size_bytes > 440 << 20 && geometry.size_bytes < 480 << 20,
            "{geometry:?}"
        );
        assert_eq!(geometry.size_bytes % (1 << 20), 0);
    }

    #[test]
    fn tiny_files_get_more_inodes() {
        let limits = RootfsLimits::default();
        let small = geometry(&of(400 << 20, 100_000), 0, &limits);
        assert_eq!(small.inode_ratio, 4096);
        assert!(small.size_bytes < 512 << 20, "{small:?}");
        let empty = geometry(&of(0, 1_000_000), 0, &limits);
        assert!(
            empty.size_bytes / empty.inode_ratio > 1_000_000,
            "{empty:?}"
        );
    }

    #[test]
    fn each_attempt_is_larger() {
        let limits = RootfsLimits::default();
        let survey = of(400 << 20, 16_000);
        let sizes: Vec<u64> = (0..4)
            .map(|attempt| geometry(&survey, attempt, &limits).size_bytes)
            .collect();
        assert!(sizes.is_sorted_by(|a, b| a < b), "{sizes:?}");
    }

    #[test]
    fn a_survey_depends_on_content_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (sparse, dense) = (dir.path().join("sparse"), dir.path().join("dense"));
        for view in [&sparse, &dense] {
            std::fs::create_dir_all(view.join("folder")).unwrap();
            std::fs::write(view.join("folder/file"), [1; 5000]).unwrap();
            std::fs::hard_link(view.join("folder/file"), view.join("link")).unwrap();
            std::os::unix::fs::symlink("x".repeat(100), view.join("long")).unwrap();
        }
        let limits = RootfsLimits {
            sparse_bytes_min: 1 << 20,
            ..RootfsLimits::default()
        };
        std::fs::write(dense.join("zeros"), vec![0; 2 << 20]).unwrap();
        std::fs::File::create(sparse.join("zeros"))
            .and_then(|file| file.set_len(2 << 20))
            .unwrap();
        let surveys = [&sparse, &dense].map(|view| survey(view, &limits).unwrap());
        assert_eq!(surveys[0], surveys[1]);
        let expected = Survey {
            data_bytes: 3 * 4096,
            folder_bytes: 3 * 4096,
            // The root, the folder, the file, the long link, the zeros.
            inodes: 5,
            missing: MOUNT_POINTS.map(|(name, _)| name).to_vec(),
        };
        assert_eq!(surveys[0], expected);
    }
}
