//! Commands that run for a call: their output, their deadline, their end.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::time::Instant;

use guest::protocol::{
    Blob, ExitOutcome, OUTPUT_BYTES_MAX, OutputStream, PROBE_OUTPUT_BYTES_MAX, ProbeOutcome, Reply,
};

use super::spawn::Started;
use super::sys;

/// How much is read from each stream after the command has ended, in bytes.
///
/// A pipe holds at most this much, so the command's own output is whole; a background process that
/// inherited the pipe cannot keep the call open.
const AFTER_EXIT_BYTES_MAX: usize = 1024 * 1024;

/// What a command runs for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// Its output goes to the host.
    Exec,
    /// Its exit code is what counts; the end of its output is the detail.
    Probe {
        /// The end of the output so far.
        tail: Vec<u8>,
    },
}

/// A command that runs for a call.
#[derive(Debug)]
pub(crate) struct Job {
    /// The id of the call.
    pub(crate) call: u64,
    pub(crate) pid: i32,
    pub(crate) deadline: Instant,
    purpose: Purpose,
    stdout: Pipe,
    stderr: Pipe,
    overdue: bool,
    ended: Option<ExitOutcome>,
}

/// The read end of an output pipe; `None` after its end.
#[derive(Debug)]
pub(crate) struct Pipe {
    file: Option<File>,
    read_after_exit: usize,
}

/// What one read of a pipe gave.
enum Chunk {
    Bytes(Vec<u8>),
    /// Nothing is there now.
    Empty,
    /// Nothing will come any more.
    End,
}

impl Pipe {
    pub(crate) fn new(fd: std::os::fd::OwnedFd) -> Self {
        Self {
            file: Some(fd.into()),
            read_after_exit: 0,
        }
    }

    fn read(&mut self) -> Chunk {
        let Some(file) = &mut self.file else {
            return Chunk::End;
        };
        let mut bytes = vec![0_u8; OUTPUT_BYTES_MAX];
        match file.read(&mut bytes) {
            Ok(count @ 1..) => {
                bytes.truncate(count);
                Chunk::Bytes(bytes)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Chunk::Empty
            }
            Ok(_) | Err(_) => {
                self.file = None;
                Chunk::End
            }
        }
    }

    /// Hands one chunk to `take`; false when there is none now.
    pub(crate) fn pump(&mut self, take: impl FnOnce(Vec<u8>)) -> bool {
        match self.read() {
            Chunk::Bytes(bytes) => {
                take(bytes);
                true
            }
            Chunk::Empty | Chunk::End => false,
        }
    }

    /// What to wait for.
    pub(crate) fn interest(&self) -> Option<libc::pollfd> {
        self.file.as_ref().map(|file| libc::pollfd {
            fd: file.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
    }
}

impl Job {
    /// The job of a command that was started for `call`.
    pub(crate) fn new(call: u64, started: Started, purpose: Purpose, deadline: Instant) -> Self {
        Self {
            call,
            pid: started.pid,
            deadline,
            purpose,
            stdout: Pipe::new(started.stdout),
            stderr: Pipe::new(started.stderr),
            overdue: false,
            ended: None,
        }
    }

    /// What to wait for.
    pub(crate) fn interests(&self) -> impl Iterator<Item = libc::pollfd> {
        [self.stdout.interest(), self.stderr.interest()]
            .into_iter()
            .flatten()
    }

    /// Notes that the command has ended.
    pub(crate) fn ended(&mut self, outcome: ExitOutcome) {
        self.ended = Some(if self.overdue {
            ExitOutcome::DeadlineExceeded
        } else {
            outcome
        });
    }

    /// Kills the command's group when its time is over.
    pub(crate) fn enforce(&mut self, now: Instant) {
        if now >= self.deadline && !self.overdue && self.ended.is_none() {
            self.overdue = true;
            sys::kill_group(self.pid);
        }
    }

    /// Whether the deadline still has something to do.
    pub(crate) fn awaits_deadline(&self) -> bool {
        !self.overdue && self.ended.is_none()
    }

    /// Reads what is there, while `room` says so; gives the last reply when all is done.
    pub(crate) fn pump(
        &mut self,
        mut room: impl FnMut() -> bool,
        mut send: impl FnMut(Reply),
    ) -> Option<Reply> {
        let mut dry = true;
        let purpose = &mut self.purpose;
        for (pipe, stream) in [
            (&mut self.stdout, OutputStream::Stdout),
            (&mut self.stderr, OutputStream::Stderr),
        ] {
            loop {
                if !room() {
                    dry = false;
                    break;
                }
                if pipe.read_after_exit > AFTER_EXIT_BYTES_MAX {
                    break;
                }
                let mut length = 0;
                let more = pipe.pump(|bytes| {
                    length = bytes.len();
                    match purpose {
                        Purpose::Exec => send(Reply::Output {
                            stream,
                            data: Blob(bytes),
                        }),
                        Purpose::Probe { tail } => keep_tail(tail, &bytes),
                    }
                });
                if !more {
                    break;
                }
                if self.ended.is_some() {
                    pipe.read_after_exit += length;
                }
            }
        }
        let outcome = self.ended.filter(|_| dry)?;
        Some(match purpose {
            Purpose::Exec => Reply::Exited(outcome),
            Purpose::Probe { tail } => Reply::Probe(probe_outcome(outcome, tail)),
        })
    }
}

fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    tail.extend_from_slice(bytes);
    tail.drain(..tail.len().saturating_sub(PROBE_OUTPUT_BYTES_MAX));
}

fn probe_outcome(outcome: ExitOutcome, tail: &[u8]) -> ProbeOutcome {
    let ending = match outcome {
        ExitOutcome::Code(code) => format!("the command ended with exit code {code}"),
        ExitOutcome::Signal(signal) => format!("the command was ended by signal {signal}"),
        ExitOutcome::DeadlineExceeded => "the command did not end in the time of a try".to_owned(),
    };
    let output = String::from_utf8_lossy(tail);
    let output = output.trim();
    ProbeOutcome {
        passed: outcome.is_success(),
        detail: if output.is_empty() {
            ending
        } else {
            format!("{ending}: {output}")
        },
    }
}
