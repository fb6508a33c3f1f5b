//! What the store holds, in memory: sizes, uses, what lies on what, and who needs it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use domain::Digest;

use super::{Beneath, Handle, Layer};

/// What the store holds. `use_count` is a clock of uses.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) entries: HashMap<Digest, Entry>,
    pub(super) content_bytes: u64,
    use_count: u64,
    /// The layers that an owner needs, whether they are there or not.
    pins: BTreeMap<String, BTreeSet<Digest>>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) content_bytes: u64,
    pub(super) beneath: Beneath,
    last_use: u64,
    handle: Weak<Handle>,
}

impl Entry {
    /// Whether somebody holds it.
    fn is_used(&self) -> bool {
        self.handle.strong_count() > 0
    }
}

impl Index {
    pub(super) fn insert(&mut self, key: Digest, content_bytes: u64) {
        self.remove(&key);
        self.use_count += 1;
        self.content_bytes += content_bytes;
        let entry = Entry {
            content_bytes,
            beneath: Beneath::Unknown,
            last_use: self.use_count,
            handle: Weak::new(),
        };
        self.entries.insert(key, entry);
    }

    pub(super) fn remove(&mut self, key: &Digest) -> u64 {
        let bytes = self
            .entries
            .remove(key)
            .map_or(0, |entry| entry.content_bytes);
        self.content_bytes -= bytes;
        bytes
    }

    /// Notes what a layer lies on; true if nobody had said so before.
    pub(super) fn lay(&mut self, key: &Digest, beneath: Beneath) -> bool {
        match self.entries.get_mut(key) {
            Some(entry) if entry.beneath == Beneath::Unknown => {
                entry.beneath = beneath;
                beneath != Beneath::Unknown
            }
            Some(_) | None => false,
        }
    }

    pub(super) fn acquire(&mut self, key: &Digest, path: PathBuf) -> Option<Layer> {
        let entry = self.entries.get_mut(key)?;
        self.use_count += 1;
        entry.last_use = self.use_count;
        let handle = entry.handle.upgrade().unwrap_or_else(|| {
            Arc::new(Handle {
                key: *key,
                path,
                content_bytes: entry.content_bytes,
            })
        });
        entry.handle = Arc::downgrade(&handle);
        Some(Layer(handle))
    }

    pub(super) fn pin(&mut self, owner: &str, keys: BTreeSet<Digest>) {
        if keys.is_empty() {
            self.pins.remove(owner);
        } else {
            self.pins.insert(owner.to_owned(), keys);
        }
    }

    /// Whose pins name the layer.
    pub(super) fn owners(&self, key: &Digest) -> Vec<String> {
        let owners = self.pins.iter().filter(|(_, keys)| keys.contains(key));
        owners.map(|(owner, _)| owner.clone()).collect()
    }

    /// The layers that somebody holds, and those that they lie on.
    pub(super) fn used(&self) -> HashSet<Digest> {
        let used = self.entries.iter().filter(|(_, entry)| entry.is_used());
        self.with_beneath(used.map(|(key, _)| *key))
    }

    /// The layers that are pinned by others than `leaving`, and those that they lie on.
    pub(super) fn pinned(&self, leaving: &BTreeSet<String>) -> HashSet<Digest> {
        let staying = self
            .pins
            .iter()
            .filter(|(owner, _)| !leaving.contains(*owner));
        self.with_beneath(staying.flat_map(|(_, keys)| keys.iter().copied()))
    }

    fn with_beneath(&self, keys: impl Iterator<Item = Digest>) -> HashSet<Digest> {
        let mut all = HashSet::new();
        for key in keys {
            let mut next = Some(key);
            // What was met before has been followed before: this ends on every chain, a damaged one
            // that bites its tail included.
            while let Some(key) = next.filter(|key| all.insert(*key)) {
                next = self.beneath(&key);
            }
        }
        all
    }

    fn beneath(&self, key: &Digest) -> Option<Digest> {
        match self.entries.get(key)?.beneath {
            Beneath::Layer(beneath) => Some(beneath),
            Beneath::Unknown | Beneath::Bottom => None,
        }
    }

    /// The layer and everything that lies on it, the topmost first.
    pub(super) fn tower(&self, key: &Digest) -> Vec<Digest> {
        let mut on: HashMap<Digest, Vec<Digest>> = HashMap::new();
        for (above, entry) in &self.entries {
            if let Beneath::Layer(beneath) = entry.beneath {
                on.entry(beneath).or_default().push(*above);
            }
        }
        let mut met = HashSet::from([*key]);
        let mut tower = vec![*key];
        let mut next = 0;
        while let Some(beneath) = tower.get(next) {
            let mut above = on.remove(beneath).unwrap_or_default();
            above.sort_unstable();
            tower.extend(above.into_iter().filter(|key| met.insert(*key)));
            next += 1;
        }
        tower.reverse();
        tower
    }

    /// The layers that may go if `leaving` have no say any more, the first to go first: the longest
    /// unused, and what lies on a layer before the layer. A layer is used whenever one on it is.
    ///
    /// A layer of which nobody knows what it lies on goes before all others, because it might lie on
    /// any of them.
    pub(super) fn evictable(&self, leaving: &BTreeSet<String>) -> Vec<Digest> {
        let (used, pinned) = (self.used(), self.pinned(leaving));
        let last_use = self.last_use_of_all_above();
        let mut order: Vec<_> = self
            .entries
            .iter()
            .filter(|(key, _)| !used.contains(*key) && !pinned.contains(*key))
            .map(|(key, entry)| {
                let is_known = entry.beneath != Beneath::Unknown;
                let last_use = last_use.get(key).copied().unwrap_or(entry.last_use);
                let topmost_first = std::cmp::Reverse(self.depth(key));
                (is_known, last_use, topmost_first, *key)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(.., key)| key).collect()
    }

    /// When each layer, or one that lies on it, was used last.
    fn last_use_of_all_above(&self) -> HashMap<Digest, u64> {
        let mut latest: HashMap<Digest, u64> = HashMap::new();
        for (key, entry) in &self.entries {
            let mut next = Some(*key);
            while let Some(key) = next {
                let known = latest.entry(key).or_default();
                if *known >= entry.last_use {
                    break;
                }
                *known = entry.last_use;
                next = self.beneath(&key);
            }
        }
        latest
    }

    /// How many layers it lies on.
    fn depth(&self, key: &Digest) -> usize {
        let beneath = std::iter::successors(self.beneath(key), |key| self.beneath(key));
        beneath.take(self.entries.len()).count()
    }

    /// Whether the layer is there and may go now: nobody holds or pins it, and nothing lies on it.
    pub(super) fn is_free(&self, key: &Digest) -> bool {
        let Some(entry) = self.entries.get(key) else {
            return false;
        };
        let bears = |entry: &Entry| entry.beneath == Beneath::Layer(*key);
        !entry.is_used()
            && !self.pins.values().any(|keys| keys.contains(key))
            && !self.entries.values().any(bears)
    }
}
