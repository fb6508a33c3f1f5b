//! The builds whose artifacts have expired, until it is known that nothing is left of them.

use domain::ids::{ArtifactId, BuildId, TemplateId};
use serde::{Deserialize, Serialize};

use super::TemplateRow;
use crate::key::Key;
use crate::rows::Rows;
use crate::store::{Scan, StoreError};
use crate::views::Views;

/// A build whose artifact has expired, and may still be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    /// Its template, which is not deleted.
    pub template_id: TemplateId,
    /// The build.
    pub build_id: BuildId,
    /// What it made, or found made.
    pub artifact: ArtifactId,
}

fn expired_key() -> Key {
    Key::table("templates/expired")
}

fn artifact_key(artifact: &ArtifactId) -> Key {
    expired_key().text(artifact.as_str())
}

fn key_of(build: &BuildId, artifact: &ArtifactId) -> Key {
    artifact_key(artifact).text(build.as_str())
}

pub(super) fn put(
    rows: &mut Rows<'_>,
    template: &TemplateId,
    build: &BuildId,
    artifact: &ArtifactId,
) -> Result<(), StoreError> {
    let expired = Expired {
        template_id: template.clone(),
        build_id: build.clone(),
        artifact: artifact.clone(),
    };
    rows.put(key_of(build, artifact), &expired)
}

pub(super) fn delete(rows: &mut Rows<'_>, build: &BuildId, artifact: &ArtifactId) {
    rows.delete(key_of(build, artifact));
}

/// Nothing is said of a template any more that is gone.
pub(super) fn forget(rows: &mut Rows<'_>, template: &TemplateRow) {
    for (build, artifact) in &template.expired {
        delete(rows, build, artifact);
    }
}

impl Views {
    /// The builds whose artifacts have expired and are not known to be gone, at most `count_max`:
    /// those behind the last one of the page before.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn expired(
        &self,
        after: Option<&Expired>,
        count_max: usize,
    ) -> Result<Vec<Expired>, StoreError> {
        let mut scan = Scan::below(&expired_key(), count_max);
        if let Some(last) = after {
            scan.from = key_of(&last.build_id, &last.artifact).end();
        }
        self.values(&scan)
    }

    /// Those of them that made, or found made, this artifact, at most `count_max`.
    ///
    /// # Errors
    /// [`StoreError`]: the views are about to be folded anew.
    pub fn expired_of(
        &self,
        artifact: &ArtifactId,
        count_max: usize,
    ) -> Result<Vec<Expired>, StoreError> {
        self.values(&Scan::below(&artifact_key(artifact), count_max))
    }
}
