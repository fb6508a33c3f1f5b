//! What the runtime reads and leaves for one container, and what the kernel counted for it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::account::Account;
use super::cgroup::{self, Cgroups};
use super::container::{
    BindFile, ContainerError, ContainerSpec, ContainersConfig, Exit, StepNetwork,
};
use super::identity::StepIds;
use super::mountpoints::MountPoints;
use super::network::FilteredNetwork;
use super::oci_spec::{self, Bind};
use super::running::Ended;
use super::step_root::StepRoot;
use super::view::{Ownership, View};
use crate::holdings::Thing;
use crate::limits::native::NativeLimits;

/// What all containers of a service have in common.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    /// The service's configuration.
    pub(super) config: &'a Arc<ContainersConfig>,
    /// What names of control groups begin with.
    pub(super) prefix: &'a str,
    /// Where the runtime finds the root filesystem.
    pub(super) place: &'a Arc<Path>,
    /// The last hand on the runtime's configuration.
    pub(super) finish: fn(Value) -> Value,
}

/// A container's files on the host. Must be [cleaned](Bundle::clean).
#[derive(Debug)]
pub(super) struct Bundle {
    id: String,
    folder: PathBuf,
    runtime_root: PathBuf,
    limits: NativeLimits,
    root: StepRoot,
    view: Option<View>,
    mount_points: Option<MountPoints>,
    cgroups: Cgroups,
}

impl Bundle {
    /// Where the bundles are.
    pub(super) fn dir(state_dir: &Path) -> PathBuf {
        state_dir.join("bundles")
    }

    /// Where the runtime keeps its state.
    pub(super) fn runtime_dir(state_dir: &Path) -> PathBuf {
        state_dir.join("runtime")
    }

    /// Writes what the runtime needs, and makes the places to mount on in the root filesystem.
    pub(super) async fn write(
        setting: Setting<'_>,
        spec: &ContainerSpec,
        network: Option<&FilteredNetwork>,
    ) -> Result<Self, ContainerError> {
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random)
            .map_err(|error| files("name", "folder", io::Error::other(error)))?;
        let id = format!("{}{:016x}", setting.prefix, u64::from_le_bytes(random));
        let name_server = network.map(FilteredNetwork::name_server);
        let (config, place) = (Arc::clone(setting.config), Arc::clone(setting.place));
        let (spec, finish) = (spec.clone(), setting.finish);
        let write = move || {
            let setting = Setting {
                config: &config,
                prefix: "",
                place: &place,
                finish,
            };
            Self::write_blocking(id, setting, &spec, name_server)
        };
        tokio::task::spawn_blocking(write)
            .await
            .map_err(|error| files("make", "files", io::Error::other(error)))?
    }

    fn write_blocking(
        id: String,
        setting: Setting<'_>,
        spec: &ContainerSpec,
        name_server: Option<Ipv4Addr>,
    ) -> Result<Self, ContainerError> {
        let config = setting.config;
        let view = View::open(&spec.rootfs.path())
            .map_err(|error| files("open", "root filesystem", error))?;
        let account = Account::find(&view, &spec.user, config.limits.account_file_bytes_max)
            .map_err(|source| ContainerError::User {
                user: spec.user.clone(),
                source,
            })?;
        let folder = Self::dir(&config.state_dir).join(&id);
        let mut this = Self {
            cgroups: Cgroups::named(&id),
            runtime_root: Self::runtime_dir(&config.state_dir),
            limits: config.limits,
            root: spec.rootfs.clone(),
            view: None,
            mount_points: None,
            folder,
            id,
        };
        let written = this.fill(setting, spec, name_server, &account, &view);
        this.view = Some(view);
        match written {
            Ok(()) => Ok(this),
            Err(error) => {
                // The error is the one to tell; recovery takes away what cannot be removed now.
                let _left = this.remove_files();
                Err(error)
            }
        }
    }

    fn fill(
        &mut self,
        setting: Setting<'_>,
        spec: &ContainerSpec,
        name_server: Option<Ipv4Addr>,
        account: &Account,
        view: &View,
    ) -> Result<(), ContainerError> {
        let (config, make) = (setting.config, |error| files("make", "files", error));
        std::fs::create_dir_all(&self.folder).map_err(make)?;
        std::fs::create_dir_all(&self.runtime_root).map_err(make)?;
        let mut binds = vec![
            self.own_file("hosts", "/etc/hosts", &hosts())
                .map_err(make)?,
        ];
        let mut env = BTreeMap::new();
        if let Some(address) = name_server {
            let text = format!("nameserver {address}\n");
            binds.push(
                self.own_file("resolv.conf", "/etc/resolv.conf", &text)
                    .map_err(make)?,
            );
            binds.extend(config.access.files.iter().map(bind));
            env.extend(config.access.env.clone());
        }
        env.extend(spec.env.clone());
        let dirs = oci_spec::MOUNTED_DIRS.iter().map(Path::new);
        let targets = binds.iter().map(|bind| Path::new(&bind.target));
        let ids = self.root.ids();
        let owner = ids.map_or(Ownership::ROOT, StepIds::root);
        let points = self
            .root
            .as_owner(|| MountPoints::prepare(view, owner, dirs, targets))
            .map_err(|error| files("make", "mount points", error))?;
        self.mount_points = Some(points);
        let (netns, sys) = (self.netns(), self.sys());
        let container = oci_spec::Container {
            rootfs: setting.place,
            argv: &spec.argv,
            env,
            account,
            workdir: &spec.workdir,
            network: (spec.network == StepNetwork::Internet).then_some((&netns, &sys)),
            ids: ids.map(StepIds::range),
            binds,
            cgroup: &self.id,
            memory_mib: spec.memory_mib,
            vcpus: spec.vcpus,
            swap_counted: cgroup::counts_swap(),
            limits: &self.limits,
        };
        let json = (setting.finish)(container.to_json());
        let json = serde_json::to_vec(&json).map_err(|error| make(error.into()))?;
        std::fs::write(self.folder.join("config.json"), json).map_err(make)
    }

    fn own_file(&self, name: &str, target: &str, text: &str) -> io::Result<Bind> {
        let path = self.folder.join(name);
        std::fs::write(&path, text)?;
        Ok(bind(&BindFile {
            source: path,
            target: target.into(),
        }))
    }

    /// Where the supervisor binds the network namespace for the runtime to find.
    pub(super) fn netns(&self) -> PathBuf {
        self.folder.join("netns")
    }

    /// Where the supervisor mounts the network's `/sys`.
    pub(super) fn sys(&self) -> PathBuf {
        self.folder.join("sys")
    }

    /// The container's control groups.
    pub(super) const fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// What of the container is on the host beside its processes.
    pub(super) fn things(&self) -> [Thing; 3] {
        [
            Thing::Groups(self.cgroups.name().to_owned()),
            Thing::Folder(self.folder.clone()),
            Thing::Folder(self.runtime_root.join(&self.id)),
        ]
    }

    fn log(&self) -> PathBuf {
        self.folder.join("runtime.log")
    }

    /// The runtime's command line. It keeps what it made, because it would take the kernel's count of
    /// processes killed for want of memory away with it.
    pub(super) fn command(&self, runc: &Path) -> Vec<OsString> {
        let log = self.log();
        let options = [
            runc.as_os_str(),
            "--root".as_ref(),
            self.runtime_root.as_os_str(),
            "--log".as_ref(),
            log.as_os_str(),
            "--log-format".as_ref(),
            "json".as_ref(),
            "run".as_ref(),
            "--keep".as_ref(),
            "--bundle".as_ref(),
            self.folder.as_os_str(),
            self.id.as_ref(),
        ];
        options.iter().map(|&option| option.to_owned()).collect()
    }

    /// What the end of the supervisor means.
    pub(super) async fn exit(&self, ended: Ended) -> Result<Exit, ContainerError> {
        let (log, state) = (self.log(), self.runtime_root.join(&self.id));
        let (cgroups, bytes_max) = (self.cgroups.clone(), self.limits.runtime_log_bytes_max);
        let looked = tokio::task::spawn_blocking(move || {
            let kills = cgroups.oom_kills()?;
            let refusals = cgroups.processes_refused()?;
            let message = match runtime_error(&log, bytes_max)? {
                None if !state.exists() => Some("the runtime ended without a word".to_owned()),
                message => message,
            };
            Ok::<_, io::Error>((kills, refusals, message))
        });
        let (kills, refusals, message) = looked
            .await
            .map_err(io::Error::other)
            .and_then(|looked| looked)
            .map_err(|error| files("read", "state", error))?;
        let mut exit = Exit {
            code: None,
            signal: None,
            out_of_memory: false,
            out_of_processes: false,
            disk_full: ended.disk_full,
            timed_out: ended.timed_out,
            cancelled: ended.cancelled,
        };
        if ended.killed {
            return Ok(exit);
        }
        let code = ended.code.ok_or(ContainerError::SupervisorLost)?;
        if let Some(message) = message {
            return Err(ContainerError::NotStarted(message));
        }
        exit.code = Some(code);
        exit.signal = code
            .checked_sub(128)
            .filter(|signal| (1..=64).contains(signal));
        exit.out_of_memory = kills > 0 && code != 0;
        exit.out_of_processes = refusals > 0 && code != 0;
        Ok(exit)
    }

    /// Takes everything away: control groups, runtime state, bundle, mount points.
    pub(super) async fn clean(mut self) -> Result<(), ContainerError> {
        let (wait, poll) = (self.limits.kill_wait, self.limits.poll_interval);
        let removed = self.cgroups.remove(wait, poll).await;
        let cleaned = tokio::task::spawn_blocking(move || self.remove_files())
            .await
            .map_err(io::Error::other)
            .and_then(|cleaned| cleaned);
        if !removed.map_err(|error| files("remove", "control groups", error))? {
            return Err(ContainerError::NotGone(wait.as_secs()));
        }
        cleaned.map_err(|error| files("remove", "files", error))
    }

    fn remove_files(&mut self) -> io::Result<()> {
        let points = match (self.mount_points.take(), &self.view) {
            (Some(points), Some(view)) => self.root.as_owner(|| points.clean(view)),
            _ => Ok(()),
        };
        for dir in [&self.folder, &self.runtime_root.join(&self.id)] {
            match std::fs::remove_dir_all(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        points
    }
}

impl Drop for Bundle {
    /// A run that was dropped in the middle: its processes are dying, the rest must follow.
    fn drop(&mut self) {
        if !self.folder.exists() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let (cgroups, limits) = (self.cgroups.clone(), self.limits);
        let (folder, state) = (self.folder.clone(), self.runtime_root.join(&self.id));
        let root = self.root.clone();
        let _detached = runtime.spawn(async move {
            let removed = cgroups.remove(limits.kill_wait, limits.poll_interval).await;
            if let Err(error) = removed {
                tracing::warn!(%error, "control groups of a dropped step are left for the next start");
            }
            for dir in [folder, state] {
                // The next start takes away what stays.
                let _left = tokio::fs::remove_dir_all(dir).await;
            }
            // The last hold on the files: letting them go may block.
            drop(tokio::task::spawn_blocking(move || drop(root)));
        });
    }
}

fn files(doing: &'static str, what: &'static str, source: io::Error) -> ContainerError {
    ContainerError::Files {
        doing,
        what,
        source,
    }
}

fn bind(file: &BindFile) -> Bind {
    Bind {
        source: file.source.to_string_lossy().into_owned(),
        target: file.target.to_string_lossy().into_owned(),
    }
}

fn hosts() -> String {
    format!(
        "127.0.0.1\tlocalhost {}\n::1\tlocalhost ip6-localhost\n",
        oci_spec::HOSTNAME
    )
}

/// A line of the runtime's log.
#[derive(Deserialize)]
struct LogLine {
    level: String,
    msg: String,
}

/// Why the runtime could not run the container, if its log says that it could not.
fn runtime_error(log: &Path, bytes_max: u64) -> io::Result<Option<String>> {
    use std::io::Read as _;

    let mut text = Vec::new();
    match std::fs::File::open(log) {
        Ok(file) => file.take(bytes_max).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let message = String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| serde_json::from_str::<LogLine>(line).ok())
        .filter(|line| line.level == "error" && line.msg.contains("run failed"))
        .map(|line| line.msg)
        .next_back();
    Ok(message)
}
