//! How many builds of one owner may wait for a worker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::name::Owner;
use projections::Views;

use crate::http::error::ApiError;

/// Lets requests in as long as their owner has room. Clones are the same.
///
/// What waits is in the views, and what was let in and is not there yet is counted here; for a
/// moment a build is both. So the bound is never passed, and whoever is refused for that moment
/// comes again.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    entering: Arc<Mutex<BTreeMap<Owner, usize>>>,
}

/// A request that was let in. Dropped when its build is in the views, or will never be.
#[derive(Debug)]
pub struct Entering {
    admission: Admission,
    owner: Owner,
}

impl Admission {
    /// Lets a request of `owner` in if fewer than `count_max` builds of that owner wait.
    ///
    /// # Errors
    /// [`ApiError::WaitingBuilds`]; [`ApiError::Unavailable`] if the views cannot be read.
    pub fn enter(
        &self,
        views: &Views,
        owner: &Owner,
        count_max: usize,
    ) -> Result<Entering, ApiError> {
        let mut entering = self.lock();
        // Under the lock: what leaves the count below is in the views that are read here.
        let waiting_count = views.queue(owner, count_max)?.len();
        let entering_count = entering.get(owner).copied().unwrap_or_default();
        if waiting_count.saturating_add(entering_count) >= count_max {
            return Err(ApiError::WaitingBuilds { count_max });
        }
        *entering.entry(owner.clone()).or_default() += 1;
        Ok(Entering {
            admission: self.clone(),
            owner: owner.clone(),
        })
    }

    /// Counts are whole after every statement, so a panic elsewhere leaves none half-way.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Owner, usize>> {
        self.entering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        let mut entering = self.admission.lock();
        if let Some(count) = entering.get_mut(&self.owner) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                entering.remove(&self.owner);
            }
        }
    }
}
