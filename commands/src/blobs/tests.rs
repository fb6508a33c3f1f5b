//! What the blob store promises.

use domain::time::Timestamp;
use futures_util::stream;
use tokio::io::AsyncReadExt;

use super::*;

struct World {
    store: BlobStore,
    folder: tempfile::TempDir,
}

impl World {
    async fn new(limits: BlobLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = BlobStore::open(folder.path(), limits).await.unwrap();
        Self { store, folder }
    }

    /// All files below the store's folder.
    fn files(&self) -> Vec<PathBuf> {
        fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                } else {
                    found.push(path);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.folder.path(), &mut found);
        found
    }

    async fn put(&self, content: &[u8], expected: Expected) -> Result<(), BlobError> {
        let pieces: Vec<_> = content
            .chunks(3)
            .map(|piece| Ok::<_, io::Error>(Bytes::copy_from_slice(piece)))
            .collect();
        self.store.put(expected, stream::iter(pieces)).await
    }
}

fn expected(content: &[u8]) -> Expected {
    Expected {
        digest: Digest::of(content),
        bytes: content.len().try_into().unwrap(),
    }
}

#[tokio::test]
async fn a_blob_is_stored_under_its_digest_and_read_back() {
    let world = World::new(BlobLimits::default()).await;
    for length in [0, 1, 100_000] {
        let content = &vec![7; length][..];
        let wanted = expected(content);
        assert!(!world.store.contains(&wanted.digest).await.unwrap());
        world.put(content, wanted).await.unwrap();
        assert!(world.store.contains(&wanted.digest).await.unwrap());
        // Again: the same.
        world.put(content, wanted).await.unwrap();
        let read = world.store.read(&wanted.digest, wanted.bytes).await;
        assert_eq!(read.unwrap(), content);
        let mut streamed = Vec::new();
        let mut file = world.store.open_blob(&wanted.digest).await.unwrap();
        file.read_to_end(&mut streamed).await.unwrap();
        assert_eq!(streamed, content);
        let hex = wanted.digest.hex();
        let path = world.folder.path().join(&hex[..2]).join(&hex);
        assert_eq!(world.store.path(&wanted.digest), path);
    }
    let digest = world.store.put_bytes(b"whole".to_vec()).await.unwrap();
    assert_eq!(digest, Digest::of(b"whole"));
    assert_eq!(world.files().len(), 4);
}

#[tokio::test]
async fn what_is_not_as_announced_leaves_nothing() {
    let world = World::new(BlobLimits {
        blob_bytes_max: 10,
        ..BlobLimits::default()
    })
    .await;
    let announced = expected(b"0123456789");
    let short = world.put(b"01234567", announced).await;
    assert!(
        matches!(
            short,
            Err(BlobError::SizeMismatch {
                expected: 10,
                received: 8,
                more: false
            })
        ),
        "{short:?}"
    );
    let long = world.put(&[b'0'; 100], announced).await;
    assert!(
        matches!(
            long,
            Err(BlobError::SizeMismatch {
                expected: 10,
                received: 10,
                more: true
            })
        ),
        "{long:?}"
    );
    let other = world.put(b"012345678x", announced).await;
    assert!(
        matches!(other, Err(BlobError::DigestMismatch { .. })),
        "{other:?}"
    );
    let large = world.put(b"01234567890", expected(b"01234567890")).await;
    assert!(
        matches!(
            large,
            Err(BlobError::TooLarge {
                bytes: 11,
                bytes_max: 10
            })
        ),
        "{large:?}"
    );
    let pieces = [
        Ok(Bytes::from_static(b"0123")),
        Err(io::Error::other("reset")),
    ];
    let broken = world.store.put(announced, stream::iter(pieces)).await;
    assert!(matches!(broken, Err(BlobError::Upload(_))), "{broken:?}");
    assert_eq!(world.files(), Vec::<PathBuf>::new());
    assert!(!world.store.contains(&announced.digest).await.unwrap());
}

#[tokio::test]
async fn an_upload_that_nobody_waits_for_any_more_leaves_nothing() {
    let world = World::new(BlobLimits::default()).await;
    let first = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"0123"))]);
    let endless = first.chain(stream::pending());
    let upload = world.store.put(expected(b"0123456789"), endless);
    tokio::select! {
        biased;
        ended = upload => panic!("{ended:?}"),
        () = async {
            while world.files().is_empty() {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while !world.files().is_empty() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{:?}",
            world.files()
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn opening_removes_what_was_left_unfinished_and_keeps_the_rest() {
    let world = World::new(BlobLimits::default()).await;
    let digest = world.store.put_bytes(b"kept".to_vec()).await.unwrap();
    let left = world.folder.path().join(INCOMING_DIR).join("left");
    std::fs::write(&left, b"half").unwrap();
    let again = BlobStore::open(world.folder.path(), BlobLimits::default()).await;
    assert!(!left.exists());
    assert!(again.unwrap().contains(&digest).await.unwrap());
}

#[tokio::test]
async fn reading_is_bounded_checked_and_says_what_is_not_there() {
    let world = World::new(BlobLimits::default()).await;
    let digest = world.store.put_bytes(b"0123456789".to_vec()).await.unwrap();
    let large = world.store.read(&digest, 9).await;
    assert!(
        matches!(
            large,
            Err(BlobError::TooLarge {
                bytes: 10,
                bytes_max: 9
            })
        ),
        "{large:?}"
    );
    std::fs::write(world.store.path(&digest), b"012345678x").unwrap();
    let damaged = world.store.read(&digest, 10).await;
    assert!(
        matches!(damaged, Err(BlobError::DigestMismatch { .. })),
        "{damaged:?}"
    );
    world.store.remove(&digest).await.unwrap();
    world.store.remove(&digest).await.unwrap();
    let gone = world.store.read(&digest, 10).await;
    assert!(
        matches!(gone, Err(BlobError::NotFound(missing)) if missing == digest),
        "{gone:?}"
    );
    let gone = world.store.open_blob(&digest).await;
    assert!(matches!(gone, Err(BlobError::NotFound(_))), "{gone:?}");
}

/// Makes a blob as old as the epoch.
fn age(store: &BlobStore, digest: &Digest) {
    let file = std::fs::File::open(store.path(digest)).unwrap();
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    file.set_modified(epoch).unwrap();
}

#[tokio::test]
async fn what_is_old_is_removed_unless_it_was_asked_for_since() {
    let World {
        store,
        folder: _folder,
    } = World::new(BlobLimits::default()).await;
    let digest = store.put_bytes(b"x".to_vec()).await.unwrap();
    let now = Timestamp::from_unix_micros(1_700_000_000_000_000).unwrap();
    let is_old = move |came| came < now;
    // It came a moment ago, which is long after that.
    assert!(!store.remove_if(&digest, is_old).await.unwrap());
    age(&store, &digest);
    assert!(store.refresh(&digest, now).await.unwrap());
    assert!(!store.remove_if(&digest, is_old).await.unwrap());
    age(&store, &digest);
    assert!(store.remove_if(&digest, is_old).await.unwrap());
    assert!(!store.refresh(&digest, now).await.unwrap());
    assert!(!store.remove_if(&digest, is_old).await.unwrap());
}

#[tokio::test]
async fn one_missing_blob_is_told_among_many() {
    let World {
        store,
        folder: _folder,
    } = World::new(BlobLimits::default()).await;
    let one = store.put_bytes(b"x".to_vec()).await.unwrap();
    let other = store.put_bytes(b"y".to_vec()).await.unwrap();
    let all = vec![one, other, one];
    assert!(store.contains_all(all.clone()).await.unwrap());
    store.remove(&other).await.unwrap();
    assert!(!store.contains_all(all).await.unwrap());
}
