//! A small root filesystem made from the host's own programs, and containers to run them in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::container::{
    ContainerError, ContainerSpec, Containers, ContainersConfig, Exit, NetworkAccess, OutputStream,
    StepNetwork,
};
use super::step_root::StepRoot;
use crate::limits::native::NativeLimits;
use crate::process::{Tool, find};

/// What scripts in the small root may call.
const PROGRAMS: [&str; 27] = [
    "sh", "bash", "cat", "chmod", "env", "head", "id", "ls", "mkdir", "mknod", "mount", "perl",
    "pwd", "rm", "seq", "setsid", "sleep", "stat", "tail", "test", "timeout", "touch", "true",
    "unshare", "ln", "mv", "chown",
];

/// Puts programs of the host and their libraries into `root`.
async fn install(root: &Path, programs: &[PathBuf]) {
    let linked = Tool::new("ldd")
        .args(programs)
        .run_ok(Duration::from_secs(20))
        .await
        .unwrap();
    let text = String::from_utf8(linked.stdout).unwrap();
    let libraries: BTreeSet<PathBuf> = text
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(PathBuf::from)
        .collect();
    for file in programs.iter().chain(&libraries) {
        let target = root.join(file.strip_prefix("/").unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(file, target).unwrap();
    }
}

/// Puts the host's git into `root`, as far as it needs no other program.
pub(super) async fn install_git(root: &Path) {
    let git = find("git").expect("git is installed");
    install(root, std::slice::from_ref(&git)).await;
    let core = root.join("usr/lib/git-core");
    std::fs::create_dir_all(&core).unwrap();
    for name in ["git", "git-upload-pack"] {
        std::os::unix::fs::symlink(&git, core.join(name)).unwrap();
    }
}

/// Fills `root` with a shell, its friends, and two users.
pub(super) async fn fill_small_root(root: &Path) {
    let programs: Vec<PathBuf> = PROGRAMS
        .iter()
        .map(|name| find(name).expect(name))
        .collect();
    install(root, &programs).await;
    for dir in [
        "etc", "tmp", "proc", "sys", "dev", "root", "bin", "home/app",
    ] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    if !root.join("bin/sh").exists() {
        std::fs::copy("/bin/sh", root.join("bin/sh")).unwrap();
    }
    let passwd = "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
    std::fs::write(root.join("etc/passwd"), passwd).unwrap();
    std::fs::write(
        root.join("etc/group"),
        "root:x:0:\napp:x:1001:\nstaff:x:50:app\n",
    )
    .unwrap();
}

/// A small root and containers with a state folder of their own.
pub(super) struct Kit {
    pub(super) root: tempfile::TempDir,
    pub(super) state: tempfile::TempDir,
    pub(super) containers: Containers,
}

/// What a script did.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) exit: Exit,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Kit {
    pub(super) async fn new() -> Self {
        Self::with_limits(NativeLimits::default()).await
    }

    pub(super) async fn with_limits(limits: NativeLimits) -> Self {
        let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fill_small_root(root.path()).await;
        let containers = Containers::new(ContainersConfig {
            runc: find("runc").expect("runc is installed"),
            state_dir: state.path().to_owned(),
            access: NetworkAccess::default(),
            limits,
        })
        .unwrap();
        Self {
            root,
            state,
            containers,
        }
    }

    pub(super) fn spec(&self, script: &str) -> ContainerSpec {
        ContainerSpec {
            rootfs: StepRoot::folder(self.root.path(), self.containers.ids()).unwrap(),
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: BTreeMap::new(),
            user: "root".to_owned(),
            workdir: "/".to_owned(),
            network: StepNetwork::None,
            memory_mib: 256,
            vcpus: 1,
            deadline: Duration::from_mins(1),
        }
    }

    pub(super) async fn run(&self, spec: ContainerSpec) -> Result<Ran, ContainerError> {
        self.run_until(spec, CancellationToken::new()).await
    }

    pub(super) async fn run_until(
        &self,
        spec: ContainerSpec,
        cancel: CancellationToken,
    ) -> Result<Ran, ContainerError> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let gather = |stream, bytes: &[u8]| match stream {
            OutputStream::Stdout => stdout.extend_from_slice(bytes),
            OutputStream::Stderr => stderr.extend_from_slice(bytes),
        };
        let exit = self.containers.run(spec, gather, cancel).await?;
        let [stdout, stderr] =
            [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok(Ran {
            exit,
            stdout,
            stderr,
        })
    }

    /// Runs a script as root, without network.
    pub(super) async fn sh(&self, script: &str) -> Ran {
        self.run(self.spec(script)).await.unwrap()
    }

    /// Asserts that no container of this kit has left anything.
    pub(super) fn assert_nothing_is_left(&self, marker: &str) {
        assert_eq!(processes_with(marker), Vec::<i32>::new(), "processes");
        let state = self.state.path().canonicalize().unwrap();
        for dir in ["bundles", "runtime"] {
            let entries = std::fs::read_dir(state.join(dir)).unwrap();
            assert_eq!(entries.count(), 0, "{dir}");
        }
        assert_eq!(self.control_groups(), Vec::<PathBuf>::new());
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(state.to_str().unwrap()), "mounts");
        assert!(
            !mounts.contains(self.root.path().to_str().unwrap()),
            "mounts"
        );
    }

    pub(super) fn control_groups(&self) -> Vec<PathBuf> {
        let prefix = self.containers.prefix().to_owned();
        walkdir::WalkDir::new("/sys/fs/cgroup")
            .max_depth(2)
            .into_iter()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .map(walkdir::DirEntry::into_path)
            .collect()
    }
}

/// The processes of the host with `marker` in their command lines, except this one.
pub(super) fn processes_with(marker: &str) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(marker))
        })
        .collect()
}

/// Waits until `level` holds; fails after 20 s.
pub(super) async fn eventually(what: &str, mut level: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !level() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what} did not come about");
}

/// Output of a command that still runs.
pub(super) type Shared = Arc<Mutex<Vec<u8>>>;

/// Gathers output for tests that look at it while the command runs.
pub(super) fn shared_output() -> (Shared, impl FnMut(OutputStream, &[u8]) + Send) {
    let shared = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&shared);
    (shared, move |_, bytes: &[u8]| {
        writer.lock().unwrap().extend_from_slice(bytes);
    })
}
