//! Contents of files that nobody needs any more.

use std::collections::BTreeSet;

use commands::blobs::BlobError;
use domain::build::Event as BuildEvent;
use domain::definition::ContextManifest;
use domain::ports::EventReader as _;
use domain::recorded::Position;
use domain::time::Timestamp;
use domain::{Digest, Event};
use projections::builds::BuildStatus;

use super::{CacheDesk, CacheError, LISTING_BYTES_MAX, each_build};
use crate::service::uploads::Kept;
use crate::wire::cache::{Kind, Removed};

/// How many files are looked at again and removed while nobody may refer to one.
const AT_ONCE_COUNT: usize = 256;
/// Events that are read from the log at once.
const READ_COUNT: usize = 1000;

impl CacheDesk {
    /// Removes the contents that no build needs which is under way or may be retried, and that came
    /// long enough ago for a request to refer to them; and what is kept of uploads that nobody can
    /// refer to any more.
    ///
    /// # Errors
    /// [`CacheError`]; what went before it is gone.
    pub async fn collect_files(&self, dry_run: bool) -> Result<Vec<Removed>, CacheError> {
        let now = self.clock.0.now();
        // Whatever the log gets from here on is looked at again.
        let looked = self.log.head();
        let kept = self.needed_files().await?;
        let retention = self.retention.clone();
        let is_old = move |came: Timestamp| {
            let until = retention.upload_until(came);
            until.is_some_and(|until| until <= now)
        };
        let mut leaving = self.blobs.list().await?;
        leaving.retain(|blob| !kept.contains(&blob.digest) && blob.stored_at.is_some_and(&is_old));
        let mut gone = Vec::new();
        for some in leaving.chunks(AT_ONCE_COUNT) {
            let _alone = self.uploads.alone().await;
            let needed = self.needed_since(looked).await?;
            for blob in some.iter().filter(|blob| !needed.contains(&blob.digest)) {
                // An upload may have brought it again since it was listed.
                if dry_run || self.blobs.remove_if(&blob.digest, is_old.clone()).await? {
                    gone.push(Removed {
                        kind: Kind::Blob,
                        key: blob.digest.to_string(),
                        bytes: blob.bytes,
                    });
                }
            }
        }
        if !dry_run {
            self.forget_uploads(is_old).await?;
        }
        Ok(gone)
    }

    /// Forgets the uploads whose contents are gone, those of a name of their own that came long enough
    /// ago for a request to refer to them, and what a crash left.
    async fn forget_uploads(
        &self,
        is_old: impl Fn(Timestamp) -> bool + Clone + Send + 'static,
    ) -> Result<(), CacheError> {
        let blobs = self.blobs.clone();
        let is_over = move |kept: &Kept| match kept.content {
            Some(content) if kept.is_fresh => {
                kept.came.is_some_and(&is_old) || !blobs.path(&content).exists()
            }
            Some(content) => !blobs.path(&content).exists(),
            None => kept.came.is_some_and(&is_old),
        };
        let mut leaving = self.uploads.list().await?;
        let is_leaving = is_over.clone();
        let looking = move || {
            leaving.retain(is_leaving);
            leaving
        };
        let leaving = tokio::task::spawn_blocking(looking).await?;
        for some in leaving.chunks(AT_ONCE_COUNT) {
            let _alone = self.uploads.alone().await;
            self.uploads.forget(some.to_vec(), is_over.clone()).await?;
        }
        Ok(())
    }

    /// The contents that builds need which are under way or may be retried.
    async fn needed_files(&self) -> Result<BTreeSet<Digest>, CacheError> {
        let mut needed: BTreeSet<Digest> = self.builds_with_files().await?.into_keys().collect();
        for context in self.contexts_to_retry().await? {
            self.add_context(context, &mut needed).await?;
        }
        Ok(needed)
    }

    /// The contents that builds need which were requested behind `position`, as the log has it.
    pub(super) async fn needed_since(
        &self,
        mut position: Position,
    ) -> Result<BTreeSet<Digest>, CacheError> {
        let mut needed = BTreeSet::new();
        loop {
            let events = self.log.read_all(position, READ_COUNT).await?;
            let Some(last) = events.last() else {
                return Ok(needed);
            };
            position = last.position;
            for recorded in &events {
                let Event::Build(BuildEvent::Requested(requested)) = &recorded.event else {
                    continue;
                };
                needed.extend(requested.arrivals);
                if let Some(context) = &requested.definition.context {
                    self.add_context(context.digest, &mut needed).await?;
                }
            }
        }
    }

    async fn add_context(
        &self,
        listing: Digest,
        needed: &mut BTreeSet<Digest>,
    ) -> Result<(), CacheError> {
        match self.contents(&listing).await {
            Ok(contents) => needed.extend(contents),
            // An operator has taken it away: there is nothing to retry.
            Err(CacheError::Blobs(BlobError::NotFound(_))) => {}
            Err(error) => return Err(error),
        }
        needed.insert(listing);
        Ok(())
    }

    /// The listings of builds that ended so short a time ago that they may be retried.
    async fn contexts_to_retry(&self) -> Result<BTreeSet<Digest>, CacheError> {
        let (views, retention) = (self.views.clone(), self.retention.clone());
        let now = self.clock.0.now();
        let looking = tokio::task::spawn_blocking(move || {
            let mut contexts = BTreeSet::new();
            for status in [
                BuildStatus::Ready,
                BuildStatus::Error,
                BuildStatus::Cancelled,
            ] {
                each_build(&views, status, |row| {
                    let ended = row.finished_at.unwrap_or(row.updated_at);
                    let until = retention.context_until(ended);
                    if until.is_none_or(|until| until > now) {
                        contexts.extend(row.context_digest);
                    }
                })?;
            }
            Ok::<_, CacheError>(contexts)
        });
        looking.await?
    }

    /// The contents of the files in a stored listing.
    pub(super) async fn contents(&self, listing: &Digest) -> Result<Vec<Digest>, CacheError> {
        let listing = self.blobs.read(listing, LISTING_BYTES_MAX).await?;
        let listing: ContextManifest =
            serde_json::from_slice(&listing).map_err(CacheError::Listing)?;
        Ok(listing.contents().collect())
    }

    /// Whether everything is there that the stored listing of a context names, and the listing.
    ///
    /// # Errors
    /// [`CacheError`].
    pub async fn has_context(&self, listing: &Digest) -> Result<bool, CacheError> {
        match self.contents(listing).await {
            Ok(contents) => Ok(self.blobs.contains_all(contents).await?),
            Err(CacheError::Blobs(BlobError::NotFound(_))) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
