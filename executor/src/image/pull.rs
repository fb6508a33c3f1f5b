//! Pulling: every layer of an image into the store, several at a time.

use std::path::PathBuf;

use domain::Digest;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::{mpsc, watch};

use super::blob::{Blob, unpack_blob};
use super::credentials::Credentials;
use super::download::transfer;
use super::error::ImageError;
use super::manifest::{LayerDescriptor, ResolvedImage};
use super::registry::Registry;
use super::source::Source;
use crate::layers::{BuildError, Layer, LayerStore, Provenance, Staging, UnpackError, chain_key};

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

/// One layer of a pull.
struct Job<'a> {
    index: usize,
    key: Digest,
    descriptor: &'a LayerDescriptor,
    /// The layers beneath, bottom first, each as soon as it is there.
    beneath: Vec<watch::Receiver<Option<Layer>>>,
    done: watch::Sender<Option<Layer>>,
}

impl Registry {
    /// Brings the image's layers into the store; gives them bottom first.
    ///
    /// Layers stream from the network into their folders. Several are under way at a time, the
    /// lowest first. A layer that is in the store is not transferred.
    ///
    /// # Errors
    /// Any [`ImageError`]. Layers that were complete stay in the store.
    pub async fn pull(
        &self,
        image: &ResolvedImage,
        credentials: &Credentials,
        store: &LayerStore,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<Vec<Layer>, ImageError> {
        let source = self.source(&image.reference, credentials);
        let pull = Pull {
            source: &source,
            store,
            layer_count: image.layers.len(),
            progress,
        };
        // Made before they are streamed: a stream that maps by a closure over borrowed jobs is not
        // `Send` to the compiler.
        let pulls: Vec<_> = jobs(&image.layers)
            .into_iter()
            .map(|job| pull.layer(job))
            .collect();
        let layers: Vec<Layer> = futures_util::stream::iter(pulls)
            // In order: the lowest unfinished layer is always among those under way, so a layer that
            // waits for the ones beneath it waits for something that moves.
            .buffered(self.limits().layers_parallel_max.max(1))
            .try_collect()
            .await?;
        store.stack(&layers);
        Ok(layers)
    }
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

struct Pull<'a> {
    source: &'a Source<'a>,
    store: &'a LayerStore,
    layer_count: usize,
    progress: &'a (dyn Fn(PullProgress) + Send + Sync),
}

impl Pull<'_> {
    async fn layer(&self, job: Job<'_>) -> Result<Layer, ImageError> {
        let (index, descriptor, beneath) = (job.index, job.descriptor, job.beneath);
        let fetch = |staging| self.fetch(index, descriptor, beneath, staging);
        let kept = Box::pin(self.store.get_or_build(job.key, fetch)).await;
        let (layer, provenance) = kept.map_err(|error| match error {
            BuildError::Build(error) => error,
            BuildError::Store(source) => ImageError::Store {
                image: self.source.image.clone(),
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
        let limits = self.source.limits;
        let (sender, receiver) = mpsc::channel(limits.pieces_queued_max.max(1));
        let unpacking = {
            let (limits, window) = (self.store.limits().clone(), limits.zstd_window_log_max);
            let runtime = tokio::runtime::Handle::current();
            tokio::task::spawn_blocking(move || {
                let lowers = || wait_for(&runtime, beneath);
                unpack_blob(receiver, &staging, lowers, &limits, window)
            })
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
        let transferring = transfer(
            self.source,
            &descriptor.digest,
            total_bytes,
            sender,
            &progress,
        );
        let (transferred, unpacked) = tokio::join!(transferring, unpacking);
        // The transfer's error is the cause of the unpacker's, which only saw the bytes end.
        transferred?;
        let unpacked = match unpacked {
            Ok(unpacked) => unpacked,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(UnpackError::LowersLost),
            },
        };
        let blob = unpacked.map_err(|source| ImageError::Layer {
            image: self.source.image.clone(),
            layer: descriptor.digest,
            source,
        })?;
        self.verify(descriptor, &blob)
    }

    fn verify(&self, descriptor: &LayerDescriptor, blob: &Blob) -> Result<(), ImageError> {
        self.source
            .check("a layer", descriptor.digest, blob.digest)?;
        self.source
            .check("a layer's content", descriptor.diff_id, blob.diff_id)?;
        tracing::debug!(
            image = %self.source.image,
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
    runtime: &tokio::runtime::Handle,
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
