//! Layers: folders of changed files, keyed by what made them, that overlayfs merges into a tree.
//!
//! ```text
//! archive ──Archive──► entries ──unpack──► Tree ──► a layer's folder ──┐
//!                                   ▲                                  ├─ LayerStore ──► OverlayMount
//!                                   └── Lowers: the layers beneath     │
//! a container step ──────────────────────────► its upper folder ───────┘
//! ```
//!
//! A layer's folder is what overlayfs calls a layer: a removed name is a character device 0:0, a
//! folder that hides what is beneath it has the attribute `trusted.overlay.opaque`. The unpacker
//! translates the `.wh.` names of image archives into these.
//!
//! This module knows nothing of registries, steps and builds.

mod archive;
mod archive_extensions;
mod archive_fields;
mod attributes;
#[cfg(test)]
mod corpus;
mod lowers;
pub mod overlay;
pub mod recipe;
pub(crate) mod remove;
#[cfg(test)]
pub(crate) mod sample;
pub mod store;
mod tree;
pub mod unpack;

use domain::Digest;

pub use overlay::{OverlayError, OverlayMount};
pub use recipe::{Listed, Listing, Recipe, Role, Value};
pub use store::{
    BuildError, Evicted, Layer, LayerStore, Place, Provenance, Recipes, Refused, Staging,
    StoreError, StoredLayer,
};
pub use unpack::{UnpackError, Unpacked, unpack};

/// The key of an image's layer: the digest of its content and of all content beneath it.
///
/// This is the `ChainID` of the OCI image specification. The content digest (`diff_id`) alone would
/// not do: folders that an archive names only as parts of longer paths get their owner and mode from
/// the layers beneath, so one archive unpacks differently on different bases.
///
/// `parent` is the key of the layer beneath, `None` for the lowest.
pub fn chain_key(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
    match parent {
        None => *diff_id,
        Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
    }
}
