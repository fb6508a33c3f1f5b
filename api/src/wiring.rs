//! The composition root: the only place that names every adapter.

mod background;
pub mod restore;
mod webhooks;
pub mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use commands::blobs::{BlobError, BlobStore};
use commands::clock::SystemClock;
use commands::ids::{IdSource, NoEntropy};
use commands::limits::{BlobLimits, DispatchLimits, LogLimits};
use commands::{AnyLog, Dispatcher};
use domain::name::Owner;
use domain::ports::{Clock, EventReader as _, LogError};
use executor::cache::{Cache, CacheError};
use executor::limits::vault::VaultLimits;
use executor::vault::Vault;
use projections::limits::Limits as ViewLimits;
use projections::store::StoreError;
use projections::store::memory::Memory;
use projections::{Runner, Views};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use background::{Background, BackgroundError};

use crate::config::{Config, ConfigError};
use crate::http;
use crate::service::admission::Admission;
use crate::service::cache::CacheDesk;
use crate::service::events::Pages;
use crate::service::first_key::{self, FirstKeyError};
use crate::service::keys::{KeyTable, KeyText};
use crate::service::metrics::{Levels, Metrics};
use crate::service::once::Turns;
use crate::service::owners::Owners;
use crate::service::uploads::Uploads;
use crate::service::webhooks::ledger::Ledger;
use crate::service::webhooks::signing::SigningKeyError;
use crate::service::{App, ClockHandle, retention};

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder cannot be made.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The event log cannot be opened.
    #[error("cannot open the event log")]
    Log(#[from] LogError),
    /// The views cannot be opened.
    #[error("cannot open the views")]
    Views(#[from] StoreError),
    /// The store of files cannot be opened.
    #[error("cannot open the store of uploaded files")]
    Blobs(#[from] BlobError),
    /// No random bytes.
    #[error("cannot draw identifiers")]
    Ids(#[from] NoEntropy),
    /// The first key cannot be made.
    #[error("cannot make the first key")]
    FirstKey(#[from] FirstKeyError),
    /// The keys cannot be read.
    #[error("cannot read the keys")]
    Keys(#[source] commands::DispatchError<std::convert::Infallible>),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The layers and artifacts cannot be opened.
    #[error("cannot open the cache")]
    Cache(#[from] CacheError),
    /// The key that signs what webhooks send cannot be had.
    #[error("cannot open the key of webhooks")]
    SigningKey(#[from] SigningKeyError),
    /// What sends to webhooks cannot be set up.
    #[error("cannot set up the sending of webhooks")]
    Sender(#[source] reqwest::Error),
    /// The worker cannot start.
    #[error("cannot start the worker")]
    Worker(#[from] worker::WorkerStartError),
    /// A thread was lost.
    #[error("the start was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// What everything else stands on: the log, the views and what reads and writes them.
#[derive(Debug)]
pub struct Foundation {
    /// The settings.
    pub config: Config,
    /// The event log.
    pub log: AnyLog,
    /// The way to write to it.
    pub dispatcher: Dispatcher,
    /// What is made of it.
    pub views: Views,
    /// Contents of files.
    pub blobs: BlobStore,
    /// Secret values of builds that are not over.
    pub vault: Vault,
    /// What was delivered to webhooks.
    pub ledger: Ledger,
    /// New identifiers.
    pub ids: IdSource,
    /// The present moment.
    pub clock: ClockHandle,
}

impl Foundation {
    /// Opens what is kept in the data folder.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn open(config: Config) -> Result<(Self, Runner), StartError> {
        let log = AnyLog::open(config.data_dir.log(), LogLimits::default()).await?;
        let folder = config.data_dir.views();
        let opening =
            tokio::task::spawn_blocking(move || projections::open(&folder, &ViewLimits::default()));
        let (views, runner) = opening.await??;
        let ledger = webhooks::ledger(config.data_dir.deliveries()).await?;
        let foundation = Self::over(config, log, views, ledger).await?;
        Ok((foundation, runner))
    }

    /// The same in memory, for tests; files are kept in the data folder all the same.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn in_memory(config: Config) -> Result<(Self, Runner), StartError> {
        let log = AnyLog::memory(LogLimits::default());
        let (views, runner) = projections::in_memory(&ViewLimits::default())?;
        let ledger = Ledger::over(Arc::new(Memory::default()))?;
        let foundation = Self::over(config, log, views, ledger).await?;
        Ok((foundation, runner))
    }

    /// What operators do to `cache`.
    pub fn desk(&self, cache: Cache) -> CacheDesk {
        let limits = worker::limits(&self.config);
        CacheDesk {
            cache,
            blobs: self.blobs.clone(),
            uploads: Uploads::new(
                self.config.data_dir.uploads(),
                self.config.limits.pending_upload_count_max,
            ),
            views: self.views.clone(),
            dispatcher: self.dispatcher.clone(),
            log: self.log.clone(),
            ids: self.ids.clone(),
            clock: self.clock.clone(),
            retention: self.config.retention.clone(),
            layer_bytes_max: limits.worker.layer_bytes_max,
        }
    }

    async fn over(
        config: Config,
        log: AnyLog,
        views: Views,
        ledger: Ledger,
    ) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let limits = BlobLimits {
            blob_bytes_max: config.limits.blob_bytes_max,
            ..BlobLimits::default()
        };
        Ok(Self {
            dispatcher: Dispatcher::new(log.clone(), clock.clone(), DispatchLimits::default()),
            blobs: BlobStore::open(config.data_dir.blobs(), limits).await?,
            vault: Vault::new(VaultLimits::default()),
            ids: IdSource::new(clock.clone())?,
            clock: ClockHandle(clock),
            config,
            log,
            views,
            ledger,
        })
    }
}

/// A service that runs.
#[derive(Debug)]
pub struct Service {
    /// What its endpoints share.
    pub app: Arc<App>,
    /// Where it listens.
    pub address: SocketAddr,
    /// The key that was made, if this is the first start.
    pub first_key: Option<KeyText>,
    background: Background,
    servers: Vec<ServerHandle>,
}

/// The owner of the first key.
fn first_owner() -> Owner {
    "default".parse().expect("a lower-case word is an owner")
}

impl Service {
    /// Starts the service on what is kept in the data folder.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.data_dir.create()?;
        let (foundation, runner) = Foundation::open(config).await?;
        let mut background = Background::new();
        let (worker_ready, cache) = worker::start(&foundation, &mut background).await?;
        Self::serve(foundation, runner, background, worker_ready, cache).await
    }

    /// Starts the service on an opened foundation without a worker: builds are accepted and wait.
    /// For tests of everything but building.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn without_worker(
        foundation: Foundation,
        runner: Runner,
    ) -> Result<Self, StartError> {
        let (_, ready) = watch::channel(true);
        let limits = worker::limits(&foundation.config);
        let cache = Cache::open(foundation.config.data_dir.path(), &limits).await?;
        Self::serve(foundation, runner, Background::new(), ready, cache).await
    }

    async fn serve(
        foundation: Foundation,
        runner: Runner,
        mut background: Background,
        worker_ready: watch::Receiver<bool>,
        cache: Cache,
    ) -> Result<Self, StartError> {
        let meta = commands::Meta {
            command_id: foundation.ids.new_command_id(),
            actor: domain::recorded::Actor::Operator,
        };
        let first_key = first_key::ensure(
            &foundation.dispatcher,
            meta,
            foundation.ids.new_key_id(),
            first_owner(),
            &foundation.config.data_dir.admin_key(),
        )
        .await?;
        follow_views(&mut background, runner, foundation.log.clone());
        let app = Arc::new(app(foundation, worker_ready, cache).await?);
        follow_keys(&mut background, &app);
        follow_metrics(&mut background, &app);
        follow_retention(&mut background, &app);
        webhooks::send(&mut background, &app)?;
        let (address, servers) = listen(&app, &mut background)?;
        Ok(Self {
            app,
            address,
            first_key,
            background,
            servers,
        })
    }

    /// Waits until something in the background fails, which a service cannot go on without.
    pub async fn failed(&mut self) -> BackgroundError {
        self.background.failed().await
    }

    /// Stops: no new connections, streams end, open requests have their time, builds have theirs,
    /// and the log is closed.
    ///
    /// # Errors
    /// [`LogError`] if the log could not be closed well.
    pub async fn stop(mut self) -> Result<(), LogError> {
        tracing::info!("stopping");
        self.app.stopping.cancel();
        self.background.first().cancel();
        let pausing = self.servers.iter().map(ServerHandle::pause);
        futures_util::future::join_all(pausing).await;
        self.app.open.close();
        let patience = Duration::from_secs(self.app.config.limits.drain_secs_max);
        if tokio::time::timeout(patience, self.app.open.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                request_count = self.app.open.len(),
                "open requests are dropped"
            );
        }
        let stopping = self.servers.iter().map(|server| server.stop(true));
        futures_util::future::join_all(stopping).await;
        self.background.stop().await;
        let socket = self.app.config.data_dir.admin_socket();
        // Left behind, it would only be refused by nobody listening.
        std::fs::remove_file(socket).ok();
        self.app.log.close().await?;
        tracing::info!("stopped");
        Ok(())
    }
}

async fn app(
    foundation: Foundation,
    worker_ready: watch::Receiver<bool>,
    cache: Cache,
) -> Result<App, StartError> {
    let desk = foundation.desk(cache);
    let Foundation {
        config,
        log,
        dispatcher,
        views,
        blobs,
        vault,
        ledger,
        ids,
        clock,
    } = foundation;
    let webhooks = webhooks::desk(&config, ledger).await?;
    let keys = KeyTable::default();
    let (known, _) = dispatcher.load_keys().await.map_err(StartError::Keys)?;
    keys.replace(&known);
    let streams_max = config.limits.open_stream_count_max;
    let streams = Arc::new(Semaphore::new(streams_max));
    let known_max = config.limits.known_stream_count_max;
    let owners = Owners::new(log.clone(), views.clone(), known_max);
    Ok(App {
        metrics: metrics(&log, &views, &streams, streams_max),
        // The same table: its gate is one.
        uploads: desk.uploads.clone(),
        admission: Admission::default(),
        turns: Turns::default(),
        desk,
        inspections: Semaphore::new(config.limits.inspection_count_max),
        audits: Semaphore::new(1),
        past_views: Semaphore::new(config.limits.past_view_count_max),
        streams,
        open: TaskTracker::new(),
        stopping: CancellationToken::new(),
        ready_from: log.head(),
        runtime: tokio::runtime::Handle::current(),
        pages: Pages::new(log.clone(), owners.clone(), &config.limits),
        owners,
        webhooks,
        worker_ready,
        config,
        log,
        dispatcher,
        views,
        blobs,
        vault,
        keys,
        ids,
        clock,
    })
}

/// The views follow the log until everything else has stopped: they are the last to go.
fn follow_views(background: &mut Background, runner: Runner, log: AnyLog) {
    let token = background.last();
    background.spawn("views", async move {
        let (stop, stopped) = watch::channel(false);
        let mut running = std::pin::pin!(runner.run(&log, stopped));
        tokio::select! {
            ran = &mut running => ran?,
            () = token.cancelled() => {
                stop.send_replace(true);
                running.await?;
            }
        }
        Ok(())
    });
}

fn follow_keys(background: &mut Background, app: &Arc<App>) {
    let following = app.keys.clone().follow(
        app.log.clone(),
        app.dispatcher.clone(),
        Duration::from_millis(app.config.limits.key_refresh_ms),
        background.last(),
    );
    background.spawn("keys", async move {
        following.await;
        Ok(())
    });
}

fn follow_retention(background: &mut Background, app: &Arc<App>) {
    let (files, stop) = (Arc::clone(app), background.first());
    background.spawn("files", async move {
        retention::collect(&files, &stop).await;
        Ok(())
    });
    let (app, stop) = (Arc::clone(app), background.first());
    background.spawn("retention", async move {
        retention::follow(&app, &stop).await;
        Ok(())
    });
}

/// What happens to builds is counted from the log's first event on.
fn follow_metrics(background: &mut Background, app: &Arc<App>) {
    let (log, metrics, stop) = (app.log.clone(), app.metrics.clone(), background.last());
    let events_max = app.config.limits.stream_entry_count_max;
    background.spawn("metrics", async move {
        loop {
            let events = log.read_all(metrics.position(), events_max).await?;
            if !events.is_empty() {
                metrics.count(&events);
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                behind = log.wait_behind(metrics.position()) => behind?,
            }
        }
    });
}

/// The figures, with those that are asked for when they are shown.
fn metrics(log: &AnyLog, views: &Views, streams: &Arc<Semaphore>, streams_max: usize) -> Metrics {
    let (log, views, streams) = (log.clone(), views.clone(), Arc::clone(streams));
    Metrics::new(Levels {
        view_lag_events: Box::new(move || {
            let shown = views.applied().raw();
            log.head().raw().saturating_sub(shown)
        }),
        open_streams: Box::new(move || {
            let open = streams_max.saturating_sub(streams.available_permits());
            u64::try_from(open).unwrap_or(u64::MAX)
        }),
    })
}

fn listen(
    app: &Arc<App>,
    background: &mut Background,
) -> Result<(SocketAddr, Vec<ServerHandle>), StartError> {
    let wanted = app.config.http.listen;
    let cannot = |address: String| move |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(wanted).map_err(cannot(wanted.to_string()))?;
    let (server, address) = http::server(app, listener).map_err(cannot(wanted.to_string()))?;
    let path = app.config.data_dir.admin_socket();
    let door = admin_listener(&path).map_err(cannot(path.display().to_string()))?;
    let admin = http::admin_server(app, door).map_err(cannot(path.display().to_string()))?;
    let handles = vec![server.handle(), admin.handle()];
    background.spawn("http", async move { server.await.map_err(Into::into) });
    background.spawn("admin", async move { admin.await.map_err(Into::into) });
    Ok((address, handles))
}

/// A socket that only its owner can open. Another service cannot be using the path: the data
/// folder's log, which is open by now, has one user at a time.
fn admin_listener(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    // The folder is private already.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The guest agent: as set, or where this program finds it.
///
/// # Errors
/// If this program does not know where it is.
pub fn guest_agent(config: &Config) -> io::Result<PathBuf> {
    let executable = std::env::current_exe()?;
    Ok(config.vmm.guest_agent_beside(&executable))
}
