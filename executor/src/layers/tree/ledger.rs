//! What a layer's files do not say themselves while an archive is written.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use rustix::fs::Timespec;

use crate::layers::unpack::UnpackError;

/// Bytes of memory that a path costs beside its own.
const ENTRY_BYTES: u64 = 64;

/// Times of folders, hidden folders and removed names, by paths that hold no link.
pub(super) struct Ledger {
    /// Times of folders, set when no more files come into them.
    folder_times: BTreeMap<PathBuf, Timespec>,
    /// Folders of this layer that hide the layers beneath.
    opaque: BTreeSet<PathBuf>,
    /// Names that the layers beneath have and this one removes, with nothing new in their place.
    ///
    /// They become files only at the end. Overlayfs lists a whiteout as a name that cannot be
    /// opened, unless a layer beneath has the folder that holds it: none may be made where nothing
    /// is to be hidden, and only at the end is it known what is.
    whiteouts: BTreeSet<PathBuf>,
    /// Files of the layers beneath that are here only because a hard link shares them.
    copies: BTreeSet<PathBuf>,
    /// Paths that were noted, never to exceed `bytes_max`.
    bytes: u64,
    bytes_max: u64,
}

impl Ledger {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            folder_times: BTreeMap::new(),
            opaque: BTreeSet::new(),
            whiteouts: BTreeSet::new(),
            copies: BTreeSet::new(),
            bytes: 0,
            bytes_max,
        }
    }

    pub(super) fn folder(&mut self, path: &Path, modified: Timespec) -> Result<(), UnpackError> {
        self.count(path)?;
        self.folder_times.insert(path.to_owned(), modified);
        Ok(())
    }

    pub(super) fn has_folder(&self, path: &Path) -> bool {
        self.folder_times.contains_key(path)
    }

    /// Notes that a folder hides all beneath: nothing in it needs to be removed by name.
    pub(super) fn opaque(&mut self, path: &Path) -> Result<(), UnpackError> {
        self.count(path)?;
        remove_within(&mut self.whiteouts, path);
        self.opaque.insert(path.to_owned());
        Ok(())
    }

    pub(super) fn whiteout(&mut self, path: &Path) -> Result<(), UnpackError> {
        self.count(path)?;
        self.whiteouts.insert(path.to_owned());
        Ok(())
    }

    /// Notes that a file is a copy from the layers beneath.
    pub(super) fn copy(&mut self, path: &Path) -> Result<(), UnpackError> {
        self.count(path)?;
        self.copies.insert(path.to_owned());
        Ok(())
    }

    /// Whether a copy from the layers beneath is at a path or within it.
    pub(super) fn has_copy(&self, path: &Path) -> bool {
        let from = (Bound::Included(path), Bound::Unbounded);
        let within = self.copies.range::<Path, _>(from).next();
        within.is_some_and(|copy| copy.starts_with(path))
    }

    pub(super) fn is_removed(&self, path: &Path) -> bool {
        self.whiteouts.contains(path)
    }

    /// Forgets that a name is removed, because something new takes its place; `false` if it is not.
    pub(super) fn lift_whiteout(&mut self, path: &Path) -> bool {
        self.whiteouts.remove(path)
    }

    /// Whether this layer shows nothing of the layers beneath at a path: a folder above hides it.
    pub(super) fn is_hidden(&self, path: &Path) -> bool {
        !self.opaque.is_empty()
            && path
                .ancestors()
                .skip(1)
                .any(|above| self.opaque.contains(above))
    }

    /// Forgets a folder or a file that is gone, and all within.
    pub(super) fn forget(&mut self, path: &Path) {
        self.copies.remove(path);
        remove_within(&mut self.copies, path);
        self.opaque.remove(path);
        remove_within(&mut self.opaque, path);
        remove_within(&mut self.whiteouts, path);
        self.folder_times.remove(path);
        while let Some((inner, _)) = self.folder_times.range::<Path, _>(after(path)).next() {
            if !inner.starts_with(path) {
                break;
            }
            let inner = inner.clone();
            self.folder_times.remove(&inner);
        }
    }

    pub(super) fn take_whiteouts(&mut self) -> BTreeSet<PathBuf> {
        std::mem::take(&mut self.whiteouts)
    }

    pub(super) fn take_folder_times(&mut self) -> BTreeMap<PathBuf, Timespec> {
        std::mem::take(&mut self.folder_times)
    }

    fn count(&mut self, path: &Path) -> Result<(), UnpackError> {
        let bytes = u64::try_from(path.as_os_str().len()).unwrap_or(u64::MAX);
        self.bytes = self.bytes.saturating_add(bytes).saturating_add(ENTRY_BYTES);
        if self.bytes > self.bytes_max {
            return Err(UnpackError::TooLarge {
                what: "the paths of its folders",
                max: self.bytes_max,
            });
        }
        Ok(())
    }
}

/// Removes the paths beneath `path`. Paths sort by their names, so these stand together behind it.
fn remove_within(paths: &mut BTreeSet<PathBuf>, path: &Path) {
    while let Some(inner) = paths.range::<Path, _>(after(path)).next() {
        if !inner.starts_with(path) {
            break;
        }
        let inner = inner.clone();
        paths.remove(&inner);
    }
}

fn after(path: &Path) -> (Bound<&Path>, Bound<&Path>) {
    (Bound::Excluded(path), Bound::Unbounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_a_folder_is_forgotten_with_it() {
        let mut ledger = Ledger::new(10_000);
        for path in ["a", "a/b", "a/b/c", "a.b", "ab", "b"] {
            ledger.folder(Path::new(path), Timespec::default()).unwrap();
            ledger.opaque(Path::new(path)).unwrap();
        }
        ledger.whiteout(Path::new("a/b/x")).unwrap();
        ledger.whiteout(Path::new("a.b/x")).unwrap();
        assert!(ledger.is_hidden(Path::new("a/b/c/d")));
        ledger.forget(Path::new("a"));
        assert!(!ledger.is_hidden(Path::new("a/b/c/d")));
        let left = |paths: Vec<PathBuf>| {
            paths
                .into_iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            left(ledger.take_folder_times().into_keys().collect()),
            ["a.b", "ab", "b"]
        );
        assert_eq!(
            left(ledger.take_whiteouts().into_iter().collect()),
            ["a.b/x"]
        );
        assert!(ledger.is_hidden(Path::new("a.b/x")) && ledger.is_hidden(Path::new("b/x")));
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let mut ledger = Ledger::new(200);
        ledger.whiteout(Path::new("a")).unwrap();
        ledger.whiteout(Path::new("b")).unwrap();
        let error = ledger.whiteout(Path::new(&"c".repeat(100))).unwrap_err();
        assert!(
            matches!(error, UnpackError::TooLarge { max: 200, .. }),
            "{error}"
        );
    }
}
