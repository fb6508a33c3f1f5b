//! An image in a folder (the OCI image layout), as builders leave it: its layers go into the store as those of
//! registries do, under the same keys and with the same checks.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use domain::Digest;
use tokio_util::sync::CancellationToken;

use super::bring::{Blobs, Filled, Inspect, PullProgress, Unpacking, bring, unpacked};
use super::error::{ImageError, check};
use super::manifest::{Descriptor, ImageConfig, LayerDescriptor};
use super::reference::ImageName;
use super::resolve::{Documents, Named, resolve};
use crate::layers::{Layer, LayerStore, UnpackError};
use crate::limits::layers::ImageLimits;

/// The file that says which images are in a folder.
const INDEX: &str = "index.json";

/// The image for linux/amd64 in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutImage {
    folder: Folder,
    /// The digest of its manifest.
    pub manifest_digest: Digest,
    /// How its containers run.
    pub config: ImageConfig,
    /// The configuration as it is stored, with all that has no place in [`ImageConfig`].
    pub config_document: Vec<u8>,
    /// Its layers, bottom first.
    pub layers: Vec<LayerDescriptor>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Folder {
    path: PathBuf,
    /// What errors call the image in it.
    words: &'static str,
    limits: ImageLimits,
}

impl LayoutImage {
    /// Reads the documents of the image in `folder`, which errors call by `words`.
    ///
    /// # Errors
    /// Any [`ImageError`].
    pub async fn open(
        folder: PathBuf,
        words: &'static str,
        limits: &ImageLimits,
    ) -> Result<Self, ImageError> {
        let folder = Folder {
            path: folder,
            words,
            limits: limits.clone(),
        };
        // Its index names what is in it by no tag that matters here.
        let found = resolve(&folder, Named::Tag(String::new()), limits).await?;
        Ok(Self {
            folder,
            manifest_digest: found.manifest_digest,
            config: found.config,
            config_document: found.config_document,
            layers: found.layers,
        })
    }

    /// Brings the image's layers into the store; gives them bottom first. A layer that is there is not
    /// read, any other is shown to `inspect` before it is kept.
    ///
    /// # Errors
    /// Any [`ImageError`]. Layers that were complete stay in the store.
    pub async fn import(
        &self,
        store: &LayerStore,
        inspect: Option<&Inspect>,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<Vec<Layer>, ImageError> {
        let limits = &self.folder.limits;
        bring(
            &self.folder,
            &self.layers,
            (store, inspect),
            limits,
            progress,
        )
        .await
    }
}

impl Folder {
    fn blob(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    /// A file of at most so many bytes.
    async fn read(&self, file: &Path, bytes_max: u64) -> Result<Vec<u8>, ImageError> {
        let path = file.to_owned();
        let read = move || {
            let mut body = Vec::new();
            let file = File::open(path)?;
            file.take(bytes_max.saturating_add(1))
                .read_to_end(&mut body)?;
            Ok(body)
        };
        let read = tokio::task::spawn_blocking(read).await;
        let body = read
            .map_err(io::Error::other)
            .and_then(|read: io::Result<_>| read)
            .map_err(|source| ImageError::Folder {
                image: self.image(),
                file: file
                    .strip_prefix(&self.path)
                    .unwrap_or(file)
                    .display()
                    .to_string(),
                source,
            })?;
        if u64::try_from(body.len()).unwrap_or(u64::MAX) > bytes_max {
            let what = format!("a document of it exceeds {bytes_max} bytes");
            return Err(ImageError::Refused {
                image: self.image(),
                what,
            });
        }
        Ok(body)
    }

    fn image(&self) -> ImageName {
        ImageName::Described(self.words)
    }
}

impl Documents for Folder {
    fn name(&self) -> ImageName {
        self.image()
    }

    async fn manifest(&self, named: &Named) -> Result<(Digest, Vec<u8>), ImageError> {
        let bytes_max = u64::try_from(self.limits.manifest_bytes_max).unwrap_or(u64::MAX);
        let file = match named {
            Named::Tag(_) => self.path.join(INDEX),
            Named::Digest(digest) => self.blob(digest),
        };
        let body = self.read(&file, bytes_max).await?;
        let actual = Digest::of(&body);
        match named {
            Named::Tag(_) => {}
            Named::Digest(expected) => check(&self.image(), "the manifest", *expected, actual)?,
        }
        Ok((actual, body))
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let file = self.blob(&descriptor.digest);
        let body = self.read(&file, descriptor.size).await?;
        let actual = Digest::of(&body);
        check(
            &self.image(),
            "the configuration",
            descriptor.digest,
            actual,
        )?;
        Ok(body)
    }
}

impl Blobs for Folder {
    async fn unpack(
        &self,
        layer: &LayerDescriptor,
        unpacking: Unpacking,
        _progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Result<Filled, UnpackError>, ImageError> {
        let (path, size_bytes) = (self.blob(&layer.digest), layer.size_bytes);
        // Whoever waits no more wants nothing more to be unpacked.
        let given_up = CancellationToken::new();
        let _awaited = given_up.clone().drop_guard();
        let ended = tokio::task::spawn_blocking(move || {
            let file = File::open(path).map_err(|source| UnpackError::Read { source })?;
            // One byte more than it should have makes another digest.
            let file = file.take(size_bytes.saturating_add(1));
            unpacking.run(Awaited { file, given_up })
        });
        Ok(unpacked(ended.await))
    }
}

/// A file that is read as long as somebody waits for it.
struct Awaited<R> {
    file: R,
    given_up: CancellationToken,
}

impl<R: Read> Read for Awaited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given_up.is_cancelled() {
            return Err(io::Error::other("the import was given up"));
        }
        self.file.read(buffer)
    }
}
