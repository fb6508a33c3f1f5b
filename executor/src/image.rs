//! Base images: what their names mean, and how they come from registries into the layer store.
//!
//! ```text
//! ImageReference ──resolve──► ResolvedImage (digests, configuration) ──pull──► layers, bottom first
//!                                                                        │
//!     registry or mirror ──pieces──► inflate ──► unpack ──► LayerStore ──┘
//! ```
//!
//! Every digest on the way is checked: of the manifest, the configuration, each layer as transferred
//! and each layer's content. A tag is resolved once; what a build depends on is the digest.

mod blob;
mod download;
mod error;
mod manifest;
mod pull;
pub mod reference;
pub mod registry;
mod source;

pub use error::{ImageError, ImageFailure};
pub use manifest::{Healthcheck, ImageConfig, LayerDescriptor, ResolvedImage};
pub use pull::{LayerStage, PullProgress};
pub use reference::{ImageReference, InvalidReference};
pub use registry::{Credentials, Mirror, Registry, RegistryConfig};

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
