//! The files of a context, as they are listed in a request.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::Digest;
use domain::definition::{
    CONTEXT_PATH_BYTES_MAX, ContextEntry, ContextKind, ContextManifest, InvalidContext,
};

use super::fields::Fields;
use crate::limits::Limits;

/// One listed file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextFile {
    /// Relative, `/`-separated, checked.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What it is.
    pub payload: Payload,
}

/// What a listed entry is.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// A folder.
    Dir,
    /// A file that was uploaded before, by the name that the preflight gave it.
    Blob(String),
    /// A file whose content came with the request.
    Inline(Vec<u8>),
}

impl ContextFile {
    /// What it is known by, in one text: two entries with the same text are the same.
    pub(super) fn identity(&self) -> String {
        let content = match &self.payload {
            Payload::Dir => "folder".to_owned(),
            Payload::Blob(id) => format!("sent {id}"),
            Payload::Inline(bytes) => Digest::of(bytes).to_string(),
        };
        format!("{:o} {content} {}", self.mode, self.path)
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dir => f.write_str("Dir"),
            Self::Blob(id) => write!(f, "Blob({id})"),
            Self::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
        }
    }
}

const FILE_MODE_DEFAULT: u32 = 0o644;
const DIR_MODE_DEFAULT: u32 = 0o755;

/// The files of the request; empty if it has none.
pub(super) fn files(top: Fields<'_>, limits: &Limits) -> Vec<ContextFile> {
    top.within("build_context", |context| {
        context.only(&["files"]);
        if !context.has("files") {
            context.problem("files", "is required");
        }
        let mut seen = BTreeSet::new();
        context.each("files", limits.context_file_count_max, |_, entry| {
            let file = file(entry, limits)?;
            if !seen.insert(file.path.clone()) {
                entry.problem("path", format!("`{}` is listed twice", shown(&file.path)));
            }
            Some(file)
        })
    })
    .unwrap_or_default()
}

fn file(entry: Fields<'_>, limits: &Limits) -> Option<ContextFile> {
    entry.only(&["path", "entry_type", "mode", "blob_id", "content_base64"]);
    let path = relative_path(entry, "path", limits);
    let mode = entry.mode("mode");
    let is_dir = entry_is_dir(entry)?;
    let payload = if is_dir {
        for key in ["blob_id", "content_base64"] {
            if entry.has(key) {
                entry.problem(key, "a folder has no content");
            }
        }
        Payload::Dir
    } else {
        file_payload(entry, limits)?
    };
    let usual = if is_dir {
        DIR_MODE_DEFAULT
    } else {
        FILE_MODE_DEFAULT
    };
    Some(ContextFile {
        path: path?,
        mode: mode.unwrap_or(usual),
        payload,
    })
}

/// Whether an entry is a folder; a mistake if it is neither that nor a file.
pub(super) fn entry_is_dir(entry: Fields<'_>) -> Option<bool> {
    match entry.get("entry_type").and_then(serde_json::Value::as_str) {
        Some("file") => Some(false),
        Some("dir") => Some(true),
        Some(_) | None => {
            entry.problem("entry_type", "must be `file` or `dir`");
            None
        }
    }
}

/// The path `key`, which stays inside the context.
pub(super) fn relative_path(entry: Fields<'_>, key: &str, limits: &Limits) -> Option<String> {
    let path = entry.required_text(key, limits.text_bytes_max)?;
    let alone = ContextEntry {
        path: path.to_owned(),
        mode: 0,
        kind: ContextKind::Dir,
    };
    match ContextManifest::new(vec![alone]) {
        Ok(_) => Some(path.to_owned()),
        Err(InvalidContext::TooLong(_)) => {
            let shown = shown(path);
            entry.problem(
                key,
                format!(
                    "`{shown}` must have at most {CONTEXT_PATH_BYTES_MAX} bytes, and 255 in each name"
                ),
            );
            None
        }
        Err(
            InvalidContext::Path(_) | InvalidContext::Duplicate(_) | InvalidContext::BelowFile(_),
        ) => {
            let shown = shown(path);
            entry.problem(
                key,
                format!("`{shown}` must be relative, without `..`, `.` or empty parts"),
            );
            None
        }
    }
}

fn file_payload(entry: Fields<'_>, limits: &Limits) -> Option<Payload> {
    match (entry.has("blob_id"), entry.get("content_base64")) {
        (true, Some(_)) => {
            entry.problem(
                "content_base64",
                "a file has either blob_id or content_base64",
            );
            None
        }
        (false, None) => {
            entry.problem("blob_id", "a file needs blob_id or content_base64");
            None
        }
        (true, None) => {
            let id = entry.text("blob_id", limits.text_bytes_max)?;
            Some(Payload::Blob(id.to_owned()))
        }
        (false, Some(content)) => {
            let bytes = content.as_str().and_then(|text| STANDARD.decode(text).ok());
            if bytes.is_none() {
                entry.problem("content_base64", "must be base64 (RFC 4648, with padding)");
            }
            bytes.map(Payload::Inline)
        }
    }
}

/// A caller's text as an error repeats it.
fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

/// The paths that copy steps may name: every entry, and every folder above one.
#[derive(Debug)]
pub(super) struct Listing(BTreeSet<String>);

impl Listing {
    pub(super) fn of(files: &[ContextFile]) -> Self {
        let mut paths = BTreeSet::new();
        for file in files {
            let folders = file
                .path
                .match_indices('/')
                .filter_map(|(at, _)| file.path.get(..at));
            paths.extend(folders.map(str::to_owned));
            paths.insert(file.path.clone());
        }
        Self(paths)
    }

    pub(super) fn contains(&self, source: &str) -> bool {
        self.0.contains(source.trim_end_matches('/'))
    }
}
