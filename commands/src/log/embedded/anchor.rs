//! The anchor: how far the log was written for certain, kept outside of sled.
//!
//! sled drops what it cannot read at the end of its file without a word. The anchor makes that a
//! loud failure: the log has to reach at least as far, with the same events.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use domain::Digest;
use domain::ports::LogError;
use serde::{Deserialize, Serialize};

use super::files::{sync_dir, unavailable};
use crate::log::damaged;

/// The anchor's file beside sled's.
pub(super) const FILE: &str = "anchor";
const FILE_NEW: &str = "anchor.new";
const FORMAT: u32 = 1;

/// How far the log reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Anchor {
    format: u32,
    /// The last event; 0 if there is none.
    pub(super) seq: u64,
    /// The hash of the whole log up to that event.
    pub(super) hash: Digest,
}

impl Anchor {
    pub(super) const fn new(seq: u64, hash: Digest) -> Self {
        Self {
            format: FORMAT,
            seq,
            hash,
        }
    }

    /// The anchor of the log in `dir`; none if the log was never opened.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, LogError> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(unavailable(err)),
        };
        let place = path.display().to_string();
        let anchor: Self =
            serde_json::from_slice(&bytes).map_err(|err| damaged(place.clone(), &err))?;
        if anchor.format == FORMAT {
            Ok(Some(anchor))
        } else {
            let what = format!("the anchor has the unknown format {}", anchor.format);
            Err(LogError::Damaged { place, what })
        }
    }

    /// Puts the anchor in the place of the one before, whole or not at all.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join(FILE_NEW);
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_data()?;
        fs::rename(&new, dir.join(FILE))?;
        sync_dir(dir)
    }
}
