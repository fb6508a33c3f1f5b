//! Which layers go, which stay because of whom, and the list of all.

use std::collections::BTreeSet;

use domain::Digest;
use domain::time::Timestamp;

use super::{Beneath, LayerStore, StoreError, disk, run_blocking};

/// What an eviction removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// The layers, in the order in which they go.
    pub layers: Vec<Digest>,
    /// The bytes they took.
    pub content_bytes: u64,
    /// The bytes of the layers that are left.
    pub left_bytes: u64,
    /// The bytes of those that are left because a pin needs them.
    pub pinned_bytes: u64,
    /// The bytes of those that are left because somebody uses them; some may be pinned, too.
    pub used_bytes: u64,
}

/// Why a layer stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such layer.
    Unknown,
    /// It, or a layer that lies on it, is needed.
    Needed {
        /// Whose pins name it.
        owners: Vec<String>,
        /// Whether somebody uses it now.
        in_use: bool,
    },
}

/// A layer as the store's list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLayer {
    /// Its key.
    pub key: Digest,
    /// The bytes that its files take on the disk.
    pub content_bytes: u64,
    /// When it was used last.
    pub used_at: Option<Timestamp>,
    /// The layer that it lies on, if it is known to lie on one.
    pub beneath: Option<Digest>,
    /// Whether it, or a layer that lies on it, is in use.
    pub in_use: bool,
    /// Whose pins need it.
    pub owners: Vec<String>,
}

impl LayerStore {
    /// Keeps the layers `keys` until `owner` pins others or is unpinned, whether they are there now
    /// or come later. Pins live as long as the store's value: the next one is told them again.
    pub fn pin(&self, owner: &str, keys: impl IntoIterator<Item = Digest>) {
        self.index().pin(owner, keys.into_iter().collect());
    }

    /// Lets go of what `owner` pinned.
    pub fn unpin(&self, owner: &str) {
        self.index().pin(owner, BTreeSet::new());
    }

    /// All layers, the longest unused first. Blocking.
    pub fn list(&self) -> Vec<StoredLayer> {
        let mut layers: Vec<StoredLayer> = {
            let index = self.index();
            let used = index.used();
            let entries = index.entries.iter();
            entries
                .map(|(key, entry)| StoredLayer {
                    key: *key,
                    content_bytes: entry.content_bytes,
                    used_at: None,
                    beneath: match entry.beneath {
                        Beneath::Layer(beneath) => Some(beneath),
                        Beneath::Unknown | Beneath::Bottom => None,
                    },
                    in_use: used.contains(key),
                    owners: index.owners(key),
                })
                .collect()
        };
        for layer in &mut layers {
            layer.used_at = disk::used_at(&self.folder(&layer.key));
        }
        layers.sort_by_key(|layer| (layer.used_at, layer.key));
        layers
    }

    /// What [`LayerStore::evict_to`] would remove now if `leaving` pinned nothing.
    pub fn plan_eviction(&self, bytes_max: u64, leaving: &BTreeSet<String>) -> Evicted {
        let index = self.index();
        let mut left = index.content_bytes;
        let mut evicted = Evicted::default();
        for key in index.evictable(leaving) {
            if left <= bytes_max {
                break;
            }
            let bytes = index
                .entries
                .get(&key)
                .map_or(0, |entry| entry.content_bytes);
            left -= bytes;
            evicted.content_bytes += bytes;
            evicted.layers.push(key);
        }
        evicted.left_bytes = left;
        let bytes_of = |keys: std::collections::HashSet<Digest>| {
            let there = keys.iter().filter_map(|key| index.entries.get(key));
            there.map(|entry| entry.content_bytes).sum()
        };
        evicted.pinned_bytes = bytes_of(index.pinned(leaving));
        evicted.used_bytes = bytes_of(index.used());
        evicted
    }

    /// Removes layers, the longest unused first and what lies on a layer before the layer, until all
    /// take at most `bytes_max` bytes or the rest is in use or pinned.
    ///
    /// # Errors
    /// [`StoreError::Io`]: what could not be removed is no longer served, and goes away at the next
    /// start.
    pub async fn evict_to(&self, bytes_max: u64) -> Result<Evicted, StoreError> {
        let store = self.clone();
        run_blocking(move || store.evict_to_blocking(bytes_max)).await
    }

    /// As [`LayerStore::evict_to`], and on until the filesystem has `free_bytes_min` free bytes.
    ///
    /// # Errors
    /// [`StoreError::Io`], as there.
    pub async fn keep_within(
        &self,
        bytes_max: u64,
        free_bytes_min: u64,
    ) -> Result<Evicted, StoreError> {
        let store = self.clone();
        run_blocking(move || {
            let lacking = free_bytes_min.saturating_sub(disk::free_bytes(store.root())?);
            let held = store.content_bytes().saturating_sub(lacking);
            store.evict_to_blocking(bytes_max.min(held))
        })
        .await
    }

    fn evict_to_blocking(&self, bytes_max: u64) -> Result<Evicted, StoreError> {
        let order = self.index().evictable(&BTreeSet::new());
        let removed = self.take_away(&order, |left_bytes| left_bytes > bytes_max)?;
        // What is left, and why.
        let mut evicted = self.plan_eviction(u64::MAX, &BTreeSet::new());
        (evicted.layers, evicted.content_bytes) = removed;
        Ok(evicted)
    }

    /// Removes one layer, with those that lie on it; gives them, the topmost first, and their bytes.
    ///
    /// # Errors
    /// [`StoreError::Io`], as [`LayerStore::evict_to`]. That it is needed is no error.
    pub async fn evict(&self, key: &Digest) -> Result<Result<Evicted, Refused>, StoreError> {
        let (store, key) = (self.clone(), *key);
        run_blocking(move || {
            if let Err(refused) = store.may_go(&key) {
                return Ok(Err(refused));
            }
            let tower = store.index().tower(&key);
            let (layers, content_bytes) = store.take_away(&tower, |_| true)?;
            // Taken by somebody since it was asked for.
            if let Err(refused @ Refused::Needed { .. }) = store.may_go(&key) {
                return Ok(Err(refused));
            }
            let mut evicted = store.plan_eviction(u64::MAX, &BTreeSet::new());
            (evicted.layers, evicted.content_bytes) = (layers, content_bytes);
            Ok(Ok(evicted))
        })
        .await
    }

    /// Whether [`LayerStore::evict`] would remove the layer now.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn may_go(&self, key: &Digest) -> Result<(), Refused> {
        let index = self.index();
        if !index.entries.contains_key(key) {
            return Err(Refused::Unknown);
        }
        let in_use = index.used().contains(key);
        if !in_use && !index.pinned(&BTreeSet::new()).contains(key) {
            return Ok(());
        }
        let tower = index.tower(key);
        let owners: BTreeSet<String> = tower.iter().flat_map(|key| index.owners(key)).collect();
        Err(Refused::Needed {
            owners: owners.into_iter().collect(),
            in_use,
        })
    }

    /// Removes layers in this order, while `more` says so of the bytes that are left, and passes over
    /// what somebody has come to need meanwhile. Blocking.
    pub(super) fn take_away(
        &self,
        order: &[Digest],
        more: impl Fn(u64) -> bool,
    ) -> Result<(Vec<Digest>, u64), StoreError> {
        let (mut layers, mut content_bytes, mut leaving) = (Vec::new(), 0, Vec::new());
        let mut failed = Ok(());
        for key in order {
            // One at a time: whoever asks for a layer meanwhile waits for one rename at most.
            let mut index = self.index();
            if !more(index.content_bytes) {
                break;
            }
            if !index.is_free(key) {
                continue;
            }
            // Under its new name nobody finds it, and a crash from here on removes it.
            let target = self.temporary("evicted", key);
            if let Err(error) = disk::rename(&self.folder(key), &target) {
                failed = Err(error);
                break;
            }
            leaving.push(target);
            content_bytes += index.remove(key);
            layers.push(*key);
        }
        for path in leaving {
            disk::remove(&path)?;
        }
        failed.map(|()| (layers, content_bytes))
    }
}
