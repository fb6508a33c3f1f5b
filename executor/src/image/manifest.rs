//! The documents of an image: index, manifest and configuration, read with distrust.

use std::collections::{BTreeMap, BTreeSet};

use domain::Digest;
use serde::{Deserialize, Serialize};

use super::error::ImageError;
use super::reference::{ImageName, ImageReference};
use crate::limits::layers::ImageLimits;

const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// The documents that a registry is asked for.
pub(super) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";
const CONFIG_TYPES: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];
/// Tar archives. How they are compressed is seen in their bytes: the names are not always right.
const LAYER_TYPES: [&str; 6] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];
/// Words in the types of layers that a registry does not keep itself: they would have to be fetched
/// from wherever the manifest says.
const FOREIGN_WORDS: [&str; 2] = [".nondistributable.", ".foreign."];
/// Marks documents about an image, such as its provenance, in an index.
const ATTACHED_TO: &str = "vnd.docker.reference.type";

/// An image pinned by digest, with what is needed to pull and to run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The name it was resolved from.
    pub reference: ImageReference,
    /// The digest of the manifest for linux/amd64.
    pub manifest_digest: Digest,
    /// How its containers run.
    pub config: ImageConfig,
    /// Its layers, bottom first.
    pub layers: Vec<LayerDescriptor>,
}

impl ResolvedImage {
    /// The name, pinned to the manifest.
    pub fn pinned(&self) -> ImageReference {
        self.reference.pinned(self.manifest_digest)
    }
}

/// One layer of an image as a registry keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerDescriptor {
    /// The digest of the layer as it is transferred.
    pub digest: Digest,
    /// Its bytes as it is transferred.
    pub size_bytes: u64,
    /// What the manifest calls its format.
    pub media_type: String,
    /// The digest of the uncompressed archive.
    pub diff_id: Digest,
}

/// What an image says about how its containers run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Environment, each `NAME=value`.
    pub env: Vec<String>,
    /// User, and perhaps group, by name or number; empty for root.
    pub user: String,
    /// Folder in which commands start; empty for `/`.
    pub working_dir: String,
    /// The program and the arguments that come before the command.
    pub entrypoint: Vec<String>,
    /// The command, or the arguments of the entry point.
    pub cmd: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ports that it serves, as `PORT/PROTOCOL`.
    pub exposed_ports: BTreeSet<String>,
    /// Folders that are meant for mounts.
    pub volumes: BTreeSet<String>,
    /// How to tell whether it is well.
    pub healthcheck: Option<Healthcheck>,
    /// Instructions that a Dockerfile on top of it runs first (`ONBUILD`).
    pub on_build: Vec<String>,
}

/// A container's check of itself. Times are nanoseconds; 0 means unset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", line]`.
    #[serde(alias = "Test", deserialize_with = "nullable")]
    pub test: Vec<String>,
    /// Time between two checks.
    #[serde(alias = "Interval")]
    pub interval_ns: i64,
    /// Time that one check may take.
    #[serde(alias = "Timeout")]
    pub timeout_ns: i64,
    /// Time before failures count.
    #[serde(alias = "StartPeriod")]
    pub start_period_ns: i64,
    /// Failures in a row that count as ill.
    #[serde(alias = "Retries")]
    pub retries: i64,
}

/// A reference from one document to another.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    platform: Option<Platform>,
    #[serde(default, deserialize_with = "nullable")]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    variant: String,
}

impl Platform {
    fn is_ours(&self) -> bool {
        // `v1` is every amd64 machine; higher levels may not run here.
        self.os == "linux"
            && self.architecture == "amd64"
            && matches!(self.variant.as_str(), "" | "v1")
    }

    fn name(&self) -> String {
        let variant = match self.variant.as_str() {
            "" => String::new(),
            variant => format!("/{variant}"),
        };
        format!("{}/{}{variant}", self.os, self.architecture)
    }
}

/// What a manifest's bytes turned out to be.
pub(super) enum Manifest {
    Index(Index),
    Image {
        config: Descriptor,
        layers: Vec<Descriptor>,
    },
}

/// Where an index leads.
pub(super) struct Index {
    /// The documents that may be the image for our platform, or lead to it, best first.
    pub(super) candidates: Vec<Digest>,
    /// The platforms that it names.
    pub(super) offered: BTreeSet<String>,
}

/// Why a configuration gives no image.
pub(super) enum Unread {
    /// It is one for another platform.
    Platform(String),
    Refused(ImageError),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestDocument {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

/// Reads a manifest or an index.
pub(super) fn read_manifest(
    image: &ImageName,
    body: &[u8],
    limits: &ImageLimits,
) -> Result<Manifest, ImageError> {
    let document: ManifestDocument = serde_json::from_slice(body)
        .map_err(|error| refused(image, format!("its manifest is not valid: {error}")))?;
    if document.schema_version == 1 {
        let what = "its manifest has the old schema version 1; push it again with a present tool";
        return Err(refused(image, what.to_owned()));
    }
    if document.schema_version != 2 {
        return Err(refused(
            image,
            "its manifest has an unknown schema version".to_owned(),
        ));
    }
    let media_type = document.media_type.as_str();
    let may_be = |types: [&str; 2]| media_type.is_empty() || types.contains(&media_type);
    match (document.manifests, document.config, document.layers) {
        (Some(manifests), None, None) if may_be(INDEX_TYPES) => {
            Ok(Manifest::Index(choose(&manifests)))
        }
        (None, Some(config), Some(layers)) if may_be(MANIFEST_TYPES) => {
            if layers.len() > limits.layers_max {
                let what = format!(
                    "it has {} layers, more than {}",
                    layers.len(),
                    limits.layers_max
                );
                return Err(refused(image, what));
            }
            Ok(Manifest::Image { config, layers })
        }
        // A document that is both could be read differently by whoever checked it (CVE-2021-41190).
        (_, _, _) => Err(refused(
            image,
            "its manifest is neither an image's nor an index".to_owned(),
        )),
    }
}

/// What to look at: the first image for our platform; without one, what does not say what it is
/// for, such as an index in an index.
fn choose(manifests: &[Descriptor]) -> Index {
    let images = || {
        let mut entries = manifests.iter();
        std::iter::from_fn(move || {
            entries.find(|entry| !entry.annotations.contains_key(ATTACHED_TO))
        })
    };
    let platforms = || images().filter_map(|entry| Some((entry, entry.platform.as_ref()?)));
    let ours = platforms().find(|(_, platform)| platform.is_ours());
    let unsaid = images().filter(|entry| {
        let media_type = entry.media_type.as_str();
        entry.platform.is_none()
            && (INDEX_TYPES.contains(&media_type) || MANIFEST_TYPES.contains(&media_type))
    });
    let offered = platforms().map(|(_, platform)| platform.name());
    Index {
        candidates: match ours {
            Some((entry, _)) => vec![entry.digest],
            None => unsaid.map(|entry| entry.digest).collect(),
        },
        // Attestations are listed under a platform of this name.
        offered: offered.filter(|name| name != "unknown/unknown").collect(),
    }
}

#[derive(Deserialize)]
struct ConfigDocument {
    #[serde(flatten)]
    platform: Platform,
    #[serde(default, deserialize_with = "nullable")]
    config: Container,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "nullable")]
    diff_ids: Vec<Digest>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Container {
    #[serde(deserialize_with = "nullable")]
    env: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    user: String,
    #[serde(deserialize_with = "nullable")]
    working_dir: String,
    #[serde(deserialize_with = "nullable")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "nullable")]
    volumes: BTreeMap<String, serde_json::Value>,
    healthcheck: Option<Healthcheck>,
    #[serde(deserialize_with = "nullable")]
    on_build: Vec<String>,
}

/// Checks that a manifest is that of a container image.
pub(super) fn check_types(
    image: &ImageName,
    config: &Descriptor,
    layers: &[Descriptor],
    limits: &ImageLimits,
) -> Result<(), ImageError> {
    if !CONFIG_TYPES.contains(&config.media_type.as_str()) {
        let what = format!("it is no container image but `{}`", config.media_type);
        return Err(refused(image, what));
    }
    if config.size > limits.config_bytes_max {
        let what = format!(
            "its configuration exceeds {} bytes",
            limits.config_bytes_max
        );
        return Err(refused(image, what));
    }
    for layer in layers {
        if FOREIGN_WORDS
            .iter()
            .any(|word| layer.media_type.contains(word))
        {
            let what = format!(
                "a layer is not kept by the registry (`{}`)",
                layer.media_type
            );
            return Err(refused(image, what));
        }
        if !LAYER_TYPES.contains(&layer.media_type.as_str()) {
            let what = format!("a layer has the unsupported format `{}`", layer.media_type);
            return Err(refused(image, what));
        }
        if layer.size > limits.blob_bytes_max {
            let what = format!("a layer exceeds {} bytes", limits.blob_bytes_max);
            return Err(refused(image, what));
        }
    }
    Ok(())
}

/// Reads a configuration and joins it with the layers of its manifest.
pub(super) fn read_config(
    image: &ImageName,
    body: &[u8],
    layers: Vec<Descriptor>,
) -> Result<(ImageConfig, Vec<LayerDescriptor>), Unread> {
    let refused = |what| Unread::Refused(refused(image, what));
    let document: ConfigDocument = serde_json::from_slice(body)
        .map_err(|error| refused(format!("its configuration is not valid: {error}")))?;
    if !document.platform.is_ours() {
        return Err(Unread::Platform(document.platform.name()));
    }
    let diff_ids = document.rootfs.diff_ids;
    if diff_ids.len() != layers.len() {
        let what = format!(
            "it has {} layers and {} digests of them",
            layers.len(),
            diff_ids.len()
        );
        return Err(refused(what));
    }
    let layers = layers
        .into_iter()
        .zip(diff_ids)
        .map(|(layer, diff_id)| LayerDescriptor {
            digest: layer.digest,
            size_bytes: layer.size,
            media_type: layer.media_type,
            diff_id,
        });
    let container = document.config;
    let config = ImageConfig {
        env: container.env,
        user: container.user,
        working_dir: container.working_dir,
        entrypoint: container.entrypoint,
        cmd: container.cmd,
        labels: container.labels,
        exposed_ports: container.exposed_ports.into_keys().collect(),
        volumes: container.volumes.into_keys().collect(),
        healthcheck: container.healthcheck,
        on_build: container.on_build,
    };
    Ok((config, layers.collect()))
}

/// Image tools write `null` for what is empty.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn refused(image: &ImageName, what: String) -> ImageError {
    ImageError::Refused {
        image: image.clone(),
        what,
    }
}

/// There is nothing for our platform, but perhaps for these.
pub(super) fn unsupported(image: &ImageName, offered: BTreeSet<String>) -> ImageError {
    let offered: Vec<String> = offered.into_iter().collect();
    let offered = match offered.as_slice() {
        [] => "no platform".to_owned(),
        some => some.join(", "),
    };
    ImageError::UnsupportedPlatform {
        image: image.clone(),
        offered,
    }
}
