//! What a projection sees of the store: rows as values, with the changes of the batch in them.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::key::Key;
use crate::store::{Changes, StoreError, ViewStore};

/// Rows, as they are after the events of a batch that were applied so far.
pub struct Rows<'a> {
    store: &'a dyn ViewStore,
    changes: Changes,
}

impl fmt::Debug for Rows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("changes", &self.changes.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Rows<'a> {
    /// The rows of `store`.
    pub fn new(store: &'a dyn ViewStore) -> Self {
        Self {
            store,
            changes: Changes::new(),
        }
    }

    /// What was changed.
    pub fn into_changes(self) -> Changes {
        self.changes
    }

    /// The bytes of a row.
    ///
    /// # Errors
    /// [`StoreError`] of the store.
    pub fn bytes(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        match self.changes.get(key.as_bytes()) {
            Some(changed) => Ok(changed.clone()),
            None => self.store.get(key.as_bytes()),
        }
    }

    /// The value of a row.
    ///
    /// # Errors
    /// [`StoreError`] of the store, or [`StoreError::Row`].
    pub fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, StoreError> {
        self.bytes(key)?
            .map(|bytes| parse(key.as_bytes(), &bytes))
            .transpose()
    }

    /// Gives a row these bytes.
    pub fn put_bytes(&mut self, key: Key, bytes: Vec<u8>) {
        self.changes.insert(key.into_bytes(), Some(bytes));
    }

    /// Gives a row this value.
    ///
    /// # Errors
    /// [`StoreError::Row`] if the value has no JSON form.
    pub fn put<T: Serialize>(&mut self, key: Key, value: &T) -> Result<(), StoreError> {
        let bytes =
            serde_json::to_vec(value).map_err(|source| StoreError::row(key.as_bytes(), source))?;
        self.put_bytes(key, bytes);
        Ok(())
    }

    /// Takes a row away.
    pub fn delete(&mut self, key: Key) {
        self.changes.insert(key.into_bytes(), None);
    }
}

/// The value of a row's bytes.
///
/// # Errors
/// [`StoreError::Row`] if they are not what is expected.
pub fn parse<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|source| StoreError::row(key, source))
}
