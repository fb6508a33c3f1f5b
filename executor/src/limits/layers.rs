//! Bounds on images and layers: what a registry or an archive may make this worker do.

/// Bounds on one layer while it is unpacked and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerLimits {
    /// Entries of one archive, extension headers not counted.
    pub entries_max: u64,
    /// Bytes of one archive after inflating: what stops a decompression bomb.
    pub archive_bytes_max: u64,
    /// Bytes of all regular files of one archive as their readers see them, holes included, with the
    /// files of layers beneath that its hard links copy.
    pub content_bytes_max: u64,
    /// Bytes of the extension headers (long names, PAX records, sparse maps) of one entry.
    pub extension_bytes_max: u64,
    /// Bytes of one path, as the archive spells it and after following links.
    /// Linux takes no path above 4095 (`PATH_MAX` less its NUL).
    pub path_bytes_max: usize,
    /// Symbolic links followed on the way to one entry; Linux follows 40.
    pub links_followed_max: u32,
    /// Names looked at on the way to all entries of one archive, in it and in the layers beneath: what
    /// stops deep paths and links to deep paths from keeping a processor busy for hours.
    pub names_walked_max: u64,
    /// Bytes of memory for the paths of one archive's folders and removed names.
    pub ledger_bytes_max: u64,
    /// Bytes of the path of the store's folder. A mount option holds 255 bytes, and a layer's folder
    /// adds 71 to it.
    pub root_path_bytes_max: usize,
    /// What is remembered of how layers and artifacts were made.
    pub recipes: RecipeLimits,
}

/// Bounds on the recipes that tell why something has to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecipeLimits {
    /// Recipes that are kept, of what is still there and of what was evicted.
    pub count_max: usize,
    /// What all of them take on the disk, listings included, in bytes.
    pub bytes_max: u64,
    /// The largest recipe that is kept, in bytes.
    pub recipe_bytes_max: u64,
    /// The largest listing of copied files that is kept beside a recipe, in bytes: about 10,000 files
    /// with paths of 200 bytes.
    pub listing_bytes_max: u64,
    /// Places that a recipe is remembered at, the latest ones.
    pub places_max: usize,
    /// Earlier recipes that one is compared with, the latest ones.
    pub candidates_max: usize,
    /// Things beneath one another that are followed to find the first that differs.
    pub chain_max: usize,
    /// The text that tells a difference, in characters.
    pub difference_chars_max: usize,
}

impl Default for RecipeLimits {
    fn default() -> Self {
        Self {
            count_max: 4096,
            bytes_max: 256 << 20,
            recipe_bytes_max: 256 << 10,
            listing_bytes_max: 4 << 20,
            places_max: 16,
            candidates_max: 64,
            chain_max: 1024,
            difference_chars_max: 600,
        }
    }
}

impl Default for LayerLimits {
    fn default() -> Self {
        Self {
            entries_max: 4_000_000,
            archive_bytes_max: 64 << 30,
            content_bytes_max: 64 << 30,
            extension_bytes_max: 1 << 20,
            path_bytes_max: 4095,
            links_followed_max: 40,
            names_walked_max: 1 << 30,
            ledger_bytes_max: 512 << 20,
            root_path_bytes_max: 180,
            recipes: RecipeLimits::default(),
        }
    }
}

/// Bounds on talking to registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Bytes of a manifest or an index. The distribution specification asks registries to take 4 MiB.
    pub manifest_bytes_max: usize,
    /// Documents that are read to find an image: indexes, and the manifests that they lead to.
    pub index_documents_max: usize,
    /// Bytes of an image's configuration.
    pub config_bytes_max: u64,
    /// Layers of one image.
    pub layers_max: usize,
    /// Bytes of one layer as it is transferred.
    pub blob_bytes_max: u64,
    /// Layers of one image that are transferred and unpacked at the same time.
    pub layers_parallel_max: usize,
    /// Times that one document or blob is asked for before its image counts as not pullable.
    pub attempts_max: u32,
    /// Wait before the second attempt, in milliseconds; it doubles with each further one.
    pub backoff_first_ms: u64,
    /// The longest wait between two attempts, in milliseconds.
    pub backoff_max_ms: u64,
    /// The longest time that a registry may ask to be left alone, in milliseconds.
    pub retry_after_ms_max: u64,
    /// Redirects on the way to one document or blob.
    pub redirects_max: u32,
    /// Bytes of the answer of a token service.
    pub token_bytes_max: usize,
    /// Wait for a connection, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Wait for the next bytes of an answer, in milliseconds.
    pub read_timeout_ms: u64,
    /// Wait for a whole manifest or configuration, in milliseconds.
    pub document_timeout_ms: u64,
    /// Pieces of a blob that wait in memory to be unpacked; a piece is what one network read gave.
    pub pieces_queued_max: usize,
    /// Bytes of a blob between two progress reports.
    pub progress_step_bytes: u64,
    /// Base-2 logarithm of the window that a zstd layer may ask for: its memory while inflating.
    pub zstd_window_log_max: u32,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            manifest_bytes_max: 4 << 20,
            index_documents_max: 8,
            config_bytes_max: 8 << 20,
            layers_max: 250,
            blob_bytes_max: 32 << 30,
            layers_parallel_max: 3,
            attempts_max: 6,
            backoff_first_ms: 250,
            backoff_max_ms: 8_000,
            retry_after_ms_max: 60_000,
            redirects_max: 5,
            token_bytes_max: 256 << 10,
            connect_timeout_ms: 10_000,
            read_timeout_ms: 30_000,
            document_timeout_ms: 60_000,
            pieces_queued_max: 64,
            progress_step_bytes: 4 << 20,
            zstd_window_log_max: 27,
        }
    }
}
