//! A worker's parts, real ones, and builds of Dockerfiles by them up to the machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use buildkit::daemon::DaemonConfig;
use commands::blobs::BlobStore;
use commands::clock::SystemClock;
use commands::dispatch::{Dispatcher, Meta};
use commands::ids::IdSource;
use commands::limits::{BlobLimits, DispatchLimits, LogLimits};
use commands::log::AnyLog;
use domain::Digest;
use domain::build::{Build, Command, Event, Requested};
use domain::definition::{
    Backend, BuildConfig, ContextEntry, ContextKind, ContextManifest, Definition, RuntimeConfig,
    Source, SourceType,
};
use domain::failure::Failure;
use domain::ids::BuildId;
use domain::ports::{Clock, EventReader as _};
use domain::recorded::{Actor, StreamName, Version};
use tokio_util::sync::CancellationToken;

use crate::holdings::Holdings;
use crate::image::{Mirror, RegistryConfig};
use crate::layers::OverlayMount;
use crate::limits::Limits;
use crate::native::container::NetworkAccess;
use crate::pipeline::base::{Base, Origin};
use crate::pipeline::{Attempt, Interruption, Job, dockerfile, failures, hiding};
use crate::report::{self, AttemptId};
use crate::services::{BuildkitConfig, Services, Settings, Shared};
use crate::vault::{Secrets, Vault};
use crate::vmm::{AcceleratorChoice, VmmConfig};

/// What `make test` says.
pub(super) fn setting(name: &str) -> String {
    let value =
        std::env::var_os(name).unwrap_or_else(|| panic!("{name}: run the suite by `make test`"));
    value.into_string().unwrap()
}

/// The address of the suites' daemon.
pub(super) fn daemon() -> String {
    setting("NULLSPACE_TEST_BUILDKIT")
}

/// A worker's parts in a folder of their own.
pub(super) struct World {
    pub(super) services: Arc<Services>,
    folder: tempfile::TempDir,
}

/// What is asked for.
#[derive(Default)]
pub(super) struct Wish<'a> {
    pub(super) dockerfile: &'a str,
    /// Paths, modes and contents.
    pub(super) files: &'a [(&'a str, u32, &'a str)],
    pub(super) build_args: &'a [(&'a str, &'a str)],
    pub(super) target: Option<&'a str>,
    pub(super) path: Option<&'a str>,
    pub(super) secrets: &'a [(&'a str, &'a str)],
    pub(super) internet_access: bool,
    pub(super) skip_cache: bool,
    pub(super) registry_auth: &'a [&'a str],
}

/// What came of it.
pub(super) struct Outcome {
    pub(super) base: Result<Base, Interruption>,
    pub(super) events: Vec<Event>,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::at(&[daemon()]).await
    }

    /// A worker that knows these daemons.
    pub(super) async fn at(daemons: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let log = AnyLog::memory(LogLimits::default());
        let blobs = BlobStore::open(folder.path().join("blobs"), BlobLimits::default());
        let shared = Shared {
            dispatcher: Dispatcher::new(log.clone(), Arc::clone(&clock), DispatchLimits::default()),
            log,
            ids: Arc::new(IdSource::new(Arc::clone(&clock)).unwrap()),
            clock,
            blobs: blobs.await.unwrap(),
            vault: Vault::default(),
        };
        let services = Services::open(shared, settings(folder.path(), daemons))
            .await
            .unwrap();
        Self {
            services: Arc::new(services),
            folder,
        }
    }

    /// Where everything is that the worker keeps.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) async fn build(&self, wish: Wish<'_>) -> Outcome {
        self.build_until(wish, CancellationToken::new()).await
    }

    /// Builds up to the layers, or until it is told to stop.
    pub(super) async fn build_until(&self, wish: Wish<'_>, stop: CancellationToken) -> Outcome {
        let services = &self.services;
        let build = services.ids.new_build_id();
        let mut secrets = Secrets::default();
        for (id, value) in wish.secrets {
            secrets.add_value(id.parse().unwrap(), value.as_bytes().to_vec().into());
        }
        if !secrets.is_empty() {
            services.vault.put(build.clone(), secrets).unwrap();
        }
        let requested = self.requested(&wish).await;
        self.give(&build, Command::Request(Box::new(requested)))
            .await;
        let worker = services.ids.new_worker_id();
        let command = Command::Start {
            worker: worker.clone(),
        };
        let Build::Building(accepted, attempt) = self.give(&build, command).await else {
            panic!("a started build is not building")
        };
        let id = AttemptId {
            worker,
            build: build.clone(),
            fence: attempt.fence,
        };
        let (reporter, reporting) = report::begin(
            id,
            services.dispatcher.clone(),
            Arc::clone(&services.ids),
            Arc::clone(&services.clock),
            services.limits.output,
        );
        let job = Job::new(&build, &accepted);
        let secrets = services.vault.get(&build);
        let mask = hiding(secrets.clone(), services.limits.secrets)
            .await
            .unwrap();
        let attempt = Attempt {
            services,
            job: &job,
            reporter: reporter.masked(mask.clone()),
            stop,
            holdings: Holdings::new(),
            secrets,
            mask: mask.clone(),
        };
        let Source::Dockerfile {
            text,
            path,
            build_args,
            target,
        } = &job.requested.definition.source
        else {
            panic!("it is a Dockerfile")
        };
        let source = dockerfile::Source {
            text,
            path: path.as_deref().unwrap_or(dockerfile::NAME),
            build_args,
            target: target.as_deref(),
        };
        let base = attempt
            .build_dockerfile(&source)
            .await
            .map_err(|error| match error {
                Interruption::Failed(failure) => failures::masked(failure, &mask).into(),
                stopped @ Interruption::Stopped { .. } => stopped,
            });
        drop(attempt);
        reporting.finish().await.unwrap();
        let events = self.events(&build).await;
        Outcome { base, events }
    }

    /// Waits until some build has written this.
    pub(super) async fn until_logged(&self, text: &str) {
        let log = &self.services.log;
        let mut seen = domain::recorded::Position::START;
        loop {
            log.wait_behind(seen).await.unwrap();
            for recorded in log.read_all(seen, 1000).await.unwrap() {
                seen = recorded.position;
                let domain::Event::Build(Event::StepLogged(logged)) = recorded.event else {
                    continue;
                };
                if logged.lines.iter().any(|line| line.text.contains(text)) {
                    return;
                }
            }
        }
    }

    async fn requested(&self, wish: &Wish<'_>) -> Requested {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let context = if wish.files.is_empty() {
            None
        } else {
            let (stored, context) = self.context(wish.files).await;
            self.services.blobs.put_bytes(stored).await.unwrap();
            Some(context)
        };
        let definition = Definition {
            source: Source::Dockerfile {
                text: wish.dockerfile.to_owned(),
                path: wish.path.map(str::to_owned),
                build_args: wish.build_args.iter().map(owned).collect(),
                target: wish.target.map(str::to_owned),
            },
            context,
            start_cmd: None,
            runtime: RuntimeConfig::default(),
            config: BuildConfig {
                vcpus: 1,
                memory_mib: 256,
                disk_mb: None,
                internet_access: wish.internet_access,
            },
            skip_cache: wish.skip_cache,
            secret_ids: wish
                .secrets
                .iter()
                .map(|(id, _)| id.parse().unwrap())
                .collect(),
        };
        let kinds = wish
            .registry_auth
            .iter()
            .map(|host| ((*host).to_owned(), "basic".to_owned()));
        Requested {
            definition_digest: definition.digest(),
            definition,
            owner: "acme".parse().unwrap(),
            namespace: "acme".parse().unwrap(),
            name: "app".parse().unwrap(),
            template_id: self.services.ids.new_template_id(),
            tags: vec![domain::name::Tag::default_tag()],
            backend: Backend::Buildkit,
            source_type: SourceType::Dockerfile,
            base: None,
            registry_auth: kinds.collect(),
            retry_of: None,
            arrivals: None,
            idempotency_key: None,
            request_digest: None,
            max_attempts: 2,
        }
    }

    async fn context(
        &self,
        files: &[(&str, u32, &str)],
    ) -> (Vec<u8>, domain::definition::ContextRef) {
        let mut entries = Vec::new();
        for (path, mode, content) in files {
            let digest = self
                .services
                .blobs
                .put_bytes(content.as_bytes().to_vec())
                .await
                .unwrap();
            assert_eq!(digest, Digest::of(content.as_bytes()));
            entries.push(ContextEntry {
                path: (*path).to_owned(),
                mode: *mode,
                kind: ContextKind::File {
                    digest,
                    bytes: u64::try_from(content.len()).unwrap(),
                },
            });
        }
        ContextManifest::new(entries).unwrap().to_stored()
    }

    async fn give(&self, build: &BuildId, command: Command) -> Build {
        let meta = Meta {
            command_id: self.services.ids.new_command_id(),
            actor: Actor::Operator,
        };
        let done = self.services.dispatcher.build(build, meta, command).await;
        done.unwrap().state
    }

    async fn events(&self, build: &BuildId) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let from = Version(u64::try_from(events.len()).unwrap());
            let stream = StreamName::Build(build.clone());
            let read = self
                .services
                .log
                .read_stream(&stream, from, 1000)
                .await
                .unwrap();
            if read.is_empty() {
                return events;
            }
            events.extend(read.into_iter().map(|recorded| match recorded.event {
                domain::Event::Build(event) => event,
                other => panic!("{other:?}"),
            }));
        }
    }
}

fn settings(folder: &Path, daemons: &[String]) -> Settings {
    let registry = setting("NULLSPACE_TEST_REGISTRY");
    let mirror = Mirror {
        host: registry.clone(),
        plain_http: true,
    };
    let target = std::env::current_exe()
        .unwrap()
        .ancestors()
        .nth(3)
        .unwrap()
        .to_owned();
    let daemon = |address: &String| DaemonConfig::new(address.parse().unwrap(), None).unwrap();
    Settings {
        data_dir: folder.join("data"),
        runc: crate::process::find("runc").unwrap(),
        registry: RegistryConfig {
            mirrors: BTreeMap::from([("docker.io".to_owned(), vec![mirror])]),
            // What the mirror has not is nowhere.
            mirrors_only: true,
            plain_http_hosts: [registry].into(),
            ..RegistryConfig::default()
        },
        buildkit: BuildkitConfig {
            buildctl: PathBuf::from(setting("NULLSPACE_BUILDCTL")),
            daemons: daemons.iter().map(daemon).collect(),
        },
        network: NetworkAccess::default(),
        vmm: VmmConfig {
            accelerator: AcceleratorChoice::Auto,
            ..VmmConfig::new(
                PathBuf::from(setting("NULLSPACE_GUEST_AGENT")),
                target.join("vmm-tests"),
            )
        },
        limits: Limits::default(),
    }
}

impl Outcome {
    /// What was made.
    #[track_caller]
    pub(super) fn made(&self) -> &Base {
        self.base
            .as_ref()
            .unwrap_or_else(|error| panic!("{error:?}\n{}", self.log()))
    }

    /// How it failed.
    #[track_caller]
    pub(super) fn failure(&self) -> &Failure {
        match &self.base {
            Err(Interruption::Failed(failure)) => failure,
            other => panic!("{other:?}\n{}", self.log()),
        }
    }

    /// Every line of the log, with the step that it is of.
    pub(super) fn log(&self) -> String {
        let mut log = String::new();
        for event in &self.events {
            let Event::StepLogged(logged) = event else {
                continue;
            };
            let step = logged.step.map_or(0, |(index, _)| index);
            for line in &logged.lines {
                let text = [&format!("{step} {:?} ", line.stream), &*line.text, "\n"];
                log.extend(text);
            }
        }
        log
    }

    /// The steps that ended: title, and whether BuildKit had their results.
    pub(super) fn steps(&self) -> Vec<(String, bool)> {
        let mut titles = BTreeMap::new();
        let mut steps = Vec::new();
        for event in &self.events {
            match event {
                Event::StepStarted(started) => drop(titles.insert(started.index, &started.name)),
                Event::StepFinished(finished) => {
                    steps.push((titles[&finished.index].clone(), finished.cached));
                }
                _ => {}
            }
        }
        steps
    }

    /// A file of what was made.
    #[track_caller]
    pub(super) fn read(&self, path: &str) -> Option<String> {
        self.look(|root| std::fs::read_to_string(root.join(path)).ok())
    }

    /// Looks at the files of what was made.
    #[track_caller]
    pub(super) fn look<T>(&self, look: impl FnOnce(&Path) -> T) -> T {
        let Origin::Dockerfile { layers } = &self.made().origin else {
            panic!("a Dockerfile made it")
        };
        let folder = tempfile::tempdir().unwrap();
        let mount = OverlayMount::read_only(layers, folder.path()).unwrap();
        let seen = look(mount.path());
        mount.unmount().unwrap();
        seen
    }
}
