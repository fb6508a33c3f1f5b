//! Secrets that are kept in a file of their own.

use std::io::{self, Write as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::keys::NoEntropy;

/// Why a secret is not kept.
#[derive(Debug)]
pub(super) enum NotKept {
    /// There are no random bytes.
    Entropy(NoEntropy),
    /// The file cannot be used.
    File(io::Error),
}

impl From<io::Error> for NotKept {
    fn from(err: io::Error) -> Self {
        Self::File(err)
    }
}

/// The text in `path`, which an earlier start may have written; else the one that `make` makes, which
/// is then there whole or not at all, with mode 0600. Blocks.
pub(super) fn kept(
    path: &Path,
    make: impl FnOnce() -> Result<Zeroizing<String>, NoEntropy>,
) -> Result<Zeroizing<String>, NotKept> {
    match std::fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) if !text.trim().is_empty() => {
            return Ok(Zeroizing::new(text.trim().to_owned()));
        }
        Ok(_) => {}
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(err) => return Err(err.into()),
    }
    let text = make().map_err(NotKept::Entropy)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    // Made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(file, "{}", *text)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|err| err.error)?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all())?;
    Ok(text)
}
