//! A host that answers as a test says: for misbehaviour that no real registry shows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use domain::Digest;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    /// By lower-case name.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What is answered.
#[derive(Clone, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// Send the body again and again, with no length said.
    pub(super) endless: bool,
}

impl Reply {
    pub(super) fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    pub(super) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            body: body.into(),
            ..Self::default()
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The double: one answer a connection.
pub(super) struct Double {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    sent_bytes: Arc<Mutex<usize>>,
    task: tokio::task::JoinHandle<()>,
}

impl Double {
    pub(super) async fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let sent_bytes: Arc<Mutex<usize>> = Arc::default();
        let (noted, counted) = (Arc::clone(&asked), Arc::clone(&sent_bytes));
        let answer = Arc::new(answer);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, noted, counted) = (answer.clone(), noted.clone(), counted.clone());
                tokio::spawn(async move { serve(stream, &*answer, &noted, &counted).await });
            }
        });
        Self {
            port,
            asked,
            sent_bytes,
            task,
        }
    }

    pub(super) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(super) fn sent_bytes(&self) -> usize {
        *self.sent_bytes.lock().unwrap()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: &(dyn Fn(&Asked) -> Reply + Send + Sync),
    noted: &Mutex<Vec<Asked>>,
    counted: &Mutex<usize>,
) {
    let Some(asked) = read(&mut stream).await else {
        return;
    };
    noted.lock().unwrap().push(asked.clone());
    let reply = answer(&asked);
    let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.extend([*name, ": ", value.as_str(), "\r\n"]);
    }
    if !reply.endless {
        let length = reply.body.len().to_string();
        head.extend(["Content-Length: ", length.as_str(), "\r\n"]);
    }
    head += "\r\n";
    let mut failed = stream.write_all(head.as_bytes()).await.is_err();
    while !failed {
        failed = stream.write_all(&reply.body).await.is_err();
        *counted.lock().unwrap() += reply.body.len();
        if !reply.endless {
            break;
        }
    }
    drop(stream.shutdown().await);
}

async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let mut lines = head.split("\r\n");
            let mut first = lines.next()?.split(' ');
            let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
            let headers: BTreeMap<String, String> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length: usize = headers
                .get("content-length")
                .map_or(0, |text| text.parse().unwrap());
            while bytes.len() < end + 4 + length {
                if stream.read_buf(&mut bytes).await.ok()? == 0 {
                    return None;
                }
            }
            let body = bytes[end + 4..].to_vec();
            return Some(Asked {
                method,
                target,
                headers,
                body,
            });
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// Documents and blobs by digest, and one of them by tag.
#[derive(Clone, Default)]
pub(super) struct Content {
    parts: BTreeMap<String, Vec<u8>>,
}

impl Content {
    /// Adds a part; its descriptor.
    pub(super) fn add(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes).to_string();
        self.parts.insert(digest.clone(), bytes.to_vec());
        serde_json::json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    pub(super) fn add_json(&mut self, media_type: &str, value: &Value) -> Value {
        self.add(media_type, value.to_string().as_bytes())
    }

    /// Makes what `descriptor` describes the image with this tag.
    pub(super) fn tag(&mut self, tag: &str, descriptor: &Value) {
        let digest = descriptor["digest"].as_str().unwrap();
        let bytes = self.parts[digest].clone();
        self.parts.insert(tag.to_owned(), bytes);
    }

    /// A small image; the descriptor of its manifest.
    pub(super) fn image(&mut self, change: impl FnOnce(&mut Value, &mut Value)) -> Value {
        let archive = crate::layers::sample::Sample::new().file("f", "1").end();
        let mut config = serde_json::json!({
            "os": "linux", "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&archive).to_string()]},
        });
        let layer = self.add("application/vnd.oci.image.layer.v1.tar", &archive);
        let mut manifest = serde_json::json!({"schemaVersion": 2, "layers": [layer]});
        change(&mut config, &mut manifest);
        manifest["config"] = self.add_json("application/vnd.oci.image.config.v1+json", &config);
        self.add_json("application/vnd.oci.image.manifest.v1+json", &manifest)
    }

    /// What a registry answers to a request for one of them.
    pub(super) fn reply(&self, asked: &Asked) -> Reply {
        let name = asked.target.rsplit('/').next().unwrap_or_default();
        match self.parts.get(name) {
            Some(bytes) => Reply::ok(bytes.clone()),
            None => Reply::status(404),
        }
    }
}
