//! The host's end of the agent's channel: calls go out, frames come back by their calls' ids.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use guest::protocol::{Call, Frame, LineSplitter, Reply, Request, to_line};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Calls that may wait to be written.
const OUTGOING_MAX: usize = 128;
/// Frames of one call that may wait for its caller; then the channel waits.
const FRAMES_MAX: usize = 16;
/// One read of the channel, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum AgentError {
    /// The machine has gone.
    Gone,
    /// Nothing came in time.
    Silent(Duration),
}

/// The calls that wait for frames; `None` once the machine has gone.
type Waiting = Arc<Mutex<Option<HashMap<u64, mpsc::Sender<Reply>>>>>;

/// The connection to one machine's agent.
#[derive(Debug)]
pub(super) struct Agent {
    next_id: AtomicU64,
    waiting: Waiting,
    outgoing: mpsc::Sender<Vec<u8>>,
    tasks: [JoinHandle<()>; 2],
}

impl Agent {
    /// Takes over the channel; frames of another session than `session` are ignored.
    pub(super) fn new(stream: UnixStream, session: u64) -> Self {
        let (read_half, write_half) = stream.into_split();
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let (outgoing, lines) = mpsc::channel(OUTGOING_MAX);
        let tasks = [
            tokio::spawn(read(read_half, session, Arc::clone(&waiting))),
            tokio::spawn(write(write_half, lines)),
        ];
        Self {
            next_id: AtomicU64::new(1),
            waiting,
            outgoing,
            tasks,
        }
    }

    /// Ends a line that a snapshot may have cut in the middle.
    pub(super) async fn end_line(&self) -> Result<(), AgentError> {
        self.outgoing
            .send(b"\n".to_vec())
            .await
            .map_err(|_| AgentError::Gone)
    }

    /// Calls, and waits for the one frame that answers.
    pub(super) async fn call(
        &self,
        request: Request,
        deadline: Duration,
    ) -> Result<Reply, AgentError> {
        let mut pending = self.begin(request).await?;
        timeout(deadline, pending.next())
            .await
            .unwrap_or(Err(AgentError::Silent(deadline)))
    }

    /// Begins a call that may be answered by several frames.
    pub(super) async fn begin(&self, request: Request) -> Result<Pending, AgentError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let cancellable = matches!(request, Request::Exec(_));
        let line = to_line(&Call { id, request }).map_err(|_| AgentError::Gone)?;
        let (sender, frames) = mpsc::channel(FRAMES_MAX);
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let waiting = waiting.as_mut().ok_or(AgentError::Gone)?;
            waiting.insert(id, sender);
        }
        let pending = Pending {
            id,
            frames,
            cancel: cancellable.then(|| self.outgoing.clone()),
            waiting: Arc::clone(&self.waiting),
        };
        self.outgoing
            .send(line)
            .await
            .map_err(|_| AgentError::Gone)?;
        Ok(pending)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A call whose frames come; dropping it before its end cancels its command.
#[derive(Debug)]
pub(super) struct Pending {
    id: u64,
    frames: mpsc::Receiver<Reply>,
    cancel: Option<mpsc::Sender<Vec<u8>>>,
    waiting: Waiting,
}

impl Pending {
    /// The next frame.
    pub(super) async fn next(&mut self) -> Result<Reply, AgentError> {
        let reply = self.frames.recv().await.ok_or(AgentError::Gone)?;
        if !matches!(reply, Reply::Output { .. }) {
            self.cancel = None;
        }
        Ok(reply)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(waiting) = &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            waiting.remove(&self.id);
        }
        let Some(outgoing) = &self.cancel else { return };
        // Nobody waits for the answer, so its id need not be one's own.
        let cancel = Call {
            id: 0,
            request: Request::Cancel { call: self.id },
        };
        if let Ok(line) = to_line(&cancel) {
            // If there is no room, the command's own deadline ends it.
            let _full_or_gone = outgoing.try_send(line);
        }
    }
}

async fn read(mut stream: OwnedReadHalf, session: u64, waiting: Waiting) {
    let mut lines = LineSplitter::default();
    let mut chunk = vec![0_u8; READ_BYTES];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        lines.push(chunk.get(..count).unwrap_or_default());
        while let Some(line) = lines.next_line() {
            // The rest of a line that a snapshot cut is no frame.
            let Ok(frame) = serde_json::from_slice::<Frame>(&line) else {
                continue;
            };
            if frame.session != session {
                continue;
            }
            let caller = {
                let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.as_ref().and_then(|all| all.get(&frame.id).cloned())
            };
            if let Some(caller) = caller {
                // A caller that has left wants no frames.
                let _left = caller.send(frame.reply).await;
            }
        }
    }
    // Dropping the senders tells every caller.
    waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
}

async fn write(mut stream: OwnedWriteHalf, mut lines: mpsc::Receiver<Vec<u8>>) {
    while let Some(line) = lines.recv().await {
        if stream.write_all(&line).await.is_err() {
            return;
        }
    }
}
