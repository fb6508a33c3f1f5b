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
    let mut listing = Listing::new(limits);
    let mut arrivals = Arrivals::default();
    for (index, file) in files.into_iter().enumerate() {
        let kind = match file.payload {
            Payload::Dir => ContextKind::Dir,
            Payload::Blob(id) => {
                let found = sent(&id, owner, uploads, blobs).await?;
                let (name, content) = found.ok_or_else(|| not_uploaded(index))?;
                let arrival = uploads.take_arrival(owner, &name).await;
                let arrival = arrival.map_err(ApiError::internal)?;
                note(&mut arrivals, content.digest, arrival);
                file_of(content)
            }
            Payload::Inline(content) => {
                let bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
                let (digest, arrival) = keep(content, bytes, owner, uploads, blobs).await?;
                note(&mut arrivals, digest, Some(arrival));
                ContextKind::File { digest, bytes }
            }
        };
        listing.add(file.path, file.mode, kind)?;
    }
    let (listing, context) = listing.finish()?;
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

/// What the context of a request of `owner` is, without keeping anything of it. `contents` are those
/// that came inline, by the index of their file.
///
/// # Errors
/// As [`store`].
pub async fn look(
    files: Vec<ContextFile>,
    contents: &[Option<Announced>],
    owner: &Owner,
    uploads: &Uploads,
    blobs: &BlobStore,
    limits: &Limits,
) -> Result<Option<ContextRef>, ApiError> {
    if files.is_empty() {
        return Ok(None);
    }
    let mut listing = Listing::new(limits);
    for (index, file) in files.into_iter().enumerate() {
        let kind = match file.payload {
            Payload::Dir => ContextKind::Dir,
            Payload::Blob(id) => {
                let found = sent(&id, owner, uploads, blobs).await?;
                let (_, content) = found.ok_or_else(|| not_uploaded(index))?;
                file_of(content)
            }
            Payload::Inline(_) => {
                let content = contents.get(index).copied().flatten();
                let content = content.ok_or_else(|| {
                    ApiError::internal(format!("the content of file {index} was not read"))
                })?;
                if content.bytes > limits.blob_bytes_max {
                    return Err(ApiError::field(
                        format!("build_context.files[{index}]"),
                        format!("is larger than {} bytes", limits.blob_bytes_max),
                    ));
                }
                file_of(content)
            }
        };
        listing.add(file.path, file.mode, kind)?;
    }
    let (_, context) = listing.finish()?;
    Ok(Some(context))
}

/// The files of a context, as they are found.
struct Listing {
    entries: Vec<ContextEntry>,
    total_bytes: u64,
    bytes_max: u64,
}

impl Listing {
    fn new(limits: &Limits) -> Self {
        Self {
            entries: Vec::new(),
            total_bytes: 0,
            bytes_max: limits.context_bytes_max,
        }
    }

    fn add(&mut self, path: String, mode: u32, kind: ContextKind) -> Result<(), ApiError> {
        if let ContextKind::File { bytes, .. } = kind {
            self.total_bytes = self.total_bytes.saturating_add(bytes);
        }
        if self.total_bytes > self.bytes_max {
            return Err(ApiError::TooLarge {
                what: "the files of build_context together",
                bytes_max: self.bytes_max,
            });
        }
        self.entries.push(ContextEntry { path, mode, kind });
        Ok(())
    }

    /// The stored form and what refers to it.
    fn finish(self) -> Result<(Vec<u8>, ContextRef), ApiError> {
        let manifest = ContextManifest::new(self.entries)
            .map_err(|invalid| ApiError::field("build_context.files", invalid.to_string()))?;
        Ok(manifest.to_stored())
    }
}

fn file_of(content: Announced) -> ContextKind {
    ContextKind::File {
        digest: content.digest,
        bytes: content.bytes,
    }
}

fn not_uploaded(index: usize) -> ApiError {
    ApiError::field(
        format!("build_context.files[{index}].blob_id"),
        "this file has not been uploaded",
    )
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

/// What `owner` has sent under the name `id`, if the content is still there.
async fn sent(
    id: &str,
    owner: &Owner,
    uploads: &Uploads,
    blobs: &BlobStore,
) -> Result<Option<(UploadName, Announced)>, ApiError> {
    let Some(name) = UploadName::parse(id) else {
        return Ok(None);
    };
    let arrived = uploads.arrived(owner, &name).await;
    let Some(content) = arrived.map_err(ApiError::internal)? else {
        return Ok(None);
    };
    let there = blobs.contains(&content.digest).await.map_err(blob_error)?;
    Ok(there.then_some((name, content)))
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
