//! The files of a request, made a context: what came inline is stored, what was sent before is
//! looked up, and the listing becomes a blob itself.

use commands::blobs::{BlobError, BlobStore};
use domain::Digest;
use domain::definition::{Arrivals, ContextEntry, ContextKind, ContextManifest, ContextRef};
use domain::ids::BlobId;
use domain::name::Owner;

use super::uploads::{Announced, Arrival, UploadName, Uploads};
use crate::http::error::ApiError;
use crate::limits::Limits;
use crate::normalise::{ContextFile, Payload};

/// What became of the files of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Their listing; none if there are no files.
    pub context: Option<ContextRef>,
    /// The stored list of the contents that the request brought; none if it brought nothing.
    pub arrivals: Option<Digest>,
}

/// Stores the context of a request of `owner`.
///
/// # Errors
/// [`ApiError`], naming the file that is missing or too much.
pub async fn store(
    files: Vec<ContextFile>,
    owner: &Owner,
    uploads: &Uploads,
    blobs: &BlobStore,
    limits: &Limits,
) -> Result<Stored, ApiError> {
    if files.is_empty() {
        return Ok(Stored::default());
    }
    let mut entries = Vec::with_capacity(files.len());
    let mut total_bytes: u64 = 0;
    let mut arrivals = Arrivals::default();
    for (index, file) in files.into_iter().enumerate() {
        let kind = match file.payload {
            Payload::Dir => ContextKind::Dir,
            Payload::Blob(id) => {
                let sent = sent(&id, owner, uploads, blobs).await?;
                let (content, arrival) = sent.ok_or_else(|| {
                    ApiError::field(
                        format!("build_context.files[{index}].blob_id"),
                        "this file has not been uploaded",
                    )
                })?;
                note(&mut arrivals, content.digest, arrival);
                ContextKind::File {
                    digest: content.digest,
                    bytes: content.bytes,
                }
            }
            Payload::Inline(content) => {
                let bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
                let (digest, arrival) = keep(content, bytes, owner, uploads, blobs).await?;
                note(&mut arrivals, digest, Some(arrival));
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
    let arrivals = if arrivals.is_empty() {
        None
    } else {
        let stored = blobs.put_bytes(arrivals.to_stored()).await;
        Some(stored.map_err(blob_error)?)
    };
    Ok(Stored {
        context: Some(context),
        arrivals,
    })
}

fn note(arrivals: &mut Arrivals, content: Digest, arrival: Option<Arrival>) {
    match arrival {
        Some(Arrival::New) => drop(arrivals.new.insert(content)),
        Some(Arrival::Again) => drop(arrivals.again.insert(content)),
        None => {}
    }
}

/// Stores a content that came with the request, as one that its owner has sent.
async fn keep(
    content: Vec<u8>,
    bytes: u64,
    owner: &Owner,
    uploads: &Uploads,
    blobs: &BlobStore,
) -> Result<(Digest, Arrival), ApiError> {
    let digest = Digest::of(&content);
    let arrival = arrival(&digest, owner, uploads, blobs).await?;
    if arrival == Arrival::New {
        blobs.put_bytes(content).await.map_err(blob_error)?;
        let name = UploadName::Content(BlobId::of(&digest));
        let recorded = uploads.record(owner, &name, Announced { digest, bytes }, None);
        recorded.await.map_err(ApiError::internal)?;
    }
    Ok((digest, arrival))
}

/// How a content of `owner` would arrive now. That others have sent it does not count, and is not
/// told.
///
/// # Errors
/// [`ApiError`], if the stores cannot be read.
pub(crate) async fn arrival(
    content: &Digest,
    owner: &Owner,
    uploads: &Uploads,
    blobs: &BlobStore,
) -> Result<Arrival, ApiError> {
    let name = UploadName::Content(BlobId::of(content));
    let sent = uploads.arrived(owner, &name).await;
    let known = sent.map_err(ApiError::internal)?.is_some()
        && blobs.contains(content).await.map_err(blob_error)?;
    Ok(if known { Arrival::Again } else { Arrival::New })
}

/// What `owner` has sent under the name `id`, if the content is still there, and how it arrived if
/// no request has referred to it since.
async fn sent(
    id: &str,
    owner: &Owner,
    uploads: &Uploads,
    blobs: &BlobStore,
) -> Result<Option<(Announced, Option<Arrival>)>, ApiError> {
    let Some(name) = UploadName::parse(id) else {
        return Ok(None);
    };
    let arrived = uploads.arrived(owner, &name).await;
    let Some(content) = arrived.map_err(ApiError::internal)? else {
        return Ok(None);
    };
    let there = blobs.contains(&content.digest).await.map_err(blob_error)?;
    if !there {
        return Ok(None);
    }
    let arrival = uploads.take_arrival(owner, &name).await;
    Ok(Some((content, arrival.map_err(ApiError::internal)?)))
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
