//! The end of what a stream said, for messages about a machine that is gone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Reads a stream to its end in the background and keeps its last bytes.
#[derive(Debug)]
pub(super) struct Tail {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
    /// Closed when the stream has ended.
    ended: watch::Receiver<()>,
}

impl Tail {
    /// Begins to read `stream`, of which `bytes_max` are kept.
    pub(super) fn of(
        mut stream: impl AsyncRead + Send + Unpin + 'static,
        bytes_max: usize,
    ) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&kept);
        let (running, ended) = watch::channel(());
        let reader = tokio::spawn(async move {
            let mut chunk = vec![0_u8; 4096];
            while let Ok(count @ 1..) = stream.read(&mut chunk).await {
                let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(chunk.get(..count).unwrap_or_default());
                let excess = kept.len().saturating_sub(bytes_max);
                kept.drain(..excess);
            }
            drop(running);
        });
        Self {
            kept,
            reader,
            ended,
        }
    }

    /// Waits until the stream has ended, so that nothing is missing; at most `patience`.
    pub(super) async fn finish(&self, patience: Duration) {
        let mut ended = self.ended.clone();
        let _whether_in_time = tokio::time::timeout(patience, ended.changed()).await;
    }

    /// What is kept, as trimmed text.
    pub(super) fn text(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // A serial console ends its lines with a carriage return too.
        String::from_utf8_lossy(&kept)
            .replace('\r', "")
            .trim()
            .to_owned()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
