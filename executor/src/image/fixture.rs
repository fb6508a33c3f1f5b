//! A real registry on loopback, images to put into it, and a network that fails on demand.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use domain::Digest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::process::Tool;

/// Waits for things that a healthy machine does in a second.
const PATIENCE: Duration = Duration::from_mins(1);

/// The one user of a registry that wants credentials.
pub(super) const USER: (&str, &str) = ("builder", "s3cret");
/// The user's line in an htpasswd file, at bcrypt's lowest cost.
const HTPASSWD: &str = "builder:$2b$04$7wynJNPoSlsyfdRGI8Mjjufkj7A7YJ9bphbr9RLZR9jPpTiO.I9Q6\n";

/// Debian's docker-registry in a process of its own; it ends when this is dropped.
pub(super) struct TestRegistry {
    dir: tempfile::TempDir,
    port: u16,
    locked: bool,
    _process: tokio::process::Child,
}

impl TestRegistry {
    pub(super) async fn start() -> Self {
        Self::start_with(false).await
    }

    /// A registry that serves [`USER`] only.
    pub(super) async fn start_locked() -> Self {
        Self::start_with(true).await
    }

    async fn start_with(locked: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let htpasswd = dir.path().join("htpasswd");
        std::fs::write(&htpasswd, HTPASSWD).unwrap();
        // The port is free when it is chosen, and somebody may take it before the registry does.
        for _ in 0..5 {
            let port = free_port().await;
            let auth = if locked {
                format!(
                    "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                    htpasswd.display()
                )
            } else {
                String::new()
            };
            let config = format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
                 storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n{auth}",
                dir.path().join("data").display()
            );
            let path = dir.path().join("config.yml");
            std::fs::write(&path, config).unwrap();
            let mut process = Tool::new("docker-registry")
                .arg("serve")
                .arg(&path)
                .command()
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("docker-registry is installed");
            if answers(port, &mut process).await {
                return Self {
                    dir,
                    port,
                    locked,
                    _process: process,
                };
            }
        }
        panic!("docker-registry does not start");
    }

    pub(super) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Pushes a layout under `NAME:TAG`, byte by byte as it is.
    pub(super) async fn push(&self, layout: &Layout, name: &str) {
        self.push_as(layout, name, &["--all", "--preserve-digests"])
            .await;
    }

    /// Pushes a layout with skopeo's options.
    pub(super) async fn push_as(&self, layout: &Layout, name: &str, options: &[&str]) {
        let mut skopeo = Tool::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet"])
            .args(options)
            .arg("--dest-tls-verify=false")
            .env("HOME", self.dir.path());
        if self.locked {
            skopeo = skopeo.arg(format!("--dest-creds={}:{}", USER.0, USER.1));
        }
        skopeo
            .arg(format!("oci:{}", layout.dir.path().display()))
            .arg(format!("docker://{}/{name}", self.host()))
            .run_ok(PATIENCE)
            .await
            .unwrap();
    }

    /// Where the registry keeps a blob's bytes.
    pub(super) fn blob_path(&self, digest: &Digest) -> std::path::PathBuf {
        let hex = digest.hex();
        self.dir
            .path()
            .join("data/docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(&hex)
            .join("data")
    }
}

pub(super) async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

async fn answers(port: u16, process: &mut tokio::process::Child) -> bool {
    let answered = async {
        loop {
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return process.try_wait().unwrap().is_none();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, answered)
        .await
        .unwrap_or(false)
}

/// How a test's layer is compressed.
#[derive(Clone, Copy)]
pub(super) enum Compression {
    Plain,
    Gzip,
    Zstd,
}

/// A layer as an image carries it.
#[derive(Clone)]
pub(super) struct TestLayer {
    pub(super) media_type: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) diff_id: Digest,
}

impl TestLayer {
    pub(super) fn new(archive: &[u8], compression: Compression) -> Self {
        use std::io::Write as _;
        let (media_type, bytes) = match compression {
            Compression::Plain => ("application/vnd.oci.image.layer.v1.tar", archive.to_vec()),
            Compression::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(archive).unwrap();
                (
                    "application/vnd.oci.image.layer.v1.tar+gzip",
                    encoder.finish().unwrap(),
                )
            }
            Compression::Zstd => {
                let bytes = zstd::stream::encode_all(archive, 1).unwrap();
                ("application/vnd.oci.image.layer.v1.tar+zstd", bytes)
            }
        };
        Self {
            media_type,
            bytes,
            diff_id: Digest::of(archive),
        }
    }
}

/// An OCI layout in a temporary folder.
pub(super) struct Layout {
    dir: tempfile::TempDir,
}

impl Layout {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        write_json(
            &dir.path().join("oci-layout"),
            &json!({"imageLayoutVersion": "1.0.0"}),
        );
        Self { dir }
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where a blob's bytes are.
    pub(super) fn blob_path(&self, digest: &Digest) -> std::path::PathBuf {
        self.path().join("blobs/sha256").join(digest.hex())
    }

    /// An image for linux/amd64.
    pub(super) fn image(layers: &[TestLayer]) -> Self {
        Self::image_with(layers, |_| (), |_| ())
    }

    /// An image whose configuration and manifest were changed.
    pub(super) fn image_with(
        layers: &[TestLayer],
        config: impl FnOnce(&mut Value),
        manifest: impl FnOnce(&mut Value),
    ) -> Self {
        let layout = Self::new();
        let descriptor = layout.add_image(layers, "amd64", config, manifest);
        layout.finish(&descriptor);
        layout
    }

    /// An index of one image per architecture.
    pub(super) fn index(images: &[(&str, &[TestLayer])]) -> Self {
        let layout = Self::new();
        let manifests: Vec<Value> = images
            .iter()
            .map(|(architecture, layers)| {
                let mut descriptor = layout.add_image(layers, architecture, |_| (), |_| ());
                descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
                descriptor
            })
            .collect();
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
        let descriptor = layout.add(media_type, index.to_string().as_bytes());
        layout.finish(&descriptor);
        layout
    }

    fn add_image(
        &self,
        layers: &[TestLayer],
        architecture: &str,
        change_config: impl FnOnce(&mut Value),
        change_manifest: impl FnOnce(&mut Value),
    ) -> Value {
        let diff_ids: Vec<String> = layers
            .iter()
            .map(|layer| layer.diff_id.to_string())
            .collect();
        let mut config = json!({
            "os": "linux",
            "architecture": architecture,
            "config": {"Env": ["PATH=/bin"], "Cmd": null},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        change_config(&mut config);
        let config_type = "application/vnd.oci.image.config.v1+json";
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| self.add(layer.media_type, &layer.bytes))
            .collect();
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": self.add(config_type, config.to_string().as_bytes()),
            "layers": layers,
        });
        change_manifest(&mut manifest);
        self.add(media_type, manifest.to_string().as_bytes())
    }

    fn add(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        std::fs::write(self.blob_path(&digest), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    }

    fn finish(&self, descriptor: &Value) {
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        write_json(&self.dir.path().join("index.json"), &index);
    }
}

fn write_json(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).unwrap();
}

/// What happens to a connection through a [`FlakyNetwork`].
#[derive(Clone, Copy)]
pub(super) enum Fault {
    /// It breaks after so many bytes to the client.
    Cut(usize),
    /// The client gets an answer with this status.
    Status(u16),
}

/// A host in front of a registry whose first connections fail in given ways.
pub(super) struct FlakyNetwork {
    port: u16,
    counts: Arc<Counts>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    bytes: AtomicU64,
}

impl FlakyNetwork {
    pub(super) async fn before(registry: &TestRegistry, faults: Vec<Fault>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let counts = Arc::new(Counts::default());
        let (upstream, counted) = (registry.port, Arc::clone(&counts));
        let task = tokio::spawn(async move {
            let mut faults = faults.into_iter();
            while let Ok((client, _)) = listener.accept().await {
                counted.connections.fetch_add(1, Ordering::SeqCst);
                let connection = connect(client, upstream, faults.next(), Arc::clone(&counted));
                tokio::spawn(connection);
            }
        });
        Self { port, counts, task }
    }

    pub(super) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Bytes that went to clients.
    pub(super) fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::SeqCst)
    }
}

impl Drop for FlakyNetwork {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(mut client: TcpStream, upstream: u16, fault: Option<Fault>, counts: Arc<Counts>) {
    let mut left = match fault {
        Some(Fault::Status(status)) => {
            let mut request = [0; 4096];
            drop(client.read(&mut request).await);
            let answer =
                format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            drop(client.write_all(answer.as_bytes()).await);
            return;
        }
        Some(Fault::Cut(bytes)) => bytes,
        None => usize::MAX,
    };
    let mut server = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let down = async {
        let mut buffer = vec![0; 16 * 1024];
        while left > 0 {
            let wanted = buffer.len().min(left);
            let read = from_server.read(&mut buffer[..wanted]).await.unwrap_or(0);
            if read == 0 || to_client.write_all(&buffer[..read]).await.is_err() {
                break;
            }
            counts
                .bytes
                .fetch_add(u64::try_from(read).unwrap(), Ordering::SeqCst);
            left -= read;
        }
    };
    let up = tokio::io::copy(&mut from_client, &mut to_server);
    tokio::select! {
        () = down => {}
        _ = up => {}
    }
}
