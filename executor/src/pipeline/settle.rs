//! What steps and machines of a template start with, from the base and the definition; and what is
//! told of the finished artifact.

use std::collections::{BTreeMap, BTreeSet};

use domain::build::{
    OciHealthcheck, OciMetadata, PinnedBase, Requested, RuntimeDefaults, Snapshotted, VmmIdentity,
};
use domain::definition::{Definition, Readiness};
use serde::Serialize;

use super::Job;
use super::base::Base;
use super::machine::CapturedMachine;
use crate::artifact::{Artifact, Description, Machine, Runtime};
use crate::image::{Healthcheck, ImageConfig};
use crate::layers::Layer;
use crate::native::step::Ambient;
use crate::services::Services;

/// What steps on a base, and machines of a template on it, start with unless the definition says
/// otherwise. A base template gives its environment, user and folder; not its start command and
/// probe, which belong to what runs in its own machine, and not what only its steps saw. An image gives
/// a start command and a probe if the Dockerfile that is built says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Defaults {
    env: BTreeMap<String, String>,
    user: String,
    workdir: String,
    start_cmd: Option<String>,
    readiness: Option<Readiness>,
}

impl Defaults {
    /// What an image says; what it leaves out is root's and `/`.
    pub(super) fn of_image(image: &ImageConfig) -> Self {
        let env = image
            .env
            .iter()
            .filter_map(|variable| variable.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self {
            env,
            user: or(Some(&image.user), "root"),
            workdir: or(Some(&image.working_dir), "/"),
            start_cmd: None,
            readiness: None,
        }
    }

    /// The same, where machines run a command by themselves, and when it counts as up.
    pub(super) fn starting(self, start_cmd: Option<String>, readiness: Option<Readiness>) -> Self {
        Self {
            start_cmd,
            readiness,
            ..self
        }
    }

    /// The folder in which commands start.
    pub(super) fn workdir(&self) -> &str {
        &self.workdir
    }

    /// What machines of a template start with.
    pub(super) fn of_template(runtime: &Runtime) -> Self {
        Self {
            env: runtime.env.clone(),
            user: or(runtime.user.as_ref(), "root"),
            workdir: or(runtime.workdir.as_ref(), "/"),
            start_cmd: None,
            readiness: None,
        }
    }

    /// What the first step starts from.
    pub(super) fn ambient(&self, build_envs: &BTreeMap<String, String>) -> Ambient {
        let mut env = self.env.clone();
        env.extend(build_envs.clone());
        Ambient {
            env,
            user: self.user.clone(),
            workdir: self.workdir.clone(),
        }
    }
}

/// The text, if it says something.
fn or(text: Option<&String>, default: &str) -> String {
    let said = text.filter(|text| !text.is_empty());
    said.map_or_else(|| default.to_owned(), String::clone)
}

/// What machines of a template start with, values included. Enters the artifact's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Settled {
    /// The environment: the base's, and over it the definition's.
    pub(super) env: BTreeMap<String, String>,
    /// The user; the definition's, else the base's.
    pub(super) user: String,
    /// The working folder; the definition's, else the base's.
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
pub(super) fn runtime(definition: &Definition, base: &Defaults) -> Settled {
    let given = &definition.runtime;
    let mut env = base.env.clone();
    env.extend(given.default_envs.clone());
    let start_cmd = definition.start_cmd.as_ref().or(base.start_cmd.as_ref());
    // What tells that a command is up means nothing where none runs.
    let inherited = base.readiness.as_ref().filter(|_| start_cmd.is_some());
    Settled {
        env,
        user: or(given.default_user.as_ref(), &base.user),
        workdir: or(given.default_workdir.as_ref(), &base.workdir),
        start_cmd: start_cmd.cloned(),
        readiness: given.readiness.as_ref().or(inherited).cloned(),
    }
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
    layers: &[Layer],
    services: &Services,
) -> Description {
    Description {
        created_at: services.clock.now(),
        base: base.resolved.clone(),
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
        oci: base.oci.clone(),
        layers: layers.iter().map(|layer| *layer.key()).collect(),
    }
}

/// What an image says about itself that no machine needs.
pub(super) fn oci_metadata(image: &ImageConfig) -> OciMetadata {
    OciMetadata {
        labels: image.labels.clone(),
        exposed_ports: image.exposed_ports.iter().cloned().collect(),
        volumes: image.volumes.iter().cloned().collect(),
        healthcheck: image.healthcheck.as_ref().map(healthcheck),
    }
}

fn healthcheck(check: &Healthcheck) -> OciHealthcheck {
    // Nothing and less stand for "not said".
    let said = |number: i64| u64::try_from(number).ok().filter(|number| *number > 0);
    OciHealthcheck {
        test: check.test.clone(),
        interval_ns: said(check.interval_ns),
        timeout_ns: said(check.timeout_ns),
        start_period_ns: said(check.start_period_ns),
        retries: said(check.retries),
        mapped_readiness: None,
    }
}

/// The successful end of a build, as the log keeps it: names of variables, never their values.
/// `own_env_keys` are those of a Dockerfile.
pub(super) fn snapshotted(
    job: &Job,
    artifact: &Artifact,
    own_env_keys: &[String],
    reused: bool,
) -> Box<Snapshotted> {
    let manifest = &artifact.manifest;
    Box::new(Snapshotted {
        artifact: artifact.id().clone(),
        rootfs: manifest.rootfs.clone(),
        memory: manifest.memory.clone(),
        device_state: manifest.device_state.clone(),
        vmm: manifest.vmm.clone(),
        restore_check: manifest.restore_check,
        runtime: RuntimeDefaults {
            env_keys: env_keys(&job.requested, own_env_keys),
            start_cmd: manifest.runtime.start_cmd.clone(),
            user: manifest.runtime.user.clone(),
            workdir: manifest.runtime.workdir.clone(),
            readiness: manifest.readiness.clone(),
        },
        oci: manifest.oci.clone(),
        reused,
    })
}

/// The names of the variables that the template sets, or its base template or its Dockerfile did. What an
/// image sets for itself is left out.
fn env_keys(requested: &Requested, of_dockerfile: &[String]) -> Vec<String> {
    let inherited: &[String] = match &requested.base {
        Some(PinnedBase::Template(template)) => &template.env_keys,
        Some(PinnedBase::Builtin { .. }) | None => &[],
    };
    let own = requested.definition.runtime.default_envs.keys();
    let keys: BTreeSet<&String> = inherited.iter().chain(of_dockerfile).chain(own).collect();
    keys.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use domain::definition::{BuildConfig, ProbeSchedule, RuntimeConfig, Source};

    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn definition(runtime: RuntimeConfig) -> Definition {
        Definition {
            source: Source::Declarative {
                base_image: "nullspace/parent:latest".to_owned(),
                steps: Vec::new(),
                build_envs: env(&[("ONLY_BUILD", "child")]),
            },
            context: None,
            start_cmd: None,
            runtime,
            config: BuildConfig {
                vcpus: 1,
                memory_mib: 256,
                disk_mb: None,
                internet_access: true,
            },
            skip_cache: false,
            secret_ids: Vec::new(),
        }
    }

    fn parent() -> Defaults {
        Defaults::of_template(&Runtime {
            env: env(&[("PATH", "/bin"), ("FROM", "parent"), ("KEPT", "yes")]),
            user: Some("app".to_owned()),
            workdir: Some("/srv".to_owned()),
            start_cmd: Some("serve".to_owned()),
        })
    }

    #[test]
    fn machines_inherit_environment_user_and_folder_and_no_start_command() {
        let settled = runtime(&definition(RuntimeConfig::default()), &parent());
        assert_eq!(
            settled,
            Settled {
                env: env(&[("PATH", "/bin"), ("FROM", "parent"), ("KEPT", "yes")]),
                user: "app".to_owned(),
                workdir: "/srv".to_owned(),
                start_cmd: None,
                readiness: None,
            }
        );
    }

    #[test]
    fn what_the_definition_says_goes_over_what_is_inherited() {
        let given = RuntimeConfig {
            default_user: Some("root".to_owned()),
            default_workdir: Some("/child".to_owned()),
            default_envs: env(&[("FROM", "child")]),
            readiness: None,
        };
        let settled = runtime(&definition(given), &parent());
        assert_eq!(settled.env["FROM"], "child");
        assert_eq!(settled.env["KEPT"], "yes");
        assert_eq!((&*settled.user, &*settled.workdir), ("root", "/child"));
        assert!(!settled.env.contains_key("ONLY_BUILD"));
    }

    #[test]
    fn a_dockerfile_s_command_and_check_are_used_unless_the_definition_says_otherwise() {
        let probe = |port| Readiness::Tcp {
            port,
            schedule: ProbeSchedule::default(),
        };
        let image = Defaults::of_image(&ImageConfig::default());
        let base = image
            .clone()
            .starting(Some("serve".to_owned()), Some(probe(1)));
        let inherited = runtime(&definition(RuntimeConfig::default()), &base);
        assert_eq!(inherited.start_cmd.as_deref(), Some("serve"));
        assert_eq!(inherited.readiness, Some(probe(1)));

        let given = RuntimeConfig {
            readiness: Some(probe(2)),
            ..RuntimeConfig::default()
        };
        let mut own = definition(given);
        own.start_cmd = Some("own".to_owned());
        let own = runtime(&own, &base);
        assert_eq!(own.start_cmd.as_deref(), Some("own"));
        assert_eq!(own.readiness, Some(probe(2)));

        let idle = image.starting(None, Some(probe(1)));
        let idle = runtime(&definition(RuntimeConfig::default()), &idle);
        assert_eq!((idle.start_cmd, idle.readiness), (None, None));
    }

    #[test]
    fn steps_start_from_the_base_with_the_build_environment_over_it() {
        let build = env(&[("FROM", "build"), ("ONLY_BUILD", "child")]);
        let ambient = parent().ambient(&build);
        let expected = [
            ("PATH", "/bin"),
            ("FROM", "build"),
            ("KEPT", "yes"),
            ("ONLY_BUILD", "child"),
        ];
        assert_eq!(ambient.env, env(&expected));
        assert_eq!((&*ambient.user, &*ambient.workdir), ("app", "/srv"));
    }

    #[test]
    fn an_image_that_says_nothing_is_root_s_at_the_top() {
        let image = ImageConfig {
            env: vec!["A=b=c".to_owned(), "broken".to_owned()],
            ..ImageConfig::default()
        };
        let expected = Defaults {
            env: env(&[("A", "b=c")]),
            user: "root".to_owned(),
            workdir: "/".to_owned(),
            start_cmd: None,
            readiness: None,
        };
        assert_eq!(Defaults::of_image(&image), expected);
    }
}
