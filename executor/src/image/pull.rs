//! Pulling: the layers of an image from the registries that have it.

use tokio::sync::mpsc;

use super::blob::PieceReader;
use super::bring::{Blobs, Filled, PullProgress, Unpacking, bring, unpacked};
use super::credentials::Credentials;
use super::download::transfer;
use super::error::ImageError;
use super::manifest::{LayerDescriptor, ResolvedImage};
use super::registry::Registry;
use super::source::Source;
use crate::layers::{Layer, LayerStore, UnpackError};

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
        bring(
            &source,
            &image.layers,
            (store, None),
            self.limits(),
            progress,
        )
        .await
    }
}

impl Blobs for Source<'_> {
    async fn unpack(
        &self,
        layer: &LayerDescriptor,
        unpacking: Unpacking,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Result<Filled, UnpackError>, ImageError> {
        let (sender, receiver) = mpsc::channel(self.limits.pieces_queued_max.max(1));
        let unpacking =
            tokio::task::spawn_blocking(move || unpacking.run(PieceReader::new(receiver)));
        let transferring = transfer(self, &layer.digest, layer.size_bytes, sender, progress);
        let (transferred, ended) = tokio::join!(transferring, unpacking);
        // The transfer's error is the cause of the unpacker's, which only saw the bytes end.
        transferred?;
        Ok(unpacked(ended))
    }
}
