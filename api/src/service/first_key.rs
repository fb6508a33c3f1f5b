//! The key that the service makes at its first start.

use std::io;
use std::path::{Path, PathBuf};

use commands::{DispatchError, Dispatcher, Meta};
use domain::ids::KeyId;
use domain::keys::{Command, Key, Rejection};
use domain::name::Owner;
use domain::recorded::Version;

use super::keys::{KeyText, NoEntropy};
use super::secret_file::{self, NotKept};

/// Why there is no first key.
#[derive(Debug, thiserror::Error)]
pub enum FirstKeyError {
    /// No random bytes.
    #[error("cannot make a key")]
    Entropy(#[from] NoEntropy),
    /// The keys cannot be read.
    #[error("cannot read the keys")]
    Load(#[source] DispatchError<std::convert::Infallible>),
    /// The key cannot be recorded.
    #[error("cannot record the first key")]
    Record(#[source] DispatchError<Rejection>),
    /// The file cannot be used.
    #[error("cannot keep the first key in {path}")]
    Keep {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes a key for `owner` and keeps it in `file`, mode 0600, if no key was ever made. Gives the
/// key only then.
///
/// The file is written first: a key that is recorded and lost would lock everybody out.
///
/// # Errors
/// [`FirstKeyError`].
pub async fn ensure(
    dispatcher: &Dispatcher,
    meta: Meta,
    id: KeyId,
    owner: Owner,
    file: &Path,
) -> Result<Option<KeyText>, FirstKeyError> {
    let (_, version) = dispatcher.load_keys().await.map_err(FirstKeyError::Load)?;
    if version != Version::EMPTY {
        return Ok(None);
    }
    let path = file.to_owned();
    let key = tokio::task::spawn_blocking(move || keep(&path))
        .await
        .unwrap_or_else(|err| {
            Err(FirstKeyError::Keep {
                path: file.to_owned(),
                source: io::Error::other(err),
            })
        })?;
    let command = Command::Create(Key {
        id,
        owner,
        label: "made at the first start".to_owned(),
        hash: key.hash(),
    });
    dispatcher
        .keys(meta, command)
        .await
        .map_err(FirstKeyError::Record)?;
    Ok(Some(key))
}

/// The key in `path`, which an earlier start may have written without getting further; else a new
/// one.
fn keep(path: &Path) -> Result<KeyText, FirstKeyError> {
    let text = secret_file::kept(path, || KeyText::generate().map(KeyText::into_text));
    let text = text.map_err(|err| match err {
        NotKept::Entropy(err) => err.into(),
        NotKept::File(source) => FirstKeyError::Keep {
            path: path.to_owned(),
            source,
        },
    })?;
    Ok(KeyText::from_text(&text))
}
