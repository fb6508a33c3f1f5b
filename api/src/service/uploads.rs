//! Who has announced and sent which file.
//!
//! The content of files is shared by all owners, by digest; that somebody else has sent a file is
//! not told, or a digest alone would be enough to get at its content. What an owner has sent is
//! kept as one small file each, below a folder of the owner; what was only announced is kept in
//! memory, within a bound, and asked for again after a restart.

mod records;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use domain::Digest;
use domain::ids::{BlobId, UploadId};
use domain::name::Owner;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

pub use records::Kept;

/// What a file is announced as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The SHA-256 of its content.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
}

/// How a content came to its owner's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// Its owner had not sent it before.
    New,
    /// It was there, and was sent all the same.
    Again,
}

/// What is kept of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    content: Announced,
    /// How it arrived, until a request refers to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arrival: Option<Arrival>,
}

/// Under which name a file is sent and referred to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UploadName {
    /// By its content: sent once, whoever refers to it.
    Content(BlobId),
    /// By an upload of its own: `force_upload`.
    Fresh(UploadId),
}

impl UploadName {
    /// Reads a name that a preflight gave.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(id) = text.parse() {
            return Some(Self::Content(id));
        }
        text.parse().ok().map(Self::Fresh)
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Content(id) => id.as_str(),
            Self::Fresh(id) => id.as_str(),
        }
    }
}

/// The table of uploads. Clones are the same table.
#[derive(Clone, Debug)]
pub struct Uploads {
    dir: Arc<Path>,
    pending: Arc<Mutex<HashMap<Owner, Pending>>>,
    pending_count_max: usize,
    /// Held by requests between the look for a content and the event that needs it, and by whoever
    /// records that one has come; alone by whoever removes contents or records.
    gate: Arc<RwLock<()>>,
}

#[derive(Debug, Default)]
struct Pending {
    announced: HashMap<UploadName, Announced>,
    /// The oldest first.
    order: VecDeque<UploadName>,
}

/// The table cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub struct UploadsError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Uploads {
    /// The table in folder `dir`.
    pub fn new(dir: PathBuf, pending_count_max: usize) -> Self {
        Self {
            dir: dir.into(),
            pending: Arc::default(),
            pending_count_max,
            gate: Arc::default(),
        }
    }

    /// Contents stay while this is held.
    pub async fn hold(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.gate).read_owned().await
    }

    /// Nobody refers to contents anew while this is held.
    pub async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.gate).write_owned().await
    }

    /// Remembers that `owner` will send a file under `name`.
    pub fn announce(&self, owner: &Owner, name: UploadName, announced: Announced) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let pending = pending.entry(owner.clone()).or_default();
        if pending.announced.insert(name.clone(), announced).is_none() {
            pending.order.push_back(name);
        }
        while pending.order.len() > self.pending_count_max {
            if let Some(oldest) = pending.order.pop_front() {
                pending.announced.remove(&oldest);
            }
        }
    }

    /// What `owner` announced under `name`; what was sent before may be sent again.
    ///
    /// # Errors
    /// [`UploadsError`].
    pub async fn announced(
        &self,
        owner: &Owner,
        name: &UploadName,
    ) -> Result<Option<Announced>, UploadsError> {
        let pending = {
            let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            let found = pending.get(owner).and_then(|own| own.announced.get(name));
            found.copied()
        };
        match pending {
            Some(announced) => Ok(Some(announced)),
            None => self.arrived(owner, name).await,
        }
    }

    /// What `owner` has sent under `name`.
    ///
    /// # Errors
    /// [`UploadsError`].
    pub async fn arrived(
        &self,
        owner: &Owner,
        name: &UploadName,
    ) -> Result<Option<Announced>, UploadsError> {
        let path = self.path(owner, name);
        blocking(move || Ok(read(&path)?.map(|record| record.content))).await
    }

    /// How the content under `name` arrived, if nobody has asked since.
    ///
    /// # Errors
    /// [`UploadsError`].
    pub async fn take_arrival(
        &self,
        owner: &Owner,
        name: &UploadName,
    ) -> Result<Option<Arrival>, UploadsError> {
        let path = self.path(owner, name);
        blocking(move || {
            let Some(mut record) = read(&path)? else {
                return Ok(None);
            };
            let arrival = record.arrival.take();
            if arrival.is_some() {
                write(&path, record)?;
            }
            Ok(arrival)
        })
        .await
    }

    /// What `owner` has sent of `names`, in their order.
    ///
    /// # Errors
    /// [`UploadsError`].
    pub async fn all_arrived(
        &self,
        owner: &Owner,
        names: &[UploadName],
    ) -> Result<Vec<Option<Announced>>, UploadsError> {
        let paths: Vec<_> = names.iter().map(|name| self.path(owner, name)).collect();
        let content =
            |path: &PathBuf| Ok::<_, UploadsError>(read(path)?.map(|record| record.content));
        blocking(move || paths.iter().map(content).collect()).await
    }

    /// Records that `owner` has sent `content` under `name`, and how it arrived. The same content
    /// need not be sent again under the content's own name.
    ///
    /// # Errors
    /// [`UploadsError`].
    pub async fn record(
        &self,
        owner: &Owner,
        name: &UploadName,
        content: Announced,
        arrival: Option<Arrival>,
    ) -> Result<(), UploadsError> {
        let own = UploadName::Content(BlobId::of(&content.digest));
        let other = (*name != own).then(|| self.path(owner, &own));
        let path = self.path(owner, name);
        blocking(move || {
            // An upload that is repeated before it was referred to arrived as it did at first.
            let earlier = read(&path)?.and_then(|record| record.arrival);
            let arrival = earlier.or(arrival);
            write(&path, Record { content, arrival })?;
            match other {
                Some(other) if read(&other)?.is_none() => {
                    let arrival = None;
                    write(&other, Record { content, arrival })
                }
                Some(_) | None => Ok(()),
            }
        })
        .await?;
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pending) = pending.get_mut(owner)
            && pending.announced.remove(name).is_some()
        {
            pending.order.retain(|known| known != name);
        }
        Ok(())
    }

    /// Owners and names have no characters that mean something in a path.
    fn path(&self, owner: &Owner, name: &UploadName) -> PathBuf {
        self.dir.join(owner.as_str()).join(name.as_str())
    }
}

fn fault(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> UploadsError {
    let path = path.to_owned();
    move |source| UploadsError {
        action,
        path,
        source,
    }
}

fn read(path: &Path) -> Result<Option<Record>, UploadsError> {
    match std::fs::read(path) {
        // A file that was cut off by a crash counts as none: the content is sent again.
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(fault("read", path)(err)),
    }
}

fn write(path: &Path, content: Record) -> Result<(), UploadsError> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(folder).map_err(fault("make", folder))?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fault("write", path))?;
    serde_json::to_writer(&mut file, &content)
        .map_err(io::Error::from)
        .map_err(fault("write", path))?;
    file.persist(path)
        .map_err(|err| fault("write", path)(err.error))?;
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UploadsError> + Send + 'static,
) -> Result<T, UploadsError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|err| Err(fault("use", Path::new("uploads"))(io::Error::other(err))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(text: &str) -> (UploadName, Announced) {
        let digest = Digest::of(text.as_bytes());
        let announced = Announced {
            digest,
            bytes: u64::try_from(text.len()).unwrap(),
        };
        (UploadName::Content(BlobId::of(&digest)), announced)
    }

    #[tokio::test]
    async fn what_one_owner_has_sent_another_has_not() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = Uploads::new(dir.path().to_owned(), 10);
        let (one, other): (Owner, Owner) = ("a".parse().unwrap(), "b".parse().unwrap());
        let (name, announced) = content("x");
        uploads.record(&one, &name, announced, None).await.unwrap();
        assert_eq!(uploads.arrived(&one, &name).await.unwrap(), Some(announced));
        assert_eq!(uploads.arrived(&other, &name).await.unwrap(), None);
        let reopened = Uploads::new(dir.path().to_owned(), 10);
        assert_eq!(
            reopened.all_arrived(&one, &[name]).await.unwrap(),
            [Some(announced)]
        );
    }

    #[tokio::test]
    async fn a_fresh_upload_counts_for_its_content_too() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = Uploads::new(dir.path().to_owned(), 10);
        let owner: Owner = "a".parse().unwrap();
        let (name, announced) = content("x");
        let fresh = UploadName::parse("blob_01arz3ndektsv4rrffq69g5fav").unwrap();
        assert!(matches!(fresh, UploadName::Fresh(_)));
        uploads.announce(&owner, fresh.clone(), announced);
        assert_eq!(uploads.arrived(&owner, &fresh).await.unwrap(), None);
        uploads
            .record(&owner, &fresh, announced, None)
            .await
            .unwrap();
        assert!(uploads.arrived(&owner, &fresh).await.unwrap().is_some());
        assert!(uploads.arrived(&owner, &name).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn the_oldest_announcements_are_forgotten_beyond_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = Uploads::new(dir.path().to_owned(), 2);
        let owner: Owner = "a".parse().unwrap();
        for text in ["x", "y", "z", "z"] {
            let (name, announced) = content(text);
            uploads.announce(&owner, name, announced);
        }
        let mut known = Vec::new();
        for text in ["x", "y", "z"] {
            let name = content(text).0;
            known.push(uploads.announced(&owner, &name).await.unwrap().is_some());
        }
        assert_eq!(known, [false, true, true]);
    }
}
