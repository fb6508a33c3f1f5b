//! What every build of this process uses: the log, the stores, the tools.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildkit::daemon::{DaemonConfig, Pool};
use commands::blobs::BlobStore;
use commands::dispatch::Dispatcher;
use commands::ids::IdSource;
use commands::log::AnyLog;
use domain::build::Aftermath;
use domain::ports::Clock;
use tokio::time::Instant;

use crate::artifact::{ArtifactError, ArtifactStore};
use crate::cache::Cache;
use crate::image::{ImageError, Registry, RegistryConfig};
use crate::layers::{LayerStore, StoreError};
use crate::limits::Limits;
use crate::native::builder::unmount_left;
use crate::native::container::{ContainerError, Containers, ContainersConfig, NetworkAccess};
use crate::report::millis;
use crate::vault::Vault;
use crate::vmm::{Vmm, VmmConfig, VmmError};

/// What a start takes away of earlier processes; it fails if it cannot.
const SWEPT: [&str; 4] = [
    "control groups of step containers",
    "files of step containers",
    "mounts and folders of builds",
    "half-made layers and artifacts",
];

/// What every build of this process uses. One value, shared.
pub struct Services {
    /// Where outcomes are reported.
    pub dispatcher: Dispatcher,
    /// Where builds are read from.
    pub log: AnyLog,
    /// Where ids come from.
    pub ids: Arc<IdSource>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Base images.
    pub registry: Registry,
    /// Secret values of builds that are not over.
    pub vault: Vault,
    /// What steps changed.
    pub layers: LayerStore,
    /// Step containers.
    pub containers: Containers,
    /// The daemons that build Dockerfiles.
    pub buildkit: Pool,
    /// How networked steps and machines reach the outside.
    pub network: NetworkAccess,
    /// Machines.
    pub vmm: Vmm,
    /// Finished templates.
    pub artifacts: ArtifactStore,
    /// Files of contexts.
    pub blobs: BlobStore,
    /// Where builds put what they throw away; on the filesystem of the stores.
    pub work_dir: WorkDir,
    /// What of attempts of earlier processes was looked for at this start, and is gone.
    pub swept: Aftermath,
    /// Bounds.
    pub limits: Limits,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Services")
            .field("work_dir", &self.work_dir)
            .finish_non_exhaustive()
    }
}

/// BuildKit's client and its daemons.
#[derive(Clone, Debug)]
pub struct BuildkitConfig {
    /// The client, by path or by name.
    pub buildctl: PathBuf,
    /// The daemons, in order of preference. All of them belong to the same tenants: what one has pulled
    /// for a build, it holds.
    pub daemons: Vec<DaemonConfig>,
}

/// Where the parts are, and how they are set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of layers, artifacts and everything else that the worker keeps.
    pub data_dir: PathBuf,
    /// The OCI runtime, by path or by name.
    pub runc: PathBuf,
    /// Where base images come from.
    pub registry: RegistryConfig,
    /// What builds Dockerfiles.
    pub buildkit: BuildkitConfig,
    /// How networked steps and machines reach the outside.
    pub network: NetworkAccess,
    /// The VMM; its cache folder is below the data folder.
    pub vmm: VmmConfig,
    /// Bounds.
    pub limits: Limits,
}

impl Settings {
    /// The folder of finished templates in `data_dir`.
    pub fn artifacts_dir(data_dir: &Path) -> PathBuf {
        data_dir.join("artifacts")
    }

    /// The folder of layers in `data_dir`.
    pub fn layers_dir(data_dir: &Path) -> PathBuf {
        data_dir.join("layers")
    }

    /// The folder of what is made once for the VMM in `data_dir`.
    pub fn vmm_cache_dir(data_dir: &Path) -> PathBuf {
        data_dir.join("vmm")
    }
}

/// Why the worker's parts could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A folder cannot be used.
    #[error("cannot use the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The layer store cannot be opened.
    #[error("cannot open the layer store")]
    Layers(#[from] StoreError),
    /// The artifact store cannot be opened.
    #[error("cannot open the artifact store")]
    Artifacts(#[from] ArtifactError),
    /// The registry's settings are wrong.
    #[error("the registry's settings cannot be used")]
    Registry(#[from] Box<ImageError>),
    /// Step containers cannot be run.
    #[error("cannot prepare step containers")]
    Containers(#[from] ContainerError),
    /// Machines cannot be run.
    #[error("cannot prepare machines")]
    Vmm(#[from] VmmError),
}

/// What the worker shares with the rest of the service.
#[derive(Clone)]
pub struct Shared {
    /// Where outcomes are reported.
    pub dispatcher: Dispatcher,
    /// Where builds are read from.
    pub log: AnyLog,
    /// Where ids come from.
    pub ids: Arc<IdSource>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Files of contexts.
    pub blobs: BlobStore,
    /// Secret values of builds that are not over.
    pub vault: Vault,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Services {
    /// What is kept to be used again.
    pub fn cache(&self) -> Cache {
        Cache {
            layers: self.layers.clone(),
            artifacts: self.artifacts.clone(),
        }
    }

    /// Opens the stores, prepares the tools, and removes what an earlier process left behind.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(shared: Shared, settings: Settings) -> Result<Self, OpenError> {
        let Settings {
            data_dir,
            runc,
            registry,
            buildkit,
            network,
            vmm,
            limits,
        } = settings;
        let began = Instant::now();
        let containers = Containers::new(ContainersConfig {
            runc,
            state_dir: data_dir.join("containers"),
            access: network.clone(),
            limits: limits.native,
        })?;
        // First of all: what still runs may hold folders that are emptied next.
        let recovered = containers.recover().await?;
        tracing::debug!(?recovered, "step containers of an earlier process are gone");
        let work = data_dir.join("work");
        let layers = Settings::layers_dir(&data_dir);
        let layer_limits = limits.layers.clone();
        let (work_dir, layers) = tokio::task::spawn_blocking(move || {
            let work_dir = WorkDir::open(work.clone())
                .map_err(|source| OpenError::Folder { path: work, source })?;
            let layers = LayerStore::open(layers, layer_limits)?;
            Ok::<_, OpenError>((work_dir, layers))
        })
        .await
        .map_err(|error| OpenError::Folder {
            path: data_dir.clone(),
            source: std::io::Error::other(error),
        })??;
        let artifacts =
            ArtifactStore::open(Settings::artifacts_dir(&data_dir), limits.artifact).await?;
        let Cache { layers, artifacts } = Cache::over(layers, artifacts).await?;
        let vmm = Vmm::prepare(vmm).await?;
        if let Some(warning) = vmm.accelerator_warning() {
            tracing::warn!("{warning}");
        }
        Ok(Self {
            dispatcher: shared.dispatcher,
            log: shared.log,
            ids: shared.ids,
            clock: Arc::clone(&shared.clock),
            registry: Registry::new(registry, limits.image.clone(), Arc::clone(&shared.clock))
                .map_err(Box::new)?,
            layers,
            containers,
            buildkit: Pool::new(buildkit.buildctl, buildkit.daemons, limits.buildkit.clone()),
            network,
            vmm,
            artifacts,
            blobs: shared.blobs,
            vault: shared.vault,
            work_dir,
            swept: Aftermath {
                gone: SWEPT.map(str::to_owned).to_vec(),
                left: Vec::new(),
                took_ms: millis(began.into_std()),
            },
            limits,
        })
    }
}

/// A folder for what is thrown away, emptied when it is opened.
#[derive(Clone, Debug)]
pub struct WorkDir(PathBuf);

impl WorkDir {
    /// Opens the folder and removes what an earlier process left in it, mounts included: those of
    /// a process that was killed stay behind. Blocking.
    ///
    /// # Errors
    /// The file operation's.
    pub fn open(path: PathBuf) -> std::io::Result<Self> {
        unmount_left(&path)?;
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// A new folder that goes away with the value. Blocking, briefly.
    ///
    /// # Errors
    /// The file operation's.
    pub fn scratch(&self, purpose: &str) -> std::io::Result<tempfile::TempDir> {
        tempfile::Builder::new().prefix(purpose).tempdir_in(&self.0)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_work_folder_is_emptied_of_mounts_too() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("work");
        let scratch = WorkDir::open(path.clone())
            .unwrap()
            .scratch("view-")
            .unwrap()
            .keep();
        rustix::mount::mount(
            "tmpfs",
            &scratch,
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            None,
        )
        .unwrap();
        std::fs::write(scratch.join("file"), "left").unwrap();
        let again = WorkDir::open(path).unwrap();
        assert_eq!(std::fs::read_dir(again.path()).unwrap().count(), 0);
    }
}
