//! What the two ends of the agent's channel say to each other.
//!
//! A message is one line of JSON, ended by a line feed; raw bytes travel as base64. The host sends
//! [`Call`]s, the guest answers with [`Frame`]s that carry the call's id. A call has exactly one
//! last frame; only [`Request::Exec`] has frames before it ([`Reply::Output`]).
//!
//! ```text
//!  host                                   guest
//!   "\n" Hello{session}  ──────────────►   drops what an earlier session left, starts this one
//!                        ◄──────────────   Hello
//!   Release{entropy, clock, hostname} ─►   reseeds, sets the clock, thaws; only now others run
//!                        ◄──────────────   Done
//!   Exec, Start, Probe, … ─────────────►   …
//!   Hold                 ──────────────►   stops every process, freezes the file system
//!                        ◄──────────────   Done, and then nothing more until the next Hello
//! ```
//!
//! A snapshot is taken after `Hold`. The next host begins with an empty line, because the channel
//! may hold half a line from before, and it ignores frames of any session but its own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The kernel argument that names the machine's name server; without it, QEMU's own is used.
pub const NAME_SERVER_ARGUMENT: &str = "nullspace.name_server";

/// The name of the virtio port that the agent serves.
pub const PORT_NAME: &str = "nullspace.agent";

/// The longest line that either end accepts, in bytes.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;

/// The most output bytes in one frame, before base64.
pub const OUTPUT_BYTES_MAX: usize = 32 * 1024;

/// The most bytes of a start command's output that one [`Reply::StartState`] carries.
pub const START_OUTPUT_BYTES_MAX: usize = 128 * 1024;

/// How much of a start command's latest output the guest keeps for later reading, in bytes.
pub const START_OUTPUT_KEPT_BYTES: usize = 1024 * 1024;

/// How much of a probe command's output is kept for its detail, in bytes.
pub const PROBE_OUTPUT_BYTES_MAX: usize = 2 * 1024;

/// Bytes that travel as base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD
            .decode(text.as_bytes())
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

/// A request of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the host, never used twice in a session.
    pub id: u64,
    /// What is wanted.
    pub request: Request,
}

/// A line of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The session of the [`Request::Hello`] that was in force when the line was made.
    pub session: u64,
    /// The call that it belongs to.
    pub id: u64,
    /// What it says.
    pub reply: Reply,
}

/// What a host can ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Begins a session: commands of the session before are killed, the start command stays.
    Hello {
        /// Random; tells this session's frames from those of a snapshot.
        session: u64,
    },
    /// Makes this machine itself, and only then lets its processes run.
    Release {
        /// Fresh random bytes for the kernel's generator.
        entropy: Blob,
        /// The time to set, in nanoseconds since 1970.
        wall_clock_ns: u64,
        /// The machine's host name.
        hostname: String,
    },
    /// Runs a command and streams its output.
    Exec(ExecRequest),
    /// Kills the command of an earlier [`Request::Exec`] of this session.
    Cancel {
        /// The id of that call.
        call: u64,
    },
    /// Starts the machine's long-running command; a machine has at most one.
    Start(StartRequest),
    /// Tells how the long-running command fares, and its output from a position on.
    StartState {
        /// The position of the first output byte that is wanted.
        from: u64,
    },
    /// Tries once whether something is ready.
    Probe {
        /// What to try.
        probe: Probe,
        /// How long the try may take, in milliseconds.
        deadline_ms: u64,
    },
    /// Tells the sizes of the disk and of its file system.
    Disk,
    /// Writes everything back and stops changes to the file system.
    Freeze,
    /// Undoes [`Request::Freeze`].
    Thaw,
    /// Prepares for a snapshot: no process runs, the file system is frozen, the channel is silent.
    Hold,
    /// Kills every process, writes everything back and ends the machine.
    PowerOff,
}

/// A command to run to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The program and its arguments; the program is looked up in `PATH`.
    pub argv: Vec<String>,
    /// Environment variables, over the defaults `PATH`, `HOME`, `USER`.
    pub env: Vec<(String, String)>,
    /// `name`, `uid`, `name:group` or `uid:gid`, by the guest's own files; without it, root.
    pub user: Option<String>,
    /// The working directory; without it, `/`.
    pub cwd: Option<String>,
    /// How long it may run, in milliseconds; then its process group is killed.
    pub deadline_ms: u64,
}

/// A long-running command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRequest {
    /// What `/bin/sh -c` runs.
    pub command: String,
    /// Environment variables, over the defaults `PATH`, `HOME`, `USER`.
    pub env: Vec<(String, String)>,
    /// As [`ExecRequest::user`].
    pub user: Option<String>,
    /// As [`ExecRequest::cwd`].
    pub cwd: Option<String>,
}

/// Something that can be ready or not, seen from inside the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// Ready when the loopback address accepts a connection.
    Tcp {
        /// The port.
        port: u16,
    },
    /// Ready when a GET over the loopback address is answered with a status from 200 to 399.
    Http {
        /// The port.
        port: u16,
        /// The path and query, beginning with `/`.
        path: String,
    },
    /// Ready when the command ends with exit code 0.
    Command {
        /// What `/bin/sh -c` runs.
        command: String,
        /// As [`ExecRequest::env`].
        env: Vec<(String, String)>,
        /// As [`ExecRequest::user`].
        user: Option<String>,
        /// As [`ExecRequest::cwd`].
        cwd: Option<String>,
    },
}

/// What the guest answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The session has begun.
    Hello {
        /// The release of the guest's kernel.
        kernel: String,
    },
    /// It is done.
    Done,
    /// Output of a command that runs.
    Output {
        /// Which of its streams.
        stream: OutputStream,
        /// The bytes.
        data: Blob,
    },
    /// The command has ended; all of its output was sent.
    Exited(ExitOutcome),
    /// The state of the long-running command.
    StartState(StartState),
    /// The result of a probe's one try.
    Probe(ProbeOutcome),
    /// The sizes of the disk.
    Disk(DiskInfo),
    /// It cannot be done.
    Refused {
        /// Why, for a person.
        reason: String,
    },
}

/// One of the two output streams of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitOutcome {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It was killed because its deadline had passed.
    DeadlineExceeded,
}

impl ExitOutcome {
    /// Whether it ended by itself with code 0.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }

    /// The code a shell would show: the exit code, 128 and the signal, or 124 for a deadline.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128_i32.saturating_add(signal),
            Self::DeadlineExceeded => 124,
        }
    }
}

/// How the long-running command fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartState {
    /// Running, or how it ended.
    pub status: StartStatus,
    /// The position of the first byte of `output`: later than asked for if older bytes are gone.
    pub from: u64,
    /// Both of its streams as they came, at most [`START_OUTPUT_BYTES_MAX`] bytes.
    pub output: Blob,
    /// The position after the last byte that it has written so far.
    pub end: u64,
}

/// Whether the long-running command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartStatus {
    /// None was started.
    Absent,
    /// It runs.
    Running,
    /// It has ended.
    Exited(ExitOutcome),
}

/// The result of one try of a [`Probe`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeOutcome {
    /// Whether it is ready.
    pub passed: bool,
    /// What was seen, for a person.
    pub detail: String,
}

/// The sizes of a machine's disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskInfo {
    /// Of the block device.
    pub device_bytes: u64,
    /// Of the file system, by its superblock, with its own tables.
    pub filesystem_bytes: u64,
    /// Usable for files, used or not: what `df` calls the size.
    pub usable_bytes: u64,
    /// Available to an unprivileged user.
    pub free_bytes: u64,
}

/// Splits a byte stream into lines and drops those that are too long.
#[derive(Debug, Default)]
pub struct LineSplitter {
    pending: Vec<u8>,
    scanned: usize,
    overlong: bool,
}

impl LineSplitter {
    /// Adds bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole line, without its line feed.
    pub fn next_line(&mut self) -> Option<Vec<u8>> {
        loop {
            let fresh = self.pending.get(self.scanned..).unwrap_or_default();
            let Some(at) = fresh.iter().position(|byte| *byte == b'\n') else {
                self.scanned = self.pending.len();
                if self.scanned > LINE_BYTES_MAX {
                    self.pending.clear();
                    self.scanned = 0;
                    self.overlong = true;
                }
                return None;
            };
            let mut line: Vec<u8> = self.pending.drain(..=self.scanned + at).collect();
            self.scanned = 0;
            line.pop();
            // What follows the dropped part of an overlong line belongs to that line.
            if std::mem::take(&mut self.overlong) || line.len() > LINE_BYTES_MAX {
                continue;
            }
            if !line.is_empty() {
                return Some(line);
            }
        }
    }
}

/// The line of a message, with its line feed.
///
/// # Errors
/// When the value cannot be written as JSON; the protocol's own types always can.
pub fn to_line<T: Serialize>(message: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut splitter = LineSplitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(chunk);
            while let Some(line) = splitter.next_line() {
                lines.push(line);
            }
        }
        lines
    }

    #[test]
    fn lines_do_not_depend_on_how_the_stream_is_cut() {
        let whole = lines(&[b"one\n\ntwo\nthr"]);
        assert_eq!(whole, [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(lines(&[b"o", b"ne", b"\n", b"\ntwo", b"\nthr"]), whole);
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped_whole() {
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        assert_eq!(lines(&[&long, b"tail\nnext\n"]), [b"next".to_vec()]);
        let mut once = long;
        once.extend_from_slice(b"\nnext\n");
        assert_eq!(lines(&[&once]), [b"next".to_vec()]);
    }

    #[test]
    fn bytes_of_any_value_survive_a_line() {
        let frame = Frame {
            session: u64::MAX,
            id: 7,
            reply: Reply::Output {
                stream: OutputStream::Stderr,
                data: Blob((0..=255).collect()),
            },
        };
        let line = to_line(&frame).unwrap();
        assert_eq!(
            line.iter().position(|byte| *byte == b'\n'),
            Some(line.len() - 1)
        );
        assert_eq!(serde_json::from_slice::<Frame>(&line).unwrap(), frame);
    }

    #[test]
    fn a_deadline_a_signal_and_a_code_differ_in_the_shell() {
        assert_eq!(ExitOutcome::Code(3).shell_code(), 3);
        assert_eq!(ExitOutcome::Signal(9).shell_code(), 137);
        assert_eq!(ExitOutcome::DeadlineExceeded.shell_code(), 124);
    }
}
