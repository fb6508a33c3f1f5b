//! Root file systems: an ext4 image from a merged view, the same for the same content, grown
//! offline to the size of a machine's disk, and checked.
//!
//! What makes two images of the same content the same, byte for byte:
//!
//! - UUID and directory hash seed come from [`Ext4Options::identity`], a constant by default;
//! - features and sizes come from here and from the content, not from the host's `mke2fs.conf`;
//! - the times of the file system itself are [`Ext4Options::time_seconds`];
//! - so are `ctime` and `atime` of every inode, which mke2fs would copy from the view, where no
//!   one can choose them. `mtime` is content and stays, in whole seconds.

mod error;
mod inode_tables;
pub mod sparse;
mod superblock;
mod survey;
mod times;
mod tools;

use std::path::Path;

use domain::Digest;

use crate::holdings::Holdings;
use crate::limits::rootfs::RootfsLimits;
pub use error::RootfsError;
use error::{blocking, disk_full, require_space};
use survey::{Geometry, Survey, geometry, survey};
use tools::ToolFailure;

/// The block size of every image, in bytes.
pub const BLOCK_BYTES: u64 = 4096;

/// The folders on which a machine's first process mounts, with the mode they get where a view
/// lacks them. They are made in the image, never in the view.
pub const MOUNT_POINTS: [(&str, u32); 5] = [
    ("dev", 0o755),
    ("proc", 0o555),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
];

/// How images are made.
#[derive(Clone, Debug)]
pub struct Ext4Options {
    /// Bytes 0 to 15 become the UUID, 16 to 31 the hash seed of directories. Nothing mounts by
    /// this UUID, so one constant for all images is right: equal content, equal image.
    pub identity: Digest,
    /// The time of everything whose real time would make images differ, in seconds since 1970.
    pub time_seconds: u32,
    /// Sizes and deadlines.
    pub limits: RootfsLimits,
    /// The list of whoever they are made for.
    pub holdings: Holdings,
}

impl Default for Ext4Options {
    fn default() -> Self {
        Self {
            identity: Digest::of(b"nullspace/rootfs/v1"),
            time_seconds: 1_700_000_000,
            limits: RootfsLimits::default(),
            holdings: Holdings::default(),
        }
    }
}

impl Ext4Options {
    fn uuids(&self) -> (String, String) {
        const PROOF: &str = "a digest has 32 bytes";
        let bytes = self.identity.as_bytes();
        (
            uuid_text(*bytes.first_chunk().expect(PROOF)),
            uuid_text(*bytes.last_chunk().expect(PROOF)),
        )
    }
}

/// A version 8 UUID (RFC 9562: bits of the application's own making) of 16 bytes.
fn uuid_text(bytes: [u8; 16]) -> String {
    let bits = u128::from_be_bytes(bytes);
    format!(
        "{:08x}-{:04x}-8{:03x}-{:04x}-{:012x}",
        bits >> 96,
        bits >> 80 & 0xffff,
        bits >> 64 & 0x0fff,
        bits >> 48 & 0x3fff | 0x8000,
        bits & 0xffff_ffff_ffff,
    )
}

/// A fresh image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// What is in use in it, the file system's own structures included, in bytes.
    pub content_bytes: u64,
    /// The size of the image, in bytes: little more than its content.
    pub size_bytes: u64,
    /// The SHA-256 of the image.
    pub digest: Digest,
}

/// A grown image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grown {
    /// The size of the file before, in bytes.
    pub from_bytes: u64,
    /// The size of the file, and so of the disk, now, in bytes.
    pub to_bytes: u64,
}

/// Makes `image` from the folder `view`, which is only read; it may be an overlay mount.
///
/// The image has the missing ones of [`MOUNT_POINTS`], is a sparse file, and takes the place of
/// what was at `image` only when it is complete.
///
/// # Errors
/// [`RootfsError::DiskFull`] if the host has no room, [`RootfsError::MountPoint`],
/// [`RootfsError::TooManyEntries`] and [`RootfsError::TooLarge`] if the content is not fit for a
/// machine; others mean that the host or its tools are broken.
pub async fn build(view: &Path, image: &Path, options: &Ext4Options) -> Result<Built, RootfsError> {
    let (path, limits) = (view.to_owned(), options.limits);
    let survey = blocking(move || survey(&path, &limits)).await??;
    let scratch = scratch_beside(image)?;
    let fresh = scratch.path().join("image");
    populate(view, &fresh, scratch.path(), &survey, options).await?;
    times::normalise(&fresh, scratch.path(), &survey.missing, options).await?;
    let path = fresh.clone();
    let built = blocking(move || {
        let superblock = superblock::read(&path)?;
        let (digest, size_bytes) = sparse::digest(&path)?;
        Ok::<_, std::io::Error>(Built {
            content_bytes: superblock.used_bytes(),
            size_bytes,
            digest,
        })
    })
    .await?
    .map_err(|source| RootfsError::image("read", image, source))?;
    tokio::fs::rename(&fresh, image)
        .await
        .map_err(|source| RootfsError::image("rename", image, source))?;
    Ok(built)
}

/// A folder on the same file system as the image that goes away with its value.
fn scratch_beside(image: &Path) -> Result<tempfile::TempDir, RootfsError> {
    let dir = image.parent().unwrap_or_else(|| Path::new("."));
    tempfile::Builder::new()
        .prefix(".ext4-")
        .tempdir_in(dir)
        .map_err(|source| RootfsError::image("make a folder beside", image, source))
}

/// Makes the file system with the content of the view, in a larger image when the estimate was
/// too small.
async fn populate(
    view: &Path,
    image: &Path,
    scratch: &Path,
    survey: &Survey,
    options: &Ext4Options,
) -> Result<(), RootfsError> {
    let limits = &options.limits;
    require_space(scratch, survey.data_bytes)?;
    for attempt in 0..limits.build_attempts_max {
        let geometry = geometry(survey, attempt, limits);
        if geometry.size_bytes > limits.image_bytes_max {
            return Err(RootfsError::TooLarge {
                bytes: geometry.size_bytes,
                max: limits.image_bytes_max,
            });
        }
        make_holes(image, geometry)
            .await
            .map_err(|source| RootfsError::image("create", image, source))?;
        match tools::mkfs(view, image, scratch, geometry, options).await {
            Ok(()) => return Ok(()),
            Err(ToolFailure::ImageTooSmall) => {
                tracing::warn!(
                    image_bytes = geometry.size_bytes,
                    attempt,
                    "content did not fit the image that was estimated for it"
                );
            }
            Err(failure) => return Err(explain(failure, image)),
        }
    }
    Err(RootfsError::DoesNotFit {
        attempts: limits.build_attempts_max,
    })
}

/// An empty sparse file of the size of the image; what was there before is gone.
async fn make_holes(image: &Path, geometry: Geometry) -> std::io::Result<()> {
    let file = tokio::fs::File::create(image).await?;
    file.set_len(geometry.size_bytes).await
}

/// Grows an image that nothing uses to `to_bytes`, a multiple of [`BLOCK_BYTES`].
///
/// Growing to the present size checks the image and changes no size. A grow that was interrupted
/// can be repeated.
///
/// # Errors
/// [`RootfsError::Shrink`] if the image is larger already, [`RootfsError::TooLarge`],
/// [`RootfsError::Damaged`] if it cannot be repaired safely, [`RootfsError::DiskFull`].
pub async fn grow(
    image: &Path,
    to_bytes: u64,
    options: &Ext4Options,
) -> Result<Grown, RootfsError> {
    let metadata = tokio::fs::metadata(image).await;
    let from_bytes = metadata
        .map_err(|source| RootfsError::image("read", image, source))?
        .len();
    if to_bytes < from_bytes {
        return Err(RootfsError::Shrink {
            from_bytes,
            to_bytes,
        });
    }
    if to_bytes > options.limits.image_bytes_max || !to_bytes.is_multiple_of(BLOCK_BYTES) {
        return Err(RootfsError::TooLarge {
            bytes: to_bytes,
            max: options.limits.image_bytes_max,
        });
    }
    // resize2fs refuses an image that was not checked since it was last mounted.
    let (code, report) = tools::e2fsck(image, "-fp", options)
        .await
        .map_err(|failure| explain(failure, image))?;
    if !matches!(code, Some(0 | 1)) {
        return Err(RootfsError::Damaged { report });
    }
    set_length(image, to_bytes)
        .await
        .map_err(|source| RootfsError::image("extend", image, source))?;
    tools::resize2fs(image, options)
        .await
        .map_err(|failure| explain(failure, image))?;
    let path = image.to_owned();
    let superblock = blocking(move || superblock::read(&path))
        .await?
        .map_err(|source| RootfsError::image("read", image, source))?;
    // A last block group too short for its own tables is left out.
    let total_bytes = superblock.total_bytes();
    if total_bytes > to_bytes || to_bytes - total_bytes >= superblock.group_bytes() {
        return Err(RootfsError::NotGrown {
            wanted_bytes: to_bytes,
            total_bytes,
        });
    }
    inode_tables::settle(image, options).await?;
    Ok(Grown {
        from_bytes,
        to_bytes,
    })
}

async fn set_length(image: &Path, bytes: u64) -> std::io::Result<()> {
    let file = tokio::fs::OpenOptions::new()
        .write(true)
        .open(image)
        .await?;
    file.set_len(bytes).await
}

/// Checks an image that nothing uses, and changes nothing.
///
/// # Errors
/// [`RootfsError::Damaged`] with what e2fsck found, for everything but its exit code 0.
pub async fn check(image: &Path, options: &Ext4Options) -> Result<(), RootfsError> {
    match tools::e2fsck(image, "-fn", options).await {
        Ok((Some(0), _)) => Ok(()),
        Ok((_, report)) => Err(RootfsError::Damaged { report }),
        Err(failure) => Err(explain(failure, image)),
    }
}

/// The size of a machine's disk: what was asked for, or the content and the headroom if that is
/// more, in whole MiB. `disk_mb` counts MiB too.
///
/// ```
/// use executor::{limits::rootfs::RootfsLimits, rootfs::target_bytes};
/// let limits = RootfsLimits::default();
/// assert_eq!(target_bytes(Some(2048), 300 << 20, &limits), 2048 << 20);
/// assert_eq!(target_bytes(Some(512), (300 << 20) + 1, &limits), 813 << 20);
/// ```
pub fn target_bytes(disk_mb: Option<u64>, content_bytes: u64, limits: &RootfsLimits) -> u64 {
    const MIB: u64 = 1 << 20;
    let asked = disk_mb.unwrap_or(0).saturating_mul(MIB);
    let needed = content_bytes.saturating_add(limits.headroom_bytes);
    let whole = needed.checked_next_multiple_of(MIB);
    asked.max(whole.unwrap_or(u64::MAX / MIB * MIB))
}

fn explain(failure: ToolFailure, image: &Path) -> RootfsError {
    match failure {
        ToolFailure::DiskFull => disk_full(image),
        ToolFailure::ImageTooSmall => RootfsError::DoesNotFit { attempts: 1 },
        ToolFailure::Other(error) => error,
    }
}

#[cfg(test)]
mod tests;
