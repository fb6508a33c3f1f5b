//! From a disk to a snapshot: boot, start command, readiness, capture, and one restore.

use std::time::Instant;

use domain::build::{Event, Phase, ReadinessPassed, RestoreCheck, StartCommandRan, VmBooted};
use domain::failure::{Failure, FailureReason};
use futures_util::FutureExt;

use super::disk::Disk;
use super::settle::Settled;
use super::startup::StartCommand;
use super::{Attempt, Interruption, failures};
use crate::artifact::{Part, Staging};
use crate::holdings::{Held, Thing};
use crate::native::network::FilteredNetwork;
use crate::report::millis;
use crate::vmm::{Machine, MachineNetwork, MachineSpec, SnapshotFiles, StartRequest};

/// What machines of a build call themselves until they are started from the template.
pub(super) const HOSTNAME: &str = "nullspace";

/// A captured and proven machine, in the folder that becomes the artifact.
#[derive(Debug)]
pub(super) struct CapturedMachine {
    pub(super) staging: Staging,
    pub(super) spec: MachineSpec,
    pub(super) restore_check: RestoreCheck,
}

/// A machine, and the network that it lives in.
struct Alive {
    machine: Machine,
    network: Option<FilteredNetwork>,
    /// The private folder of the run; goes with it.
    _folder: tempfile::TempDir,
}

impl Alive {
    /// What stands for it on the attempt's list.
    fn held(&self) -> Vec<Held> {
        let network = self.network.as_ref().map(FilteredNetwork::held);
        network.into_iter().chain([self.machine.held()]).collect()
    }

    async fn end(self) {
        // Dropping it would kill it, too; this waits until it is gone.
        let killed = self.machine.kill().await;
        if let Err(error) = killed {
            tracing::warn!(error = %domain::causes::chain(&error), "a machine was hard to end");
        }
        if let Some(network) = self.network {
            network.close().await;
        }
    }
}

impl Attempt<'_> {
    /// Boots the disk, waits until it is ready, captures it, and proves the snapshot.
    pub(super) async fn capture_machine(
        &self,
        disk: Disk,
        runtime: &Settled,
    ) -> Result<CapturedMachine, Interruption> {
        self.go_on()?;
        let alive = self.boot(&disk).await?;
        let ready = self.unless_stopped(
            "the machine",
            self.make_ready(&alive.machine, runtime).boxed(),
        );
        match ready.await.and_then(|ready| ready) {
            Ok(()) => {}
            Err(interruption) => {
                alive.end().await;
                return Err(interruption);
            }
        }
        let phase = self.reporter.begin(Phase::Snapshot).await?;
        let spec = self.spec(MachineNetwork::None);
        let held = alive.held();
        let Alive {
            machine,
            network,
            _folder,
        } = alive;
        let capture = machine.capture(disk.staging.dir()).boxed();
        let captured = self.unless_stopped("the machine", capture).await;
        if let Some(network) = network {
            network.close().await;
        }
        let captured =
            captured?.map_err(|error| failures::machine(FailureReason::SnapshotFailed, &error))?;
        held.iter().for_each(Held::released);
        let parts = [
            (Part::Memory, captured.memory),
            (Part::DeviceState, captured.device_state),
        ];
        for (part, file) in parts {
            disk.staging
                .adopt(part, &file)
                .await
                .map_err(|error| failures::artifact(&error))?;
        }
        let restore_check = self.prove(&disk, runtime).await?;
        self.reporter.end(phase).await?;
        Ok(CapturedMachine {
            staging: disk.staging,
            spec,
            restore_check,
        })
    }

    fn spec(&self, network: MachineNetwork) -> MachineSpec {
        let config = &self.job.requested.definition.config;
        MachineSpec {
            vcpus: config.vcpus,
            memory_mib: config.memory_mib,
            hostname: HOSTNAME.to_owned(),
            network,
        }
    }

    async fn network(&self) -> Result<(Option<FilteredNetwork>, MachineNetwork), Interruption> {
        if !self.job.requested.definition.config.internet_access {
            return Ok((None, MachineNetwork::None));
        }
        let services = self.services;
        let (policy, limits) = (&services.network.policy, &services.limits.native);
        let network = FilteredNetwork::create(policy, limits, &self.holdings)
            .await
            .map_err(|error| failures::internal(&error))?;
        let namespace = network.for_machine();
        Ok((Some(network), namespace))
    }

    async fn boot(&self, disk: &Disk) -> Result<Alive, Interruption> {
        let phase = self.reporter.begin(Phase::VmCreate).await?;
        if let Some(warning) = self.services.vmm.accelerator_warning() {
            self.reporter.warn(warning).await?;
        }
        let (network, namespace) = self.network().await?;
        let folder = self.scratch("machine-").await?;
        let spec = self.spec(namespace);
        let vmm = self.services.vmm.held_by(&self.holdings);
        let boot = vmm.boot(&spec, &disk.image, folder.path());
        let machine = self
            .unless_stopped("the machine", boot)
            .await?
            .map_err(|error| failures::machine(FailureReason::BootFailed, &error))?;
        let alive = Alive {
            machine,
            network,
            _folder: folder,
        };
        let booted = VmBooted {
            accelerator: self.services.vmm.identity().accelerator.name().to_owned(),
            boot_ms: alive.machine.boot_ms(),
        };
        self.reporter.event(Event::VmBooted(booted)).await?;
        self.reporter.end(phase).await?;
        Ok(alive)
    }

    /// Runs the start command and waits for the probe.
    async fn make_ready(&self, machine: &Machine, runtime: &Settled) -> Result<(), Interruption> {
        let mut command = None;
        if let Some(start_cmd) = &runtime.start_cmd {
            let phase = self.reporter.begin(Phase::Startup).await?;
            let request = StartRequest {
                command: start_cmd.clone(),
                env: runtime.env_pairs(),
                user: Some(runtime.user.clone()),
                cwd: Some(runtime.workdir.clone()),
            };
            machine
                .start(&request)
                .await
                .map_err(|error| failures::machine(FailureReason::StartCommandFailed, &error))?;
            let mut started =
                StartCommand::new(&self.reporter, self.services.limits.output, start_cmd);
            let exit_code = started.settle(machine, runtime).await?;
            self.reporter
                .event(Event::StartCommandRan(StartCommandRan { exit_code }))
                .await?;
            self.reporter.end(phase).await?;
            command = Some(started);
        }
        let Some(probe) = &runtime.readiness else {
            return Ok(());
        };
        let phase = self.reporter.begin(Phase::Readiness).await?;
        let since = Instant::now();
        let tries = self
            .wait_ready(machine, runtime, probe, command.as_mut())
            .await?;
        let passed = ReadinessPassed {
            probe: probe.clone(),
            tries,
            duration_ms: millis(since),
        };
        self.reporter.event(Event::ReadinessPassed(passed)).await?;
        self.reporter.end(phase).await?;
        Ok(())
    }

    /// Restores the snapshot once, from an overlay: the agent answers, the disk is large enough,
    /// and what was ready still is.
    async fn prove(&self, disk: &Disk, runtime: &Settled) -> Result<RestoreCheck, Interruption> {
        let unproven = |error| failures::machine(FailureReason::VerifyFailed, &error);
        let (network, namespace) = self.network().await?;
        let folder = self.scratch("restore-").await?;
        let spec = self.spec(namespace);
        let snapshot = SnapshotFiles {
            memory: disk.staging.path(Part::Memory),
            device_state: disk.staging.path(Part::DeviceState),
            disk: disk.image.clone(),
        };
        let vmm = self.services.vmm.held_by(&self.holdings);
        let restore = vmm.restore(&spec, &snapshot, folder.path());
        let machine = self
            .unless_stopped("the restored machine", restore)
            .await?
            .map_err(unproven)?;
        let restore_ms = machine.boot_ms();
        let alive = Alive {
            machine,
            network,
            _folder: folder,
        };
        let checks = async {
            let seen = alive.machine.disk().await.map_err(unproven)?;
            if seen.device_bytes < disk.bytes {
                let message = format!(
                    "The restored machine sees a disk of {} bytes instead of {}.",
                    seen.device_bytes, disk.bytes
                );
                return Err(Failure::new(FailureReason::VerifyFailed, message).into());
            }
            if let Some(probe) = &runtime.readiness {
                self.still_ready(&alive.machine, runtime, probe).await?;
            }
            Ok(RestoreCheck {
                restore_ms,
                disk_bytes: seen.device_bytes,
            })
        };
        let checked = self
            .unless_stopped("the restored machine", checks.boxed())
            .await;
        let held = alive.held();
        alive.end().await;
        let checked = checked.and_then(|checked| checked)?;
        held.iter().for_each(Held::released);
        Ok(checked)
    }

    async fn scratch(&self, purpose: &'static str) -> Result<tempfile::TempDir, Interruption> {
        let work_dir = self.services.work_dir.clone();
        let folder = failures::blocking(move || work_dir.scratch(purpose)).await?;
        let folder = folder.map_err(|error| failures::io("make a folder for a machine", &error))?;
        self.holdings
            .hold([Thing::Folder(folder.path().to_owned())]);
        Ok(folder)
    }
}
