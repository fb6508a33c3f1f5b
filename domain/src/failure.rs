//! Why builds fail: the reasons, the phase that each shows in, and which of them are worth a retry.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The part of a build that failed, in the wire's closed vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailurePhase {
    /// Credentials were refused.
    Auth,
    /// Files were announced wrongly.
    Preflight,
    /// A file's content did not arrive as announced.
    BlobUpload,
    /// The base image could not be had.
    Prepare,
    /// A step failed.
    BuildStep,
    /// The start command or its probe failed.
    Readiness,
    /// The machine could not be booted, captured or restored.
    Snapshot,
    /// The result could not be published.
    Finalize,
    /// The worker was lost.
    Interrupted,
}

impl FailurePhase {
    /// The wire's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Preflight => "preflight",
            Self::BlobUpload => "blob_upload",
            Self::Prepare => "prepare",
            Self::BuildStep => "build_step",
            Self::Readiness => "readiness",
            Self::Snapshot => "snapshot",
            Self::Finalize => "finalize",
            Self::Interrupted => "interrupted",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident, $text:literal, $phase:ident, $retryable:literal, $infrastructure:literal, $action:literal;)*) => {
        /// Why a build failed. Travels as `details.reason`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum FailureReason {
            $($(#[$doc])* $name,)*
        }

        impl FailureReason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word that travels as `details.reason`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The phase that this reason shows in, unless the failure says otherwise.
            pub const fn phase(self) -> FailurePhase {
                match self { $(Self::$name => FailurePhase::$phase,)* }
            }

            /// Whether the same definition may succeed when it is built again.
            pub const fn retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)* }
            }

            /// Whether the build is tried again by itself: the cause lies with us, and nobody
            /// has to bring anything.
            pub const fn retried_by_itself(self) -> bool {
                match self { $(Self::$name => $infrastructure,)* }
            }

            /// What the user can do about it.
            pub const fn suggested_action(self) -> &'static str {
                match self { $(Self::$name => $action,)* }
            }
        }
    };
}

// Design, section 3: reason, phase, retryable. Then: retried by itself, and what to do.
reasons! {
    /// The base image's name is not one, or nothing has that name.
    BadReference, "bad_reference", Prepare, false, false,
        "Check the spelling of the base image and that the registry holds it.";
    /// The image does not run on linux/amd64.
    UnsupportedPlatform, "unsupported_platform", Prepare, false, false,
        "Use an image that is published for linux/amd64.";
    /// The image's content is not what its manifest says, or it would write outside its root.
    ImageUnsafe, "image_unsafe", Prepare, false, false,
        "Rebuild and push the base image; a layer does not match its manifest or is malformed.";
    /// What the base template is made of is not there any more.
    BaseUnavailable, "base_unavailable", Prepare, true, false,
        "Build the base template again, then this one.";
    /// The registry wants other credentials.
    RegistryUnauthorized, "registry_unauthorized", Auth, false, false,
        "Pass base_image_auth with credentials that may pull the image.";
    /// The registry failed: 5xx, 429, time-out, connection reset.
    ImagePull, "image_pull", Prepare, true, true,
        "Retry the build; if it fails again, check that the registry is reachable.";
    /// A step exited with another code than 0.
    StepFailed, "step_failed", BuildStep, false, false,
        "Read the step's last lines in the log, correct the step and build again.";
    /// The base and the steps are more layers than a template may have.
    TooManyLayers, "too_many_layers", BuildStep, false, false,
        "Join commands into fewer steps, or start from a base with fewer layers.";
    /// The Dockerfile cannot be understood.
    DockerfileInvalid, "dockerfile_invalid", BuildStep, false, false,
        "Correct the Dockerfile at the line named in the message.";
    /// The Dockerfile asks for a secret that the request did not bring.
    SecretMissing, "secret_missing", BuildStep, false, false,
        "Pass a value for the secret in build_secrets.";
    /// The Dockerfile fetches something while the build has no network.
    NetworkOff, "network_off", BuildStep, false, false,
        "Set internet_access to true, or bring what the Dockerfile fetches in the build context.";
    /// The Dockerfile asks for something that builds may not have.
    NotPermitted, "not_permitted", BuildStep, false, false,
        "Write the Dockerfile without what the message names.";
    /// No BuildKit daemon answers, or the one that built was lost.
    BuilderUnavailable, "builder_unavailable", BuildStep, true, true,
        "Retry the build; if it fails again, the operator can look at the BuildKit daemons with `nullspaced doctor`.";
    /// No space is left where the build works.
    DiskFull, "disk_full", BuildStep, true, false,
        "Let the step write less, or retry later; the operator can free space in the data folder.";
    /// The build or a step took longer than it may.
    Timeout, "timeout", BuildStep, false, false,
        "Make the step faster or split it; the limit is named in the message.";
    /// A step used more memory than it may.
    OutOfMemory, "out_of_memory", BuildStep, false, false,
        "Raise build_config.memory_mib or let the step use less memory.";
    /// The machine did not come up.
    BootFailed, "boot_failed", Snapshot, true, true,
        "Retry the build; if it fails again, read the console's last lines in the log.";
    /// The machine could not be captured.
    SnapshotFailed, "snapshot_failed", Snapshot, true, true, "Retry the build.";
    /// The snapshot did not restore.
    VerifyFailed, "verify_failed", Snapshot, true, true, "Retry the build.";
    /// The start command ended with a failure.
    StartCommandFailed, "start_command_failed", Readiness, false, false,
        "Read the start command's last lines in the log and correct it.";
    /// The readiness probe did not pass in its time.
    ReadinessTimeout, "readiness_timeout", Readiness, false, false,
        "Check that the start command serves what the probe asks for, or give it more time.";
    /// The worker ended while it built.
    WorkerLost, "worker_lost", Interrupted, true, true, "Retry the build.";
    /// The worker ended and with it the credentials and secret values of the request.
    SecretsLost, "secrets_lost", Interrupted, true, false,
        "Retry the build and pass the credentials, and values for the same secret ids, again.";
    /// A secret's value was found in the built files.
    SecretLeaked, "secret_leaked", BuildStep, false, false,
        "Do not write the secret into the image; mount it only in the step that needs it.";
    /// A defect of the service.
    Internal, "internal", Finalize, true, true,
        "Retry the build; if it fails again, report the build id.";
}

/// A failure of a build, whole: what a user is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Why.
    pub reason: FailureReason,
    /// Where.
    pub phase: FailurePhase,
    /// What happened, in a sentence.
    pub message: String,
    /// The step that failed, 1-based.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_index: Option<u32>,
    /// The step's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The last lines of the step's standard error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stderr_tail: Vec<String>,
    /// More facts, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

impl Failure {
    /// A failure in the reason's usual phase.
    pub fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            phase: reason.phase(),
            message: message.into(),
            step_index: None,
            exit_code: None,
            stderr_tail: Vec::new(),
            details: BTreeMap::new(),
        }
    }

    /// The same failure, seen in another phase.
    #[must_use]
    pub fn in_phase(mut self, phase: FailurePhase) -> Self {
        self.phase = phase;
        self
    }

    /// The same failure with one more fact.
    #[must_use]
    pub fn with_detail(mut self, name: &str, value: impl Into<String>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// The wire's `code`: refused credentials and defects of the service have one of their own.
    pub const fn code(&self) -> &'static str {
        match self.phase {
            FailurePhase::Auth => "unauthorized",
            FailurePhase::Preflight | FailurePhase::BlobUpload => "file_upload_error",
            FailurePhase::Prepare
            | FailurePhase::BuildStep
            | FailurePhase::Readiness
            | FailurePhase::Snapshot
            | FailurePhase::Finalize
            | FailurePhase::Interrupted => {
                if matches!(self.reason, FailureReason::Internal) {
                    "internal_error"
                } else {
                    "build_error"
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_word_is_the_wire_word() {
        for reason in FailureReason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }

    #[test]
    fn what_is_retried_by_itself_is_retryable() {
        for reason in FailureReason::ALL {
            assert!(
                !reason.retried_by_itself() || reason.retryable(),
                "{reason:?}"
            );
        }
    }
}
