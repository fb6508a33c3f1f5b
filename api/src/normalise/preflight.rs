//! The announcement of files.

use domain::Digest;
use serde_json::Value;

use super::Refusal;
use super::context::{entry_is_dir, relative_path};
use super::fields::{Fields, Problems};
use crate::limits::Limits;

/// One announced file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its path, checked.
    pub path: String,
    /// Permission bits, as they were sent.
    pub mode: Option<String>,
    /// What the file is to be; none for a folder.
    pub file: Option<AnnouncedFile>,
}

/// What a file is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnouncedFile {
    /// The SHA-256 of its content.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
    /// Send it even if it is there.
    pub force_upload: bool,
}

/// Reads the announcement of files.
///
/// # Errors
/// [`Refusal`], with every mistake that was found.
pub fn preflight(body: &Value, limits: &Limits) -> Result<Vec<Announcement>, Refusal> {
    let problems = Problems::new(limits.problem_count_max);
    let entries = Fields::top(body, &problems).map(|top| {
        if !top.has("files") {
            top.problem("files", "is required");
        }
        top.each("files", limits.context_file_count_max, |_, fields| {
            entry(fields, limits)
        })
    });
    match entries {
        Some(entries) if problems.is_empty() => Ok(entries),
        Some(_) | None => Err(problems.into_refusal()),
    }
}

fn entry(fields: Fields<'_>, limits: &Limits) -> Option<Announcement> {
    fields.only(&[
        "path",
        "entry_type",
        "mode",
        "sha256",
        "size_bytes",
        "force_upload",
    ]);
    let path = relative_path(fields, "path", limits);
    // Checked here, echoed as it was sent.
    fields.mode("mode");
    let file = if entry_is_dir(fields)? {
        None
    } else {
        Some(file(fields)?)
    };
    let mode = fields.get("mode").and_then(Value::as_str);
    Some(Announcement {
        path: path?,
        mode: mode.map(str::to_owned),
        file,
    })
}

fn file(fields: Fields<'_>) -> Option<AnnouncedFile> {
    let digest = fields.get("sha256").and_then(Value::as_str);
    let digest = digest.and_then(|hex| Digest::from_hex(hex).ok());
    if digest.is_none() {
        fields.problem("sha256", "must be 64 lower-case hex digits");
    }
    if !fields.has("size_bytes") {
        fields.problem("size_bytes", "is required");
    }
    let bytes = fields.number("size_bytes", 0..=u64::MAX);
    let force_upload = fields.switch("force_upload").unwrap_or(false);
    Some(AnnouncedFile {
        digest: digest?,
        bytes: bytes?,
        force_upload,
    })
}
