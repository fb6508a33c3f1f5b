//! The folder of finished layers: made once per key, shared by all builds, evicted by age of use.
//!
//! On disk, format 1:
//!
//! ```text
//! ROOT/lock                  held locked while a process owns the store
//! ROOT/<64 hex>/diff/        the layer: what overlayfs gets
//! ROOT/<64 hex>/meta.json    {"format":1,"key":"sha256:…","content_bytes":…}; its time of change is
//!                            the layer's last use
//! ROOT/<64 hex>/beneath      a link whose text is the name of the layer that this one lies on, or `bottom`
//! ROOT/recipes/              what layers were made of, and artifacts: see `recipes`
//! ROOT/.tmp-…                layers under way or on their way out; removed at the next start
//! ```
//!
//! A layer is written under a temporary name, forced to disk, then renamed: a folder with a digest
//! for a name is complete, whatever moment the machine stopped at.

mod disk;
mod evict;
mod index;
mod recipes;
mod scratch;
mod staging;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use domain::Digest;

use crate::holdings::{Held, Holdings, Thing};
use crate::limits::layers::LayerLimits;

pub use evict::{Evicted, Refused, StoredLayer};
use index::Index;
pub use recipes::{Place, Recipes};
pub use staging::Staging;

/// The layers of one worker. Clones share them. The second field is the list of whoever layers are made
/// for.
#[derive(Clone, Debug)]
pub struct LayerStore(Arc<Inner>, Holdings);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    limits: LayerLimits,
    /// Keeps other processes out until the store is dropped.
    _lock: OwnedFd,
    temporary_count: AtomicU64,
    index: Mutex<Index>,
    /// One lock per key that is being built; a build that ends leaves nothing behind.
    flights: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
    recipes: Recipes,
}

/// A finished layer. While a handle lives, the layer is in use and stays.
#[derive(Clone, Debug)]
pub struct Layer(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    key: Digest,
    path: PathBuf,
    content_bytes: u64,
}

impl Layer {
    /// The key it is stored under.
    pub fn key(&self) -> &Digest {
        &self.0.key
    }

    /// The folder to mount. It must not be changed.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Bytes that its files take on the disk.
    pub fn content_bytes(&self) -> u64 {
        self.0.content_bytes
    }
}

/// What a layer lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beneath {
    /// Nobody has said yet.
    Unknown,
    /// Nothing.
    Bottom,
    /// This layer, and what that lies on.
    Layer(Digest),
}

/// Whether a layer was there or had to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// It was there.
    Hit,
    /// A concurrent build was making it, and now it is there.
    Joined,
    /// It was made now.
    Built,
}

/// Why the store could not keep its promise.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process, or another value in this one, owns the folder.
    #[error("the layer store `{}` is in use by another process", root.display())]
    Owned {
        /// The store's folder.
        root: PathBuf,
    },
    /// The folder's path leaves no room for a layer's name in a mount option.
    #[error("the path `{}` of the layer store is longer than {max} bytes or not absolute", root.display())]
    UnusableRoot {
        /// The store's folder.
        root: PathBuf,
        /// The most bytes it may have.
        max: usize,
    },
    /// A file operation failed.
    #[error("cannot {action} `{}` in the layer store", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The runtime stopped before the operation ended.
    #[error("the layer store was stopped")]
    Stopped,
}

impl StoreError {
    /// Whether the filesystem had no room.
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}

/// Why [`LayerStore::get_or_build`] gave no layer.
#[derive(Debug, thiserror::Error)]
pub enum BuildError<E> {
    /// The caller's build failed.
    #[error("the layer could not be built")]
    Build(#[source] E),
    /// It was built but could not be kept, or there was no place to build it in.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LayerStore {
    /// Opens the store in the folder `root`, an absolute path, which is made if it is missing.
    ///
    /// What a stopped process left half done is removed, and so is a layer without a valid
    /// description. Blocking.
    ///
    /// # Errors
    /// [`StoreError::Owned`], [`StoreError::UnusableRoot`] or [`StoreError::Io`].
    pub fn open(root: PathBuf, limits: LayerLimits) -> Result<Self, StoreError> {
        let max = limits.root_path_bytes_max;
        if root.as_os_str().len() > max || !root.is_absolute() {
            return Err(StoreError::UnusableRoot { root, max });
        }
        let lock = disk::lock(&root)?;
        let mut index = Index::default();
        for found in disk::recover(&root)? {
            let beneath = disk::beneath(&root.join(found.key.hex()));
            index.insert(found.key, found.content_bytes);
            index.lay(&found.key, beneath);
        }
        let recipes = Recipes::open(root.join(recipes::FOLDER), limits.recipes);
        let inner = Inner {
            root,
            limits,
            recipes,
            _lock: lock,
            temporary_count: AtomicU64::new(0),
            index: Mutex::new(index),
            flights: Mutex::default(),
        };
        Ok(Self(Arc::new(inner), Holdings::default()))
    }

    /// The same store, for whoever keeps the list `holdings`.
    #[must_use]
    pub fn held_by(&self, holdings: &Holdings) -> Self {
        Self(Arc::clone(&self.0), holdings.clone())
    }

    /// The bounds on its layers.
    pub fn limits(&self) -> &LayerLimits {
        &self.0.limits
    }

    /// The folder that holds all layers.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// What layers were made of, and what was made of layers.
    pub fn recipes(&self) -> &Recipes {
        &self.0.recipes
    }

    /// Bytes that all layers take on the disk.
    pub fn content_bytes(&self) -> u64 {
        self.index().content_bytes
    }

    /// The layer of that key, which counts as a use; `None` if it has to be made.
    pub fn get(&self, key: &Digest) -> Option<Layer> {
        let path = self.path(key);
        let layer = {
            let mut index = self.index();
            // One process owns the folder, but an operator's hand is stronger than a lock.
            if !path.is_dir() {
                index.remove(key);
                return None;
            }
            index.acquire(key, path)?
        };
        self.stamp(&layer);
        Some(layer)
    }

    /// Learns which layer lies on which from the layers of a mount, bottom first.
    ///
    /// What a layer changes makes sense on the layers beneath alone, and one of them that is made anew
    /// under its key may differ: so none of them goes before it.
    pub fn stack(&self, layers: &[Layer]) {
        let mut beneath = Beneath::Bottom;
        for layer in layers {
            if self.index().lay(layer.key(), beneath) {
                let folder = self.folder(layer.key());
                aside(move || {
                    if let Err(error) = disk::lay(&folder, beneath) {
                        // It then counts as the first to go, which is safe.
                        tracing::debug!(path = %folder.display(), %error, "what a layer lies on was not written");
                    }
                });
            }
            beneath = Beneath::Layer(*layer.key());
        }
    }

    /// The layer of that key, made by `build` if it is missing.
    ///
    /// `build` fills the folder [`Staging::path`]. Of concurrent callers for one key, one builds and
    /// the others wait and get its layer; if it fails or is dropped, the next one builds in turn.
    ///
    /// # Errors
    /// [`BuildError::Build`] with the caller's error, [`BuildError::Store`] if the layer cannot be
    /// kept. Nothing is kept then.
    pub async fn get_or_build<E, F, Fut>(
        &self,
        key: Digest,
        build: F,
    ) -> Result<(Layer, Provenance), BuildError<E>>
    where
        F: FnOnce(Staging) -> Fut,
        Fut: Future<Output = Result<(), E>>,
    {
        if let Some(layer) = self.get(&key) {
            return Ok((layer, Provenance::Hit));
        }
        let flight = self.flight(key);
        let (turn, waited) = match flight.try_lock() {
            Ok(turn) => (turn, false),
            Err(_) => (flight.lock().await, true),
        };
        if let Some(layer) = self.get(&key) {
            let provenance = if waited {
                Provenance::Joined
            } else {
                Provenance::Hit
            };
            return Ok((layer, provenance));
        }
        let staging = self.stage(&key).await?;
        let held = self.hold(&staging);
        build(staging.clone()).await.map_err(BuildError::Build)?;
        let layer = self.commit(key, staging).await?;
        held.released();
        drop(turn);
        Ok((layer, Provenance::Built))
    }

    fn hold(&self, staging: &Staging) -> Held {
        self.1.hold([Thing::Folder(staging.folder().to_owned())])
    }

    async fn stage(&self, key: &Digest) -> Result<Staging, StoreError> {
        let path = self.temporary("new", key);
        run_blocking(move || Staging::create(path)).await
    }

    async fn commit(&self, key: Digest, staging: Staging) -> Result<Layer, StoreError> {
        let store = self.clone();
        run_blocking(move || {
            let content_bytes = disk::commit(&store.0.root, &key, &staging, &store.folder(&key))?;
            let mut index = store.index();
            index.insert(key, content_bytes);
            let layer = index.acquire(&key, store.path(&key));
            Ok(layer.expect("the layer was inserted under the same lock"))
        })
        .await
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // No code that can panic runs between two changes that belong together.
        self.0.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flight(&self, key: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self
            .0
            .flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(&key).and_then(Weak::upgrade) {
            return flight;
        }
        let flight = Arc::default();
        flights.insert(key, Arc::downgrade(&flight));
        flight
    }

    /// How many callers build the layer of that key or wait for it.
    #[cfg(test)]
    pub(crate) fn flight_count(&self, key: &Digest) -> usize {
        let flights = self.0.flights.lock();
        let flights = flights.unwrap_or_else(PoisonError::into_inner);
        flights.get(key).map_or(0, Weak::strong_count)
    }

    fn folder(&self, key: &Digest) -> PathBuf {
        self.0.root.join(key.hex())
    }

    fn path(&self, key: &Digest) -> PathBuf {
        self.folder(key).join(disk::DIFF)
    }

    fn temporary(&self, purpose: &str, key: &Digest) -> PathBuf {
        let number = self.0.temporary_count.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{purpose}-{}-{number}", disk::TEMPORARY, key.hex());
        self.0.root.join(name)
    }

    /// Writes the last use to disk, beside the caller: a lost stamp only changes an eviction's order.
    fn stamp(&self, layer: &Layer) {
        let meta = self.folder(layer.key()).join(disk::META);
        aside(move || {
            if let Err(error) = disk::stamp(&meta) {
                tracing::debug!(path = %meta.display(), %error, "a layer's last use was not written");
            }
        });
    }
}

/// Does what may touch the disk beside the caller.
fn aside(work: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}

async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StoreError::Stopped),
        },
    }
}

#[cfg(test)]
mod tests;
