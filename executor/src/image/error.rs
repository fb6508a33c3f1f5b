//! Why an image could not be had, and what that means for its build.

use std::time::Duration;

use domain::Digest;

use super::reference::{ImageName, ImageReference, InvalidReference};
use crate::guard::AddressRefused;
use crate::layers::{StoreError, UnpackError};

/// What a failure means for the build that wanted the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFailure {
    /// The name is no image name.
    BadReference,
    /// The image exists for other platforms only.
    UnsupportedPlatform,
    /// The image is damaged, contradicts itself or asks for what no image may do.
    Unsafe,
    /// The registry wants other credentials.
    Unauthorized,
    /// The registry has no such image.
    NotFound,
    /// Its name leads where this service does not go.
    ForbiddenAddress,
    /// The registry could not be reached or failed; another attempt may succeed.
    Pull,
    /// The worker's disk is full.
    DiskFull,
}

/// Why an image could not be resolved or pulled.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name is no image name.
    #[error("`{text}` is not an image reference")]
    BadReference {
        /// The name as given.
        text: String,
        /// What is wrong with it.
        source: InvalidReference,
    },
    /// The image exists for other platforms only.
    #[error("{image} is not available for linux/amd64; it offers: {offered}")]
    UnsupportedPlatform {
        /// The image.
        image: ImageName,
        /// The platforms that it offers.
        offered: String,
    },
    /// The registry has no such image.
    #[error("image `{image}` was not found at registry `{registry}`")]
    NotFound {
        /// The image.
        image: ImageReference,
        /// The host that was asked last.
        registry: String,
    },
    /// The registry does not serve the image to these credentials. Some registries answer so for
    /// images that do not exist.
    #[error(
        "registry `{registry}` refuses the given credentials for image `{image}`: they are mistaken, may not pull it, or it does not exist"
    )]
    Unauthorized {
        /// The image.
        image: ImageReference,
        /// The host that was asked last.
        registry: String,
    },
    /// The registry does not serve the image to somebody without credentials.
    #[error(
        "registry `{registry}` does not show image `{image}` to everyone: it does not exist, or is private and needs credentials (`base_image_auth`; in the client, a user name and a password for the image)"
    )]
    NeedsCredentials {
        /// The image.
        image: ImageReference,
        /// The host that was asked last.
        registry: String,
    },
    /// The credentials could not be exchanged for what the registry takes.
    #[error("no credentials for image `{image}` at registry `{registry}`: {what}")]
    Exchange {
        /// The image.
        image: ImageReference,
        /// The host that was asked last.
        registry: String,
        /// Why.
        what: String,
    },
    /// The image's name, or a host on the way to it, leads to an address that is not public.
    #[error(
        "image `{image}` is not asked for at `{registry}`: an operator can allow such a host by the setting `registry.private_hosts`"
    )]
    Address {
        /// The image.
        image: ImageReference,
        /// The host that was asked last.
        registry: String,
        /// Where it leads.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry could not be reached or failed.
    #[error("image `{image}` could not be pulled from registry `{registry}`")]
    Pull {
        /// The image.
        image: ImageReference,
        /// The host that was asked last.
        registry: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A manifest or a configuration cannot be used.
    #[error("{image} is refused: {what}")]
    Refused {
        /// The image.
        image: ImageName,
        /// What is wrong.
        what: String,
    },
    /// What was received is not what was asked for.
    #[error("{image} is refused: {what} should have digest {expected} and has {actual}")]
    DigestMismatch {
        /// The image.
        image: ImageName,
        /// Which part of it.
        what: &'static str,
        /// The digest it was asked for by.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// A layer cannot be unpacked.
    #[error("{image}: layer {layer} cannot be unpacked")]
    Layer {
        /// The image.
        image: ImageName,
        /// The layer's digest as transferred.
        layer: Digest,
        /// The cause.
        source: UnpackError,
    },
    /// Whoever looked at a layer before it was kept has something against it, and knows what.
    #[error("{image}: layer {layer} is not to be kept")]
    Rejected {
        /// The image.
        image: ImageName,
        /// The layer's digest as transferred.
        layer: Digest,
    },
    /// The layer store failed.
    #[error("{image}: a layer cannot be kept")]
    Store {
        /// The image.
        image: ImageName,
        /// The cause.
        source: StoreError,
    },
    /// A file of an image that is in a folder cannot be read.
    #[error("{image}: cannot read `{file}`")]
    Folder {
        /// The image.
        image: ImageName,
        /// The file.
        file: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The HTTP client could not be set up.
    #[error("the registry client cannot be set up")]
    Client {
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ImageError {
    /// What the failure means for the build.
    pub fn reason(&self) -> ImageFailure {
        match self {
            Self::BadReference { .. } => ImageFailure::BadReference,
            Self::UnsupportedPlatform { .. } => ImageFailure::UnsupportedPlatform,
            Self::NotFound { .. } => ImageFailure::NotFound,
            Self::Unauthorized { .. } | Self::NeedsCredentials { .. } | Self::Exchange { .. } => {
                ImageFailure::Unauthorized
            }
            Self::Address { .. } => ImageFailure::ForbiddenAddress,
            Self::Refused { .. } | Self::DigestMismatch { .. } | Self::Rejected { .. } => {
                ImageFailure::Unsafe
            }
            Self::Layer { source, .. } if source.is_disk_full() => ImageFailure::DiskFull,
            Self::Layer { source, .. } => match source {
                // The file's name or the disk's state: neither is the image's word against itself,
                // but names that no filesystem takes come back at every attempt.
                UnpackError::Write { source, .. } if is_host_fault(source) => ImageFailure::Pull,
                UnpackError::LowersLost => ImageFailure::Pull,
                UnpackError::Read { .. }
                | UnpackError::Malformed { .. }
                | UnpackError::Unsupported { .. }
                | UnpackError::Refused { .. }
                | UnpackError::TooLarge { .. }
                | UnpackError::Write { .. } => ImageFailure::Unsafe,
            },
            Self::Store { source, .. } if source.is_disk_full() => ImageFailure::DiskFull,
            Self::Pull { .. } | Self::Client { .. } | Self::Store { .. } | Self::Folder { .. } => {
                ImageFailure::Pull
            }
        }
    }
}

/// Checks that a part of an image is what was asked for.
pub(super) fn check(
    image: &ImageName,
    what: &'static str,
    expected: Digest,
    actual: Digest,
) -> Result<(), ImageError> {
    if expected == actual {
        return Ok(());
    }
    Err(ImageError::DigestMismatch {
        image: image.clone(),
        what,
        expected,
        actual,
    })
}

/// Whether a failed write says something about this host rather than about what was written.
fn is_host_fault(error: &std::io::Error) -> bool {
    let errno = error
        .raw_os_error()
        .map(rustix::io::Errno::from_raw_os_error);
    matches!(
        errno,
        Some(
            rustix::io::Errno::IO
                | rustix::io::Errno::ROFS
                | rustix::io::Errno::MFILE
                | rustix::io::Errno::NFILE
                | rustix::io::Errno::NOMEM
        )
    )
}

/// How a host's answer is acted on.
#[derive(Debug)]
pub(super) enum Answer {
    NotFound,
    Unauthorized,
    /// Worth another attempt.
    Failed {
        source: Box<dyn std::error::Error + Send + Sync>,
        /// How long the host asks to be left alone.
        wait: Option<Duration>,
    },
    /// Not an answer that another attempt would change.
    Final(String),
    /// Not what was asked for, and it will not be.
    Refused(String),
    /// The credentials could not be exchanged.
    Exchange(String),
    /// It leads to an address that is not public.
    Address(AddressRefused),
}

impl Answer {
    /// Something that may go better the next time.
    pub(super) fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed {
            source: source.into(),
            wait: None,
        }
    }
}
