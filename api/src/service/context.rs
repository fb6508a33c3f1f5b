//! The files of a request, made a context: what came inline is stored, what was sent before is
//! looked up, and the listing becomes a blob itself.

use commands::blobs::{BlobError, BlobStore};
use domain::definition::{ContextEntry, ContextKind, ContextManifest, ContextRef};
use domain::name::Owner;

use super::uploads::{Announced, UploadName, Uploads};
use crate::http::error::ApiError;
use crate::limits::Limits;
use crate::normalise::{ContextFile, Payload};

/// Stores the context of a request of `owner`; none if it has no files.
///
/// # Errors
/// [`ApiError`], naming the file that is missing or too much.
pub async fn store(
    files: Vec<ContextFile>,
    owner: &Owner,
    uploads: &Uploads,
    blobs: &BlobStore,
    limits: &Limits,
) -> Result<Option<ContextRef>, ApiError> {
    if files.is_empty() {
        return Ok(None);
    }
    let mut entries = Vec::with_capacity(files.len());
    let mut total_bytes: u64 = 0;
    for (index, file) in files.into_iter().enumerate() {
        let kind = match file.payload {
            Payload::Dir => ContextKind::Dir,
            Payload::Blob(id) => {
                let sent = sent(&id, owner, uploads, blobs).await?;
                let content = sent.ok_or_else(|| {
                    ApiError::field(
                        format!("build_context.files[{index}].blob_id"),
                        "this file has not been uploaded",
                    )
                })?;
                ContextKind::File {
                    digest: content.digest,
                    bytes: content.bytes,
                }
            }
            Payload::Inline(content) => {
                let bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
                let digest = blobs.put_bytes(content).await.map_err(blob_error)?;
                ContextKind::File { digest, bytes }
            }
        };
        if let ContextKind::File { bytes, .. } = kind {
            total_bytes = total_bytes.saturating_add(bytes);
        }
        if total_bytes > limits.context_bytes_max {
            return Err(ApiError::TooLarge {
                what: "the files of build_context together",
                bytes_max: limits.context_bytes_max,
            });
        }
        entries.push(ContextEntry {
            path: file.path,
            mode: file.mode,
            kind,
        });
    }
    let manifest = ContextManifest::new(entries)
        .map_err(|invalid| ApiError::field("build_context.files", invalid.to_string()))?;
    let (listing, context) = manifest.to_stored();
    blobs.put_bytes(listing).await.map_err(blob_error)?;
    Ok(Some(context))
}

/// What `owner` has sent under the name `id`, if the content is still there.
async fn sent(
    id: &str,
    owner: &Owner,
    uploads: &Uploads,
    blobs: &BlobStore,
) -> Result<Option<Announced>, ApiError> {
    let Some(name) = UploadName::parse(id) else {
        return Ok(None);
    };
    let arrived = uploads.arrived(owner, &name).await;
    let Some(content) = arrived.map_err(ApiError::internal)? else {
        return Ok(None);
    };
    let there = blobs.contains(&content.digest).await.map_err(blob_error)?;
    Ok(there.then_some(content))
}

/// A failure of the blob store that is not the caller's fault.
pub(crate) fn blob_error(err: BlobError) -> ApiError {
    match err {
        BlobError::TooLarge { bytes_max, .. } => ApiError::TooLarge {
            what: "a file",
            bytes_max,
        },
        err @ BlobError::DiskFull(_) => {
            ApiError::unavailable("no space is left for uploaded files", err)
        }
        err @ (BlobError::SizeMismatch { .. }
        | BlobError::DigestMismatch { .. }
        | BlobError::Upload(_)
        | BlobError::NotFound(_)
        | BlobError::Io { .. }) => ApiError::internal(err),
    }
}
