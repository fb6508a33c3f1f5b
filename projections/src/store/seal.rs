//! A sum over all rows, kept beside them: an engine that silently loses some does not go unnoticed.

use domain::digest::Hasher;
use serde::{Deserialize, Serialize};

/// How many rows there are, and the sum of their hashes.
///
/// The order of rows does not matter, so a commit needs to look only at what it changes. This
/// finds accidents, not attackers: whoever can write the rows can write the seal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seal {
    rows: u64,
    sum: [u64; 2],
}

impl Seal {
    /// A row was added.
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        let hash = hash(key, value);
        self.rows = self.rows.wrapping_add(1);
        self.sum = [
            self.sum[0].wrapping_add(hash[0]),
            self.sum[1].wrapping_add(hash[1]),
        ];
    }

    /// A row was taken away.
    pub(super) fn remove(&mut self, key: &[u8], value: &[u8]) {
        let hash = hash(key, value);
        self.rows = self.rows.wrapping_sub(1);
        self.sum = [
            self.sum[0].wrapping_sub(hash[0]),
            self.sum[1].wrapping_sub(hash[1]),
        ];
    }

    /// How many rows there are.
    pub(super) fn row_count(&self) -> u64 {
        self.rows
    }
}

fn hash(key: &[u8], value: &[u8]) -> [u64; 2] {
    let digest = Hasher::new("view-row/v1").field(key).field(value).finish();
    let bytes = digest.as_bytes().as_slice();
    [bytes.first_chunk(), bytes.last_chunk()]
        .map(|chunk| chunk.map_or(0, |eight| u64::from_le_bytes(*eight)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_depends_on_the_rows_and_not_on_their_history() {
        let mut one = Seal::default();
        one.add(b"a", b"1");
        one.add(b"b", b"2");
        let mut other = Seal::default();
        other.add(b"b", b"0");
        other.add(b"a", b"1");
        assert_ne!(one, other);
        other.remove(b"b", b"0");
        other.add(b"b", b"2");
        assert_eq!(one, other);
        assert_eq!(one.row_count(), 2);
    }
}
