//! The start command and its readiness: what it writes, how it fares, and when it counts as up.

use std::time::{Duration, Instant};

use domain::build::LogStream;
use domain::definition::{ProbeSchedule, Readiness};
use domain::failure::{Failure, FailureReason};

use super::settle::Settled;
use super::{Attempt, Interruption, failures};
use crate::limits::output::OutputLimits;
use crate::output::lines::LineAssembler;
use crate::output::tail::Tail;
use crate::report::Reporter;
use crate::vmm::{ExitOutcome, Machine, Probe, StartStatus};

/// The start command of a machine, watched from outside.
pub(super) struct StartCommand<'a> {
    reporter: &'a Reporter,
    command: &'a str,
    assembler: LineAssembler,
    tail: Tail,
    /// How much of its output was read, in bytes.
    read_bytes: u64,
}

impl<'a> StartCommand<'a> {
    pub(super) fn new(reporter: &'a Reporter, limits: OutputLimits, command: &'a str) -> Self {
        Self {
            reporter,
            command,
            assembler: LineAssembler::new(limits.line_bytes_max),
            tail: Tail::new(&limits),
            read_bytes: 0,
        }
    }

    /// Gives the command the time that its probe grants before the first try; its exit code, if
    /// it ended meanwhile.
    pub(super) async fn settle(
        &mut self,
        machine: &Machine,
        runtime: &Settled,
    ) -> Result<Option<i32>, Interruption> {
        let grace = match &runtime.readiness {
            Some(
                Readiness::Tcp { schedule, .. }
                | Readiness::Http { schedule, .. }
                | Readiness::Command { schedule, .. },
            ) => schedule.startup_grace_secs,
            // Its own time is the wait.
            Some(Readiness::Timeout { .. }) => 0,
            // Nothing else would notice a command that fails at once.
            None => ProbeSchedule::default().startup_grace_secs,
        };
        tokio::time::sleep(Duration::from_secs(grace)).await;
        self.look(machine).await
    }

    /// Writes what the command wrote since the last look; its exit code, if it has ended well.
    pub(super) async fn look(&mut self, machine: &Machine) -> Result<Option<i32>, Interruption> {
        loop {
            let state = machine
                .start_state(self.read_bytes)
                .await
                .map_err(|error| failures::machine(FailureReason::StartCommandFailed, &error))?;
            let mut lines = Vec::new();
            self.assembler.push(&state.output.0, &mut lines);
            // A line that a probe waits for may lack its end; it is written when it has one.
            for line in lines {
                self.write(line).await?;
            }
            let read = u64::try_from(state.output.0.len()).unwrap_or(u64::MAX);
            self.read_bytes = state.from.saturating_add(read);
            if self.read_bytes < state.end && read > 0 {
                continue;
            }
            return match state.status {
                StartStatus::Running | StartStatus::Absent => Ok(None),
                StartStatus::Exited(outcome) => {
                    if let Some(line) = self.assembler.finish() {
                        self.write(line).await?;
                    }
                    if outcome.is_success() {
                        return Ok(Some(outcome.shell_code()));
                    }
                    Err(self.failure(outcome).into())
                }
            };
        }
    }

    async fn write(&mut self, line: String) -> Result<(), Interruption> {
        self.tail.push(&line);
        Ok(self.reporter.line(LogStream::Stdout, line).await?)
    }

    fn failure(&self, outcome: ExitOutcome) -> Failure {
        let how = match outcome {
            ExitOutcome::Code(code) => format!("exited with code {code}"),
            ExitOutcome::Signal(signal) => format!("was killed by signal {signal}"),
            ExitOutcome::DeadlineExceeded => "took too long".to_owned(),
        };
        let tail = self.tail.text();
        let last = if tail.is_empty() {
            String::new()
        } else {
            format!(" Its last lines:\n{tail}")
        };
        let message = format!("The start command `{}` {how}.{last}", self.command);
        let mut failure = Failure::new(FailureReason::StartCommandFailed, message);
        failure.exit_code = Some(outcome.shell_code());
        failure.stderr_tail = self.tail.lines().map(str::to_owned).collect();
        failure.with_detail("command", self.command)
    }
}

impl Attempt<'_> {
    /// Waits until `probe` passes; how often it was tried.
    pub(super) async fn wait_ready(
        &self,
        machine: &Machine,
        runtime: &Settled,
        probe: &Readiness,
        command: Option<&mut StartCommand<'_>>,
    ) -> Result<u32, Interruption> {
        match tries_of(probe, runtime) {
            Tries::Wait(wait) => {
                tokio::time::sleep(wait).await;
                if let Some(command) = command {
                    command.look(machine).await?;
                }
                Ok(1)
            }
            Tries::Probe(tried, schedule) => {
                if command.is_none() {
                    tokio::time::sleep(Duration::from_secs(schedule.startup_grace_secs)).await;
                }
                let ready =
                    until_passed(machine, &tried, schedule, self.try_time(), command).await?;
                ready.map_err(|unready| unready.failure(probe, schedule).into())
            }
        }
    }

    fn try_time(&self) -> Duration {
        Duration::from_secs(self.services.limits.worker.probe_try_seconds_max)
    }

    /// Whether what was ready before the capture is so after the restore: within the same time,
    /// because a restored machine fetches its memory page by page.
    pub(super) async fn still_ready(
        &self,
        machine: &Machine,
        runtime: &Settled,
        probe: &Readiness,
    ) -> Result<(), Interruption> {
        let Tries::Probe(tried, schedule) = tries_of(probe, runtime) else {
            return Ok(());
        };
        let ready = until_passed(machine, &tried, schedule, self.try_time(), None).await?;
        ready.map(|_| ()).map_err(|unready| {
            let message = format!(
                "After the restore: {}",
                unready.failure(probe, schedule).message
            );
            Failure::new(FailureReason::VerifyFailed, message).into()
        })
    }
}

/// A probe that did not pass in its time.
struct Unready {
    tries: u32,
    detail: String,
}

/// Tries `probe` until it passes; how often, or that its time is over.
async fn until_passed(
    machine: &Machine,
    probe: &Probe,
    schedule: ProbeSchedule,
    try_time: Duration,
    mut command: Option<&mut StartCommand<'_>>,
) -> Result<Result<u32, Unready>, Interruption> {
    let since = Instant::now();
    let mut tries = 0_u32;
    loop {
        tries = tries.saturating_add(1);
        let outcome = machine
            .probe(probe, try_time)
            .await
            .map_err(|error| failures::machine(FailureReason::ReadinessTimeout, &error))?;
        if let Some(command) = &mut command {
            command.look(machine).await?;
        }
        if outcome.passed {
            return Ok(Ok(tries));
        }
        if since.elapsed() >= Duration::from_secs(schedule.timeout_secs) {
            return Ok(Err(Unready {
                tries,
                detail: outcome.detail,
            }));
        }
        tokio::time::sleep(Duration::from_millis(schedule.interval_ms)).await;
    }
}

/// How readiness is found out.
enum Tries {
    Wait(Duration),
    Probe(Probe, ProbeSchedule),
}

fn tries_of(readiness: &Readiness, runtime: &Settled) -> Tries {
    match readiness {
        Readiness::Timeout { timeout_ms } => Tries::Wait(Duration::from_millis(*timeout_ms)),
        Readiness::Tcp { port, schedule } => Tries::Probe(Probe::Tcp { port: *port }, *schedule),
        Readiness::Http {
            port,
            path,
            schedule,
        } => Tries::Probe(
            Probe::Http {
                port: *port,
                path: path.clone(),
            },
            *schedule,
        ),
        Readiness::Command { command, schedule } => {
            let probe = Probe::Command {
                command: command.clone(),
                env: runtime.env_pairs(),
                user: Some(runtime.user.clone()),
                cwd: Some(runtime.workdir.clone()),
            };
            Tries::Probe(probe, *schedule)
        }
    }
}

impl Unready {
    fn failure(&self, probe: &Readiness, schedule: ProbeSchedule) -> Failure {
        let what = match probe {
            Readiness::Tcp { port, .. } => format!("Port {port} did not accept a connection"),
            Readiness::Http { port, path, .. } => {
                format!("http://127.0.0.1:{port}{path} did not answer well")
            }
            Readiness::Command { command, .. } => format!("`{command}` did not succeed"),
            Readiness::Timeout { .. } => "The time did not pass".to_owned(),
        };
        let Self { tries, detail } = self;
        let message = format!(
            "{what} within {} s ({tries} tries); the last one: {detail}.",
            schedule.timeout_secs
        );
        Failure::new(FailureReason::ReadinessTimeout, message)
            .with_detail("tries", tries.to_string())
            .with_detail("last_try", detail.as_str())
    }
}
