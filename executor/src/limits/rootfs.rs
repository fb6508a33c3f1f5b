//! Bounds of root file system images: sizes, and how long the tools may take.

/// How large an image may be, and how long making it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootfsLimits {
    /// What a machine finds free beside its content, in bytes (design, section 6).
    pub headroom_bytes: u64,
    /// The journal of each image, in MiB. What mke2fs chooses depends on the first size, which
    /// is far below the one that a machine gets.
    pub journal_mib: u64,
    /// The smallest first image, in bytes. ext4 reserves descriptors for 1024 times its first
    /// size, so this also decides up to where growing moves nothing.
    pub image_bytes_min: u64,
    /// The largest image, in bytes.
    pub image_bytes_max: u64,
    /// A regular file from this size on is counted by its non-zero blocks, in bytes; a smaller
    /// one by its length.
    pub sparse_bytes_min: u64,
    /// How many sizes are tried before the content counts as too large for the estimate.
    pub build_attempts_max: u32,
    /// How many files, folders and links a view may hold.
    pub entries_max: u64,
    /// How long `mkfs.ext4` may copy a view, in seconds.
    pub mkfs_seconds_max: u64,
    /// How long `debugfs` may set the times, in seconds.
    pub debugfs_seconds_max: u64,
    /// How long `e2fsck` may check an image, in seconds.
    pub fsck_seconds_max: u64,
    /// How long `resize2fs` may take, in seconds.
    pub resize_seconds_max: u64,
}

impl Default for RootfsLimits {
    fn default() -> Self {
        Self {
            headroom_bytes: 512 << 20,
            journal_mib: 32,
            image_bytes_min: 128 << 20,
            image_bytes_max: 1 << 40,
            sparse_bytes_min: 64 << 20,
            build_attempts_max: 4,
            entries_max: 10_000_000,
            mkfs_seconds_max: 1800,
            debugfs_seconds_max: 300,
            fsck_seconds_max: 600,
            resize_seconds_max: 300,
        }
    }
}
