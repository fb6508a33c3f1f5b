//! Every bound of the worker, with its unit. The service's settings reach those of the worker itself
//! that an operator sizes a host by; the others are set in code.

pub mod artifact;
pub mod layers;
pub mod native;
pub mod output;
pub mod rootfs;
pub mod secrets;
pub mod vault;
pub mod vmm;
pub mod worker;

pub use buildkit::BuildkitLimits;
pub use worker::WorkerLimits;

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The worker itself.
    pub worker: WorkerLimits,
    /// Log lines.
    pub output: output::OutputLimits,
    /// Pulls.
    pub image: layers::ImageLimits,
    /// The layer store.
    pub layers: layers::LayerLimits,
    /// Artifacts.
    pub artifact: artifact::ArtifactLimits,
    /// Step containers.
    pub native: native::NativeLimits,
    /// Root filesystems.
    pub rootfs: rootfs::RootfsLimits,
    /// Builds of Dockerfiles.
    pub buildkit: BuildkitLimits,
    /// What keeps secret values out of logs and results.
    pub secrets: secrets::SecretLimits,
}
