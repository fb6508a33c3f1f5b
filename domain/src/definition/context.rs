//! The files that steps may copy: a listing whose content is in the blob store.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The listing of a context, in the blob store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextRef {
    /// The digest of the stored listing, which is a [`ContextManifest`] as JSON.
    pub digest: Digest,
    /// How many files it lists, folders not counted.
    pub file_count: u64,
    /// The sum of their sizes in bytes.
    pub total_bytes: u64,
}

/// Which contents a request brought, in the blob store: what was not referred to as known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrivals {
    /// Those that their owner had never sent before.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub new: BTreeSet<Digest>,
    /// Those that were there and were sent all the same.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub again: BTreeSet<Digest>,
}

impl Arrivals {
    /// Whether the request brought nothing.
    pub fn is_empty(&self) -> bool {
        self.new.is_empty() && self.again.is_empty()
    }

    /// Whether the request brought this content.
    pub fn contains(&self, content: &Digest) -> bool {
        self.new.contains(content) || self.again.contains(content)
    }

    /// The stored form.
    ///
    /// # Panics
    /// Never: digests have a JSON form.
    pub fn to_stored(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("digests are text and no serializer fails")
    }
}

/// The files of a context: sorted by path, each path once, none outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<ContextEntry>", into = "Vec<ContextEntry>")]
pub struct ContextManifest(Vec<ContextEntry>);

/// One file or folder of a context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextEntry {
    /// Relative, `/`-separated.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub kind: ContextKind,
}

/// What a context entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContextKind {
    /// A folder.
    Dir,
    /// A file, whose content is in the blob store.
    File {
        /// The content.
        digest: Digest,
        /// Its length.
        bytes: u64,
    },
}

/// Why a listing is not a context.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidContext {
    /// A path leaves the context or names nothing.
    #[error("context path `{0}` must be relative, without `..`, `.` or empty parts")]
    Path(String),
    /// A path, or a name in it, is longer than a file system takes.
    #[error(
        "context path `{0}` must have at most {CONTEXT_PATH_BYTES_MAX} bytes, and {NAME_BYTES_MAX} in each name"
    )]
    TooLong(String),
    /// A path is listed twice.
    #[error("context path `{0}` is listed twice")]
    Duplicate(String),
    /// A path lies below a file.
    #[error("context path `{0}` lies below a file")]
    BelowFile(String),
}

/// The longest context path in bytes: PATH_MAX of Linux, less room for the folder it goes to.
pub const CONTEXT_PATH_BYTES_MAX: usize = 3072;

/// The longest name of a file in bytes: NAME_MAX of Linux.
const NAME_BYTES_MAX: usize = 255;

impl ContextManifest {
    /// The contents of its files, each as often as it is listed.
    pub fn contents(&self) -> impl Iterator<Item = Digest> {
        self.entries().iter().filter_map(|entry| match entry.kind {
            ContextKind::Dir => None,
            ContextKind::File { digest, .. } => Some(digest),
        })
    }

    /// A context of these entries.
    ///
    /// # Errors
    /// [`InvalidContext`], naming the path at fault.
    pub fn new(mut entries: Vec<ContextEntry>) -> Result<Self, InvalidContext> {
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        let mut kinds: BTreeMap<&str, bool> = BTreeMap::new();
        for entry in &entries {
            if entry.path.len() > CONTEXT_PATH_BYTES_MAX
                || entry
                    .path
                    .split('/')
                    .any(|name| name.len() > NAME_BYTES_MAX)
            {
                return Err(InvalidContext::TooLong(entry.path.clone()));
            }
            if !is_context_path(&entry.path) {
                return Err(InvalidContext::Path(entry.path.clone()));
            }
            if kinds
                .insert(&entry.path, entry.kind == ContextKind::Dir)
                .is_some()
            {
                return Err(InvalidContext::Duplicate(entry.path.clone()));
            }
        }
        for entry in &entries {
            let below_file = entry
                .path
                .match_indices('/')
                .filter_map(|(at, _)| entry.path.get(..at))
                .any(|parent| kinds.get(parent) == Some(&false));
            if below_file {
                return Err(InvalidContext::BelowFile(entry.path.clone()));
            }
        }
        Ok(Self(entries))
    }

    /// The entries, sorted by path.
    pub fn entries(&self) -> &[ContextEntry] {
        &self.0
    }

    /// The stored form and what refers to it.
    ///
    /// # Panics
    /// Never: every field has a JSON form.
    pub fn to_stored(&self) -> (Vec<u8>, ContextRef) {
        let bytes = serde_json::to_vec(&self.0)
            .expect("a listing has only string keys and no failing serializer");
        let sizes = self.0.iter().filter_map(|entry| match entry.kind {
            ContextKind::Dir => None,
            ContextKind::File { bytes, .. } => Some(bytes),
        });
        let (file_count, total_bytes) = sizes.fold((0_u64, 0_u64), |(count, sum), bytes| {
            (count + 1, sum.saturating_add(bytes))
        });
        let digest = Digest::of(&bytes);
        (
            bytes,
            ContextRef {
                digest,
                file_count,
                total_bytes,
            },
        )
    }
}

fn is_context_path(path: &str) -> bool {
    !path.contains('\0') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

impl TryFrom<Vec<ContextEntry>> for ContextManifest {
    type Error = InvalidContext;

    fn try_from(entries: Vec<ContextEntry>) -> Result<Self, InvalidContext> {
        Self::new(entries)
    }
}

impl From<ContextManifest> for Vec<ContextEntry> {
    fn from(manifest: ContextManifest) -> Self {
        manifest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> ContextEntry {
        let kind = ContextKind::File {
            digest: Digest::of(b"x"),
            bytes: 1,
        };
        ContextEntry {
            path: path.to_owned(),
            mode: 0o644,
            kind,
        }
    }

    #[test]
    fn paths_that_leave_the_context_are_refused() {
        for path in [
            "../x",
            "/etc/passwd",
            "a/../b",
            "a//b",
            "",
            ".",
            "a/.",
            "a\0b",
        ] {
            let refused = ContextManifest::new(vec![file(path)]);
            assert_eq!(refused, Err(InvalidContext::Path(path.to_owned())));
        }
    }

    #[test]
    fn paths_that_no_file_system_takes_are_refused() {
        let deep = "d/".repeat(CONTEXT_PATH_BYTES_MAX / 2);
        for path in [
            "n".repeat(256),
            format!("a/{}/b", "ü".repeat(128)),
            deep + "x",
        ] {
            let refused = ContextManifest::new(vec![file(&path)]);
            assert_eq!(refused, Err(InvalidContext::TooLong(path)));
        }
        let longest = "d/".repeat(CONTEXT_PATH_BYTES_MAX / 2 - 1) + "xy";
        for path in ["n".repeat(255), longest] {
            assert_eq!(ContextManifest::new(vec![file(&path)]).unwrap().0.len(), 1);
        }
    }

    /// Names are bytes to Linux: none of these is another one, and none is special.
    #[test]
    fn odd_names_are_names() {
        let odd = [
            "A",
            "a",
            "a\nb",
            "a\u{1b}[2J",
            "a\u{2028}b",
            "\u{e9}",
            "e\u{301}",
            "-rf",
            "..a",
            "...",
            "a\\b",
            " ",
            ".wh.a",
            ".wh..wh..opq",
        ];
        let context = ContextManifest::new(odd.map(file).to_vec()).unwrap();
        let paths: Vec<&str> = context.entries().iter().map(|entry| &*entry.path).collect();
        let mut sorted = odd.to_vec();
        sorted.sort_unstable();
        assert_eq!(paths, sorted);
    }

    #[test]
    fn a_path_may_stand_once_and_not_below_a_file() {
        let twice = ContextManifest::new(vec![file("a"), file("a")]);
        assert_eq!(twice, Err(InvalidContext::Duplicate("a".into())));
        let below = ContextManifest::new(vec![file("a/b"), file("a"), file("a-b")]);
        assert_eq!(below, Err(InvalidContext::BelowFile("a/b".into())));
    }

    #[test]
    fn the_stored_form_does_not_depend_on_the_order_of_the_request() {
        let one = ContextManifest::new(vec![file("a"), file("b c/ü")]).unwrap();
        let other = ContextManifest::new(vec![file("b c/ü"), file("a")]).unwrap();
        assert_eq!(one.to_stored(), other.to_stored());
        assert_eq!(one.to_stored().1.file_count, 2);
        let (bytes, _) = one.to_stored();
        assert_eq!(
            serde_json::from_slice::<ContextManifest>(&bytes).unwrap(),
            one
        );
    }
}
