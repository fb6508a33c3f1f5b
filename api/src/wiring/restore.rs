//! Resuming a machine beside the service: what the operator's command needs of the worker's parts.

use std::io;

use domain::ids::ArtifactId;
use executor::artifact::{ArtifactError, ArtifactStore};
use executor::limits::artifact::ArtifactLimits;
use executor::restore::{Host, RestoreError, Restored, restore};
use executor::services::Settings;
use executor::vmm::{Vmm, VmmError};

use super::worker;
use crate::config::Config;

/// Why a machine was not resumed.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// A part is missing or cannot be used.
    #[error("machines cannot be run here; `nullspaced doctor` says what is missing")]
    Vmm(#[source] VmmError),
    /// This program does not know where it is, and so not where the guest agent is.
    #[error("cannot find the guest agent")]
    GuestAgent(#[source] io::Error),
    /// The artifact is not on this host, or damaged.
    #[error("the template's artifact cannot be used")]
    Artifact(#[source] ArtifactError),
    /// No folder for the machine.
    #[error("cannot make a folder for the machine")]
    Folder(#[source] io::Error),
    /// It did not come up.
    #[error("the machine was not resumed")]
    Restore(#[source] RestoreError),
}

/// Resumes a machine from `artifact`, runs `command` in it, and ends it.
///
/// # Errors
/// [`ResumeError`]; nothing is left running.
pub async fn resume(
    config: &Config,
    artifact: &ArtifactId,
    command: Option<&str>,
) -> Result<Restored, ResumeError> {
    let vmm_config = worker::vmm_config(config).map_err(ResumeError::GuestAgent)?;
    let vmm = Vmm::prepare(vmm_config).await.map_err(ResumeError::Vmm)?;
    let store = ArtifactStore::open(
        Settings::artifacts_dir(config.data_dir.path()),
        ArtifactLimits::default(),
    );
    let store = store.await.map_err(ResumeError::Artifact)?;
    let artifact = store.get(artifact).await.map_err(ResumeError::Artifact)?;
    // Not the worker's own work folder, which it empties when it starts.
    let work_dir = config.data_dir.machines();
    tokio::fs::create_dir_all(&work_dir)
        .await
        .map_err(ResumeError::Folder)?;
    let limits = worker::limits(config);
    let network = worker::network_access(config);
    let host = Host {
        vmm: &vmm,
        network: &network,
        limits: &limits,
        work_dir: &work_dir,
    };
    restore(host, &artifact, command)
        .await
        .map_err(ResumeError::Restore)
}
