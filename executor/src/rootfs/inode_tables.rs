//! The inode tables that mke2fs and resize2fs left unwritten in a sparse file.
//!
//! They are holes, so they are zero already, but a kernel that is not told so writes them all in
//! the background after the first mount: a sixty-fourth of the disk, in the artifact and again in
//! the disk of every machine that is restored from it.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use super::superblock::GROUP_TABLE_ZEROED;
use super::{
    Ext4Options, RootfsError, blocking, explain, scratch_beside, sparse, superblock, tools,
};

/// Marks the tables that are proven to be zero where they are unused. The others stay for the
/// kernel to write.
pub(super) async fn settle(image: &Path, options: &Ext4Options) -> Result<(), RootfsError> {
    let scratch = scratch_beside(image)?;
    let script = scratch.path().join("debugfs.commands");
    let (from, to) = (image.to_owned(), script.clone());
    blocking(move || write_script(&from, &to))
        .await?
        .map_err(|source| RootfsError::image("read the inode tables of", image, source))?;
    tools::debugfs(image, &script, options)
        .await
        .map_err(|failure| explain(failure, image))
}

fn write_script(image: &Path, script: &Path) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(script)?);
    let file = File::open(image)?;
    for (index, group) in superblock::groups(image)?.into_iter().enumerate() {
        let (start, end) = group.unused_table;
        if group.flags & GROUP_TABLE_ZEROED == 0 && sparse::is_zero(&file, start..end)? {
            let flags = group.flags | GROUP_TABLE_ZEROED;
            writeln!(out, "set_bg {index} flags {flags}")?;
            writeln!(out, "set_bg {index} checksum calc")?;
        }
    }
    out.flush()
}
