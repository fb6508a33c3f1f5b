//! What machines of a template start with, from the image and the definition; and what is told of
//! the finished artifact.

use std::collections::BTreeMap;

use domain::build::{OciMetadata, RuntimeDefaults, Snapshotted, VmmIdentity};
use domain::definition::{Definition, Readiness};
use serde::Serialize;

use super::Job;
use super::base::Base;
use super::machine::CapturedMachine;
use crate::artifact::{Artifact, Description, Machine, Runtime};
use crate::image::ImageConfig;
use crate::services::Services;

/// What machines of a template start with, values included. Enters the artifact's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Settled {
    /// The environment: the image's, and over it the definition's.
    pub(super) env: BTreeMap<String, String>,
    /// The user; the definition's, else the image's, else root.
    pub(super) user: String,
    /// The working folder; the definition's, else the image's, else `/`.
    pub(super) workdir: String,
    /// The start command, run by `/bin/sh -c`.
    pub(super) start_cmd: Option<String>,
    /// When it counts as up.
    pub(super) readiness: Option<Readiness>,
}

impl Settled {
    /// The environment as pairs.
    pub(super) fn env_pairs(&self) -> Vec<(String, String)> {
        self.env.clone().into_iter().collect()
    }
}

/// What machines of the template start with.
pub(super) fn runtime(definition: &Definition, image: &ImageConfig) -> Settled {
    let given = &definition.runtime;
    let mut env = variables(image);
    env.extend(given.default_envs.clone());
    let first = |given: &Option<String>, image: &str, default: &str| {
        let set = [given.as_deref().unwrap_or_default(), image];
        set.into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or(default)
            .to_owned()
    };
    Settled {
        env,
        user: first(&given.default_user, &image.user, "root"),
        workdir: first(&given.default_workdir, &image.working_dir, "/"),
        start_cmd: definition.start_cmd.clone(),
        readiness: given.readiness.clone(),
    }
}

/// The image's environment.
pub(super) fn variables(image: &ImageConfig) -> BTreeMap<String, String> {
    image
        .env
        .iter()
        .filter_map(|variable| variable.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The VMM's identity in the log's words.
pub(crate) fn identity(vmm: &crate::vmm::VmmIdentity) -> VmmIdentity {
    VmmIdentity {
        kind: vmm.kind.clone(),
        version: vmm.version.clone(),
        accelerator: vmm.accelerator.name().to_owned(),
        cpu_model: vmm.cpu_model.clone(),
        machine: vmm.machine.clone(),
        kernel_digest: vmm.kernel_digest,
        agent_digest: vmm.agent_digest,
    }
}

/// What the artifact's manifest says beside its files.
pub(super) fn description(
    job: &Job,
    base: &Base,
    runtime: &Settled,
    captured: &CapturedMachine,
    services: &Services,
) -> Description {
    Description {
        created_at: services.clock.now(),
        base: Some(base.resolved.clone()),
        machine: Machine {
            vcpus: captured.spec.vcpus,
            memory_mib: captured.spec.memory_mib.into(),
            network: job.requested.definition.config.internet_access,
            hostname: captured.spec.hostname.clone(),
        },
        vmm: identity(services.vmm.identity()),
        runtime: Runtime {
            env: runtime.env.clone(),
            user: Some(runtime.user.clone()),
            workdir: Some(runtime.workdir.clone()),
            start_cmd: runtime.start_cmd.clone(),
        },
        readiness: runtime.readiness.clone(),
        restore_check: captured.restore_check,
        oci: oci_metadata(&base.image.config),
    }
}

fn oci_metadata(image: &ImageConfig) -> OciMetadata {
    OciMetadata {
        labels: image.labels.clone(),
        exposed_ports: image.exposed_ports.iter().cloned().collect(),
        volumes: image.volumes.iter().cloned().collect(),
    }
}

/// The successful end of a build, as the log keeps it: names of variables, never their values.
pub(super) fn snapshotted(job: &Job, artifact: &Artifact, reused: bool) -> Box<Snapshotted> {
    let manifest = &artifact.manifest;
    let given = &job.requested.definition.runtime;
    Box::new(Snapshotted {
        artifact: artifact.id().clone(),
        rootfs: manifest.rootfs.clone(),
        memory: manifest.memory.clone(),
        device_state: manifest.device_state.clone(),
        vmm: manifest.vmm.clone(),
        restore_check: manifest.restore_check,
        runtime: RuntimeDefaults {
            env_keys: given.default_envs.keys().cloned().collect(),
            start_cmd: manifest.runtime.start_cmd.clone(),
            user: manifest.runtime.user.clone(),
            workdir: manifest.runtime.workdir.clone(),
            readiness: manifest.readiness.clone(),
        },
        oci: manifest.oci.clone(),
        reused,
    })
}
