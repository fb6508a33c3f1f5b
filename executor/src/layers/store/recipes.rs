//! What was made of what: a bounded memory that outlives what was made, so that a miss can be told why.
//!
//! On disk, format 1:
//!
//! ```text
//! FOLDER/<64 hex>.json        {"format":1,"key":"sha256:…","recipe":{…},"places":[…]}; its time of
//!                             change is the recipe's last use
//! FOLDER/<64 hex>.files.json  the listings of copied files, read only when a miss is to be told
//! ```
//!
//! The nearest earlier recipe is sought among those of the same kind that were used for the same subject
//! in the same scope: another subject's differ in everything, and a stranger's are not to be told. It must
//! be like the wanted one: at the same place, on the same thing, or with the same first input (what is to
//! be done). Nearer is, in this order: one that stands on the same thing; the one with more equal inputs
//! before the first difference; one at the same place; the later one. What the wanted one itself stands
//! on is never it. Nothing here is needed to build: what cannot be read or written is left out.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::Digest;
use serde::{Deserialize, Serialize};

use super::{StoreError, disk, run_blocking};
use crate::layers::recipe::{Listing, Recipe, Role, clipped, difference};
use crate::limits::layers::RecipeLimits;

/// The folder's name in the store.
pub(super) const FOLDER: &str = "recipes";
const FORMAT: u32 = 1;
const RECIPE: &str = ".json";
const LISTINGS: &str = ".files.json";

/// The recipes of one worker. Clones share them.
#[derive(Clone, Debug)]
pub struct Recipes(Arc<Shelf>);

#[derive(Debug)]
struct Shelf {
    folder: PathBuf,
    limits: RecipeLimits,
    index: Mutex<Index>,
}

/// What is known without reading. `use_count` is a clock of uses.
#[derive(Debug, Default)]
struct Index {
    heads: HashMap<Digest, Head>,
    use_count: u64,
    bytes: u64,
}

#[derive(Clone, Debug)]
struct Head {
    kind: String,
    parent: Option<Digest>,
    /// The latest last.
    places: Vec<Place>,
    last_use: u64,
    bytes: u64,
}

/// Where in the world something was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Who may be told of it: those of the same scope.
    pub scope: String,
    /// What it was made for.
    pub subject: String,
    /// Which part of that, if it is a part.
    pub index: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    format: u32,
    key: Digest,
    recipe: Recipe,
    places: Vec<Place>,
}

impl Recipes {
    /// The recipes in `folder`, which need not exist. Blocking.
    pub(super) fn open(folder: PathBuf, limits: RecipeLimits) -> Self {
        let shelf = Shelf {
            folder,
            limits,
            index: Mutex::default(),
        };
        if let Err(error) = shelf.read_all() {
            tracing::warn!(%error, "what layers were made of cannot be read");
        }
        Self(Arc::new(shelf))
    }

    /// Remembers that the thing of this recipe was made, or taken, at `place`.
    pub async fn note(&self, recipe: Recipe, place: Place) {
        let kept = Arc::clone(&self.0);
        let noted = run_blocking(move || {
            let noted = kept.note(&recipe, place);
            noted.map_err(|source| StoreError::Io {
                action: "note a recipe in",
                path: kept.folder.clone(),
                source,
            })
        });
        if let Err(error) = noted.await {
            tracing::warn!(%error, "a recipe was not kept: a later miss may not be told why");
        }
    }

    /// The recipe of that key, without its listings.
    pub fn get(&self, key: &Digest) -> Option<Recipe> {
        self.0.read(key)
    }

    /// Why the thing of `recipe`, which is wanted at `place`, is not there: the first input in which it
    /// differs from the nearest earlier one; nothing if nothing like it was made. `in_hand` are recipes
    /// of what it stands on that were not noted yet.
    pub async fn explain(
        &self,
        recipe: Recipe,
        place: Place,
        in_hand: Vec<Recipe>,
    ) -> Option<String> {
        let kept = Arc::clone(&self.0);
        let told = run_blocking(move || Ok(kept.explain(&recipe, &place, &in_hand)));
        told.await.ok().flatten()
    }
}

impl Shelf {
    fn index(&self) -> MutexGuard<'_, Index> {
        // No code that can panic runs between two changes that belong together.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, key: &Digest, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}{suffix}", key.hex()))
    }

    fn read_all(&self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let hex = name
                .strip_suffix(LISTINGS)
                .or_else(|| name.strip_suffix(RECIPE));
            let key = hex.and_then(|hex| Digest::from_hex(hex).ok());
            match key {
                // Listings are counted with their recipe.
                Some(key) if name.ends_with(LISTINGS) => {
                    if !self.path(&key, RECIPE).exists() {
                        fs::remove_file(entry.path())?;
                    }
                }
                Some(key) => {
                    let status = entry.metadata()?;
                    let used = (status.mtime(), status.mtime_nsec(), key);
                    found.push(used);
                }
                None => fs::remove_file(entry.path())?,
            }
        }
        found.sort_unstable();
        let mut index = self.index();
        for (_, _, key) in found {
            let Some(stored) = self.stored(&key) else {
                self.remove(&key)?;
                continue;
            };
            let head = Head {
                kind: stored.recipe.kind().to_owned(),
                parent: stored.recipe.parent(),
                places: stored.places,
                last_use: 0,
                bytes: self.bytes(&key),
            };
            index.insert(key, head);
        }
        self.make_room(&mut index)
    }

    fn stored(&self, key: &Digest) -> Option<Stored> {
        let text = read(&self.path(key, RECIPE), self.limits.recipe_bytes_max)?;
        let stored: Stored = serde_json::from_slice(&text).ok()?;
        let valid = stored.format == FORMAT && stored.key == *key && stored.recipe.key() == *key;
        valid.then_some(stored)
    }

    fn read(&self, key: &Digest) -> Option<Recipe> {
        self.stored(key).map(|stored| stored.recipe)
    }

    fn with_listings(&self, recipe: Recipe) -> Recipe {
        if !recipe.listings().is_empty() {
            return recipe;
        }
        let path = self.path(&recipe.key(), LISTINGS);
        let text = read(&path, self.limits.listing_bytes_max);
        let listings = text.and_then(|text| serde_json::from_slice::<Vec<Listing>>(&text).ok());
        recipe.with_listings(listings.unwrap_or_default())
    }

    /// Bytes that a recipe and its listings take.
    fn bytes(&self, key: &Digest) -> u64 {
        let paths = [RECIPE, LISTINGS].map(|suffix| self.path(key, suffix));
        let sizes = paths.iter().filter_map(|path| fs::metadata(path).ok());
        sizes.map(|status| status.len()).sum()
    }

    fn note(&self, recipe: &Recipe, place: Place) -> io::Result<()> {
        let key = recipe.key();
        let mut index = self.index();
        let known = index.heads.get(&key).map(|head| head.places.clone());
        if known.as_ref().and_then(|places| places.last()) == Some(&place) {
            index.touch(&key);
            return disk::stamp(&self.path(&key, RECIPE));
        }
        let mut places = known.unwrap_or_default();
        places.retain(|other| *other != place);
        places.push(place);
        let excess = places.len().saturating_sub(self.limits.places_max);
        places.drain(..excess);
        let stored = Stored {
            format: FORMAT,
            key,
            recipe: recipe.clone(),
            places,
        };
        let text = serde_json::to_vec(&stored)?;
        if length(&text) > self.limits.recipe_bytes_max {
            return Ok(());
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        if !recipe.listings().is_empty() && !self.path(&key, LISTINGS).exists() {
            let listings = serde_json::to_vec(recipe.listings())?;
            if length(&listings) <= self.limits.listing_bytes_max {
                self.write(&self.path(&key, LISTINGS), &listings)?;
            }
        }
        self.write(&self.path(&key, RECIPE), &text)?;
        let head = Head {
            kind: recipe.kind().to_owned(),
            parent: recipe.parent(),
            places: stored.places,
            last_use: 0,
            bytes: self.bytes(&key),
        };
        index.insert(key, head);
        self.make_room(&mut index)
    }

    /// Writes a file whole or not at all, as far as a crash of the process goes. A torn one after a loss
    /// of power does not have its key any more, and is removed.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // One writer at a time: the index is locked.
        let fresh = self.folder.join("fresh");
        fs::write(&fresh, bytes)?;
        fs::rename(&fresh, path)
    }

    fn remove(&self, key: &Digest) -> io::Result<()> {
        for suffix in [LISTINGS, RECIPE] {
            match fs::remove_file(self.path(key, suffix)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Forgets the longest unused, until all keep the bounds.
    fn make_room(&self, index: &mut Index) -> io::Result<()> {
        let is_full = |index: &Index| {
            index.heads.len() > self.limits.count_max || index.bytes > self.limits.bytes_max
        };
        if !is_full(index) {
            return Ok(());
        }
        let heads = index.heads.iter();
        let mut by_age: Vec<_> = heads.map(|(key, head)| (head.last_use, *key)).collect();
        by_age.sort_unstable();
        for (_, key) in by_age {
            if !is_full(index) {
                break;
            }
            index.remove(&key);
            self.remove(&key)?;
        }
        Ok(())
    }

    fn explain(&self, wanted: &Recipe, place: &Place, in_hand: &[Recipe]) -> Option<String> {
        let key = wanted.key();
        let candidates = {
            let index = self.index();
            let known = index.heads.get(&key);
            if known.is_some_and(|head| head.is_of(&place.scope)) {
                return Some("evicted since it was last made".to_owned());
            }
            index.candidates(wanted, place, self.limits.candidates_max)
        };
        let beneath = self.keys_beneath(wanted, in_hand);
        let rank = |(key, head): &(Digest, Head)| {
            let recipe = self.read(key).filter(|_| !beneath.contains(key))?;
            let same_place = head.places.contains(place);
            let on_the_same = head.parent == wanted.parent() && !has_other_base(&recipe, wanted);
            let equal = equal_inputs(&recipe, wanted);
            let is_like = same_place || on_the_same || equal > 0;
            is_like.then_some(((on_the_same, equal, same_place, head.last_use), recipe))
        };
        let nearest = candidates.iter().filter_map(rank);
        let (_, nearest) = nearest.max_by_key(|(rank, _)| *rank)?;
        let told = if nearest.parent() == wanted.parent() || has_other_base(&nearest, wanted) {
            difference(&self.with_listings(nearest), wanted)?
        } else {
            self.beneath(&nearest, wanted, place, in_hand)
        };
        Some(clipped(&told, self.limits.difference_chars_max))
    }

    /// What differs beneath two things that stand on different ones: the lowest.
    fn beneath(&self, old: &Recipe, new: &Recipe, place: &Place, in_hand: &[Recipe]) -> String {
        let unknown = || "a step before it changed".to_owned();
        let find = |key: &Digest| {
            let at_hand = in_hand.iter().find(|recipe| recipe.key() == *key);
            at_hand.cloned().or_else(|| {
                let is_known = {
                    let index = self.index();
                    let head = index.heads.get(key);
                    head.is_some_and(|head| head.is_of(&place.scope))
                };
                is_known.then(|| self.read(key)).flatten()
            })
        };
        let chains = (self.chain(old, &find), self.chain(new, &find));
        let (Some(was), Some(is)) = chains else {
            return unknown();
        };
        let equal = was
            .iter()
            .zip(&is)
            .take_while(|(was, is)| was.key() == is.key());
        let equal = equal.count();
        let text = |recipe: &Recipe| recipe.text().unwrap_or_else(|| recipe.kind()).to_owned();
        match (was.get(equal), is.get(equal)) {
            (Some(was), Some(is)) if was.kind() == is.kind() => {
                let [was, is_now] = [was, is].map(|recipe| self.with_listings(recipe.clone()));
                let told = difference(&was, &is_now);
                told.map_or_else(unknown, |told| format!("before it, {}: {told}", text(is)))
            }
            (Some(was), Some(is)) => {
                format!("before it stands {} (was {})", text(is), text(was))
            }
            (None, Some(is)) => format!("{} was added before it", text(is)),
            (Some(was), None) => format!("{} was removed before it", text(was)),
            (None, None) => unknown(),
        }
    }

    /// The keys of what `top` stands on, as far as they are known.
    fn keys_beneath(&self, top: &Recipe, in_hand: &[Recipe]) -> HashSet<Digest> {
        let index = self.index();
        let at_hand = |key: &Digest| in_hand.iter().find(|recipe| recipe.key() == *key);
        let mut keys = HashSet::new();
        let mut parent = top.parent();
        while let Some(key) = parent.filter(|key| keys.insert(*key)) {
            parent = match at_hand(&key) {
                Some(recipe) => recipe.parent(),
                None => index.heads.get(&key).and_then(|head| head.parent),
            };
        }
        keys
    }

    /// Everything beneath `top`, lowest first; nothing if a part of it is not known any more.
    fn chain(
        &self,
        top: &Recipe,
        find: &impl Fn(&Digest) -> Option<Recipe>,
    ) -> Option<Vec<Recipe>> {
        let mut chain = Vec::new();
        let mut parent = top.parent();
        while let Some(key) = parent {
            if chain.len() >= self.limits.chain_max {
                return None;
            }
            let recipe = find(&key)?;
            parent = recipe.parent();
            chain.push(recipe);
        }
        chain.reverse();
        Some(chain)
    }
}

impl Index {
    fn insert(&mut self, key: Digest, head: Head) {
        self.remove(&key);
        self.bytes += head.bytes;
        self.heads.insert(key, head);
        self.touch(&key);
    }

    fn remove(&mut self, key: &Digest) {
        if let Some(head) = self.heads.remove(key) {
            self.bytes -= head.bytes;
        }
    }

    fn touch(&mut self, key: &Digest) {
        self.use_count += 1;
        if let Some(head) = self.heads.get_mut(key) {
            head.last_use = self.use_count;
        }
    }

    /// What may be the nearest: those that stand on the same thing first, of the others the latest.
    fn candidates(&self, wanted: &Recipe, place: &Place, count_max: usize) -> Vec<(Digest, Head)> {
        let heads = self.heads.iter();
        let alike = heads.filter(|(_, head)| head.kind == wanted.kind() && head.is_for(place));
        let mut found: Vec<_> = alike.map(|(key, head)| (*key, head.clone())).collect();
        let parent = wanted.parent();
        found.sort_unstable_by_key(|(_, head)| (head.parent == parent, head.last_use));
        found.reverse();
        found.truncate(count_max);
        found
    }
}

impl Head {
    fn is_of(&self, scope: &str) -> bool {
        self.places.iter().any(|place| place.scope == scope)
    }

    fn is_for(&self, wanted: &Place) -> bool {
        let is_for = |place: &Place| place.scope == wanted.scope && place.subject == wanted.subject;
        self.places.iter().any(is_for)
    }
}

/// How many inputs are equal before the first that is not; what two things stand on is not counted.
fn equal_inputs(one: &Recipe, other: &Recipe) -> usize {
    let own = |recipe: &Recipe| {
        let inputs = recipe.inputs().iter();
        let own = inputs.filter(|input| !matches!(input.role, Role::Base | Role::Parent));
        own.cloned().collect::<Vec<_>>()
    };
    let (one, other) = (own(one), own(other));
    let equal = one
        .iter()
        .zip(&other)
        .take_while(|(one, other)| one == other);
    equal.count()
}

fn has_other_base(one: &Recipe, other: &Recipe) -> bool {
    let base = |recipe: &Recipe| {
        let mut inputs = recipe.inputs().iter();
        inputs.find(|input| input.role == Role::Base).cloned()
    };
    base(one) != base(other)
}

/// A file of at most `bytes_max` bytes.
fn read(path: &Path, bytes_max: u64) -> Option<Vec<u8>> {
    let status = fs::metadata(path).ok()?;
    (status.len() <= bytes_max)
        .then(|| fs::read(path).ok())
        .flatten()
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
