//! From what an operator types to one entry.

use domain::Digest;
use domain::ids::ArtifactId;

use super::{CacheDesk, CacheError};
use crate::wire::cache::Kind;

/// How many keys an error shows.
const EXAMPLES: usize = 2;

/// An entry, by its whole key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    Layer(Digest),
    Artifact(ArtifactId),
    Blob(Digest),
}

impl Entry {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Layer(_) => Kind::Layer,
            Self::Artifact(_) => Kind::Artifact,
            Self::Blob(_) => Kind::Blob,
        }
    }

    pub(super) fn key(&self) -> String {
        match self {
            Self::Layer(digest) | Self::Blob(digest) => digest.to_string(),
            Self::Artifact(id) => id.to_string(),
        }
    }
}

/// The hex digits that a key may begin with, and what it must be because it says so.
pub(super) fn spelled(key: &str) -> (&str, Option<Kind>) {
    for (prefix, kind) in [
        ("sha256:", None),
        ("art_", Some(Kind::Artifact)),
        ("blob_", Some(Kind::Blob)),
    ] {
        if let Some(rest) = key.strip_prefix(prefix) {
            return (rest, kind);
        }
    }
    (key, None)
}

impl CacheDesk {
    /// The entry whose key is `key` or begins with it; a finished build's key means its artifact.
    pub(super) async fn find(
        &self,
        key: &str,
        kind: Option<Kind>,
    ) -> Result<Option<Entry>, CacheError> {
        let (hex, said) = spelled(key.trim());
        if hex.is_empty() {
            return Err(CacheError::NoKey);
        }
        let wanted =
            |one: Kind| kind.is_none_or(|kind| kind == one) && said.is_none_or(|kind| kind == one);
        let mut found = Vec::new();
        if wanted(Kind::Layer) {
            let layers = self.cache.layers.clone();
            let layers = tokio::task::spawn_blocking(move || layers.list()).await?;
            let layers = layers.into_iter().map(|layer| layer.key);
            let layers = layers.filter(|key| key.hex().starts_with(hex));
            found.extend(layers.map(Entry::Layer));
        }
        if wanted(Kind::Artifact) {
            let ids = self.cache.artifacts.list().await?;
            let named = |id: &ArtifactId| spelled(id.as_str()).0.starts_with(hex);
            found.extend(
                ids.iter()
                    .filter(|id| named(id))
                    .cloned()
                    .map(Entry::Artifact),
            );
            let links = self.cache.artifacts.links().await?.into_iter();
            let linked = links.filter(|(key, id)| key.hex().starts_with(hex) && ids.contains(id));
            found.extend(linked.map(|(_, id)| Entry::Artifact(id)));
        }
        if wanted(Kind::Blob) {
            let blobs = self.blobs.list().await?.into_iter().map(|blob| blob.digest);
            let blobs = blobs.filter(|digest| digest.hex().starts_with(hex));
            found.extend(blobs.map(Entry::Blob));
        }
        found.sort_unstable();
        found.dedup();
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            many => Err(CacheError::Ambiguous {
                key: key.to_owned(),
                count: many.len(),
                examples: many
                    .iter()
                    .take(EXAMPLES)
                    .map(|entry| format!("{} {}", entry.kind().as_str(), entry.key()))
                    .collect(),
            }),
        }
    }
}
