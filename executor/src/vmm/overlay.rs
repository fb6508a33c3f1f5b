//! Copy-on-write layers over the disk of a snapshot: each clone writes to its own.
//!
//! An empty qcow2 file depends on its size alone, so one of each size is made, kept and copied.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{VmmError, blocking};
use crate::holdings::Holdings;
use crate::process::Tool;

/// Makes an empty overlay of `disk_bytes` at `path`; the empty original is kept in `cache_dir`.
pub(super) async fn create(
    qemu_img: &Path,
    cache_dir: &Path,
    disk_bytes: u64,
    path: PathBuf,
    deadline: Duration,
    holdings: &Holdings,
) -> Result<PathBuf, VmmError> {
    let original = cache_dir.join(format!("overlay-{disk_bytes}.qcow2"));
    if !tokio::fs::try_exists(&original).await.unwrap_or(false) {
        create_original(
            qemu_img, cache_dir, disk_bytes, &original, deadline, holdings,
        )
        .await?;
    }
    blocking(move || {
        fs::copy(&original, &path).map_err(VmmError::file("make the overlay", &path))?;
        Ok(path)
    })
    .await
}

async fn create_original(
    qemu_img: &Path,
    cache_dir: &Path,
    disk_bytes: u64,
    original: &Path,
    deadline: Duration,
    holdings: &Holdings,
) -> Result<(), VmmError> {
    let folder = cache_dir.to_owned();
    let making = blocking(move || {
        tempfile::Builder::new()
            .prefix("overlay-")
            .tempfile_in(&folder)
            .map(tempfile::NamedTempFile::into_temp_path)
            .map_err(VmmError::file("make a file in", &folder))
    })
    .await?;
    Tool::new(qemu_img)
        .args(["create", "-q", "-f", "qcow2"])
        .arg(making.to_path_buf())
        .arg(disk_bytes.to_string())
        .held_by(holdings)
        .run_ok(deadline)
        .await
        .map_err(VmmError::tool("make an empty overlay"))?;
    let original = original.to_owned();
    // Whoever is first: all of them are equal.
    blocking(move || {
        let kept = making.persist(&original);
        kept.map_err(|error| VmmError::file("keep the empty overlay as", &original)(error.error))
    })
    .await
}
