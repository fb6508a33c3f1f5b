//! What the agent does for each call.

use std::io::Write as _;
use std::time::{Duration, Instant};

use guest::protocol::{
    Blob, Call, ExecRequest, Probe, ProbeOutcome, Reply, Request, StartRequest, StartState,
    StartStatus,
};

use super::super::disk;
use super::super::failure::Failure;
use super::super::jobs::{Job, Pipe, Purpose};
use super::super::spawn::{Program, spawn};
use super::super::start::Output;
use super::super::{probe, release, sys};
use super::{Agent, JOBS_MAX, Probed, StartCommand};

/// An answer that is there at once, or one that comes later, or the reason why there is none.
type Answer = Result<Option<Reply>, String>;

fn done(result: Result<(), Failure>) -> Answer {
    match result {
        Ok(()) => Ok(Some(Reply::Done)),
        Err(failure) => Err(failure.to_string()),
    }
}

/// A host's bound as a duration; one that is out of all proportion is a day.
fn at_most(milliseconds: u64) -> Duration {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    Duration::from_millis(milliseconds.min(DAY_MS))
}

/// Whether a request makes no sense while processes are held.
fn needs_release(request: &Request) -> bool {
    !matches!(
        request,
        Request::Hello { .. } | Request::Release { .. } | Request::Disk | Request::PowerOff
    )
}

impl Agent {
    /// Answers a call, or begins what will answer it.
    pub(super) fn answer(&mut self, call: Call) {
        let held = !self.released && needs_release(&call.request);
        let answer = if held {
            Err("the machine is held and was not released yet".to_owned())
        } else {
            self.act(call.id, call.request)
        };
        match answer {
            Ok(Some(reply)) => self.send(call.id, reply),
            Ok(None) => {}
            Err(reason) => self.send(call.id, Reply::Refused { reason }),
        }
    }

    fn act(&mut self, id: u64, request: Request) -> Answer {
        match request {
            Request::Hello { session } => Ok(Some(self.begin_session(session))),
            Request::Release {
                entropy,
                wall_clock_ns,
                hostname,
            } => done(self.release(&entropy.0, wall_clock_ns, &hostname)),
            Request::Exec(request) => self.exec(id, &request),
            Request::Cancel { call } => {
                self.cancel(|job| job.call == call);
                Ok(Some(Reply::Done))
            }
            Request::Start(request) => self.start(&request),
            Request::StartState { from } => Ok(Some(Reply::StartState(self.start_state(from)))),
            Request::Probe { probe, deadline_ms } => self.probe(id, probe, at_most(deadline_ms)),
            Request::Disk => match disk::sizes() {
                Ok(sizes) => Ok(Some(Reply::Disk(sizes))),
                Err(failure) => Err(failure.to_string()),
            },
            Request::Freeze => done(self.disk.freeze()),
            Request::Thaw => done(self.disk.thaw()),
            Request::Hold => done(self.hold()),
            Request::PowerOff => self.power_off(),
        }
    }

    fn begin_session(&mut self, session: u64) -> Reply {
        self.cancel(|_| true);
        self.port.drop_backlog();
        self.session = session;
        Reply::Hello {
            kernel: sys::kernel_release(),
        }
    }

    fn release(&mut self, entropy: &[u8], clock_ns: u64, hostname: &str) -> Result<(), Failure> {
        release::reseed(entropy)?;
        release::set_wall_clock(clock_ns)?;
        release::set_hostname(hostname)?;
        self.disk.thaw()?;
        // Last: from here on, the machine's processes run.
        self.freezer.thaw()?;
        self.released = true;
        Ok(())
    }

    fn hold(&mut self) -> Result<(), Failure> {
        self.cancel(|_| true);
        // Processes first: one that waits for a frozen disk could not be stopped any more.
        self.freezer.freeze()?;
        if let Err(failure) = self.disk.freeze() {
            self.freezer.thaw()?;
            return Err(failure);
        }
        self.released = false;
        Ok(())
    }

    fn power_off(&mut self) -> Answer {
        let thawed = self.disk.thaw().and_then(|()| self.freezer.thaw());
        if let Err(failure) = thawed {
            return Err(failure.to_string());
        }
        sys::kill_group(-1);
        sys::sync_all();
        let flags = libc::MS_REMOUNT | libc::MS_RDONLY;
        let root = std::path::Path::new("/");
        if let Err(error) = sys::mount("", root, "", flags, "") {
            // The journal covers it.
            sys::say(&format!("nullspace-guest: / stays writable: {error}"));
        }
        sys::restart()
    }

    /// Kills the commands that `which` names; their calls get no answer.
    fn cancel(&mut self, which: impl Fn(&Job) -> bool) {
        self.jobs.retain(|job| {
            let cancelled = which(job);
            if cancelled {
                sys::kill_group(job.pid);
            }
            !cancelled
        });
    }

    fn has_room(&self) -> Result<(), String> {
        if self.jobs.len() + self.probes_running < JOBS_MAX {
            return Ok(());
        }
        Err(format!("{JOBS_MAX} commands and probes run already"))
    }

    fn exec(&mut self, id: u64, request: &ExecRequest) -> Answer {
        self.has_room()?;
        let started = spawn(
            &Program {
                argv: request.argv.iter().map(String::as_str).collect(),
                env: &request.env,
                user: request.user.as_deref(),
                cwd: request.cwd.as_deref(),
            },
            self.freezer.members(),
        )?;
        let deadline = Instant::now() + at_most(request.deadline_ms);
        self.jobs
            .push(Job::new(id, started, Purpose::Exec, deadline));
        Ok(None)
    }

    fn start(&mut self, request: &StartRequest) -> Answer {
        if self.start.is_some() {
            return Err("the machine has its long-running command already".to_owned());
        }
        let started = spawn(
            &Program {
                argv: vec!["/bin/sh", "-c", &request.command],
                env: &request.env,
                user: request.user.as_deref(),
                cwd: request.cwd.as_deref(),
            },
            self.freezer.members(),
        )?;
        self.start = Some(StartCommand {
            pid: started.pid,
            stdout: Pipe::new(started.stdout),
            stderr: Pipe::new(started.stderr),
            output: Output::default(),
            ended: None,
        });
        Ok(Some(Reply::Done))
    }

    fn start_state(&mut self, from: u64) -> StartState {
        // What the command wrote before it ended comes with the news of its end.
        self.pump_start();
        match &self.start {
            Some(start) => start.output.state(
                start
                    .ended
                    .map_or(StartStatus::Running, StartStatus::Exited),
                from,
            ),
            None => StartState {
                status: StartStatus::Absent,
                from: 0,
                output: Blob::default(),
                end: 0,
            },
        }
    }

    fn probe(&mut self, id: u64, probe: Probe, deadline: Duration) -> Answer {
        self.has_room()?;
        match probe {
            Probe::Tcp { port } => self.probe_apart(id, move || probe::tcp(port, deadline)),
            Probe::Http { port, path } => {
                self.probe_apart(id, move || probe::http(port, &path, deadline))
            }
            Probe::Command {
                command,
                env,
                user,
                cwd,
            } => {
                let program = Program {
                    argv: vec!["/bin/sh", "-c", &command],
                    env: &env,
                    user: user.as_deref(),
                    cwd: cwd.as_deref(),
                };
                let started = spawn(&program, self.freezer.members())?;
                let purpose = Purpose::Probe { tail: Vec::new() };
                let deadline = Instant::now() + deadline;
                self.jobs.push(Job::new(id, started, purpose, deadline));
                Ok(None)
            }
        }
    }

    /// Runs a probe that waits for the network in a thread of its own.
    fn probe_apart(
        &mut self,
        call: u64,
        probe: impl FnOnce() -> ProbeOutcome + Send + 'static,
    ) -> Answer {
        let session = self.session;
        let sender = self.probed.0.clone();
        let wake = self.wake.1.try_clone();
        let spawned = std::thread::Builder::new().spawn(move || {
            let outcome = probe();
            // Without a receiver there is no agent any more.
            let _agent_is_gone = sender.send(Probed {
                session,
                call,
                outcome,
            });
            if let Ok(mut wake) = wake {
                let _agent_is_gone = wake.write_all(b".");
            }
        });
        match spawned {
            Ok(_detached) => {
                self.probes_running += 1;
                Ok(None)
            }
            Err(error) => Err(format!("cannot probe: {error}")),
        }
    }
}
