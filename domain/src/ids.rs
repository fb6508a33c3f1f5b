//! Identifiers: one macro, one line a kind. Mixing two kinds does not compile.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::time::Timestamp;

/// The text is not an identifier of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct InvalidId {
    /// What was read, cut to its first 80 characters.
    pub text: String,
    /// What would have been accepted.
    pub expected: &'static str,
}

impl InvalidId {
    pub(crate) fn new(text: &str, expected: &'static str) -> Self {
        Self {
            text: text.chars().take(80).collect(),
            expected,
        }
    }
}

/// Ten random bytes, drawn by the caller: `domain` has no randomness of its own.
pub type Entropy = [u8; 10];

/// Crockford's base 32, in lower case: <https://github.com/ulid/spec>.
const ULID_DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const ULID_LENGTH: usize = 26;

/// The 26 lower-case characters of the ULID of `time` and `entropy`.
fn ulid(time: Timestamp, entropy: Entropy) -> String {
    let millis = u128::from(time.unix_millis()) & 0xffff_ffff_ffff;
    let random = entropy
        .iter()
        .fold(0_u128, |value, byte| value << 8 | u128::from(*byte));
    let value = millis << 80 | random;
    (0..ULID_LENGTH)
        .rev()
        .filter_map(|place| {
            let digit = usize::try_from(value >> (5 * place) & 31).ok()?;
            ULID_DIGITS.get(digit).copied().map(char::from)
        })
        .collect()
}

fn is_ulid(text: &str) -> bool {
    text.len() == ULID_LENGTH
        && text.bytes().all(|byte| ULID_DIGITS.contains(&byte))
        && text
            .as_bytes()
            .first()
            .is_some_and(|first| (b'0'..=b'7').contains(first))
}

macro_rules! string_impls {
    ($name:ident) => {
        impl $name {
            /// The text form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use string_impls;

macro_rules! ulid_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// What every identifier of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// The identifier of `time` and `entropy`; later ones sort behind earlier ones.
            pub fn generate(time: Timestamp, entropy: Entropy) -> Self {
                Self(format!("{}{}", $prefix, ulid(time, entropy)).into())
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                match text.strip_prefix($prefix) {
                    Some(rest) if is_ulid(rest) => Ok(Self(text.into())),
                    _ => Err(InvalidId::new(text, concat!("`", $prefix, "` and a lower-case ULID"))),
                }
            }
        }

        string_impls!($name);
    };
}

macro_rules! digest_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// What every identifier of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// The identifier of the content with this digest.
            pub fn of(digest: &Digest) -> Self {
                Self(format!("{}{}", $prefix, digest.hex()).into())
            }

            /// The digest of the content.
            pub fn digest(&self) -> Option<Digest> {
                Digest::from_hex(self.0.strip_prefix($prefix)?).ok()
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                match text.strip_prefix($prefix).map(Digest::from_hex) {
                    Some(Ok(_)) => Ok(Self(text.into())),
                    _ => Err(InvalidId::new(text, concat!("`", $prefix, "` and 64 hex digits"))),
                }
            }
        }

        string_impls!($name);
    };
}

ulid_id!(
    /// A build.
    BuildId, "tb_"
);
ulid_id!(
    /// A template: the logical thing that its builds, tags and names belong to.
    TemplateId, "tmpl_"
);
ulid_id!(
    /// A command: one intention of one caller. The ids of its events derive from it.
    CommandId, "cmd_"
);
ulid_id!(
    /// An API key; not the key itself.
    KeyId, "key_"
);
ulid_id!(
    /// A worker process, new at each start.
    WorkerId, "wk_"
);
ulid_id!(
    /// An upload that is asked for anew although the content may be there (`force_upload`).
    UploadId, "blob_"
);
ulid_id!(
    /// A webhook.
    WebhookId, "wh_"
);
digest_id!(
    /// A file's content in the blob store.
    BlobId, "blob_"
);
digest_id!(
    /// A finished artifact: root filesystem, memory, device state, manifest.
    ArtifactId, "art_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_round_trips_and_sorts_by_time() {
        let early = BuildId::generate(Timestamp::from_unix_micros(1_000_000).unwrap(), [255; 10]);
        let late = BuildId::generate(Timestamp::from_unix_micros(1_001_000).unwrap(), [0; 10]);
        assert!(early < late);
        assert_eq!(early.as_str().len(), 29);
        assert_eq!(early.to_string().parse(), Ok(early));
    }

    #[test]
    fn another_kind_is_refused() {
        let id = BuildId::generate(Timestamp::from_unix_micros(0).unwrap(), [1; 10]);
        for text in [
            "",
            "tb_",
            "tb_x",
            &id.to_string().to_uppercase(),
            &id.to_string().replace("tb_", "tmpl_"),
        ] {
            assert!(text.parse::<BuildId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_blob_id_carries_its_digest() {
        let id = BlobId::of(&Digest::of(b"x"));
        assert_eq!(id.digest(), Some(Digest::of(b"x")));
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
