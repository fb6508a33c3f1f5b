//! The key of a finished artifact: everything that decides what is in it.

use domain::Digest;
use domain::build::{BypassReason, CacheKind, CacheSubject};
use domain::definition::BuildConfig;
use domain::name::SecretId;

use super::Job;
use super::base::Base;
use super::settle::Settled;
use crate::layers::{Recipe, Role, Value};
use crate::services::Services;
use crate::vmm::VmmIdentity;

/// What an artifact is called in recipes.
pub(super) const KIND: &str = "final_artifact";

/// Under what a finished artifact is looked up, and whether it is.
#[derive(Clone, Debug)]
pub(super) struct ArtifactKey {
    pub(super) digest: Digest,
    pub(super) recipe: Recipe,
    pub(super) bypass: Option<BypassReason>,
    subject: String,
}

impl ArtifactKey {
    pub(super) fn subject(&self) -> CacheSubject {
        CacheSubject {
            kind: CacheKind::FinalArtifact,
            subject: self.subject.clone(),
            step_index: None,
            key: self.digest,
        }
    }
}

/// What an artifact of files that BuildKit made stands on: they alone decide, whatever they were made of.
/// With `nonce`, no earlier artifact may stand for it.
pub(super) fn beneath_built(files: Digest, nonce: Option<Digest>) -> Recipe {
    let recipe = Recipe::new(KIND).setting("files that were built", Value::Digest(files));
    match nonce {
        None => recipe,
        Some(nonce) => recipe.with(Role::Boundary, "boundary", Value::Digest(nonce)),
    }
}

/// The key of the artifact that `job` makes of the files that `beneath` speaks of.
pub(super) fn artifact(
    beneath: Recipe,
    bypass: Option<BypassReason>,
    job: &Job,
    base: &Base,
    runtime: &Settled,
    services: &Services,
) -> ArtifactKey {
    let requested = &job.requested;
    let recipe = machine(beneath, &requested.definition.config);
    let recipe = secrets(recipe, &requested.definition.secret_ids);
    let recipe = settled(recipe, runtime);
    let recipe = monitor(recipe, services.vmm.identity());
    let headroom = Value::plain(Some(services.limits.rootfs.headroom_bytes));
    // Templates of the same layers may say different things about their images.
    let oci = serde_json::to_string(&base.oci);
    let oci = oci.expect("image metadata has string keys and no failing serializer");
    let recipe = recipe
        .setting("headroom_bytes", headroom)
        .setting("image metadata", Value::text(&oci));
    ArtifactKey {
        digest: recipe.key(),
        recipe,
        bypass,
        subject: format!("{}/{}", requested.namespace, requested.name),
    }
}

// Each of these takes its values apart whole: a field that is added later must be added here, too.

fn machine(recipe: Recipe, config: &BuildConfig) -> Recipe {
    let BuildConfig {
        vcpus,
        memory_mib,
        disk_mb,
        internet_access,
    } = config;
    recipe
        .setting("vcpus", Value::plain(Some(vcpus)))
        .setting("memory_mib", Value::plain(Some(memory_mib)))
        .setting("disk_mb", Value::plain(*disk_mb))
        .setting("internet_access", Value::plain(Some(internet_access)))
}

/// Which secrets the build had, by their ids: what it made of them is in its files.
fn secrets(recipe: Recipe, ids: &[SecretId]) -> Recipe {
    if ids.is_empty() {
        return recipe;
    }
    let ids: Vec<&str> = ids.iter().map(SecretId::as_str).collect();
    recipe.setting("secret ids", Value::text(&ids.join(" ")))
}

fn settled(recipe: Recipe, runtime: &Settled) -> Recipe {
    let Settled {
        env,
        user,
        workdir,
        start_cmd,
        readiness,
    } = runtime;
    let readiness = readiness.as_ref().map(|readiness| {
        let json = serde_json::to_string(readiness);
        json.expect("a probe has string keys and no failing serializer")
    });
    let variables = env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    recipe
        .setting("start command", Value::text_or_absent(start_cmd.as_deref()))
        .setting("readiness", Value::text_or_absent(readiness.as_deref()))
        .setting("user", Value::text(user))
        .setting("working folder", Value::text(workdir))
        .variables(variables)
}

fn monitor(recipe: Recipe, identity: &VmmIdentity) -> Recipe {
    let VmmIdentity {
        kind,
        version,
        accelerator,
        cpu_model,
        machine,
        kernel_digest,
        agent_digest,
    } = identity;
    recipe
        .setting("VMM", Value::text(kind))
        .setting("VMM version", Value::text(version))
        .setting("accelerator", Value::plain(Some(accelerator)))
        .setting("processor model", Value::text(cpu_model))
        .setting("machine model", Value::text(machine))
        .setting("kernel", Value::Digest(*kernel_digest))
        .setting("guest agent", Value::Digest(*agent_digest))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::layers::recipe::difference;

    use super::*;

    fn config() -> BuildConfig {
        BuildConfig {
            vcpus: 1,
            memory_mib: 512,
            disk_mb: None,
            internet_access: true,
        }
    }

    fn resized(change: impl FnOnce(&mut BuildConfig)) -> Recipe {
        let mut config = config();
        change(&mut config);
        machine(Recipe::new(KIND), &config)
    }

    #[test]
    fn another_size_is_another_artifact_and_its_difference_names_the_input() {
        let old = resized(|_| {});
        let told = |new: &Recipe| difference(&old, new).unwrap();
        for (new, words) in [
            (resized(|config| config.vcpus = 2), "vcpus 1 → 2"),
            (
                resized(|config| config.memory_mib = 768),
                "memory_mib 512 → 768",
            ),
            (
                resized(|config| config.disk_mb = Some(4096)),
                "disk_mb none → 4096",
            ),
        ] {
            assert_eq!(told(&new), words);
            assert_ne!(new.key(), old.key());
        }
    }

    #[test]
    fn the_ids_of_secrets_are_part_of_a_key_and_builds_without_any_keep_theirs() {
        let of = |ids: &[&str]| {
            let ids: Vec<SecretId> = ids.iter().map(|id| id.parse().unwrap()).collect();
            secrets(Recipe::new(KIND), &ids)
        };
        assert_eq!(of(&[]), Recipe::new(KIND));
        assert_ne!(of(&["one"]).key(), of(&[]).key());
        let told = difference(&of(&["one"]), &of(&["one", "two"])).unwrap();
        assert_eq!(told, "secret ids one → one two");
    }

    #[test]
    fn what_was_built_is_known_by_its_files_alone() {
        let [one, two] = [Digest::of(b"1"), Digest::of(b"2")];
        assert_eq!(beneath_built(one, None), beneath_built(one, None));
        let told = difference(&beneath_built(one, None), &beneath_built(two, None)).unwrap();
        assert!(told.starts_with("files that were built changed"), "{told}");
        assert_ne!(
            beneath_built(one, Some(two)).key(),
            beneath_built(one, None).key()
        );
    }

    #[test]
    fn what_a_machine_starts_with_is_told_by_name_and_never_by_value() {
        let runtime = |change: fn(&mut Settled)| {
            let mut runtime = Settled {
                env: BTreeMap::from([("TOKEN".to_owned(), "hush-1".to_owned())]),
                user: "root".to_owned(),
                workdir: "/".to_owned(),
                start_cmd: None,
                readiness: None,
            };
            change(&mut runtime);
            settled(Recipe::new(KIND), &runtime)
        };
        let old = runtime(|_| {});
        let told = |new: &Recipe| difference(&old, new);
        assert_eq!(told(&old), None);
        let changed = runtime(|runtime| drop(runtime.env.insert("TOKEN".into(), "hush-2".into())));
        assert_eq!(
            told(&changed).as_deref(),
            Some("environment variable TOKEN changed")
        );
        let stored = serde_json::to_string(&[&old, &changed]).unwrap();
        assert!(!stored.contains("hush"), "{stored}");
        let started = runtime(|runtime| runtime.start_cmd = Some("sleep 1".into()));
        assert_eq!(
            told(&started).as_deref(),
            Some("start command none → sleep 1")
        );
        let user = runtime(|runtime| runtime.user = "app".into());
        assert_eq!(told(&user).as_deref(), Some("user root → app"));
    }
}
