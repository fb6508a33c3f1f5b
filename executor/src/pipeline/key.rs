//! The key of a finished artifact: everything that decides what is in it.

use domain::Digest;
use domain::build::{BypassReason, CacheKind, CacheSubject};
use domain::digest::Hasher;

use super::Job;
use super::base::Base;
use super::settle::Settled;
use super::steps::RootfsKey;
use crate::services::Services;

/// Under what a finished artifact is looked up, and whether it is.
#[derive(Clone, Debug)]
pub(super) struct ArtifactKey {
    pub(super) digest: Digest,
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

/// The key of the artifact that `job` makes on top of the root filesystem `rootfs`.
pub(super) fn artifact(
    rootfs: RootfsKey,
    job: &Job,
    base: &Base,
    runtime: &Settled,
    services: &Services,
) -> ArtifactKey {
    let config = &job.requested.definition.config;
    // Values with a JSON form, hashed by it: field order is the declaration's, maps are sorted.
    let json = |value: serde_json::Result<Vec<u8>>| {
        value.expect("these types have string keys and no failing serializer")
    };
    let digest = Hasher::new("final-artifact/v2")
        .field(rootfs.digest.as_bytes())
        .field(json(serde_json::to_vec(config)))
        .field(json(serde_json::to_vec(runtime)))
        // Templates of the same layers may say different things about their images.
        .field(json(serde_json::to_vec(&base.oci)))
        .field(json(serde_json::to_vec(services.vmm.identity())))
        .field(services.limits.rootfs.headroom_bytes.to_le_bytes())
        .finish();
    let requested = &job.requested;
    ArtifactKey {
        digest,
        bypass: rootfs.bypass,
        subject: format!("{}/{}", requested.namespace, requested.name),
    }
}
