//! From what an image is called to its manifest for our platform and its configuration, wherever its
//! documents are.

use std::collections::{BTreeSet, VecDeque};

use domain::Digest;

use super::error::ImageError;
use super::manifest::{
    Descriptor, ImageConfig, LayerDescriptor, Manifest, Unread, check_types, read_config,
    read_manifest, unsupported,
};
use super::reference::ImageName;
use crate::limits::layers::ImageLimits;

/// How a manifest is asked for.
pub(super) enum Named {
    Tag(String),
    Digest(Digest),
}

/// Where the documents of an image are.
pub(super) trait Documents: Sync {
    /// What errors call the image.
    fn name(&self) -> ImageName;

    /// A manifest or an index, its digest checked.
    fn manifest(
        &self,
        named: &Named,
    ) -> impl Future<Output = Result<(Digest, Vec<u8>), ImageError>> + Send;

    /// A small blob whole, its size and digest checked.
    fn document(
        &self,
        descriptor: &Descriptor,
    ) -> impl Future<Output = Result<Vec<u8>, ImageError>> + Send;
}

/// What the documents of an image say.
pub(super) struct Resolved {
    /// Of the manifest for linux/amd64.
    pub(super) manifest_digest: Digest,
    pub(super) config: ImageConfig,
    /// The configuration as it is stored.
    pub(super) config_document: Vec<u8>,
    pub(super) layers: Vec<LayerDescriptor>,
}

/// Finds the image for linux/amd64, and reads its manifest and configuration.
pub(super) async fn resolve(
    documents: &impl Documents,
    named: Named,
    limits: &ImageLimits,
) -> Result<Resolved, ImageError> {
    let image = documents.name();
    // The document that was named, then those that indexes lead to, best first.
    let mut wanted = VecDeque::from([named]);
    let mut offered = BTreeSet::new();
    let mut document_count = 0;
    while let Some(named) = wanted.pop_front() {
        document_count += 1;
        let max = limits.index_documents_max;
        if document_count > max {
            let what = format!("its indexes lead to more than {max} documents");
            return Err(ImageError::Refused { image, what });
        }
        let (manifest_digest, body) = documents.manifest(&named).await?;
        match read_manifest(&image, &body, limits)? {
            Manifest::Index(index) => {
                offered.extend(index.offered);
                let candidates = index.candidates.into_iter();
                for digest in candidates.rev() {
                    wanted.push_front(Named::Digest(digest));
                }
            }
            Manifest::Image { config, layers } => {
                check_types(&image, &config, &layers, limits)?;
                let config_document = documents.document(&config).await?;
                match read_config(&image, &config_document, layers) {
                    Ok((config, layers)) => {
                        return Ok(Resolved {
                            manifest_digest,
                            config,
                            config_document,
                            layers,
                        });
                    }
                    Err(Unread::Platform(platform)) => drop(offered.insert(platform)),
                    Err(Unread::Refused(error)) => return Err(error),
                }
            }
        }
    }
    Err(unsupported(&image, offered))
}
