//! From files to a running machine: booted from its disk, or restored from a snapshot.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::agent::Agent;
use super::config::{MachineNetwork, MachineSpec, SnapshotFiles};
use super::error::{VmmError, blocking};
use super::identity::Accelerator;
use super::launch::{Launch, launch};
use super::machine::Machine;
use super::prepare::Vmm;
use super::qemu::{self, Boot, Channels, Disk, Memory};
use super::qmp::Qmp;
use super::tail::Tail;
use super::{overlay, private_memory};
use crate::limits::vmm::VmmLimits;

/// The name of the memory file in a machine's folder.
pub(super) const MEMORY_FILE: &str = "memory";
const OVERLAY_FILE: &str = "overlay.qcow2";

/// Descriptors that a QEMU is to inherit, in the order in which they were added.
#[derive(Debug, Default)]
struct Inherited(Vec<OwnedFd>);

impl Inherited {
    fn add(&mut self, fd: impl Into<OwnedFd>) -> RawFd {
        let fd = fd.into();
        let number = fd.as_raw_fd();
        self.0.push(fd);
        number
    }
}

/// Our ends of a machine's sockets.
struct Ends {
    monitor: UnixStream,
    agent: UnixStream,
    console: UnixStream,
}

fn sockets(inherited: &mut Inherited) -> Result<(Channels, Ends), VmmError> {
    let mut pair = || {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok::<_, io::Error>((ours, inherited.add(theirs)))
    };
    let all = (|| Ok::<_, io::Error>((pair()?, pair()?, pair()?)))();
    let ((monitor, monitor_fd), (agent, agent_fd), (console, console_fd)) =
        all.map_err(VmmError::system("make a pair of sockets"))?;
    let channels = Channels {
        monitor: monitor_fd,
        agent: agent_fd,
        console: console_fd,
    };
    let ends = Ends {
        monitor,
        agent,
        console,
    };
    Ok((channels, ends))
}

fn open(path: &Path) -> Result<File, VmmError> {
    File::open(path).map_err(VmmError::file("open", path))
}

fn open_for_writing(path: &Path) -> Result<File, VmmError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(VmmError::file("open for writing", path))
}

/// The size of a disk image, which a block device can only have in whole sectors.
fn disk_bytes(disk: &File, path: &Path) -> Result<u64, VmmError> {
    let bytes = disk
        .metadata()
        .map_err(VmmError::file("look at", path))?
        .len();
    if bytes == 0 || !bytes.is_multiple_of(512) {
        return Err(VmmError::Spec {
            complaint: format!(
                "the disk image {} of {bytes} bytes is not a number of sectors",
                path.display()
            ),
        });
    }
    Ok(bytes)
}

/// Makes the file that is the memory of a machine; only QEMU's user may open it.
fn create_memory(path: &Path, bytes: u64, uid: u32) -> Result<File, VmmError> {
    let create = || {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.set_len(bytes)?;
        fchown(&file, Some(uid), Some(uid))?;
        Ok(file)
    };
    create().map_err(VmmError::file("make the memory file", path))
}

/// What is opened before a machine is started.
struct Opened {
    inherited: Inherited,
    disk: Disk,
    boot: Option<Boot>,
    namespace: Option<File>,
    /// The memory file of a boot, by its number.
    memory: Option<RawFd>,
    /// The memory file of a snapshot.
    snapshot_memory: Option<File>,
    /// The device state of a snapshot, by its number.
    device_state: Option<RawFd>,
}

fn open_namespace(network: &MachineNetwork) -> Result<Option<File>, VmmError> {
    match network {
        MachineNetwork::None => Ok(None),
        MachineNetwork::Namespace { path, .. } => open(path).map(Some),
    }
}

impl Vmm {
    /// Boots the raw ext4 image `disk`, which is written in place.
    ///
    /// `dir` is a folder of this machine alone; the machine leaves files in it that are of no use
    /// after its end. The agent has answered when this returns.
    ///
    /// # Errors
    /// [`VmmError::Spec`] for an impossible shape, [`VmmError::File`] for files that cannot be
    /// used; [`VmmError::Ended`] or [`VmmError::Deadline`], with the end of the console, if the
    /// machine does not come up.
    pub async fn boot(
        &self,
        spec: &MachineSpec,
        disk: &Path,
        dir: &Path,
    ) -> Result<Machine, VmmError> {
        let limits = &self.parts.config.limits;
        spec.check(limits)?;
        let opened = {
            let (vmm, spec) = (self.clone(), spec.clone());
            let (disk, memory) = (disk.to_owned(), dir.join(MEMORY_FILE));
            blocking(move || vmm.open_for_boot(&spec, &disk, &memory)).await?
        };
        let deadline = VmmLimits::seconds(match self.parts.chosen.accelerator {
            Accelerator::Kvm => limits.boot_virtualised_seconds_max,
            Accelerator::Tcg => limits.boot_emulated_seconds_max,
        });
        let begun = Instant::now();
        let mut machine = self.start(spec, opened, dir, deadline).await?;
        machine.keep_memory(dir.join(MEMORY_FILE));
        machine.settle("boot", begun, deadline).await?;
        Ok(machine)
    }

    /// Restores a machine from a snapshot whose files are only read; any number may be restored.
    ///
    /// Its changes go to an overlay in `dir`, a folder of this machine alone. No process of the
    /// machine runs before it has fresh entropy, the right time and its own name.
    ///
    /// # Errors
    /// As [`Vmm::boot`]; [`VmmError::Spec`] also if `spec` is not the shape of the snapshot.
    pub async fn restore(
        &self,
        spec: &MachineSpec,
        snapshot: &SnapshotFiles,
        dir: &Path,
    ) -> Result<Machine, VmmError> {
        let config = &self.parts.config;
        spec.check(&config.limits)?;
        let deadline = VmmLimits::seconds(config.limits.restore_seconds_max);
        let begun = Instant::now();
        let disk = {
            let path = snapshot.disk.clone();
            blocking(move || open(&path)).await?
        };
        let overlay = overlay::create(
            &config.qemu_img,
            &config.cache_dir,
            disk_bytes(&disk, &snapshot.disk)?,
            dir.join(OVERLAY_FILE),
            VmmLimits::seconds(config.limits.tool_seconds_max),
            &self.holdings,
        )
        .await?;
        let opened = {
            let (spec, snapshot) = (spec.clone(), snapshot.clone());
            blocking(move || open_for_restore(&spec, &snapshot, disk, &overlay)).await?
        };
        let device_state = opened.device_state;
        let mut machine = self.start(spec, opened, dir, deadline).await?;
        if let Some(fd) = device_state {
            machine.load(fd, deadline).await?;
        }
        machine.settle("resume", begun, deadline).await?;
        Ok(machine)
    }

    fn open_for_boot(
        &self,
        spec: &MachineSpec,
        disk: &Path,
        memory: &Path,
    ) -> Result<Opened, VmmError> {
        let mut inherited = Inherited::default();
        let image = open_for_writing(disk)?;
        disk_bytes(&image, disk)?;
        let disk = Disk::Raw(inherited.add(image));
        let boot = Boot {
            kernel: inherited.add(open(&self.parts.kernel)?),
            initramfs: inherited.add(open(&self.parts.initramfs)?),
        };
        let uid = self.parts.config.unprivileged_uid;
        let memory = inherited.add(create_memory(memory, spec.memory_bytes(), uid)?);
        Ok(Opened {
            inherited,
            disk,
            boot: Some(boot),
            namespace: open_namespace(&spec.network)?,
            memory: Some(memory),
            snapshot_memory: None,
            device_state: None,
        })
    }

    /// Starts QEMU and connects to it.
    async fn start(
        &self,
        spec: &MachineSpec,
        opened: Opened,
        dir: &Path,
        deadline: Duration,
    ) -> Result<Machine, VmmError> {
        let mut inherited = opened.inherited;
        let (channels, ends) = sockets(&mut inherited)?;
        let parts = &self.parts;
        let arguments = qemu::arguments(&qemu::Command {
            spec,
            accelerator: parts.chosen.accelerator,
            tsc_khz: parts.chosen.tsc_khz,
            memory: match opened.memory {
                Some(fd) => Memory::Shared(fd),
                None => Memory::Private(private_memory::NAME),
            },
            disk: opened.disk,
            boot: opened.boot,
            network: spec.network != MachineNetwork::None,
            channels,
        });
        let memory = opened.snapshot_memory.map(private_memory::guard);
        let (mut child, held) = launch(Launch {
            program: parts.config.qemu.clone(),
            arguments,
            inherit: inherited.0,
            namespace: opened.namespace,
            uid: parts.config.unprivileged_uid,
            group: kvm_group(parts.chosen.accelerator).await,
            memory: memory.transpose()?,
            holdings: self.holdings.clone(),
        })
        .await?;
        let limits = &parts.config.limits;
        let stderr = child
            .stderr
            .take()
            .map(|stream| Tail::of(stream, limits.stderr_tail_bytes_max));
        let into_tokio = |stream: UnixStream| {
            tokio::net::UnixStream::from_std(stream).map_err(VmmError::system("watch a socket"))
        };
        let console = Tail::of(into_tokio(ends.console)?, limits.console_tail_bytes_max);
        let session = getrandom::u64().map_err(VmmError::system("draw random bytes"))?;
        let agent = Agent::new(into_tokio(ends.agent)?, session);
        let connected = Qmp::connect(into_tokio(ends.monitor)?, deadline).await;
        Machine::connect(
            self.clone(),
            spec.clone(),
            dir.to_owned(),
            ((child, held), console, stderr),
            (agent, session),
            connected,
        )
        .await
    }
}

fn open_for_restore(
    spec: &MachineSpec,
    snapshot: &SnapshotFiles,
    disk: File,
    overlay: &Path,
) -> Result<Opened, VmmError> {
    let memory = open(&snapshot.memory)?;
    let bytes = memory
        .metadata()
        .map_err(VmmError::file("look at", &snapshot.memory))?
        .size();
    if bytes != spec.memory_bytes() {
        return Err(VmmError::Spec {
            complaint: format!(
                "the snapshot has {} MiB of memory, not {}",
                bytes / (1024 * 1024),
                spec.memory_mib
            ),
        });
    }
    let mut inherited = Inherited::default();
    let disk = Disk::Overlay {
        base: inherited.add(disk),
        overlay: inherited.add(open_for_writing(overlay)?),
    };
    let device_state = inherited.add(open(&snapshot.device_state)?);
    Ok(Opened {
        inherited,
        disk,
        boot: None,
        namespace: open_namespace(&spec.network)?,
        memory: None,
        snapshot_memory: Some(memory),
        device_state: Some(device_state),
    })
}

/// The group that may open the device of KVM, if it is needed.
async fn kvm_group(accelerator: Accelerator) -> Option<u32> {
    match accelerator {
        Accelerator::Tcg => None,
        Accelerator::Kvm => {
            let metadata = tokio::fs::metadata("/dev/kvm").await.ok()?;
            Some(metadata.gid())
        }
    }
}
