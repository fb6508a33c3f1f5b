//! What goes wrong in a phase, as the failure that a user is told.

use domain::failure::{Failure, FailurePhase, FailureReason};

use super::Interruption;
use crate::artifact::ArtifactError;
use crate::image::{ImageError, ImageFailure};
use crate::layers::{OverlayError, StoreError};
use crate::output::mask::Mask;
use crate::rootfs::RootfsError;
use crate::vmm::VmmError;
use domain::causes::chain;

/// A defect or a broken host: the message is for who runs the service, too.
pub(super) fn internal(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(
        FailureReason::Internal,
        format!("The builder failed: {}.", chain(error)),
    )
}

/// The same failure without the secret values that a tool may have put into its words.
pub(super) fn masked(failure: Failure, mask: &Mask) -> Failure {
    let hide = |text: String| mask.hide(text);
    Failure {
        message: hide(failure.message),
        stderr_tail: failure.stderr_tail.into_iter().map(hide).collect(),
        details: failure
            .details
            .into_iter()
            .map(|(name, value)| (name, hide(value)))
            .collect(),
        ..failure
    }
}

/// Runs file operations where they may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Interruption> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| internal(&error).into())
}

pub(super) fn io(what: &str, error: &std::io::Error) -> Failure {
    if matches!(
        error.kind(),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
    ) {
        return Failure::new(
            FailureReason::DiskFull,
            format!("No space is left to {what}."),
        );
    }
    Failure::new(
        FailureReason::Internal,
        format!("The builder could not {what}: {error}."),
    )
}

pub(super) fn image(error: &ImageError) -> Failure {
    let reason = match error.reason() {
        ImageFailure::BadReference | ImageFailure::NotFound | ImageFailure::ForbiddenAddress => {
            FailureReason::BadReference
        }
        ImageFailure::UnsupportedPlatform => FailureReason::UnsupportedPlatform,
        ImageFailure::Unsafe => FailureReason::ImageUnsafe,
        ImageFailure::Unauthorized => FailureReason::RegistryUnauthorized,
        ImageFailure::Pull => FailureReason::ImagePull,
        ImageFailure::DiskFull => FailureReason::DiskFull,
    };
    let failure = Failure::new(reason, chain(error));
    if reason == FailureReason::DiskFull {
        failure.in_phase(FailurePhase::Prepare)
    } else {
        failure
    }
}

pub(super) fn store(error: &StoreError) -> Failure {
    if error.is_disk_full() {
        return Failure::new(FailureReason::DiskFull, "No space is left for a layer.");
    }
    internal(error)
}

pub(super) fn overlay(error: &OverlayError) -> Failure {
    internal(error)
}

pub(super) fn rootfs(error: &RootfsError) -> Failure {
    match error {
        RootfsError::DiskFull { .. } => {
            Failure::new(FailureReason::DiskFull, chain(error)).in_phase(FailurePhase::Finalize)
        }
        RootfsError::MountPoint { .. }
        | RootfsError::TooManyEntries { .. }
        | RootfsError::TooLarge { .. } => {
            Failure::new(FailureReason::StepFailed, chain(error)).in_phase(FailurePhase::Finalize)
        }
        RootfsError::View { .. }
        | RootfsError::Image { .. }
        | RootfsError::DoesNotFit { .. }
        | RootfsError::Shrink { .. }
        | RootfsError::NotGrown { .. }
        | RootfsError::Damaged { .. }
        | RootfsError::Tool { .. }
        | RootfsError::MissingTool { .. }
        | RootfsError::Lost(_) => internal(error),
    }
}

/// A machine's failure, as `reason` of the phase in which it showed.
pub(super) fn machine(reason: FailureReason, error: &VmmError) -> Failure {
    Failure::new(reason, chain(error))
}

pub(super) fn artifact(error: &ArtifactError) -> Failure {
    if matches!(error, ArtifactError::DiskFull { .. }) {
        return Failure::new(
            FailureReason::DiskFull,
            "No space is left for the artifact.",
        )
        .in_phase(FailurePhase::Finalize);
    }
    internal(error)
}
