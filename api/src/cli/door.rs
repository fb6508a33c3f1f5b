//! The way to the data: through the running service, or, while none runs, by opening it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::ports::EventReader as _;
use executor::cache::Cache;
use reqwest::{Client, Method, StatusCode};
use serde::de::DeserializeOwned;

use super::Failure;
use crate::config::{Config, DataDir};
use crate::service::audit::{self, Wanted};
use crate::service::cache::CacheDesk;
use crate::service::operator;
use crate::wire::admin::{CreatedKey, ErrorAnswer, KeyLine, NewKey, ResolvedTemplate};
use crate::wire::audit::{ExportPage, Replayed, TailPage, Verified};
use crate::wire::cache::{Collect, Collected, Eviction, Explanation, Kind, List};
use crate::wire::position::WirePosition;
use crate::wiring::{self, Foundation};

/// How long the views may take to follow the log.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why an operator's command was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum DoorError {
    /// No service has ever run there.
    #[error("there is no service data in {0}; `--data-dir` says where it is")]
    NothingThere(PathBuf),
    /// The service does not answer.
    #[error("the running service does not answer")]
    Silent(#[source] reqwest::Error),
    /// The service refused.
    #[error("{0}")]
    Refused(String),
    /// The answer is none of ours.
    #[error("the running service answered {status}, which is not understood")]
    Odd {
        /// Its status.
        status: StatusCode,
    },
}

/// The way to the data.
#[derive(Debug)]
pub(super) enum Door {
    /// Through the running service.
    Service(Client),
    /// By opening it.
    Data(Box<Foundation>),
}

/// How long the service may take to answer: a cleanup of a large cache removes many files.
const ANSWER_PATIENCE: Duration = Duration::from_mins(10);

/// Which events are wanted.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    /// Behind which position; `end` means the log's, for a running service alone.
    pub(super) after: String,
    pub(super) kind: Option<String>,
    pub(super) stream: Option<String>,
    /// Whether to wait for one.
    pub(super) waits: bool,
}

impl Tail {
    fn path(&self) -> String {
        let mut path = format!("events?after={}&wait={}", encode(&self.after), self.waits);
        for (name, value) in [("type", &self.kind), ("stream", &self.stream)] {
            if let Some(value) = value {
                // Writing to a text does not fail.
                write!(path, "&{name}={}", encode(value)).ok();
            }
        }
        path
    }
}

/// Whether the log is whole: asked of the running service, or, while none runs, looked at without
/// opening it, for that changes a log that is damaged.
pub(super) async fn verify(config: &Config) -> Result<Verified, Failure> {
    if let Some(client) = service(config).await? {
        return ask(&client, Method::POST, "events/verify", None::<&()>).await;
    }
    if !config.data_dir.log().exists() {
        return Err(DoorError::NothingThere(config.data_dir.path().to_owned()).into());
    }
    Ok(audit::verify_folder(&config.data_dir.log()).await?)
}

/// The way to the running service, if one runs.
async fn service(config: &Config) -> Result<Option<Client>, Failure> {
    let socket = config.data_dir.admin_socket();
    if !listens(&socket).await {
        return Ok(None);
    }
    let client = Client::builder()
        .unix_socket(socket)
        .no_proxy()
        .timeout(ANSWER_PATIENCE)
        .build()?;
    Ok(Some(client))
}

impl Door {
    /// Opens the way to the data of `config`.
    pub(super) async fn open(config: &Config) -> Result<Self, Failure> {
        if let Some(client) = service(config).await? {
            return Ok(Self::Service(client));
        }
        if !config.data_dir.log().exists() {
            return Err(DoorError::NothingThere(config.data_dir.path().to_owned()).into());
        }
        Ok(Self::Data(Box::new(open_data(config).await?)))
    }

    pub(super) async fn list_keys(&self) -> Result<Vec<KeyLine>, Failure> {
        match self {
            Self::Service(client) => ask(client, Method::GET, "keys", None::<&()>).await,
            Self::Data(data) => Ok(operator::list_keys(&data.dispatcher).await?),
        }
    }

    pub(super) async fn create_key(&self, new: NewKey) -> Result<CreatedKey, Failure> {
        match self {
            Self::Service(client) => ask(client, Method::POST, "keys", Some(&new)).await,
            Self::Data(data) => Ok(operator::create_key(&data.dispatcher, &data.ids, new).await?),
        }
    }

    pub(super) async fn revoke_key(&self, id: &str) -> Result<(), Failure> {
        match self {
            Self::Service(client) => {
                let path = format!("keys/{}", encode(id));
                send(client, Method::DELETE, &path, None::<&()>).await?;
                Ok(())
            }
            Self::Data(data) => Ok(operator::revoke_key(&data.dispatcher, &data.ids, id).await?),
        }
    }

    pub(super) async fn resolve(
        &self,
        owner: &str,
        reference: &str,
    ) -> Result<ResolvedTemplate, Failure> {
        match self {
            Self::Service(client) => {
                let (reference, owner) = (encode(reference), encode(owner));
                let path = format!("templates/{reference}?owner={owner}");
                ask(client, Method::GET, &path, None::<&()>).await
            }
            Self::Data(data) => Ok(operator::resolve(&data.views, owner, reference)?),
        }
    }

    pub(super) async fn cache_list(&self, kind: Option<Kind>) -> Result<List, Failure> {
        match self {
            Self::Service(client) => {
                let path = format!("cache{}", of_kind(kind));
                ask(client, Method::GET, &path, None::<&()>).await
            }
            Self::Data(data) => Ok(desk(data).await?.list(kind).await?),
        }
    }

    pub(super) async fn cache_explain(
        &self,
        key: &str,
        kind: Option<Kind>,
    ) -> Result<Explanation, Failure> {
        match self {
            Self::Service(client) => {
                let path = format!("cache/entries/{}{}", encode(key), of_kind(kind));
                ask(client, Method::GET, &path, None::<&()>).await
            }
            Self::Data(data) => Ok(desk(data).await?.explain(key, kind).await?),
        }
    }

    pub(super) async fn cache_evict(
        &self,
        key: &str,
        kind: Option<Kind>,
    ) -> Result<Eviction, Failure> {
        match self {
            Self::Service(client) => {
                let path = format!("cache/entries/{}{}", encode(key), of_kind(kind));
                ask(client, Method::DELETE, &path, None::<&()>).await
            }
            Self::Data(data) => Ok(desk(data).await?.evict(key, kind).await?),
        }
    }

    pub(super) async fn cache_collect(&self, wanted: Collect) -> Result<Collected, Failure> {
        match self {
            Self::Service(client) => ask(client, Method::POST, "cache/gc", Some(&wanted)).await,
            Self::Data(data) => Ok(desk(data).await?.collect(wanted).await?),
        }
    }

    /// Whether a service runs, which others may ask for something at the same time.
    pub(super) const fn is_service(&self) -> bool {
        match self {
            Self::Service(_) => true,
            Self::Data(_) => false,
        }
    }

    /// Events behind `after`; on request it is waited for one.
    pub(super) async fn tail(&self, tail: &Tail) -> Result<TailPage, Failure> {
        match self {
            Self::Service(client) => ask(client, Method::GET, &tail.path(), None::<&()>).await,
            Self::Data(data) => {
                let wanted = Wanted::new(tail.kind.as_deref(), tail.stream.as_deref())?;
                let after: WirePosition = tail.after.parse()?;
                Ok(audit::page(&data.log, &wanted, after.0).await?)
            }
        }
    }

    pub(super) async fn export(&self, build: &str, from: u64) -> Result<ExportPage, Failure> {
        match self {
            Self::Service(client) => {
                let path = format!("events/export/{}?from={from}", encode(build));
                ask(client, Method::GET, &path, None::<&()>).await
            }
            Self::Data(data) => Ok(audit::export_page(&data.log, build, from).await?),
        }
    }

    pub(super) async fn replay(&self) -> Result<Replayed, Failure> {
        match self {
            Self::Service(client) => ask(client, Method::POST, "events/replay", None::<&()>).await,
            Self::Data(data) => {
                let folder = data.config.data_dir.replay();
                Ok(audit::replay(&data.log, &data.views, &folder).await?)
            }
        }
    }

    /// Lets go of the data.
    pub(super) async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Service(_) => Ok(()),
            Self::Data(data) => Ok(data.log.close().await?),
        }
    }
}

/// The cache of a data folder that no service runs on.
async fn desk(data: &Foundation) -> Result<CacheDesk, Failure> {
    let limits = wiring::worker::limits(&data.config);
    let cache = Cache::open(data.config.data_dir.path(), &limits).await?;
    Ok(data.desk(cache))
}

fn of_kind(kind: Option<Kind>) -> String {
    kind.map_or_else(String::new, |kind| format!("?kind={}", kind.as_str()))
}

async fn listens(socket: &Path) -> bool {
    tokio::net::UnixStream::connect(socket).await.is_ok()
}

/// Opens the log, and brings the views up to it.
async fn open_data(config: &Config) -> Result<Foundation, Failure> {
    DataDir::create(&config.data_dir)?;
    let (foundation, runner) = Foundation::open(config.clone()).await?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (log, views) = (foundation.log.clone(), foundation.views.clone());
    let head = log.head();
    let following = tokio::spawn(async move { runner.run(&log, stopped).await });
    let caught_up = views.wait_for(head, PATIENCE).await;
    stop.send_replace(true);
    following.await??;
    caught_up?;
    Ok(foundation)
}

async fn ask<T: DeserializeOwned>(
    client: &Client,
    method: Method,
    path: &str,
    body: Option<&impl serde::Serialize>,
) -> Result<T, Failure> {
    let response = send(client, method, path, body).await?;
    let status = response.status();
    let answer = response.json().await;
    Ok(answer.map_err(|_| DoorError::Odd { status })?)
}

async fn send(
    client: &Client,
    method: Method,
    path: &str,
    body: Option<&impl serde::Serialize>,
) -> Result<reqwest::Response, DoorError> {
    // The host is a matter of form: the connection goes to the socket.
    let mut request = client.request(method, format!("http://localhost/admin/{path}"));
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request.send().await.map_err(DoorError::Silent)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    match response.json::<ErrorAnswer>().await {
        Ok(answer) => Err(DoorError::Refused(answer.error)),
        Err(_) => Err(DoorError::Odd { status }),
    }
}

/// `text` as one segment of a path or value of a query.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a text does not fail.
            write!(encoded, "%{byte:02X}").ok();
        }
    }
    encoded
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::wiring::Service;

    pub(in crate::cli) fn config(folder: &Path) -> Config {
        let mut config = Config {
            data_dir: DataDir::new(folder),
            ..Config::default()
        };
        config.http.listen = "127.0.0.1:0".parse().unwrap();
        config.http.workers = 1;
        config
    }

    /// Makes, lists and revokes a key; gives how many keys were there before.
    async fn use_keys(door: &Door) -> usize {
        let before = door.list_keys().await.unwrap();
        let new = NewKey {
            owner: "guest".to_owned(),
            label: "for a while".to_owned(),
        };
        let created = door.create_key(new).await.unwrap();
        assert!(created.key.starts_with("ns_live_"));
        let listed = door.list_keys().await.unwrap();
        assert!(listed.contains(&created.line));
        door.revoke_key(&created.line.id).await.unwrap();
        assert_eq!(door.list_keys().await.unwrap(), before);
        let unknown = door.resolve("default", "no-such/template").await;
        let message = domain::causes::chain(unknown.unwrap_err().as_ref());
        assert!(message.contains("`no-such/template` means no"), "{message}");
        before.len()
    }

    /// Looks at the cache, which holds one file; gives what explains it.
    async fn use_cache(door: &Door) -> Explanation {
        let list = door.cache_list(Some(Kind::Blob)).await.unwrap();
        let [file] = list.entries.as_slice() else {
            panic!("{list:?}")
        };
        let unknown = door.cache_evict("0123456789abcdef", None).await.unwrap();
        assert_eq!(unknown.outcome, crate::wire::cache::Outcome::Unknown);
        let wanted = Collect {
            dry_run: true,
            bytes_max: Some(0),
        };
        let collected = door.cache_collect(wanted).await.unwrap();
        assert!(collected.dry_run && collected.removed.is_empty());
        let begin = file.key.get(..20).unwrap();
        door.cache_explain(begin, Some(Kind::Blob)).await.unwrap()
    }

    #[tokio::test]
    async fn the_same_is_done_with_and_without_a_running_service() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        assert!(Door::open(&config).await.is_err());
        let (foundation, runner) = Foundation::open(config.clone()).await.unwrap();
        foundation.blobs.put_bytes(b"x".to_vec()).await.unwrap();
        let service = Service::without_worker(foundation, runner).await.unwrap();
        let door = Door::open(&config).await.unwrap();
        assert!(matches!(door, Door::Service(_)));
        assert_eq!(use_keys(&door).await, 1);
        let explained = use_cache(&door).await;
        door.close().await.unwrap();
        service.stop().await.unwrap();
        let door = Door::open(&config).await.unwrap();
        assert!(matches!(door, Door::Data(_)));
        assert_eq!(use_cache(&door).await, explained);
        assert_eq!(use_keys(&door).await, 1);
        door.close().await.unwrap();
    }
}
