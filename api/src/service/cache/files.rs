//! Contents of files that nobody needs any more.

use std::collections::BTreeSet;

use commands::blobs::BlobError;
use domain::Digest;
use domain::definition::ContextManifest;
use domain::time::Timestamp;
use projections::builds::BuildStatus;

use super::{CacheDesk, CacheError, LISTING_BYTES_MAX, each_build};
use crate::wire::cache::{Kind, Removed};

impl CacheDesk {
    /// Removes the contents that no build needs which is under way or may be retried, and that came
    /// long enough ago for a request to refer to them.
    ///
    /// # Errors
    /// [`CacheError`]; what went before it is gone.
    pub async fn collect_files(&self, dry_run: bool) -> Result<Vec<Removed>, CacheError> {
        // Nobody refers to a content anew until this is over.
        let _alone = self.uploads.alone().await;
        let now = self.clock.0.now();
        let mut kept: BTreeSet<Digest> = self.builds_with_files().await?.into_keys().collect();
        for context in self.contexts_to_retry().await? {
            match self.contents(&context).await {
                Ok(contents) => kept.extend(contents),
                // An operator has taken it away: there is nothing to retry.
                Err(CacheError::Blobs(BlobError::NotFound(_))) => {}
                Err(error) => return Err(error),
            }
            kept.insert(context);
        }
        let mut gone = Vec::new();
        for blob in self.blobs.list().await? {
            let retention = self.retention.clone();
            let is_old = move |came: Timestamp| {
                let until = retention.upload_until(came);
                until.is_some_and(|until| until <= now)
            };
            if kept.contains(&blob.digest) || !blob.stored_at.is_some_and(&is_old) {
                continue;
            }
            // An upload may have brought it again since it was listed.
            if dry_run || self.blobs.remove_if(&blob.digest, is_old).await? {
                gone.push(Removed {
                    kind: Kind::Blob,
                    key: blob.digest.to_string(),
                    bytes: blob.bytes,
                });
            }
        }
        Ok(gone)
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
