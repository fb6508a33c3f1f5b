//! The agent's one loop: it waits, reaps, moves output, answers calls.
//!
//! Whatever woke it, it looks at everything: nothing here blocks, and there are few descriptors.

mod answer;

use std::cell::RefCell;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read as _, pipe};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::mpsc;
use std::time::Instant;

use guest::protocol::{ExitOutcome, Frame, ProbeOutcome, Reply};

use super::disk::Disk;
use super::failure::{Doing as _, Failure};
use super::freezer::Freezer;
use super::jobs::{Job, Pipe};
use super::port::Port;
use super::start::Output;
use super::sys;

/// Output waits in its pipes while the host has this much to take, in bytes.
const BACKLOG_BYTES_MAX: usize = 1024 * 1024;

/// The most commands and probes that may run at once.
const JOBS_MAX: usize = 64;

/// The most that is read of the long-running command in one turn, in chunks.
const START_CHUNKS_MAX: usize = 8;

/// The machine's long-running command.
#[derive(Debug)]
struct StartCommand {
    pid: i32,
    stdout: Pipe,
    stderr: Pipe,
    output: Output,
    ended: Option<ExitOutcome>,
}

/// The result of a network probe, which has a thread of its own.
#[derive(Debug)]
struct Probed {
    session: u64,
    call: u64,
    outcome: ProbeOutcome,
}

/// The agent's state.
#[derive(Debug)]
pub(crate) struct Agent {
    port: Port,
    freezer: Freezer,
    disk: Disk,
    signals: File,
    session: u64,
    /// False at the beginning and after a hold, until the host releases the machine.
    released: bool,
    jobs: Vec<Job>,
    start: Option<StartCommand>,
    probes_running: usize,
    probed: (mpsc::Sender<Probed>, mpsc::Receiver<Probed>),
    wake: (PipeReader, PipeWriter),
}

impl Agent {
    /// An agent whose machine is up.
    pub(crate) fn new(freezer: Freezer) -> Result<Self, Failure> {
        let signals = sys::child_signals()
            .doing(|| "watch child processes".to_owned())?
            .into();
        let wake = pipe().doing(|| "make a pipe".to_owned())?;
        sys::set_nonblocking(wake.0.as_fd()).doing(|| "watch a pipe".to_owned())?;
        Ok(Self {
            port: Port::open()?,
            freezer,
            disk: Disk::open()?,
            signals,
            session: 0,
            released: false,
            jobs: Vec::new(),
            start: None,
            probes_running: 0,
            probed: mpsc::channel(),
            wake,
        })
    }

    /// Serves until something that cannot be mended fails.
    pub(crate) fn serve(&mut self) -> Failure {
        loop {
            if let Err(failure) = self.turn() {
                return failure;
            }
        }
    }

    fn turn(&mut self) -> Result<(), Failure> {
        self.wait()?;
        self.reap();
        for call in self.port.receive() {
            self.answer(call);
        }
        self.enforce_deadlines();
        if self.released {
            self.collect_probes();
            self.pump_start();
            self.pump_jobs();
        }
        self.port.flush();
        Ok(())
    }

    fn wait(&mut self) -> Result<(), Failure> {
        let watch = |fd: i32| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let mut fds = vec![
            self.port.interest(),
            watch(self.signals.as_raw_fd()),
            watch(self.wake.0.as_raw_fd()),
        ];
        if self.released {
            if let Some(start) = &self.start {
                fds.extend(start.stdout.interest());
                fds.extend(start.stderr.interest());
            }
            if self.port.backlog() < BACKLOG_BYTES_MAX {
                fds.extend(self.jobs.iter().flat_map(Job::interests));
            }
        }
        let waiting = self.jobs.iter().filter(|job| job.awaits_deadline());
        let until = waiting
            .map(|job| job.deadline)
            .chain(self.port.look_again_at())
            .min();
        let timeout_ms = until.map_or(-1, |until| {
            let left = until.saturating_duration_since(Instant::now()).as_millis();
            // One more, so that the deadline has passed when the wait ends.
            i32::try_from(left.saturating_add(1)).unwrap_or(i32::MAX)
        });
        sys::poll(&mut fds, timeout_ms).doing(|| "wait for something to do".to_owned())?;
        if let Some(port) = fds.first() {
            self.port.note(*port);
        }
        Ok(())
    }

    fn reap(&mut self) {
        // Several ends can be one signal, so the signal only says: look.
        let mut seen = [0_u8; 128];
        let _nothing_there = self.signals.read(&mut seen);
        while let Some((pid, outcome)) = sys::reap() {
            if let Some(start) = self.start.as_mut().filter(|start| start.pid == pid) {
                start.ended = Some(outcome);
            } else if let Some(job) = self.jobs.iter_mut().find(|job| job.pid == pid) {
                job.ended(outcome);
            }
            // Anything else is an orphan that came to its first process.
        }
    }

    fn enforce_deadlines(&mut self) {
        let now = Instant::now();
        for job in &mut self.jobs {
            job.enforce(now);
        }
    }

    fn pump_start(&mut self) {
        let Some(start) = &mut self.start else { return };
        for pipe in [&mut start.stdout, &mut start.stderr] {
            for _ in 0..START_CHUNKS_MAX {
                if !pipe.pump(|bytes| start.output.push(&bytes)) {
                    break;
                }
            }
        }
    }

    fn pump_jobs(&mut self) {
        let session = self.session;
        for mut job in std::mem::take(&mut self.jobs) {
            let id = job.call;
            let port = RefCell::new(&mut self.port);
            let frame = |reply| Frame { session, id, reply };
            let last = job.pump(
                || port.borrow().backlog() < BACKLOG_BYTES_MAX,
                |reply| port.borrow_mut().send(&frame(reply)),
            );
            match last {
                Some(reply) => self.port.send(&frame(reply)),
                None => self.jobs.push(job),
            }
        }
    }

    fn collect_probes(&mut self) {
        let mut bytes = [0_u8; JOBS_MAX];
        let _nothing_there = self.wake.0.read(&mut bytes);
        while let Ok(probed) = self.probed.1.try_recv() {
            self.probes_running = self.probes_running.saturating_sub(1);
            if probed.session == self.session {
                self.send(probed.call, Reply::Probe(probed.outcome));
            }
        }
    }

    fn send(&mut self, call: u64, reply: Reply) {
        self.port.send(&Frame {
            session: self.session,
            id: call,
            reply,
        });
    }
}
