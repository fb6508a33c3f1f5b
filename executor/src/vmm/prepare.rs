//! The prepared monitor: everything that is found, measured and made once.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::Digest;

use super::accelerator::{self, Chosen};
use super::config::VmmConfig;
use super::error::{VmmError, blocking};
use super::identity::{Accelerator, VmmIdentity};
use super::{initramfs, kernel, qemu};
use crate::holdings::Holdings;
use crate::limits::vmm::VmmLimits;
use crate::process::Tool;

/// A monitor that is ready to run machines; a clone is another handle to it.
#[derive(Clone, Debug)]
pub struct Vmm {
    pub(super) parts: Arc<Parts>,
    pub(super) holdings: Holdings,
}

/// What every machine of this monitor shares.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) config: VmmConfig,
    pub(super) identity: VmmIdentity,
    pub(super) chosen: Chosen,
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
}

/// The kernel and the initial file system, unpacked, built and kept.
struct BootFiles {
    kernel: PathBuf,
    kernel_digest: Digest,
    initramfs: PathBuf,
    agent_digest: Digest,
}

impl Vmm {
    /// Chooses the accelerator, unpacks the kernel and builds the initial file system.
    ///
    /// Unpacked and built files are kept in the cache folder under their digests, so this is quick
    /// when nothing has changed.
    ///
    /// # Errors
    /// [`VmmError::Missing`] with a remedy for a part that is not there; [`VmmError::Kvm`] if KVM
    /// was asked for by name and does not work; [`VmmError::Kernel`], [`VmmError::File`],
    /// [`VmmError::Tool`] if a part cannot be used.
    pub async fn prepare(config: VmmConfig) -> Result<Self, VmmError> {
        let limits = config.limits;
        let tool_deadline = VmmLimits::seconds(limits.tool_seconds_max);
        let probe_budget = Duration::from_millis(limits.kvm_probe_ms_max);
        let version = qemu_version(&config.qemu, tool_deadline).await?;
        let chosen = accelerator::choose(config.accelerator, probe_budget).await?;
        let for_files = config.clone();
        let files = blocking(move || boot_files(&for_files)).await?;
        let identity = VmmIdentity {
            kind: "qemu".to_owned(),
            version,
            accelerator: chosen.accelerator,
            cpu_model: match chosen.accelerator {
                Accelerator::Tcg => qemu::CPU_EMULATED.to_owned(),
                Accelerator::Kvm => format!("{} ({})", qemu::CPU_HOST, host_cpu().await),
            },
            machine: qemu::MACHINE.to_owned(),
            kernel_digest: files.kernel_digest,
            agent_digest: files.agent_digest,
        };
        Ok(Self {
            parts: Arc::new(Parts {
                config,
                identity,
                chosen,
                kernel: files.kernel,
                initramfs: files.initramfs,
            }),
            holdings: Holdings::default(),
        })
    }

    /// The same monitor, for whoever keeps the list `holdings`.
    #[must_use]
    pub fn held_by(&self, holdings: &Holdings) -> Self {
        Self {
            holdings: holdings.clone(),
            ..self.clone()
        }
    }

    /// What snapshots of this monitor are bound to.
    pub fn identity(&self) -> &VmmIdentity {
        &self.parts.identity
    }

    /// Why machines are slow here, with the measured time, if they are and nobody asked for it.
    pub fn accelerator_warning(&self) -> Option<&str> {
        self.parts.chosen.warning.as_deref()
    }
}

/// Asks QEMU for its version, for example `7.2.22`.
async fn qemu_version(qemu: &Path, deadline: Duration) -> Result<String, VmmError> {
    let doing = "ask QEMU for its version (is qemu-system-x86 installed?)";
    let finished = Tool::new(qemu)
        .arg("--version")
        .run_ok(deadline)
        .await
        .map_err(VmmError::tool(doing))?;
    let text = String::from_utf8_lossy(&finished.stdout).into_owned();
    let mut words = text.split_whitespace();
    let version = words
        .position(|word| word == "version")
        .and_then(|_| words.next());
    version
        .map(str::to_owned)
        .ok_or_else(|| VmmError::Protocol {
            request: "--version".to_owned(),
            answer: text.clone(),
        })
}

/// The host's processor, by its own name.
async fn host_cpu() -> String {
    let text = tokio::fs::read_to_string("/proc/cpuinfo")
        .await
        .unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    line.map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']))
        .to_owned()
}

fn boot_files(config: &VmmConfig) -> Result<BootFiles, VmmError> {
    let bytes_max = config.limits.kernel_bytes_max;
    let cache_dir = &config.cache_dir;
    fs::create_dir_all(cache_dir).map_err(VmmError::file("make the folder", cache_dir))?;
    let packaged = kernel::read(config.kernel.as_deref(), bytes_max)?;
    let kernel_digest = Digest::of(&packaged.image);
    let kernel = cache_dir.join(format!("vmlinux-{}", kernel_digest.hex()));
    if !kernel.is_file() {
        keep(&kernel, &kernel::unpack(&packaged, bytes_max)?)?;
    }
    let modules = match &config.modules {
        Some(modules) => modules.clone(),
        None => Path::new("/lib/modules").join(&packaged.release),
    };
    let archive = initramfs::build(&config.guest_agent, &modules)?;
    let agent_digest = Digest::of(&archive);
    let initramfs = cache_dir.join(format!("initramfs-{}.cpio", agent_digest.hex()));
    if !initramfs.is_file() {
        keep(&initramfs, &archive)?;
    }
    Ok(BootFiles {
        kernel,
        kernel_digest,
        initramfs,
        agent_digest,
    })
}

/// Writes a file that appears whole or not at all, readable by QEMU's user.
fn keep(path: &Path, content: &[u8]) -> Result<(), VmmError> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)
        .map_err(VmmError::file("make a file in", folder))?;
    file.write_all(content)
        .and_then(|()| file.as_file().sync_data())
        .and_then(|()| {
            file.as_file()
                .set_permissions(fs::Permissions::from_mode(0o444))
        })
        .map_err(VmmError::file("write", path))?;
    file.persist(path)
        .map_err(|error| VmmError::file("keep", path)(error.error))?;
    Ok(())
}
