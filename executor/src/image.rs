//! Base images: what their names mean, and how they come from registries into the layer store.
//!
//! ```text
//! ImageReference ──resolve──► ResolvedImage (digests, configuration) ──pull──► layers, bottom first
//!                                                                        │
//!     registry or mirror ──pieces──► inflate ──► unpack ──► LayerStore ──┘
//!     LayoutImage (a folder) ─────────┘
//! ```
//!
//! Every digest on the way is checked: of the manifest, the configuration, each layer as transferred
//! and each layer's content. A manifest is asked for each time, with the credentials of whoever asks:
//! that its layers are in the store opens it to nobody. A tag is resolved once; what a build depends on is the digest.

mod blob;
mod bring;
mod challenge;
mod credentials;
mod download;
pub mod ecr;
mod error;
pub mod gcp;
mod layout;
mod manifest;
mod pull;
pub mod reference;
pub mod registry;
mod resolve;
mod source;
mod wire;

pub use bring::{Inspect, LayerStage, PullProgress};
pub use credentials::{Credentials, Password, WrongRegistry};
pub use error::{ImageError, ImageFailure};
pub use layout::LayoutImage;
pub use manifest::{Healthcheck, ImageConfig, LayerDescriptor, ResolvedImage};
pub use reference::{ImageName, ImageReference, InvalidReference};
pub use registry::{Mirror, Registry, RegistryConfig};

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
