//! Files of contexts: announcing and sending them. contract/behaviour.md section 8.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use commands::blobs::{BlobError, Expected};
use domain::failure::FailurePhase;
use futures_util::stream;

use super::body::Body;
use super::error::ApiError;
use super::reply;
use crate::normalise::{self, AnnouncedFile, Announcement};
use crate::service::App;
use crate::service::context::{arrival, blob_error};
use crate::service::keys::Caller;
use crate::service::uploads::{Announced, UploadName};
use crate::wire::blob::{PreflightResponse, PreflightResult};

/// `POST /v1/templates/blobs/preflight`: which files have to be sent.
///
/// # Errors
/// [`ApiError::Invalid`], or [`ApiError::Upload`] if a file is too large.
pub async fn preflight(
    app: &Arc<App>,
    caller: &Caller,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    let limits = &app.config.limits;
    let json = body.required_json(limits.json_body_bytes_max).await?;
    let entries = normalise::preflight(&json, limits)?;
    let files: Vec<_> = entries
        .iter()
        .filter_map(|entry| entry.file.as_ref())
        .collect();
    check_context(&files, limits.context_bytes_max)?;
    let too_large = files
        .iter()
        .find(|file| file.bytes > limits.blob_bytes_max)
        .map(|file| file.bytes);
    if let Some(bytes) = too_large {
        return Err(ApiError::Upload {
            message: format!(
                "a file of {bytes} bytes is larger than allowed ({} bytes)",
                limits.blob_bytes_max
            ),
            reason: "file_too_large",
            phase: FailurePhase::Preflight,
            subject: first_too_large(&entries, limits.blob_bytes_max),
        });
    }
    let names: Vec<UploadName> = files
        .iter()
        .map(|file| {
            if file.force_upload {
                // One for each file: the client counts what it sends by these names.
                UploadName::Fresh(app.ids.new_upload_id())
            } else {
                UploadName::Content(domain::ids::BlobId::of(&file.digest))
            }
        })
        .collect();
    let missing = missing(app, caller, &names).await?;
    let mut answers = names.into_iter().zip(missing);
    let files = entries
        .into_iter()
        .map(|entry| result(app, caller, entry, &mut answers))
        .collect();
    reply::json(StatusCode::OK, &PreflightResponse { files })
}

/// What a build will refuse is said before anything is sent.
fn check_context(files: &[&AnnouncedFile], bytes_max: u64) -> Result<(), ApiError> {
    let bytes = files.iter().map(|file| file.bytes);
    let total_bytes = bytes.fold(0, u64::saturating_add);
    if total_bytes <= bytes_max {
        return Ok(());
    }
    Err(ApiError::TooLarge {
        what: "the files of build_context together",
        bytes_max,
    })
}

fn first_too_large(entries: &[Announcement], bytes_max: u64) -> String {
    let large = entries.iter().find(|entry| {
        let file = entry.file.as_ref();
        file.is_some_and(|file| file.bytes > bytes_max)
    });
    large.map(|entry| entry.path.clone()).unwrap_or_default()
}

/// Which of `names` the caller has to send.
async fn missing(app: &App, caller: &Caller, names: &[UploadName]) -> Result<Vec<bool>, ApiError> {
    let arrived = app.uploads.all_arrived(&caller.owner, names).await;
    let mut missing = Vec::with_capacity(names.len());
    for content in arrived.map_err(ApiError::internal)? {
        missing.push(match content {
            None => true,
            Some(content) => {
                // It is kept until the request that is about to refer to it.
                let now = app.clock.0.now();
                let there = app.blobs.refresh(&content.digest, now).await;
                !there.map_err(blob_error)?
            }
        });
    }
    Ok(missing)
}

/// The answer to one entry; a file takes the next of the names.
fn result(
    app: &App,
    caller: &Caller,
    entry: Announcement,
    named: &mut impl Iterator<Item = (UploadName, bool)>,
) -> PreflightResult {
    let file = entry.file.zip(named_if(entry.file.is_some(), named));
    let (entry_type, missing, blob_id) = match file {
        None => ("dir", false, None),
        Some((file, (name, missing))) => {
            let blob_id = name.as_str().to_owned();
            if missing {
                let announced = Announced {
                    digest: file.digest,
                    bytes: file.bytes,
                };
                app.uploads.announce(&caller.owner, name, announced);
            }
            ("file", missing, Some(blob_id))
        }
    };
    PreflightResult {
        path: entry.path,
        entry_type,
        missing,
        mode: entry.mode,
        blob_id,
    }
}

fn named_if<T>(wanted: bool, named: &mut impl Iterator<Item = T>) -> Option<T> {
    wanted.then(|| named.next()).flatten()
}

/// `PUT /v1/templates/blobs/{id}`: the content of an announced file, which must be what was
/// announced.
///
/// # Errors
/// [`ApiError::UploadNotFound`], [`ApiError::Upload`] or [`ApiError::Unavailable`].
pub async fn put(
    app: &Arc<App>,
    caller: &Caller,
    id: &str,
    body: &mut Body,
) -> Result<HttpResponse, ApiError> {
    let unknown = || ApiError::UploadNotFound(id.chars().take(100).collect());
    let name = UploadName::parse(id).ok_or_else(unknown)?;
    let announced = app.uploads.announced(&caller.owner, &name).await;
    let announced = match announced.map_err(ApiError::internal)? {
        Some(announced) => announced,
        // The name itself says what is wanted; that it was announced is forgotten by a restart.
        None => from_name(&name, body.declared_bytes()).ok_or_else(unknown)?,
    };
    let expected = Expected {
        digest: announced.digest,
        bytes: announced.bytes,
    };
    let pieces = stream::unfold(body, |body| async move {
        match body.next().await {
            Ok(piece) => piece.map(|piece| (Ok(piece), body)),
            Err(err) => Some((Err(err), body)),
        }
    });
    let arrival = arrival(&announced.digest, &caller.owner, &app.uploads, &app.blobs).await?;
    app.blobs
        .put(expected, pieces)
        .await
        .map_err(|err| refused(err, id))?;
    // Not before: a body may take its time, and whoever removes files would wait for it.
    let _held = app.uploads.hold().await;
    let recorded = app
        .uploads
        .record(&caller.owner, &name, announced, Some(arrival));
    recorded.await.map_err(ApiError::internal)?;
    Ok(reply::no_content())
}

fn from_name(name: &UploadName, declared_bytes: Option<u64>) -> Option<Announced> {
    match name {
        UploadName::Fresh(_) => None,
        UploadName::Content(id) => Some(Announced {
            digest: id.digest()?,
            bytes: declared_bytes?,
        }),
    }
}

/// What is wrong with the sent content.
fn refused(err: BlobError, id: &str) -> ApiError {
    let reason = match &err {
        BlobError::SizeMismatch { .. } => "size_mismatch",
        BlobError::DigestMismatch { .. } => "digest_mismatch",
        BlobError::TooLarge { .. } => "file_too_large",
        BlobError::Upload(_) => "upload_interrupted",
        BlobError::NotFound(_) | BlobError::DiskFull(_) | BlobError::Io { .. } => {
            return blob_error(err);
        }
    };
    ApiError::Upload {
        message: err.to_string(),
        reason,
        phase: FailurePhase::BlobUpload,
        subject: id.to_owned(),
    }
}
