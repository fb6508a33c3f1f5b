//! From settings to the worker and its parts.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use executor::cache::Cache;
use executor::image::{Mirror, RegistryConfig};
use executor::limits::Limits;
use executor::native::container::{BindFile, NetworkAccess};
use executor::native::identity::IdRange;
use executor::native::network::NetworkPolicy;
use executor::services::{BuildkitConfig, OpenError, Services, Settings, Shared};
use executor::vmm::{AcceleratorChoice, VmmConfig};
use executor::worker::Worker;
use tokio::sync::watch;

use super::{Background, Foundation};
use crate::config::{Accelerator, Config, ConfigError};

/// The container runtime, looked up in the tools' path.
const RUNC: &str = "runc";

const BYTES_PER_MIB: u64 = 1024 * 1024;

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerStartError {
    /// This program does not know where it is, and so not where the guest agent is.
    #[error("cannot find the guest agent")]
    GuestAgent(#[from] io::Error),
    /// A setting is wrong.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// A part is missing or cannot be used.
    #[error("a part cannot be used; `nullspaced doctor` says what is missing")]
    Open(#[from] OpenError),
}

/// Starts the worker in the background. The receiver turns true when it is ready to build; the cache
/// is what it works with.
///
/// # Errors
/// [`WorkerStartError`].
pub(super) async fn start(
    foundation: &Foundation,
    background: &mut Background,
) -> Result<(watch::Receiver<bool>, Cache), WorkerStartError> {
    let shared = Shared {
        dispatcher: foundation.dispatcher.clone(),
        log: foundation.log.clone(),
        ids: Arc::new(foundation.ids.clone()),
        clock: Arc::clone(&foundation.clock.0),
        blobs: foundation.blobs.clone(),
        vault: foundation.vault.clone(),
    };
    let settings = settings(&foundation.config)?;
    let worker_limits = settings.limits.worker;
    let services = Services::open(shared, settings).await?;
    let cache = services.cache();
    let (worker, ready) = Worker::new(Arc::new(services), worker_limits);
    let shutdown = background.first();
    background.spawn("worker", async move {
        worker.run(shutdown).await.map_err(Into::into)
    });
    Ok((ready, cache))
}

fn settings(config: &Config) -> Result<Settings, WorkerStartError> {
    Ok(Settings {
        data_dir: config.data_dir.path().to_owned(),
        runc: RUNC.into(),
        registry: registry(config),
        buildkit: BuildkitConfig {
            buildctl: config.buildkit.buildctl.clone(),
            daemons: config.buildkit.daemons()?,
        },
        network: network_access(config),
        vmm: vmm_config(config)?,
        limits: limits(config),
    })
}

/// The worker's bounds, as far as they are set.
pub(crate) fn limits(config: &Config) -> Limits {
    let executor = &config.executor;
    let mut limits = Limits::default();
    limits.worker.concurrent_builds_max = executor.concurrent_builds;
    limits.worker.owner_concurrent_builds_max = match executor.owner_concurrent_builds {
        0 => executor.concurrent_builds,
        builds => builds,
    };
    limits.worker.build_seconds_max = executor.build_timeout_secs;
    limits.worker.step_seconds_max = executor.step_timeout_secs;
    limits.native.pids_max = executor.step_processes_max;
    limits.native.disk_bytes_max = executor.step_disk_mb_max.saturating_mul(BYTES_PER_MIB);
    let ids = limits
        .native
        .step_ids
        .filter(|_| executor.step_user_namespace);
    limits.native.step_ids = ids.map(|ids| IdRange {
        first: executor.step_first_user_id,
        ..ids
    });
    let buildkit = &config.buildkit;
    limits.buildkit.build_seconds_max = buildkit.build_seconds_max;
    limits.buildkit.probe_ms_max = buildkit.probe_ms_max;
    limits.buildkit.stop_ms_max = buildkit.stop_ms_max;
    limits.worker.layer_bytes_max = executor.layer_cache_mb_max.saturating_mul(BYTES_PER_MIB);
    limits.worker.layer_free_bytes_min = executor.free_disk_mb_min.saturating_mul(BYTES_PER_MIB);
    limits
}

fn registry(config: &Config) -> RegistryConfig {
    let mut mirrors: BTreeMap<String, Vec<Mirror>> = BTreeMap::new();
    for mirror in &config.registry.mirror {
        mirrors
            .entry(mirror.registry.clone())
            .or_default()
            .push(Mirror {
                host: mirror.host.clone(),
                plain_http: mirror.plain_http,
            });
    }
    let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    RegistryConfig {
        mirrors,
        mirrors_only: config.registry.mirrors_only,
        plain_http_hosts: config.registry.plain_http_hosts.iter().cloned().collect(),
        private_hosts: config.registry.private_hosts.iter().cloned().collect(),
        ecr_endpoint: set(&config.registry.ecr_endpoint),
        gcp_token_endpoint: set(&config.registry.gcp_token_endpoint),
    }
}

/// The machines' driver, as the settings want it.
///
/// # Errors
/// If this program does not know where it is.
pub(super) fn vmm_config(config: &Config) -> io::Result<VmmConfig> {
    let guest_agent = super::guest_agent(config)?;
    let cache_dir = Settings::vmm_cache_dir(config.data_dir.path());
    Ok(VmmConfig {
        qemu: config.vmm.qemu.clone(),
        kernel: config.vmm.kernel.clone(),
        accelerator: match config.vmm.accelerator {
            Accelerator::Auto => AcceleratorChoice::Auto,
            Accelerator::Kvm => AcceleratorChoice::Kvm,
            Accelerator::Tcg => AcceleratorChoice::Tcg,
        },
        ..VmmConfig::new(guest_agent, cache_dir)
    })
}

/// How steps and machines reach package mirrors.
pub(super) fn network_access(config: &Config) -> NetworkAccess {
    let files = config.build_network.files.iter().map(|file| BindFile {
        source: file.source.clone(),
        target: file.target.clone(),
    });
    NetworkAccess {
        env: config.build_network.env.clone(),
        files: files.collect(),
        policy: NetworkPolicy {
            allowed: config.build_network.allowed_networks.clone(),
            blocked: config.build_network.blocked_networks.clone(),
        },
    }
}
