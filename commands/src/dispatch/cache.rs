//! The states of recently used streams, so that a build with thousands of reports is not read anew
//! for each of them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::recorded::{StreamName, Version};

/// A bounded number of states; the one that was not used for longest goes first.
///
/// A state may be out of date: an append at its version is refused then, and what makes nothing
/// happen is checked against the log.
#[derive(Debug)]
pub(super) struct Cache<S> {
    states_max: usize,
    entries: Mutex<Entries<S>>,
}

#[derive(Debug)]
struct Entries<S> {
    uses: u64,
    states: HashMap<StreamName, Entry<S>>,
}

#[derive(Debug)]
struct Entry<S> {
    state: S,
    version: Version,
    used: u64,
}

impl<S: Clone> Cache<S> {
    pub(super) fn new(states_max: usize) -> Self {
        Self {
            states_max,
            entries: Mutex::new(Entries {
                uses: 0,
                states: HashMap::new(),
            }),
        }
    }

    pub(super) fn get(&self, stream: &StreamName) -> Option<(S, Version)> {
        let mut entries = self.entries();
        entries.uses += 1;
        let used = entries.uses;
        let entry = entries.states.get_mut(stream)?;
        entry.used = used;
        Some((entry.state.clone(), entry.version))
    }

    /// Keeps a state, unless a later one is there.
    pub(super) fn put(&self, stream: StreamName, state: S, version: Version) {
        let mut entries = self.entries();
        let known = entries.states.get(&stream).map(|entry| entry.version);
        if self.states_max == 0 || known.is_some_and(|known| known > version) {
            return;
        }
        if known.is_none() && entries.states.len() >= self.states_max {
            let oldest = entries.states.iter().min_by_key(|(_, entry)| entry.used);
            if let Some(oldest) = oldest.map(|(stream, _)| stream.clone()) {
                entries.states.remove(&oldest);
            }
        }
        entries.uses += 1;
        let used = entries.uses;
        let entry = Entry {
            state,
            version,
            used,
        };
        entries.states.insert(stream, entry);
    }

    pub(super) fn remove(&self, stream: &StreamName) {
        self.entries().states.remove(stream);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries().states.len()
    }

    fn entries(&self) -> MutexGuard<'_, Entries<S>> {
        // Losing or keeping an entry is right either way.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(name: &str) -> StreamName {
        StreamName::Namespace(name.parse().unwrap())
    }

    #[test]
    fn the_least_recently_used_state_goes_first() {
        let cache = Cache::new(2);
        cache.put(stream("a"), 1, Version(1));
        cache.put(stream("b"), 2, Version(1));
        assert_eq!(cache.get(&stream("a")), Some((1, Version(1))));
        cache.put(stream("c"), 3, Version(1));
        assert_eq!(cache.get(&stream("b")), None);
        assert_eq!(cache.get(&stream("a")), Some((1, Version(1))));
        assert_eq!(cache.get(&stream("c")), Some((3, Version(1))));
        assert_eq!(cache.len(), 2);
    }

    #[test]
    fn a_later_state_is_not_replaced_by_an_earlier_one() {
        let cache = Cache::new(2);
        cache.put(stream("a"), 2, Version(2));
        cache.put(stream("a"), 1, Version(1));
        assert_eq!(cache.get(&stream("a")), Some((2, Version(2))));
        cache.remove(&stream("a"));
        assert_eq!(cache.get(&stream("a")), None);
    }
}
