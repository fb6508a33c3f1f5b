//! A running machine, and what can be asked of it.

mod bring_up;

use std::path::{Path, PathBuf};
use std::time::Duration;

use guest::protocol::{
    DiskInfo, ExecRequest, ExitOutcome, OutputStream, Probe, ProbeOutcome, Reply, Request,
    StartRequest, StartState,
};
use tokio::process::Child;
use tokio::sync::Mutex;

use super::agent::{Agent, AgentError};
use super::config::MachineSpec;
use super::error::{LastWords, VmmError};
use super::prepare::Vmm;
use super::qmp::{Qmp, QmpError};
use super::tail::Tail;
use crate::holdings::Held;
use crate::limits::vmm::VmmLimits;

/// How long the last words of a machine that has ended may take to arrive, in milliseconds.
const LAST_WORDS_MS_MAX: u64 = 1000;

/// A machine whose agent answers. Dropping it kills it.
#[derive(Debug)]
pub struct Machine {
    pub(super) vmm: Vmm,
    pub(super) child: Child,
    pub(super) held: Held,
    pub(super) qmp: Mutex<Qmp>,
    agent: Agent,
    session: u64,
    spec: MachineSpec,
    dir: PathBuf,
    /// The file with its memory, if that can become a snapshot.
    pub(super) memory: Option<PathBuf>,
    console: Tail,
    stderr: Option<Tail>,
    boot_ms: u64,
}

impl Machine {
    /// The milliseconds from the beginning of its boot or restore to its release.
    pub fn boot_ms(&self) -> u64 {
        self.boot_ms
    }

    /// The machine's shape.
    pub fn spec(&self) -> &MachineSpec {
        &self.spec
    }

    /// The folder that it was given.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What stands for it on the list of whoever it was started for.
    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// QEMU's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The end of its console so far.
    pub fn console(&self) -> String {
        self.console.text()
    }

    /// Runs a command to its end; `on_output` gets its output as it comes.
    ///
    /// Dropping the future kills the command. The future must be polled while it lives: output
    /// that nobody takes makes every other call of this machine wait.
    ///
    /// # Errors
    /// [`VmmError::Refused`] if it cannot be started (no such user, folder or program);
    /// [`VmmError::Ended`] or [`VmmError::Deadline`] if the machine is gone or hangs.
    pub async fn exec(
        &self,
        request: &ExecRequest,
        mut on_output: impl FnMut(OutputStream, &[u8]),
    ) -> Result<ExitOutcome, VmmError> {
        const DOING: &str = "run the command";
        let grace = VmmLimits::seconds(self.limits().exec_grace_seconds);
        let patience = Duration::from_millis(request.deadline_ms).saturating_add(grace);
        let run = async {
            let mut pending = self.agent.begin(Request::Exec(request.clone())).await?;
            loop {
                let reply = pending.next().await?;
                let Reply::Output { stream, data } = reply else {
                    return Ok(reply);
                };
                on_output(stream, &data.0);
            }
        };
        let last = match tokio::time::timeout(patience, run).await {
            Ok(last) => last,
            Err(_) => Err(AgentError::Silent(patience)),
        };
        let reply = self.checked(DOING, last).await?;
        let Reply::Exited(outcome) = reply else {
            return Err(protocol_error(DOING, &reply));
        };
        Ok(outcome)
    }

    /// Starts the machine's long-running command, of which it has at most one.
    ///
    /// # Errors
    /// As [`Machine::exec`].
    pub async fn start(&self, request: &StartRequest) -> Result<(), VmmError> {
        let request = Request::Start(request.clone());
        self.ask_done("start the command", request, self.answer_deadline())
            .await
    }

    /// How the long-running command fares, with its output from position `from` on.
    ///
    /// Called with 0 and then with `from` plus the length of the output that came, it gives the
    /// whole output in order; of output that nobody asks for, the latest part is kept.
    ///
    /// # Errors
    /// [`VmmError::Ended`] or [`VmmError::Deadline`] if the machine is gone or hangs.
    pub async fn start_state(&self, from: u64) -> Result<StartState, VmmError> {
        const DOING: &str = "tell about its command";
        let request = Request::StartState { from };
        let reply = self.ask(DOING, request, self.answer_deadline()).await?;
        let Reply::StartState(state) = reply else {
            return Err(protocol_error(DOING, &reply));
        };
        Ok(state)
    }

    /// Tries once, from inside, whether something is ready; the try takes at most `deadline`.
    ///
    /// # Errors
    /// As [`Machine::exec`]. Not being ready is no error.
    pub async fn probe(&self, probe: &Probe, deadline: Duration) -> Result<ProbeOutcome, VmmError> {
        const DOING: &str = "probe";
        let request = Request::Probe {
            probe: probe.clone(),
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        };
        let patience = deadline.saturating_add(self.answer_deadline());
        let reply = self.ask(DOING, request, patience).await?;
        let Reply::Probe(outcome) = reply else {
            return Err(protocol_error(DOING, &reply));
        };
        Ok(outcome)
    }

    /// The sizes of the disk, as the machine sees them.
    ///
    /// # Errors
    /// As [`Machine::start_state`].
    pub async fn disk(&self) -> Result<DiskInfo, VmmError> {
        const DOING: &str = "tell the size of its disk";
        let reply = self
            .ask(DOING, Request::Disk, self.answer_deadline())
            .await?;
        let Reply::Disk(sizes) = reply else {
            return Err(protocol_error(DOING, &reply));
        };
        Ok(sizes)
    }

    /// Writes everything back and stops changes to the file system.
    ///
    /// # Errors
    /// As [`Machine::exec`].
    pub async fn freeze(&self) -> Result<(), VmmError> {
        let deadline = VmmLimits::seconds(self.limits().hold_seconds_max);
        self.ask_done("freeze its file system", Request::Freeze, deadline)
            .await
    }

    /// Allows changes to the file system again.
    ///
    /// # Errors
    /// As [`Machine::exec`].
    pub async fn thaw(&self) -> Result<(), VmmError> {
        self.ask_done(
            "thaw its file system",
            Request::Thaw,
            self.answer_deadline(),
        )
        .await
    }

    /// Ends the machine in good order, or kills it if it takes too long; its disk is consistent.
    ///
    /// # Errors
    /// [`VmmError::Deadline`] if it had to be killed.
    pub async fn shutdown(mut self) -> Result<(), VmmError> {
        const DOING: &str = "end";
        let deadline = VmmLimits::seconds(self.limits().shutdown_seconds_max);
        let asked = self.agent.begin(Request::PowerOff).await;
        let ended = match asked {
            Ok(_pending) => tokio::time::timeout(deadline, self.child.wait())
                .await
                .is_ok(),
            // It has ended already.
            Err(_) => true,
        };
        if ended {
            return self.kill().await;
        }
        let error = self.agent_error(DOING, AgentError::Silent(deadline)).await;
        self.kill().await?;
        Err(error)
    }

    /// Kills the machine and waits for its end.
    ///
    /// # Errors
    /// [`VmmError::System`] if QEMU cannot be waited for.
    pub async fn kill(mut self) -> Result<(), VmmError> {
        self.child
            .kill()
            .await
            .map_err(VmmError::system("kill QEMU"))
    }

    pub(super) fn limits(&self) -> &VmmLimits {
        &self.vmm.parts.config.limits
    }

    fn answer_deadline(&self) -> Duration {
        VmmLimits::seconds(self.limits().answer_seconds_max)
    }

    pub(super) async fn ask_done(
        &self,
        doing: &str,
        request: Request,
        deadline: Duration,
    ) -> Result<(), VmmError> {
        let reply = self.ask(doing, request, deadline).await?;
        let Reply::Done = reply else {
            return Err(protocol_error(doing, &reply));
        };
        Ok(())
    }

    async fn ask(
        &self,
        doing: &str,
        request: Request,
        deadline: Duration,
    ) -> Result<Reply, VmmError> {
        let answer = self.agent.call(request, deadline).await;
        self.checked(doing, answer).await
    }

    /// Makes errors of refusals and of missing answers.
    async fn checked(
        &self,
        doing: &str,
        answer: Result<Reply, AgentError>,
    ) -> Result<Reply, VmmError> {
        match answer {
            Ok(Reply::Refused { reason }) => Err(VmmError::Refused {
                doing: doing.to_owned(),
                reason,
            }),
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.agent_error(doing, error).await),
        }
    }

    async fn agent_error(&self, doing: &str, error: AgentError) -> VmmError {
        let doing = doing.to_owned();
        match error {
            AgentError::Gone => VmmError::Ended {
                doing,
                tail: last_words(&self.console, self.stderr.as_ref()).await,
            },
            AgentError::Silent(deadline) => VmmError::Deadline {
                doing,
                seconds: deadline.as_secs(),
                tail: words_so_far(&self.console, self.stderr.as_ref()),
            },
        }
    }

    pub(super) async fn monitor_error(&self, doing: &str, error: QmpError) -> VmmError {
        let words = match error {
            QmpError::Gone => last_words(&self.console, self.stderr.as_ref()).await,
            QmpError::Silent(_) | QmpError::Refused { .. } | QmpError::Strange { .. } => {
                words_so_far(&self.console, self.stderr.as_ref())
            }
        };
        monitor_error(doing, error, words)
    }
}

fn words_so_far(console: &Tail, stderr: Option<&Tail>) -> LastWords {
    LastWords {
        console: console.text(),
        stderr: stderr.map(Tail::text).unwrap_or_default(),
    }
}

/// What a machine that has ended said, to the end.
async fn last_words(console: &Tail, stderr: Option<&Tail>) -> LastWords {
    let patience = Duration::from_millis(LAST_WORDS_MS_MAX);
    console.finish(patience).await;
    if let Some(stderr) = stderr {
        stderr.finish(patience).await;
    }
    words_so_far(console, stderr)
}

fn protocol_error(doing: &str, reply: &Reply) -> VmmError {
    VmmError::Protocol {
        request: doing.to_owned(),
        answer: format!("{reply:?}"),
    }
}

fn monitor_error(doing: &str, error: QmpError, tail: LastWords) -> VmmError {
    let doing = doing.to_owned();
    match error {
        QmpError::Gone => VmmError::Ended { doing, tail },
        QmpError::Silent(deadline) => VmmError::Deadline {
            doing,
            seconds: deadline.as_secs(),
            tail,
        },
        QmpError::Refused { command, reason } => VmmError::Monitor {
            command,
            reason: format!("{reason}{tail}"),
        },
        QmpError::Strange { command, answer } => VmmError::Protocol {
            request: command,
            answer,
        },
    }
}
