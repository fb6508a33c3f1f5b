use std::time::Duration;

use commands::Meta;
use domain::build::{self, Build, Command, Fence};
use domain::ids::{ArtifactId, BuildId};
use domain::ports::EventReader as _;
use domain::recorded::{Actor, Recorded, StreamName, Version};
use domain::time::Timestamp;
use domain::{Digest, Event};
use projections::Runner;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::config::{Config, DataDir};
use crate::http::openapi::tests::{is_described, is_described_refusal};
use crate::wiring::{Foundation, Service};

/// No answer within this time means a hang, not a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A service on a free port, in memory but for its files.
pub(super) struct TestApp {
    pub(super) service: Service,
    pub(super) client: Client,
    pub(super) key: String,
    folder: TempDir,
}

impl TestApp {
    pub(super) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(super) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let (folder, config) = configured(change);
        let opened = Box::pin(Foundation::in_memory(config)).await.unwrap();
        Self::over(folder, opened).await
    }

    /// The same, and everything is kept in the data folder.
    pub(super) async fn start_on_disk() -> Self {
        Self::start_on_disk_with(|_| {}).await
    }

    pub(super) async fn start_on_disk_with(change: impl FnOnce(&mut Config)) -> Self {
        let (folder, config) = configured(change);
        let opened = Box::pin(Foundation::open(config)).await.unwrap();
        Self::over(folder, opened).await
    }

    /// The same service, which keeps everything in its data folder, after it was stopped and started.
    pub(super) async fn restarted(self) -> Self {
        self.restarted_after(|_| {}).await
    }

    /// The same after something was done to its files meanwhile.
    pub(super) async fn restarted_after(self, meanwhile: impl FnOnce(&DataDir)) -> Self {
        let config = self.service.app.config.clone();
        self.service.stop().await.unwrap();
        meanwhile(&config.data_dir);
        let opened = Box::pin(Foundation::open(config)).await.unwrap();
        Self::with_key(self.folder, opened, Some(self.key)).await
    }

    async fn over(folder: TempDir, opened: (Foundation, Runner)) -> Self {
        Self::with_key(folder, opened, None).await
    }

    async fn with_key(
        folder: TempDir,
        (foundation, runner): (Foundation, Runner),
        known: Option<String>,
    ) -> Self {
        // All that a service is made of is too large for the future of every test.
        let starting = Box::pin(Service::without_worker(foundation, runner));
        let service = starting.await.unwrap();
        let first = || service.first_key.as_ref().unwrap().reveal().to_owned();
        let key = known.unwrap_or_else(first);
        let client = Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .unwrap();
        Self {
            service,
            client,
            key,
            folder,
        }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.service.address)
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, self.url(path))
            .bearer_auth(&self.key)
    }

    /// A request with somebody else's key.
    pub(super) fn request_by(&self, key: &str, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path)).bearer_auth(key)
    }

    pub(super) async fn delete(&self, path: &str) -> Response {
        self.request(Method::DELETE, path).send().await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Response {
        let request = self.request(Method::POST, path).json(body);
        request.send().await.unwrap()
    }

    pub(super) async fn get_json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let answer = response.json().await.unwrap();
        is_described("GET", path.split('?').next().unwrap(), 200, &answer);
        answer
    }

    /// Posts `body` and gives the answer, which has this status and is as it is described.
    pub(super) async fn post_json(&self, path: &str, body: &Value, status: u16) -> Value {
        let response = self.post(path, body).await;
        let found = response.status().as_u16();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(found, status, "{path}: {answer}");
        is_described("POST", path, status, &answer);
        answer
    }

    /// Accepts a build in the background and gives its record.
    pub(super) async fn accept(&self, body: &Value) -> Value {
        self.post_json("/v1/templates/builds", body, 202).await
    }

    /// A key of another owner.
    pub(super) async fn key_of(&self, owner: &str) -> String {
        let app = &self.service.app;
        let new = crate::wire::admin::NewKey {
            owner: owner.to_owned(),
            label: String::new(),
        };
        let created = crate::service::operator::create_key(&app.dispatcher, &app.ids, new)
            .await
            .unwrap();
        let (keys, _) = app.dispatcher.load_keys().await.unwrap();
        app.keys.replace(&keys);
        created.key
    }

    /// Gives the build a command in the worker's place, and waits until that is visible.
    pub(super) async fn command(&self, id: &BuildId, command: Command) -> Build {
        let app = &self.service.app;
        let meta = Meta {
            command_id: app.ids.new_command_id(),
            actor: Actor::Worker {
                id: app.ids.new_worker_id(),
            },
        };
        let done = app.dispatcher.build(id, meta, command).await.unwrap();
        let position = done.appended.unwrap().position;
        app.views.wait_for(position, PATIENCE).await.unwrap();
        done.state
    }

    pub(super) async fn start_building(&self, id: &BuildId) -> Fence {
        let worker = self.service.app.ids.new_worker_id();
        let state = self.command(id, Command::Start { worker }).await;
        let Build::Building(_, attempt) = state else {
            panic!("{state:?}");
        };
        attempt.fence
    }

    pub(super) async fn log(&self, id: &BuildId, fence: Fence, lines: &[&str]) {
        let lines = lines.iter().map(|text| build::LogLine {
            at: Timestamp::from_unix_micros(1_700_000_000_000_000).unwrap(),
            stream: build::LogStream::Stdout,
            text: (*text).to_owned(),
        });
        let logged = build::StepLogged {
            phase: build::Phase::Step,
            step: Some((1, 1)),
            first_offset: 0,
            lines: lines.collect(),
        };
        let events = vec![build::Event::StepLogged(logged)];
        self.command(id, Command::Report { fence, events }).await;
    }

    /// Finishes the build well.
    pub(super) async fn complete(&self, id: &BuildId, fence: Fence) {
        let grown = build::Event::RootfsGrown(build::RootfsGrown {
            from_bytes: 1,
            to_bytes: 2,
        });
        let events = vec![grown];
        self.command(id, Command::Report { fence, events }).await;
        let snapshotted = Box::new(snapshotted());
        self.command(id, Command::Complete { fence, snapshotted })
            .await;
    }

    /// What was recorded in a stream.
    pub(super) async fn events(&self, stream: &StreamName) -> Vec<Recorded<Event>> {
        let log = &self.service.app.log;
        log.read_stream(stream, Version::EMPTY, 1_000)
            .await
            .unwrap()
    }

    /// Accepts, builds and finishes a template.
    pub(super) async fn make(&self, name: &str, tags: &[&str]) -> Value {
        let body = json!({"base_image": "debian:bookworm", "name": name, "tags": tags});
        let accepted = self.accept(&body).await;
        let id = build_id(&accepted);
        let fence = self.start_building(&id).await;
        self.complete(&id, fence).await;
        accepted
    }
}

fn configured(change: impl FnOnce(&mut Config)) -> (TempDir, Config) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config {
        data_dir: DataDir::new(folder.path()),
        ..Config::default()
    };
    config.http.listen = "127.0.0.1:0".parse().unwrap();
    config.http.workers = 1;
    change(&mut config);
    (folder, config)
}

pub(super) fn build_id(build: &Value) -> BuildId {
    build["build_id"].as_str().unwrap().parse().unwrap()
}

pub(super) fn snapshotted() -> build::Snapshotted {
    let file = build::FileRecord {
        digest: Digest::ZERO,
        bytes: 1,
    };
    build::Snapshotted {
        artifact: ArtifactId::of(&Digest::ZERO),
        rootfs: file.clone(),
        memory: file.clone(),
        device_state: file,
        vmm: build::VmmIdentity {
            kind: "qemu".into(),
            version: "7.2".into(),
            accelerator: "tcg".into(),
            cpu_model: "qemu64".into(),
            machine: "microvm".into(),
            kernel_digest: Digest::ZERO,
            agent_digest: Digest::ZERO,
        },
        restore_check: build::RestoreCheck {
            restore_ms: 1,
            disk_bytes: 2,
        },
        runtime: build::RuntimeDefaults {
            env_keys: vec!["A".into()],
            start_cmd: Some("serve".into()),
            ..build::RuntimeDefaults::default()
        },
        oci: build::OciMetadata::default(),
        reused: false,
    }
}

/// Checks the contract's error shape and gives the body.
pub(super) async fn is_error(response: Response, status: u16, code: &str) -> Value {
    assert_eq!(response.status().as_u16(), status, "{response:?}");
    assert_eq!(response.headers()["content-type"], "application/json");
    let id = response.headers()["x-request-id"].clone();
    let path = response.url().path().to_owned();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["code"], code, "{body}");
    assert_eq!(body["request_id"], id.to_str().unwrap());
    assert!(body["error"].as_str().is_some_and(|text| !text.is_empty()));
    let nulls = body.as_object().unwrap().values().any(Value::is_null);
    assert!(!nulls, "{body}");
    is_described_refusal(&path, status, &body);
    body
}
