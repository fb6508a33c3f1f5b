//! What the driver's tests share: one prepared monitor, one root filesystem, machines of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::process::Tool;
use crate::vmm::{
    AcceleratorChoice, ExecRequest, ExitOutcome, Machine, MachineNetwork, MachineSpec,
    OutputStream, Vmm, VmmConfig,
};

const TOOL_DEADLINE: Duration = Duration::from_mins(1);
pub(super) const MIB: u64 = 1024 * 1024;
/// The size of the root filesystem that tests start from.
pub(super) const DISK_BYTES: u64 = 64 * MIB;

/// The folder in which cargo puts what it builds: the test's program is in `debug/deps` there.
fn target_dir() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(3).unwrap().to_owned()
}

/// The guest agent that is tested.
pub(super) fn guest_agent() -> PathBuf {
    let agent = std::env::var_os("NULLSPACE_GUEST_AGENT").map_or_else(
        || target_dir().join("agent").join("nullspace-guest"),
        PathBuf::from,
    );
    assert!(
        agent.is_file(),
        "the guest agent is missing at {}: build it with `make agent`",
        agent.display()
    );
    agent
}

pub(super) fn config() -> VmmConfig {
    VmmConfig {
        accelerator: AcceleratorChoice::Auto,
        ..VmmConfig::new(guest_agent(), target_dir().join("vmm-tests"))
    }
}

/// The prepared monitor.
pub(super) async fn vmm() -> Vmm {
    static VMM: OnceCell<Vmm> = OnceCell::const_new();
    let prepare = || async { Vmm::prepare(config()).await.unwrap() };
    VMM.get_or_init(prepare).await.clone()
}

/// The root filesystem of busybox, made once a run.
async fn root_image() -> &'static Path {
    static IMAGE: OnceCell<PathBuf> = OnceCell::const_new();
    IMAGE.get_or_init(make_root_image).await
}

async fn make_root_image() -> PathBuf {
    let busybox = crate::process::find("busybox").expect("busybox-static is installed");
    let applets = Tool::new(&busybox)
        .arg("--list")
        .run_ok(TOOL_DEADLINE)
        .await
        .unwrap();
    let root = tempfile::tempdir().unwrap();
    for folder in ["bin", "etc", "tmp", "root", "home/app"] {
        fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    let bin = root.path().join("bin");
    fs::copy(&busybox, bin.join("busybox")).unwrap();
    for applet in std::str::from_utf8(&applets.stdout).unwrap().lines() {
        if applet != "busybox" {
            symlink("busybox", bin.join(applet)).unwrap();
        }
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:App:/home/app:/bin/sh\n";
    fs::write(root.path().join("etc/passwd"), passwd).unwrap();
    let group = "root:x:0:\napp:x:1000:\naudio:x:29:app\n";
    fs::write(root.path().join("etc/group"), group).unwrap();
    let folder = target_dir().join("vmm-tests");
    fs::create_dir_all(&folder).unwrap();
    let image = tempfile::NamedTempFile::new_in(&folder).unwrap();
    image.as_file().set_len(DISK_BYTES).unwrap();
    Tool::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0", "-d"])
        .arg(root.path())
        .arg(image.path())
        .run_ok(TOOL_DEADLINE)
        .await
        .unwrap();
    let kept = folder.join("root.ext4");
    image.persist(&kept).unwrap();
    kept
}

/// A folder with a fresh copy of the root filesystem, for one machine.
pub(super) struct Home {
    dir: TempDir,
}

impl Home {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Self { dir };
        fs::copy(root_image().await, home.disk()).unwrap();
        home
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn disk(&self) -> PathBuf {
        self.dir.path().join("disk.ext4")
    }

    /// A new folder inside.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        let folder = self.dir.path().join(name);
        fs::create_dir(&folder).unwrap();
        folder
    }

    pub(super) async fn boot(&self, spec: &MachineSpec) -> Machine {
        let run = self.folder("run");
        vmm().await.boot(spec, &self.disk(), &run).await.unwrap()
    }
}

/// The standard output of an e2fsprogs tool on an image; it must succeed.
pub(super) async fn tool_output(program: &str, args: &[&str], image: &Path) -> String {
    let tool = Tool::new(program).args(args.iter().copied()).arg(image);
    let finished = tool.run_ok(TOOL_DEADLINE).await.unwrap();
    String::from_utf8(finished.stdout).unwrap()
}

pub(super) fn spec() -> MachineSpec {
    MachineSpec {
        vcpus: 1,
        memory_mib: 192,
        hostname: "box".to_owned(),
        network: MachineNetwork::None,
    }
}

pub(super) fn shell(script: &str) -> ExecRequest {
    ExecRequest {
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: Vec::new(),
        user: None,
        cwd: None,
        deadline_ms: 60_000,
    }
}

/// What a command gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ran {
    pub(super) outcome: ExitOutcome,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

pub(super) async fn run(machine: &Machine, request: &ExecRequest) -> Ran {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let outcome = machine
        .exec(request, |stream, bytes| match stream {
            OutputStream::Stdout => stdout.extend_from_slice(bytes),
            OutputStream::Stderr => stderr.extend_from_slice(bytes),
        })
        .await
        .unwrap();
    Ran {
        outcome,
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// The standard output of a script that must succeed, trimmed.
pub(super) async fn output(machine: &Machine, script: &str) -> String {
    let ran = run(machine, &shell(script)).await;
    assert_eq!(ran.outcome, ExitOutcome::Code(0), "{script}: {ran:?}");
    ran.stdout.trim().to_owned()
}

/// Tries until it holds; the level is awaited, never an amount of time.
pub(super) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), wait).await;
    assert!(in_time.is_ok(), "{what} did not come true");
}
