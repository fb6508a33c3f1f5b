//! Rows in memory, forgotten with the process.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Changes, Checkpoint, Row, Scan, StoreError, ViewStore};

/// Rows in memory.
#[derive(Debug, Default)]
pub struct Memory(RwLock<Content>);

#[derive(Debug, Default)]
struct Content {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    checkpoint: Option<Checkpoint>,
}

impl Memory {
    // A panic cannot leave a half-made change: changes are applied without anything that panics.
    fn read(&self) -> RwLockReadGuard<'_, Content> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Content> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ViewStore for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.read().rows.get(key).cloned())
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<Row>, StoreError> {
        if scan.from >= scan.to {
            return Ok(Vec::new());
        }
        let content = self.read();
        let range = content.rows.range(scan.from.clone()..scan.to.clone());
        let owned = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        Ok(if scan.backwards {
            range.rev().take(scan.count_max).map(owned).collect()
        } else {
            range.take(scan.count_max).map(owned).collect()
        })
    }

    fn checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        Ok(self.read().checkpoint.clone())
    }

    fn commit(&self, changes: &Changes, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let mut content = self.write();
        for (key, value) in changes {
            match value {
                Some(value) => content.rows.insert(key.clone(), value.clone()),
                None => content.rows.remove(key),
            };
        }
        content.checkpoint = Some(checkpoint.clone());
        Ok(())
    }

    fn reset(&self) -> Result<(), StoreError> {
        *self.write() = Content::default();
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
