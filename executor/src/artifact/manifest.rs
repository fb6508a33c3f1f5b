//! What an artifact says about itself, and how its name follows from that. The stored form is
//! frozen: the files in `manifest/` are read and written by a test.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use domain::Digest;
use domain::build::{BaseResolved, FileRecord, OciMetadata, RestoreCheck, VmmIdentity};
use domain::definition::Readiness;
use domain::digest::Hasher;
use domain::ids::ArtifactId;
use domain::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ArtifactError, corrupt};

/// The version of the stored form that this program reads and writes.
pub const SCHEMA_VERSION: u32 = 1;

/// The fields that are not content: a name cannot hold itself, and the same content made at
/// another time is the same artifact.
const NOT_CONTENT: [&str; 2] = ["artifact_id", "created_at"];

/// The manifest of an artifact. It never holds a secret's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The digest of everything here but this and `created_at`.
    pub artifact_id: ArtifactId,
    /// When it was published.
    pub created_at: Timestamp,
    /// What it was built from; nothing if it was built from scratch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseResolved>,
    /// `rootfs.ext4`, which can be used without the rest.
    pub rootfs: FileRecord,
    /// `memory`.
    pub memory: FileRecord,
    /// `device-state`.
    pub device_state: FileRecord,
    /// The machine that was captured.
    pub machine: Machine,
    /// What `memory` and `device-state` are bound to.
    pub vmm: VmmIdentity,
    /// What commands in the machine start with.
    pub runtime: Runtime,
    /// How the start command showed that it is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
    /// How it was restored before it was published.
    pub restore_check: RestoreCheck,
    /// Metadata of the base image.
    #[serde(default)]
    pub oci: OciMetadata,
    /// The keys of the layers that the root filesystem was made of, bottom first: what a template
    /// on top of this one starts from. Nothing in an artifact of before they were written down.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Digest>,
}

/// What the hardware of a captured machine was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// How many processors.
    pub vcpus: u32,
    /// How much memory, in MiB.
    pub memory_mib: u64,
    /// Whether it has a network device.
    pub network: bool,
    /// Its name.
    pub hostname: String,
}

/// What commands in a machine start with, and the one that is running already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// The environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The working folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// The start command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_cmd: Option<String>,
}

/// What is told about an artifact by who makes it; the rest of the manifest follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// See [`Manifest::created_at`].
    pub created_at: Timestamp,
    /// See [`Manifest::base`].
    pub base: Option<BaseResolved>,
    /// See [`Manifest::machine`].
    pub machine: Machine,
    /// See [`Manifest::vmm`].
    pub vmm: VmmIdentity,
    /// See [`Manifest::runtime`].
    pub runtime: Runtime,
    /// See [`Manifest::readiness`].
    pub readiness: Option<Readiness>,
    /// See [`Manifest::restore_check`].
    pub restore_check: RestoreCheck,
    /// See [`Manifest::oci`].
    pub oci: OciMetadata,
    /// See [`Manifest::layers`].
    pub layers: Vec<Digest>,
}

impl Description {
    /// The manifest of an artifact with these files.
    pub(super) fn manifest(
        self,
        rootfs: FileRecord,
        memory: FileRecord,
        device_state: FileRecord,
    ) -> Result<Manifest, ArtifactError> {
        let mut manifest = Manifest {
            schema_version: SCHEMA_VERSION,
            artifact_id: ArtifactId::of(&Digest::ZERO),
            created_at: self.created_at,
            base: self.base,
            rootfs,
            memory,
            device_state,
            machine: self.machine,
            vmm: self.vmm,
            runtime: self.runtime,
            readiness: self.readiness,
            restore_check: self.restore_check,
            oci: self.oci,
            layers: self.layers,
        };
        manifest.artifact_id = manifest.content_id()?;
        Ok(manifest)
    }
}

impl Manifest {
    /// The stored form.
    pub(super) fn encode(&self) -> Result<Vec<u8>, ArtifactError> {
        let mut encoded = serde_json::to_vec_pretty(self).map_err(ArtifactError::Encode)?;
        encoded.push(b'\n');
        Ok(encoded)
    }

    /// Reads the stored form of the artifact `id`; any change to it shows in its name.
    pub(super) fn decode(encoded: &[u8], id: &ArtifactId) -> Result<Self, ArtifactError> {
        let not_json = |error| corrupt(id, format!("the manifest makes no sense: {error}"));
        let value: Value = serde_json::from_slice(encoded).map_err(not_json)?;
        // The version comes first: a later form may not be readable at all.
        match value.get("schema_version").and_then(Value::as_u64) {
            Some(found) if found == u64::from(SCHEMA_VERSION) => {}
            Some(found) => {
                return Err(ArtifactError::Schema {
                    id: id.clone(),
                    found,
                });
            }
            None => return Err(corrupt(id, "the manifest has no version")),
        }
        let content = content_id(value.clone());
        let manifest: Self = serde_json::from_value(value).map_err(not_json)?;
        if content != *id || manifest.artifact_id != *id {
            return Err(corrupt(id, "the manifest was changed"));
        }
        Ok(manifest)
    }

    fn content_id(&self) -> Result<ArtifactId, ArtifactError> {
        let value = serde_json::to_value(self).map_err(ArtifactError::Encode)?;
        Ok(content_id(value))
    }
}

/// The name that follows from the fields of a manifest.
fn content_id(mut manifest: Value) -> ArtifactId {
    if let Value::Object(fields) = &mut manifest {
        fields.retain(|name, _| !NOT_CONTENT.contains(&name.as_str()));
    }
    let mut canonical = String::new();
    write_canonical(&manifest, &mut canonical);
    ArtifactId::of(&Hasher::new("artifact/v1").field(canonical).finish())
}

/// JSON without spaces and with sorted names, whatever order `serde_json` was built to keep.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let fields: BTreeMap<&String, &Value> = fields.iter().collect();
            out.push('{');
            for (index, (name, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_scalar(&Value::String(name.clone()), out);
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            write_scalar(value, out);
        }
    }
}

fn write_scalar(value: &Value, out: &mut String) {
    write!(out, "{value}").expect("a string takes everything");
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    /// A description with something in every field.
    pub(in super::super) fn description() -> Description {
        let kernel = Digest::of(b"kernel");
        Description {
            created_at: Timestamp::from_unix_micros(1_795_000_000_123_456).unwrap(),
            base: Some(BaseResolved {
                reference: "python:3.11".into(),
                digest: Digest::of(b"base"),
            }),
            machine: Machine {
                vcpus: 2,
                memory_mib: 512,
                network: true,
                hostname: "my-app".into(),
            },
            vmm: VmmIdentity {
                kind: "qemu".into(),
                version: "7.2.22".into(),
                accelerator: "tcg".into(),
                cpu_model: "max".into(),
                machine: "microvm".into(),
                kernel_digest: kernel,
                agent_digest: Digest::of(b"agent"),
            },
            runtime: Runtime {
                env: [("LANG".to_owned(), "C.UTF-8".to_owned())].into(),
                user: Some("app".into()),
                workdir: Some("/srv".into()),
                start_cmd: Some("python -m http.server".into()),
            },
            readiness: serde_json::from_value(json!({
                "kind": "tcp", "port": 8000,
                "timeout_secs": 30, "interval_ms": 500, "startup_grace_secs": 2,
            }))
            .unwrap(),
            restore_check: RestoreCheck {
                restore_ms: 120,
                disk_bytes: 2 << 30,
            },
            oci: OciMetadata {
                labels: [("maintainer".to_owned(), "nobody".to_owned())].into(),
                exposed_ports: vec!["8000/tcp".into()],
                volumes: vec!["/data".into()],
                healthcheck: None,
            },
            layers: vec![Digest::of(b"bottom"), Digest::of(b"top")],
        }
    }

    /// A manifest as it was before layers were written down.
    fn sample() -> Manifest {
        manifest(Description {
            layers: Vec::new(),
            ..description()
        })
    }

    fn manifest(description: Description) -> Manifest {
        let record = |content: &[u8], bytes| FileRecord {
            digest: Digest::of(content),
            bytes,
        };
        description
            .manifest(
                record(b"rootfs", 2 << 30),
                record(b"memory", 512 << 20),
                record(b"state", 70_000),
            )
            .unwrap()
    }

    const GOLDEN: &str = include_str!("manifest/v1.json");
    const GOLDEN_WITH_LAYERS: &str = include_str!("manifest/v1-layers.json");

    #[test]
    fn the_stored_form_is_frozen() {
        for (manifest, golden) in [
            (sample(), GOLDEN),
            (manifest(description()), GOLDEN_WITH_LAYERS),
        ] {
            let encoded = String::from_utf8(manifest.encode().unwrap()).unwrap();
            assert_eq!(encoded, golden);
            let decoded = Manifest::decode(golden.as_bytes(), &manifest.artifact_id).unwrap();
            assert_eq!(decoded, manifest);
        }
    }

    #[test]
    fn other_layers_are_another_artifact() {
        let turned = Description {
            layers: description().layers.into_iter().rev().collect(),
            ..description()
        };
        let names: BTreeSet<_> = [sample(), manifest(description()), manifest(turned)]
            .map(|manifest| manifest.artifact_id)
            .into();
        assert_eq!(names.len(), 3);
    }

    #[test]
    fn the_name_follows_from_the_content_alone() {
        let manifest = sample();
        let mut later = manifest.clone();
        later.created_at = Timestamp::from_unix_micros(0).unwrap();
        assert_eq!(later.content_id().unwrap(), manifest.artifact_id);
        let mut other = manifest.clone();
        other.machine.network = false;
        assert_ne!(other.content_id().unwrap(), manifest.artifact_id);
    }

    #[test]
    fn every_change_to_a_stored_manifest_is_found() {
        let id = sample().artifact_id;
        for (from, to) in [
            ("\"vcpus\": 2", "\"vcpus\": 4"),
            (
                "\"schema_version\": 1",
                "\"schema_version\": 1, \"added\": true",
            ),
            ("\"user\": \"app\",", ""),
            ("{", ""),
        ] {
            let changed = GOLDEN.replacen(from, to, 1);
            assert_ne!(changed, GOLDEN);
            let error = Manifest::decode(changed.as_bytes(), &id).unwrap_err();
            assert!(
                matches!(error, ArtifactError::Corrupt { .. }),
                "{from}: {error}"
            );
        }
    }

    #[test]
    fn another_version_is_told_apart_from_damage() {
        let id = sample().artifact_id;
        let error = Manifest::decode(br#"{"schema_version": 2}"#, &id).unwrap_err();
        assert!(
            matches!(error, ArtifactError::Schema { found: 2, .. }),
            "{error}"
        );
    }

    #[test]
    fn canonical_json_sorts_names_at_every_depth() {
        let mut out = String::new();
        write_canonical(
            &json!({"b": [{"d": 1, "c": "\u{e9}\n"}], "a": null}),
            &mut out,
        );
        assert_eq!(out, "{\"a\":null,\"b\":[{\"c\":\"\u{e9}\\n\",\"d\":1}]}");
    }
}
