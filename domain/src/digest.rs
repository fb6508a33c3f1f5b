//! SHA-256 digests, and the one way in which structured values are hashed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest. Its text form is `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest whose bytes are all zero: what precedes the first event of a stream.
    pub const ZERO: Self = Self([0; 32]);

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 lower-case hex digits, without the algorithm.
    pub fn hex(&self) -> String {
        const DIGITS: [char; 16] = [
            '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
        ];
        self.0
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 0xf])
            .filter_map(|nibble| DIGITS.get(usize::from(nibble)))
            .collect()
    }

    /// Reads 64 lower-case hex digits.
    ///
    /// # Errors
    /// [`InvalidDigest`] if the text has another length or another character.
    pub fn from_hex(hex: &str) -> Result<Self, InvalidDigest> {
        let mut bytes = [0_u8; 32];
        let mut digits = hex.bytes().map(nibble);
        for byte in &mut bytes {
            let high = digits.next().flatten().ok_or(InvalidDigest)?;
            let low = digits.next().flatten().ok_or(InvalidDigest)?;
            *byte = high << 4 | low;
        }
        match digits.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(InvalidDigest),
        }
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        Self::from_hex(text.strip_prefix("sha256:").ok_or(InvalidDigest)?)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The text is not `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` followed by 64 lower-case hex digits")]
pub struct InvalidDigest;

/// Hashes fields so that no two different lists of fields give the same bytes.
///
/// Each field is preceded by its length as eight little-endian bytes, so `("ab", "c")` and
/// `("a", "bc")` differ. The first field names what is hashed and its version.
///
/// ```
/// use domain::digest::Hasher;
/// let one = Hasher::new("example/v1").field("ab").field("c").finish();
/// let two = Hasher::new("example/v1").field("a").field("bc").finish();
/// assert_ne!(one, two);
/// ```
#[derive(Clone, Debug)]
pub struct Hasher(Sha256);

impl Hasher {
    /// A hasher for the kind of value that `domain` names, for example `step-key/v1`.
    pub fn new(domain: &str) -> Self {
        Self(Sha256::new()).field(domain)
    }

    /// Adds one field.
    #[must_use]
    pub fn field(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        // A usize has at most 64 bits on every platform that Rust supports.
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.0.update(length.to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a list: its length, then each element as a field.
    #[must_use]
    pub fn list<T: AsRef<[u8]>>(self, items: impl ExactSizeIterator<Item = T>) -> Self {
        let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
        items.fold(self.field(count.to_le_bytes()), |hasher, item| {
            hasher.field(item)
        })
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let digest = Digest::of(b"abc");
        assert_eq!(
            digest.to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }

    #[test]
    fn other_texts_are_refused() {
        let hex = Digest::ZERO.hex();
        for text in [
            String::new(),
            hex.clone(),
            format!("sha256:{hex}0"),
            format!("sha256:{}", hex.replace('0', "A")),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(InvalidDigest), "{text}");
        }
    }

    #[test]
    fn a_list_is_not_its_elements() {
        let list = Hasher::new("t").list(["a", "b"].iter()).finish();
        let fields = Hasher::new("t").field("a").field("b").finish();
        assert_ne!(list, fields);
    }
}
