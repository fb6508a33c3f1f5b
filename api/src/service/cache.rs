//! What operators do to the cache: see what is there and why, and take away what nobody needs. The
//! same whether it is asked through the running service or done on its data while it does not run.

mod collect;
mod explain;
mod files;
mod find;

pub use collect::Stays;
pub use explain::needs;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use commands::blobs::{BlobError, BlobStore};
use commands::ids::IdSource;
use commands::{AnyLog, DispatchError, Dispatcher};
use domain::Digest;
use domain::ids::{ArtifactId, BuildId};
use domain::ports::{EventReader as _, LogError};
use domain::template;
use domain::time::Timestamp;
use executor::artifact::ArtifactError;
use executor::cache::Cache;
use projections::Views;
use projections::builds::{BuildRow, BuildStatus};
use projections::store::StoreError as ViewsError;
use projections::views::Stalled;

use super::ClockHandle;
use super::uploads::{Uploads, UploadsError};
use crate::config::Retention;
use crate::wire::cache::{Kind, Line, List, Need, Total};

/// How long the views may take to show what the log has.
const PATIENCE: Duration = Duration::from_secs(20);
/// Builds of one page of a list.
const PAGE_COUNT: usize = 256;
/// The largest listing of a context, in bytes.
const LISTING_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why a question about the cache was not answered.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// More than one entry begins like this.
    #[error("`{key}` is the beginning of {count} keys, for example {}", .examples.join(" and "))]
    Ambiguous {
        /// As it was given.
        key: String,
        /// How many there are.
        count: usize,
        /// Some of them.
        examples: Vec<String>,
    },
    /// The key is empty.
    #[error("a key, or the beginning of one, is expected")]
    NoKey,
    /// The artifacts cannot be used.
    #[error("cannot use the artifact store")]
    Artifacts(#[from] ArtifactError),
    /// The layers cannot be used.
    #[error("cannot use the layer store")]
    Layers(#[from] executor::layers::StoreError),
    /// The blobs cannot be used.
    #[error("cannot use the store of uploaded files")]
    Blobs(#[from] BlobError),
    /// The views cannot be read.
    #[error("cannot read the views")]
    Views(#[from] ViewsError),
    /// The views are not where the log is.
    #[error("it is not known yet what is needed")]
    Stalled(#[from] Stalled),
    /// The log cannot be read.
    #[error("cannot read the event log")]
    Log(#[from] LogError),
    /// A build cannot be read.
    #[error("cannot read a build")]
    Load(#[source] DispatchError<std::convert::Infallible>),
    /// What became of an artifact cannot be recorded.
    #[error("cannot record that an artifact is gone")]
    Record(#[source] DispatchError<template::Rejection>),
    /// The table of uploads cannot be used.
    #[error("cannot use the table of uploads")]
    Uploads(#[from] UploadsError),
    /// A listing of a context is none.
    #[error("the listing of a context is damaged")]
    Listing(#[source] serde_json::Error),
    /// A thread was lost.
    #[error("the work was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// The cache, and what knows who needs what. Clones are the same.
#[derive(Clone, Debug)]
pub struct CacheDesk {
    /// Layers and artifacts.
    pub cache: Cache,
    /// Contents of files.
    pub blobs: BlobStore,
    /// Who has sent them.
    pub uploads: Uploads,
    /// Templates.
    pub views: Views,
    /// Builds.
    pub dispatcher: Dispatcher,
    /// The event log.
    pub log: AnyLog,
    /// New identifiers.
    pub ids: IdSource,
    /// The present moment.
    pub clock: ClockHandle,
    /// How long what nobody points to is kept.
    pub retention: Retention,
    /// What layers may take.
    pub layer_bytes_max: u64,
}

/// The references of the templates that need an artifact.
type Templates = BTreeMap<ArtifactId, BTreeSet<String>>;

impl CacheDesk {
    /// The entries, of one kind or of all.
    ///
    /// # Errors
    /// [`CacheError`].
    pub async fn list(&self, kind: Option<Kind>) -> Result<List, CacheError> {
        let mut entries = Vec::new();
        let wanted = |one: Kind| kind.is_none_or(|kind| kind == one);
        let templates = self.templates().await?;
        if wanted(Kind::Layer) {
            entries.extend(self.layer_lines(&templates).await?);
        }
        if wanted(Kind::Artifact) {
            entries.extend(self.artifact_lines(&templates).await?);
        }
        if wanted(Kind::Blob) {
            entries.extend(self.blob_lines().await?);
        }
        let kinds = [Kind::Layer, Kind::Artifact, Kind::Blob];
        let totals = kinds.into_iter().filter(|kind| wanted(*kind));
        let totals = totals.map(|kind| total(kind, &entries)).collect();
        Ok(List {
            entries,
            totals,
            layer_bytes_max: self.layer_bytes_max,
        })
    }

    async fn layer_lines(&self, templates: &Templates) -> Result<Vec<Line>, CacheError> {
        let layers = self.cache.layers.clone();
        let stored = tokio::task::spawn_blocking(move || layers.list()).await?;
        let line = |layer: executor::layers::StoredLayer| {
            let mut needs = BTreeSet::new();
            for owner in &layer.owners {
                needs.insert(Need::Artifact(owner.clone()));
                let needed = owner
                    .parse()
                    .ok()
                    .and_then(|id: ArtifactId| templates.get(&id));
                needs.extend(needed.into_iter().flatten().cloned().map(Need::Template));
            }
            Line {
                kind: Kind::Layer,
                key: layer.key.to_string(),
                bytes: layer.content_bytes,
                last_used: layer.used_at.map(text),
                in_use: layer.in_use,
                needed_by: needs.into_iter().collect(),
            }
        };
        Ok(stored.into_iter().map(line).collect())
    }

    async fn artifact_lines(&self, templates: &Templates) -> Result<Vec<Line>, CacheError> {
        let line = |artifact: executor::artifact::StoredArtifact| {
            let needed = templates.get(&artifact.id).into_iter().flatten();
            Line {
                kind: Kind::Artifact,
                key: artifact.id.to_string(),
                bytes: artifact.disk_bytes,
                last_used: artifact.used_at.map(text),
                in_use: artifact.in_use,
                needed_by: needed.cloned().map(Need::Template).collect(),
            }
        };
        let stored = self.cache.artifacts.stored().await?;
        Ok(stored.into_iter().map(line).collect())
    }

    async fn blob_lines(&self) -> Result<Vec<Line>, CacheError> {
        let needs = self.builds_with_files().await?;
        let line = |blob: commands::blobs::StoredBlob| {
            let builds = needs.get(&blob.digest).into_iter().flatten();
            Line {
                kind: Kind::Blob,
                key: blob.digest.to_string(),
                bytes: blob.bytes,
                last_used: blob.stored_at.map(text),
                in_use: false,
                needed_by: builds.map(|id| Need::Build(id.to_string())).collect(),
            }
        };
        Ok(self.blobs.list().await?.into_iter().map(line).collect())
    }

    /// Waits until the views show everything that the log has now.
    async fn catch_up(&self) -> Result<(), CacheError> {
        Ok(self.views.wait_for(self.log.head(), PATIENCE).await?)
    }

    /// Which templates need which artifacts: those of all their builds that are ready and have not
    /// expired, because each of them has a reference.
    async fn templates(&self) -> Result<Templates, CacheError> {
        self.catch_up().await?;
        let views = self.views.clone();
        tokio::task::spawn_blocking(move || templates(&views)).await?
    }

    /// Which builds that have not ended need which contents.
    async fn builds_with_files(&self) -> Result<BTreeMap<Digest, BTreeSet<BuildId>>, CacheError> {
        self.catch_up().await?;
        let views = self.views.clone();
        let unfinished = move || {
            let mut ids = BTreeSet::new();
            // Waiting twice: a failed attempt puts a build back into the line while it is looked.
            for status in [
                BuildStatus::Waiting,
                BuildStatus::Building,
                BuildStatus::Waiting,
            ] {
                each_build(&views, status, |row| {
                    ids.insert(row.build_id);
                })?;
            }
            Ok::<_, CacheError>(ids)
        };
        let mut needs: BTreeMap<Digest, BTreeSet<BuildId>> = BTreeMap::new();
        for id in tokio::task::spawn_blocking(unfinished).await?? {
            let (build, _) = self
                .dispatcher
                .load_build(&id)
                .await
                .map_err(CacheError::Load)?;
            let Some(accepted) = build.accepted() else {
                continue;
            };
            let requested = &accepted.requested;
            let mut contents: Vec<Digest> = requested.arrivals.into_iter().collect();
            if let Some(context) = &requested.definition.context {
                contents.push(context.digest);
                contents.extend(self.contents(&context.digest).await?);
            }
            for content in contents {
                needs.entry(content).or_default().insert(id.clone());
            }
        }
        Ok(needs)
    }
}

fn templates(views: &Views) -> Result<Templates, CacheError> {
    let mut needs = Templates::new();
    let mut ready = Vec::new();
    each_build(views, BuildStatus::Ready, |row| ready.push(row))?;
    for row in ready.into_iter().filter(BuildRow::is_usable) {
        let Some(artifact) = row.artifact else {
            continue;
        };
        let Some(template) = views.template(&row.template_id)? else {
            continue;
        };
        if template.deleted_at.is_some() {
            continue;
        }
        let name = format!("{}/{}", template.namespace, template.name);
        let tagged = template
            .tags
            .iter()
            .filter(|(_, tag)| tag.build_id == row.build_id);
        let mut references: Vec<_> = tagged.map(|(tag, _)| format!("{name}:{tag}")).collect();
        if references.is_empty() {
            references.push(format!("{name}:{}", row.build_id));
        }
        needs.entry(artifact).or_default().extend(references);
    }
    Ok(needs)
}

fn each_build(
    views: &Views,
    status: BuildStatus,
    mut take: impl FnMut(BuildRow),
) -> Result<(), CacheError> {
    let mut cursor = None;
    loop {
        let page = views.builds_by_status(status, cursor, PAGE_COUNT)?;
        page.items.into_iter().for_each(&mut take);
        match page.next {
            None => return Ok(()),
            next => cursor = next,
        }
    }
}

fn total(kind: Kind, entries: &[Line]) -> Total {
    let of_kind = || entries.iter().filter(|entry| entry.kind == kind);
    Total {
        kind,
        count: u64::try_from(of_kind().count()).unwrap_or(u64::MAX),
        bytes: of_kind().map(|entry| entry.bytes).sum(),
        needed_bytes: of_kind()
            .filter(|entry| entry.is_needed())
            .map(|entry| entry.bytes)
            .sum(),
    }
}

fn text(time: Timestamp) -> String {
    time.to_string()
}
