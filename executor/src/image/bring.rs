//! Bringing the layers of an image into the store, several at a time, from wherever they are.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domain::Digest;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinError;

use super::blob::{Blob, unpack_blob};
use super::error::{ImageError, check};
use super::manifest::LayerDescriptor;
use super::resolve::Documents;
use crate::layers::{BuildError, Layer, LayerStore, Provenance, Staging, UnpackError, chain_key};
use crate::limits::layers::{ImageLimits, LayerLimits};

/// How far a pull is with one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// The layer's place, bottom first, from 0.
    pub layer_index: usize,
    /// The image's layers.
    pub layer_count: usize,
    /// The layer as it is transferred.
    pub digest: Digest,
    /// What happened.
    pub stage: LayerStage,
}

/// What happened to a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerStage {
    /// It is being transferred.
    Transferring {
        /// Bytes that came so far.
        done_bytes: u64,
        /// Bytes of the whole.
        total_bytes: u64,
    },
    /// It is complete and kept.
    Stored {
        /// Whether it was there, in which case nothing was transferred.
        provenance: Provenance,
    },
}

/// Looks at the folder of a layer, by its place, before it is kept; false: it is not to be. Blocking.
pub type Inspect = Arc<dyn Fn(usize, &Path) -> bool + Send + Sync>;

/// Where the layers of an image are.
pub(super) trait Blobs: Documents {
    /// Gives the bytes of a layer to `unpacking`. An error is one of the transfer; what the unpacker
    /// says is beside it.
    fn unpack(
        &self,
        layer: &LayerDescriptor,
        unpacking: Unpacking,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> impl Future<Output = Result<Result<Filled, UnpackError>, ImageError>> + Send;
}

/// A layer's folder that waits for its bytes.
pub(super) struct Unpacking {
    staging: Staging,
    /// The layers beneath, bottom first, each as soon as it is there.
    beneath: Vec<watch::Receiver<Option<Layer>>>,
    runtime: Handle,
    limits: LayerLimits,
    zstd_window_log_max: u32,
    index: usize,
    inspect: Option<Inspect>,
}

/// A layer's folder that is filled.
pub(super) struct Filled {
    blob: Blob,
    /// Whether whoever looked at it has nothing against it.
    accepted: bool,
}

impl Unpacking {
    /// Unpacks `bytes`. Blocking.
    pub(super) fn run(self, bytes: impl Read) -> Result<Filled, UnpackError> {
        let (runtime, beneath) = (self.runtime, self.beneath);
        let lowers = || wait_for(&runtime, beneath);
        let window = self.zstd_window_log_max;
        let blob = unpack_blob(bytes, &self.staging, lowers, &self.limits, window)?;
        let inspected = |inspect: Inspect| inspect(self.index, self.staging.path());
        let accepted = self.inspect.is_none_or(inspected);
        Ok(Filled { blob, accepted })
    }
}

/// What a task said that unpacked a layer.
pub(super) fn unpacked(
    ended: Result<Result<Filled, UnpackError>, JoinError>,
) -> Result<Filled, UnpackError> {
    match ended {
        Ok(unpacked) => unpacked,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(UnpackError::LowersLost),
        },
    }
}

/// Brings layers into the store; gives them bottom first.
///
/// Several are under way at a time, the lowest first. A layer that is in the store is not transferred,
/// and not shown to `inspect`.
pub(super) async fn bring(
    blobs: &impl Blobs,
    layers: &[LayerDescriptor],
    (store, inspect): (&LayerStore, Option<&Inspect>),
    limits: &ImageLimits,
    progress: &(dyn Fn(PullProgress) + Send + Sync),
) -> Result<Vec<Layer>, ImageError> {
    let bringing = Bringing {
        blobs,
        store,
        inspect,
        zstd_window_log_max: limits.zstd_window_log_max,
        layer_count: layers.len(),
        progress,
    };
    // Made before they are streamed: a stream that maps by a closure over borrowed jobs is not
    // `Send` to the compiler.
    let jobs: Vec<_> = jobs(layers)
        .into_iter()
        .map(|job| bringing.layer(job))
        .collect();
    let layers: Vec<Layer> = futures_util::stream::iter(jobs)
        // In order: the lowest unfinished layer is always among those under way, so a layer that
        // waits for the ones beneath it waits for something that moves.
        .buffered(limits.layers_parallel_max.max(1))
        .try_collect()
        .await?;
    store.stack(&layers);
    Ok(layers)
}

/// One layer.
struct Job<'a> {
    index: usize,
    key: Digest,
    descriptor: &'a LayerDescriptor,
    /// The layers beneath, bottom first, each as soon as it is there.
    beneath: Vec<watch::Receiver<Option<Layer>>>,
    done: watch::Sender<Option<Layer>>,
}

fn jobs(layers: &[LayerDescriptor]) -> Vec<Job<'_>> {
    let mut beneath = Vec::new();
    let mut parent = None;
    let mut jobs = Vec::new();
    for (index, descriptor) in layers.iter().enumerate() {
        let key = chain_key(parent.as_ref(), &descriptor.diff_id);
        let (done, receiver) = watch::channel(None);
        jobs.push(Job {
            index,
            key,
            descriptor,
            beneath: beneath.clone(),
            done,
        });
        beneath.push(receiver);
        parent = Some(key);
    }
    jobs
}

struct Bringing<'a, B> {
    blobs: &'a B,
    store: &'a LayerStore,
    inspect: Option<&'a Inspect>,
    zstd_window_log_max: u32,
    layer_count: usize,
    progress: &'a (dyn Fn(PullProgress) + Send + Sync),
}

impl<B: Blobs> Bringing<'_, B> {
    async fn layer(&self, job: Job<'_>) -> Result<Layer, ImageError> {
        let (index, descriptor, beneath) = (job.index, job.descriptor, job.beneath);
        let fetch = |staging| self.fetch(index, descriptor, beneath, staging);
        let kept = Box::pin(self.store.get_or_build(job.key, fetch)).await;
        let (layer, provenance) = kept.map_err(|error| match error {
            BuildError::Build(error) => error,
            BuildError::Store(source) => ImageError::Store {
                image: self.blobs.name(),
                source,
            },
        })?;
        self.report(index, descriptor, LayerStage::Stored { provenance });
        job.done.send_replace(Some(layer.clone()));
        Ok(layer)
    }

    /// Transfers a layer into its folder while it is unpacked there.
    async fn fetch(
        &self,
        index: usize,
        descriptor: &LayerDescriptor,
        beneath: Vec<watch::Receiver<Option<Layer>>>,
        staging: Staging,
    ) -> Result<(), ImageError> {
        let unpacking = Unpacking {
            staging,
            beneath,
            runtime: Handle::current(),
            limits: self.store.limits().clone(),
            zstd_window_log_max: self.zstd_window_log_max,
            index,
            inspect: self.inspect.cloned(),
        };
        let total_bytes = descriptor.size_bytes;
        let progress = |done_bytes| {
            let stage = LayerStage::Transferring {
                done_bytes,
                total_bytes,
            };
            self.report(index, descriptor, stage);
        };
        progress(0);
        let unpacked = self.blobs.unpack(descriptor, unpacking, &progress).await?;
        let image = self.blobs.name();
        let Filled { blob, accepted } = unpacked.map_err(|source| ImageError::Layer {
            image: image.clone(),
            layer: descriptor.digest,
            source,
        })?;
        if !accepted {
            let layer = descriptor.digest;
            return Err(ImageError::Rejected { image, layer });
        }
        check(&image, "a layer", descriptor.digest, blob.digest)?;
        check(
            &image,
            "a layer's content",
            descriptor.diff_id,
            blob.diff_id,
        )?;
        tracing::debug!(
            %image,
            layer = %descriptor.digest,
            entries = blob.unpacked.entries,
            content_bytes = blob.unpacked.content_bytes,
            "a layer is unpacked"
        );
        Ok(())
    }

    fn report(&self, layer_index: usize, descriptor: &LayerDescriptor, stage: LayerStage) {
        (self.progress)(PullProgress {
            layer_index,
            layer_count: self.layer_count,
            digest: descriptor.digest,
            stage,
        });
    }
}

/// The folders of the layers beneath, nearest first, once all are there. Blocking.
fn wait_for(
    runtime: &Handle,
    beneath: Vec<watch::Receiver<Option<Layer>>>,
) -> Result<Vec<PathBuf>, UnpackError> {
    let mut folders = Vec::new();
    for mut layer in beneath.into_iter().rev() {
        // A pull that failed drops its senders.
        let layer = runtime
            .block_on(layer.wait_for(Option::is_some))
            .map_err(|_| UnpackError::LowersLost)?;
        folders.extend(layer.as_ref().map(|layer| layer.path().to_owned()));
    }
    Ok(folders)
}
