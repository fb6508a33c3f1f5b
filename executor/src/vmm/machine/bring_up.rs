//! From a QEMU that was started to a machine whose agent has answered.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use guest::protocol::{Blob, Reply, Request};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::sync::Mutex;

use super::super::agent::Agent;
use super::super::capture;
use super::super::config::MachineSpec;
use super::super::error::VmmError;
use super::super::launch::Launched;
use super::super::prepare::Vmm;
use super::super::qmp::{Qmp, QmpError};
use super::super::tail::Tail;
use super::{Machine, last_words, monitor_error, protocol_error};

impl Machine {
    /// A machine that was started; its agent has not been heard yet.
    pub(in crate::vmm) async fn connect(
        vmm: Vmm,
        spec: MachineSpec,
        dir: PathBuf,
        ((child, held), console, stderr): (Launched, Tail, Option<Tail>),
        (agent, session): (Agent, u64),
        qmp: Result<Qmp, QmpError>,
    ) -> Result<Self, VmmError> {
        let qmp = match qmp {
            Ok(qmp) => qmp,
            Err(error) => {
                let words = last_words(&console, stderr.as_ref()).await;
                return Err(monitor_error("start", error, words));
            }
        };
        Ok(Self {
            vmm,
            child,
            held,
            qmp: Mutex::new(qmp),
            agent,
            session,
            spec,
            dir,
            memory: None,
            console,
            stderr,
            boot_ms: 0,
        })
    }

    /// Notes the file with the machine's memory.
    pub(in crate::vmm) fn keep_memory(&mut self, path: PathBuf) {
        self.memory = Some(path);
    }

    /// Loads the device state of a snapshot and lets the machine run.
    pub(in crate::vmm) async fn load(
        &mut self,
        fd: RawFd,
        deadline: Duration,
    ) -> Result<(), VmmError> {
        let qmp = self.qmp.get_mut();
        let loaded = async {
            capture::leave_memory_alone(qmp).await?;
            let uri = format!("fd:{fd}");
            qmp.execute("migrate-incoming", json!({"uri": uri})).await?;
            capture::migration_ended(qmp, "migrate-incoming", deadline).await?;
            qmp.execute("cont", json!({})).await
        };
        let result = loaded.await;
        match result {
            Ok(_) => Ok(()),
            Err(error) => Err(self.monitor_error("load the snapshot", error).await),
        }
    }

    /// Greets the agent and releases the machine's processes.
    pub(in crate::vmm) async fn settle(
        &mut self,
        doing: &str,
        begun: Instant,
        deadline: Duration,
    ) -> Result<(), VmmError> {
        let left = deadline.saturating_sub(begun.elapsed());
        if let Err(error) = self.agent.end_line().await {
            return Err(self.agent_error(doing, error).await);
        }
        let session = self.session;
        let reply = self.ask(doing, Request::Hello { session }, left).await?;
        if !matches!(reply, Reply::Hello { .. }) {
            return Err(protocol_error(doing, &reply));
        }
        let mut entropy = [0_u8; 32];
        getrandom::fill(&mut entropy).map_err(VmmError::system("draw random bytes"))?;
        let release = Request::Release {
            entropy: Blob(entropy.to_vec()),
            wall_clock_ns: wall_clock_ns(),
            hostname: self.spec.hostname.clone(),
        };
        self.ask_done(doing, release, self.answer_deadline())
            .await?;
        self.boot_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(())
    }
}

/// The time to set in a machine.
fn wall_clock_ns() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or_default();
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}
