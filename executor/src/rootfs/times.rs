//! What mke2fs copies into an image and must not: the times of the view's inodes. And what it
//! cannot add: the mount points that the view lacks.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use super::{Ext4Options, MOUNT_POINTS, RootfsError, blocking, explain, superblock, tools};

const ROOT_INODE: u32 = 2;
/// Inodes below belong to the file system itself, but for the root (`s_first_ino`).
const FIRST_INODE: u32 = 11;

/// Gives every inode the time of the options as `ctime` and `atime`, drops fractions of seconds,
/// and makes the folders `missing`.
pub(super) async fn normalise(
    image: &Path,
    scratch: &Path,
    missing: &[&'static str],
    options: &Ext4Options,
) -> Result<(), RootfsError> {
    let script = scratch.join("debugfs.commands");
    let (from, to) = (image.to_owned(), script.clone());
    let (missing, seconds) = (missing.to_vec(), options.time_seconds);
    blocking(move || write_script(&from, &to, &missing, seconds))
        .await?
        .map_err(|source| RootfsError::image("list the inodes of", image, source))?;
    tools::debugfs(image, &script, options)
        .await
        .map_err(|failure| explain(failure, image))
}

fn write_script(
    image: &Path,
    script: &Path,
    missing: &[&'static str],
    seconds: u32,
) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(script)?);
    for (name, mode) in MOUNT_POINTS {
        if missing.contains(&name) {
            writeln!(out, "mkdir /{name}")?;
            // A folder's type bit, and its permissions.
            writeln!(out, "sif /{name} mode 0{:o}", 0o40_000 | mode)?;
        }
    }
    for inode in superblock::inodes_in_use(image)? {
        if inode != ROOT_INODE && inode < FIRST_INODE {
            continue;
        }
        // debugfs keeps the inodes' checksums right. The `_extra` words hold nanoseconds, and
        // the two bits that carry a time beyond 2038.
        writeln!(out, "sif <{inode}> ctime @{seconds}")?;
        writeln!(out, "sif <{inode}> ctime_extra 0")?;
        writeln!(out, "sif <{inode}> atime @{seconds}")?;
        writeln!(out, "sif <{inode}> atime_extra 0")?;
        writeln!(out, "sif <{inode}> mtime_extra 0")?;
    }
    out.flush()
}
