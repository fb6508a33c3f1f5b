//! Folders beside the layers for what is not going to be one.

use super::{LayerStore, Staging, StoreError, run_blocking};

impl LayerStore {
    /// A folder for changes that nobody keeps, for example those of a look into a repository. It goes away
    /// with its last clone, and after a crash at the next start.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub async fn scratch(&self) -> Result<Staging, StoreError> {
        let path = self.scratch_path();
        let staging = run_blocking(move || Staging::create(path)).await?;
        self.hold(&staging);
        Ok(staging)
    }

    fn scratch_path(&self) -> std::path::PathBuf {
        self.temporary("scratch", &domain::Digest::ZERO)
    }
}
