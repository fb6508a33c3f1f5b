//! Settings: a TOML file, then `NULLSPACED_*` variables, then flags; the later wins.
//!
//! A key that nobody knows is an error that names it: a misspelt setting must not pass for one.

mod build_network;
mod buildkit;
pub mod builtins;
mod executor;
mod http;
mod logging;
mod overlay;
mod registry;
mod retention;
mod vmm;
mod webhooks;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use build_network::{BuildNetwork, HostFile};
pub use buildkit::{Buildkit, BuildkitDaemon};
pub use builtins::{Builtin, Builtins};
pub use executor::Executor;
pub use http::Http;
pub use logging::{Logging, LoggingFormat};
pub use overlay::{SETTINGS, Setting, SettingKind};
pub use registry::{Mirror, Registry};
pub use retention::Retention;
pub use vmm::{Accelerator, Vmm};
pub use webhooks::Webhooks;

use crate::limits::Limits;

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where everything is kept; made with mode 0700.
    pub data_dir: DataDir,
    /// The HTTP service.
    pub http: Http,
    /// Bounds of requests and connections.
    pub limits: Limits,
    /// What the service writes about itself to standard error.
    pub logging: Logging,
    /// Where base images come from.
    pub registry: Registry,
    /// The templates of the namespace `nullspace`.
    pub builtins: Builtins,
    /// What steps that may use the network get of the host.
    pub build_network: BuildNetwork,
    /// What builds Dockerfiles.
    pub buildkit: Buildkit,
    /// The worker.
    pub executor: Executor,
    /// How long what nobody points to is kept.
    pub retention: Retention,
    /// The machines.
    pub vmm: Vmm,
    /// Where events may be sent.
    pub webhooks: Webhooks,
}

/// The folder of everything that the service keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DataDir(PathBuf);

impl Default for DataDir {
    fn default() -> Self {
        Self("/var/lib/nullspaced".into())
    }
}

impl DataDir {
    /// The data folder at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The event log.
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// The views.
    pub fn views(&self) -> PathBuf {
        self.0.join("views")
    }

    /// Where views are folded once more, to be compared.
    pub fn replay(&self) -> PathBuf {
        self.0.join("views.replay")
    }

    /// What was delivered to webhooks.
    pub fn deliveries(&self) -> PathBuf {
        self.0.join("deliveries")
    }

    /// What the secrets of webhooks are made of.
    pub fn webhooks_key(&self) -> PathBuf {
        self.0.join("webhooks.key")
    }

    /// The files of contexts, by digest.
    pub fn blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }

    /// Which owner has sent which file.
    pub fn uploads(&self) -> PathBuf {
        self.0.join("uploads")
    }

    /// Folders of machines that operators resume.
    pub fn machines(&self) -> PathBuf {
        self.0.join("machines")
    }

    /// Where operator commands reach the running service.
    pub fn admin_socket(&self) -> PathBuf {
        self.0.join("admin.sock")
    }

    /// The key that was made at the first start.
    pub fn admin_key(&self) -> PathBuf {
        self.0.join("admin.key")
    }

    /// Makes the folder with mode 0700, with its parents, if it is not there.
    ///
    /// # Errors
    /// [`ConfigError::DataDir`] with the cause.
    pub fn create(&self) -> Result<(), ConfigError> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(|source| ConfigError::DataDir {
                path: self.0.clone(),
                source,
            })
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not TOML, or has an unknown key or a value of the wrong type. The source says
    /// which and where.
    #[error("the configuration file {path} is wrong")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<toml::de::Error>,
    },
    /// A variable's value is not of the setting's type.
    #[error("the variable {name} is wrong: {expected} is expected")]
    Variable {
        /// The variable.
        name: String,
        /// What would be right.
        expected: &'static str,
    },
    /// The settings together are wrong.
    #[error("the settings are wrong")]
    Settings(#[source] Box<toml::de::Error>),
    /// Two settings contradict each other, or one is out of its range.
    #[error("{setting}: {problem}")]
    Range {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The data folder cannot be made.
    #[error("cannot make the data folder {path}")]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// Settings, and what was odd about them without being wrong.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Variables that begin like ours and that nobody knows. Not an error: orchestrators add
    /// variables that are named after services.
    pub unknown_variables: Vec<String>,
}

impl Config {
    /// Reads settings from `file`, overlaid with `variables`.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file, key or variable at fault.
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let mut table = match file {
            None => toml::Table::new(),
            Some(path) => read(path)?,
        };
        let unknown_variables = overlay::apply(&mut table, variables)?;
        let config: Self = table
            .try_into()
            .map_err(|source| ConfigError::Settings(Box::new(source)))?;
        config.check()?;
        Ok(Loaded {
            config,
            unknown_variables,
        })
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// [`ConfigError::Range`], naming the setting.
    pub fn check(&self) -> Result<(), ConfigError> {
        const KEEPALIVE_MS_MAX: u64 = 10_000;
        let range = |setting, problem: &str| ConfigError::Range {
            setting,
            problem: problem.to_owned(),
        };
        if !(1..=KEEPALIVE_MS_MAX).contains(&self.limits.keepalive_ms) {
            return Err(range("limits.keepalive_ms", "must be from 1 to 10000"));
        }
        for (setting, value) in [
            ("http.workers", self.http.workers),
            (
                "limits.stream_entry_count_max",
                self.limits.stream_entry_count_max,
            ),
            ("limits.tag_count_max", self.limits.tag_count_max),
            (
                "limits.past_view_count_max",
                self.limits.past_view_count_max,
            ),
            ("limits.problem_count_max", self.limits.problem_count_max),
            (
                "limits.webhook_concurrent_count_max",
                self.limits.webhook_concurrent_count_max,
            ),
            (
                "limits.webhook_lane_count_max",
                self.limits.webhook_lane_count_max,
            ),
            (
                "limits.webhook_dead_letter_count_max",
                self.limits.webhook_dead_letter_count_max,
            ),
        ] {
            if value == 0 {
                return Err(range(setting, "must be at least 1"));
            }
        }
        self.builtins.check()?;
        self.retention.check()?;
        self.buildkit.check()?;
        self.executor.check()
    }
}

fn read(path: &Path) -> Result<toml::Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let wrong = |source| ConfigError::File {
        path: path.to_owned(),
        source: Box::new(source),
    };
    // Read into the whole type first: only then does an error know its line.
    toml::from_str::<Config>(&text).map_err(wrong)?;
    toml::from_str(&text).map_err(wrong)
}

#[cfg(test)]
mod tests;
