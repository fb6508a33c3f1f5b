//! Bounds on secret values in memory.

/// Bounds on the values that wait for their builds to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VaultLimits {
    /// Builds that have values here at the same time.
    pub builds_max: usize,
    /// Bytes of all values together.
    pub value_bytes_max: usize,
}

impl Default for VaultLimits {
    fn default() -> Self {
        Self {
            builds_max: 10_000,
            value_bytes_max: 64 << 20,
        }
    }
}
