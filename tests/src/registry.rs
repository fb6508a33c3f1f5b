//! A real registry that wants a password, with an image in it.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::service::setting;

/// How long the registry may take to become ready.
const PATIENCE: Duration = Duration::from_mins(1);

/// The one user.
pub const USER: &str = "builder";
/// The user's password: no word that anything else would write.
pub const PASSWORD: &str = "kept-in-mem0ry-only";
/// The user's line in an htpasswd file, at bcrypt's lowest cost.
const HTPASSWD: &str = "builder:$2b$04$abcdefghijklmnopqrstuu9oIVV0TLveuHOHgclTPdTMV6IHfHi2q\n";

/// Debian's docker-registry behind a password. It ends when this is dropped.
#[derive(Debug)]
pub struct PrivateRegistry {
    child: Child,
    host: String,
    folder: TempDir,
}

impl PrivateRegistry {
    /// Starts a registry on a free port of loopback, and copies `image` of the suites' registry
    /// into it as `private/image:1`.
    ///
    /// # Panics
    /// If it does not start, or the image cannot be copied.
    pub fn start(image: &str) -> Self {
        let folder = TempDir::with_prefix("nullspace-registry-").expect("the disk has room");
        let path = folder.path();
        let htpasswd = path.join("htpasswd");
        std::fs::write(&htpasswd, HTPASSWD).expect("the disk has room");
        let config = format!(
            "version: 0.1\nlog: {{level: info, formatter: text, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n\
             auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            path.join("data").display(),
            htpasswd.display()
        );
        let (config_path, log) = (path.join("config.yml"), path.join("log"));
        std::fs::write(&config_path, config).expect("the disk has room");
        let stderr = File::create(&log).expect("a new file");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "docker-registry", "serve"])
            .arg(&config_path)
            .stdout(stderr.try_clone().expect("descriptors are left"))
            .stderr(stderr)
            .spawn()
            .expect("make setup installs docker-registry");
        let mut registry = Self {
            child,
            host: String::new(),
            folder,
        };
        registry.host = registry.address(&log);
        registry.seed(image);
        registry
    }

    /// `host:port`
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The image that it holds.
    pub fn image(&self) -> String {
        format!("{}/private/image:1", self.host)
    }

    /// The registry logs the address that it got.
    fn address(&mut self, log: &Path) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let port = text
                .split_once("listening on 127.0.0.1:")
                .and_then(|(_, rest)| rest.split_once('"'));
            if let Some((port, _)) = port {
                return format!("127.0.0.1:{port}");
            }
            let ended = self.child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "the registry ended:\n{text}");
            assert!(Instant::now() < deadline, "no registry:\n{text}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn seed(&self, image: &str) {
        let from = setting("NULLSPACE_TEST_REGISTRY");
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet"])
            .args(["--src-tls-verify=false", "--dest-tls-verify=false"])
            .arg(format!("--dest-creds={USER}:{PASSWORD}"))
            .arg(format!("docker://{from}/library/{image}"))
            .arg(format!("docker://{}", self.image()))
            .env("HOME", self.folder.path())
            .stdin(Stdio::null())
            .output()
            .expect("make setup installs skopeo");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{image} is not copied: {stderr}");
    }
}

impl Drop for PrivateRegistry {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
