//! Bounds of the artifact store.

/// How large the small files of the store may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArtifactLimits {
    /// The largest manifest that is written or read, in bytes.
    pub manifest_bytes_max: u64,
    /// How often a staging folder is made anew when another process sweeps it away, in tries.
    pub stage_attempts_max: u32,
}

impl Default for ArtifactLimits {
    fn default() -> Self {
        Self {
            manifest_bytes_max: 1 << 20,
            stage_attempts_max: 3,
        }
    }
}
