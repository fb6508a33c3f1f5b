//! The agent's end of the channel: the virtio port, with calls coming in and frames going out.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guest::protocol::{Call, Frame, LineSplitter, PORT_NAME, to_line};

use super::failure::{Doing as _, Failure};
use super::sys;

/// How long the port may take to appear after its driver was loaded.
const PORT_SECONDS_MAX: u64 = 20;

/// How long a port that reports no host at its other end is left alone, in milliseconds.
///
/// It reports that without pause, so waiting for it would be a busy loop.
const HANG_UP_PAUSE_MS: u64 = 20;

/// The channel to the host.
#[derive(Debug)]
pub(crate) struct Port {
    file: File,
    lines: LineSplitter,
    outgoing: VecDeque<u8>,
    hung_up_until: Option<Instant>,
}

impl Port {
    /// Waits for the port and opens it.
    pub(crate) fn open() -> Result<Self, Failure> {
        let deadline = Instant::now() + Duration::from_secs(PORT_SECONDS_MAX);
        let path = loop {
            if let Some(path) = find() {
                break path;
            }
            if Instant::now() > deadline {
                return Err(Failure::other(
                    format!("find the virtio port {PORT_NAME}"),
                    "the machine has none",
                ));
            }
            // The driver names ports after it has come up, and tells nobody.
            sys::poll(&mut [], 2).doing(|| "wait for the virtio port".to_owned())?;
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .doing(|| format!("open {}", path.display()))?;
        Ok(Self {
            file,
            lines: LineSplitter::default(),
            outgoing: VecDeque::new(),
            hung_up_until: None,
        })
    }

    /// What to wait for.
    pub(crate) fn interest(&self) -> libc::pollfd {
        let paused = self
            .hung_up_until
            .is_some_and(|until| until > Instant::now());
        let events = if self.outgoing.is_empty() {
            libc::POLLIN
        } else {
            libc::POLLIN | libc::POLLOUT
        };
        libc::pollfd {
            // A negative descriptor is skipped.
            fd: if paused { -1 } else { self.file.as_raw_fd() },
            events,
            revents: 0,
        }
    }

    /// When the port must be looked at again although it reports nothing.
    pub(crate) fn look_again_at(&self) -> Option<Instant> {
        self.hung_up_until
    }

    /// Notes what the wait reported.
    pub(crate) fn note(&mut self, reported: libc::pollfd) {
        let gone = reported.revents & libc::POLLHUP != 0 && reported.revents & libc::POLLIN == 0;
        self.hung_up_until = gone.then(|| Instant::now() + Duration::from_millis(HANG_UP_PAUSE_MS));
    }

    /// The calls that have come in.
    pub(crate) fn receive(&mut self) -> Vec<Call> {
        let mut chunk = [0_u8; 16 * 1024];
        let mut calls = Vec::new();
        // Nothing to read, an interruption and an absent host are all the same: nothing came.
        while let Ok(count @ 1..) = self.file.read(&mut chunk) {
            self.lines.push(chunk.get(..count).unwrap_or_default());
            while let Some(line) = self.lines.next_line() {
                // A line cut by a snapshot is no call; whoever sent it is gone.
                calls.extend(serde_json::from_slice::<Call>(&line));
            }
        }
        calls
    }

    /// Queues a frame.
    pub(crate) fn send(&mut self, frame: &Frame) {
        match to_line(frame) {
            Ok(line) => self.outgoing.extend(line),
            Err(error) => sys::say(&format!("nullspace-guest: cannot write a frame: {error}")),
        }
    }

    /// The bytes that the host has not taken yet.
    pub(crate) fn backlog(&self) -> usize {
        self.outgoing.len()
    }

    /// Forgets frames that no host will want; a line that is partly sent is ended.
    pub(crate) fn drop_backlog(&mut self) {
        self.outgoing.clear();
        self.outgoing.push_back(b'\n');
    }

    /// Gives the host as much as it takes now.
    pub(crate) fn flush(&mut self) {
        while !self.outgoing.is_empty() {
            let (front, _) = self.outgoing.as_slices();
            match self.file.write(front) {
                Ok(count @ 1..) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Full, or nobody there: the rest waits.
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// The device of the port with our name.
fn find() -> Option<PathBuf> {
    let entries = fs::read_dir("/sys/class/virtio-ports").ok()?;
    entries.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim_end() == PORT_NAME).then(|| Path::new("/dev").join(entry.file_name()))
    })
}
