//! Resuming a machine from a finished template, on a host that has its artifact.

use std::path::Path;
use std::time::Duration;

use domain::build::VmmIdentity;
use serde::Serialize;

use crate::artifact::{Artifact, ArtifactError, Part, Runtime};
use crate::holdings::Holdings;
use crate::limits::Limits;
use crate::native::container::NetworkAccess;
use crate::native::network::{FilteredNetwork, NetworkError};
use crate::pipeline;
use crate::vmm::{
    ExecRequest, Machine, MachineNetwork, MachineSpec, OutputStream, SnapshotFiles, Vmm, VmmError,
};

/// What a resumed machine did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The artifact.
    pub artifact_id: String,
    /// From the start of the VMM to the agent's first answer, in milliseconds.
    pub boot_to_agent_ms: u64,
    /// The size of the disk, as the guest sees it, in bytes.
    pub disk_bytes: u64,
    /// What is usable of it for files, in bytes.
    pub disk_usable_bytes: u64,
    /// Processors and memory, and how they are run.
    pub machine: String,
    /// What the command wrote to its standard output, if one was run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// What it wrote to its standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// Its exit code; 128 and the signal if one killed it, 124 if its time was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How long it ran, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_ms: Option<u64>,
}

/// Why a template could not be resumed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The artifact cannot be used.
    #[error("the template's artifact cannot be used")]
    Artifact(#[from] ArtifactError),
    /// The snapshot was made by another VMM, kernel or agent.
    #[error(
        "the snapshot does not restore on this host: {difference}; build the template again here \
         (its root filesystem is portable, its memory is not)"
    )]
    Incompatible {
        /// What differs.
        difference: String,
    },
    /// There is no network for it.
    #[error("the machine's network could not be made")]
    Network(#[from] NetworkError),
    /// The machine failed.
    #[error("the machine could not be resumed")]
    Machine(#[from] VmmError),
    /// No folder for the run.
    #[error("no folder for the machine's run could be made")]
    Folder(#[source] std::io::Error),
}

/// What a restore needs besides the artifact.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// The VMM.
    pub vmm: &'a Vmm,
    /// Exceptions of the network's filter.
    pub network: &'a NetworkAccess,
    /// Bounds.
    pub limits: &'a Limits,
    /// Where the run's folder is made.
    pub work_dir: &'a Path,
}

/// Resumes a machine from `artifact`, runs `command` in it by `/bin/sh -c` as the template's user
/// in its folder and environment, and ends the machine.
///
/// # Errors
/// [`RestoreError`]; nothing is left running.
pub async fn restore(
    host: Host<'_>,
    artifact: &Artifact,
    command: Option<&str>,
) -> Result<Restored, RestoreError> {
    let manifest = &artifact.manifest;
    if let Some(difference) = difference(&pipeline::identity(host.vmm.identity()), &manifest.vmm) {
        return Err(RestoreError::Incompatible { difference });
    }
    let folder = tempfile::Builder::new()
        .prefix("restore-")
        .tempdir_in(host.work_dir)
        .map_err(RestoreError::Folder)?;
    let network = if manifest.machine.network {
        Some(
            FilteredNetwork::create(
                &host.network.policy,
                &host.limits.native,
                &Holdings::default(),
            )
            .await?,
        )
    } else {
        None
    };
    let namespace = network
        .as_ref()
        .map_or(MachineNetwork::None, FilteredNetwork::for_machine);
    let spec = MachineSpec {
        vcpus: manifest.machine.vcpus,
        memory_mib: u32::try_from(manifest.machine.memory_mib).unwrap_or(u32::MAX),
        hostname: manifest.machine.hostname.clone(),
        network: namespace,
    };
    let files = SnapshotFiles {
        memory: artifact.path(Part::Memory),
        device_state: artifact.path(Part::DeviceState),
        disk: artifact.path(Part::Rootfs),
    };
    let machine = host.vmm.restore(&spec, &files, folder.path()).await?;
    let restored = use_machine(&machine, artifact, command, host.limits).await;
    let ended = machine.kill().await;
    if let Some(network) = network {
        network.close().await;
    }
    let restored = restored?;
    ended?;
    Ok(restored)
}

async fn use_machine(
    machine: &Machine,
    artifact: &Artifact,
    command: Option<&str>,
    limits: &Limits,
) -> Result<Restored, RestoreError> {
    let disk = machine.disk().await?;
    let mut restored = Restored {
        artifact_id: artifact.id().to_string(),
        boot_to_agent_ms: machine.boot_ms(),
        disk_bytes: disk.device_bytes,
        disk_usable_bytes: disk.usable_bytes,
        machine: format!(
            "{} vCPU, {} MiB",
            machine.spec().vcpus,
            machine.spec().memory_mib
        ),
        stdout: None,
        stderr: None,
        exit_code: None,
        exec_ms: None,
    };
    let Some(command) = command else {
        return Ok(restored);
    };
    let runtime: &Runtime = &artifact.manifest.runtime;
    let deadline = Duration::from_secs(limits.worker.exec_seconds_max);
    let request = ExecRequest {
        argv: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
        env: runtime.env.clone().into_iter().collect(),
        user: runtime.user.clone(),
        cwd: runtime.workdir.clone(),
        deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
    };
    let since = std::time::Instant::now();
    let bytes_max = limits.worker.exec_output_bytes_max;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let exit = machine
        .exec(&request, |stream, bytes| {
            let kept = match stream {
                OutputStream::Stdout => &mut stdout,
                OutputStream::Stderr => &mut stderr,
            };
            let room = bytes_max.saturating_sub(kept.len());
            kept.extend(bytes.iter().take(room));
        })
        .await?;
    restored.exec_ms = Some(crate::report::millis(since));
    restored.stdout = Some(String::from_utf8_lossy(&stdout).into_owned());
    restored.stderr = Some(String::from_utf8_lossy(&stderr).into_owned());
    restored.exit_code = Some(exit.shell_code());
    Ok(restored)
}

/// The first thing in which two identities differ.
fn difference(here: &VmmIdentity, there: &VmmIdentity) -> Option<String> {
    let VmmIdentity {
        kind,
        version,
        accelerator,
        cpu_model,
        machine,
        kernel_digest,
        agent_digest,
    } = here;
    let pairs = [
        ("VMM", kind.clone(), there.kind.clone()),
        ("VMM version", version.clone(), there.version.clone()),
        (
            "accelerator",
            accelerator.clone(),
            there.accelerator.clone(),
        ),
        (
            "processor model",
            cpu_model.clone(),
            there.cpu_model.clone(),
        ),
        ("machine", machine.clone(), there.machine.clone()),
        (
            "guest kernel",
            kernel_digest.to_string(),
            there.kernel_digest.to_string(),
        ),
        (
            "guest agent",
            agent_digest.to_string(),
            there.agent_digest.to_string(),
        ),
    ];
    pairs
        .into_iter()
        .find(|(_, here, there)| here != there)
        .map(|(what, here, there)| format!("its {what} was `{there}`, here it is `{here}`"))
}
