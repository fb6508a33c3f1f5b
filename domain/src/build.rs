//! A build: what has happened to it, and what may happen next.
//!
//! ```text
//!              Start              Complete
//!  Waiting ───────────► Building ───────────► Ready
//!    │  ▲                 │  │
//!    │  └─ Fail (retried) ┘  │ Fail (for good)
//!    │                    │  └──────────────► Failed
//!    │ Cancel      Cancel ▼
//!    │               Cancelling ──Confirm───► Cancelled
//!    └──────────────────────────────────────►
//! ```

mod artifact;
mod base;
mod decide;
mod event;
mod evolve;
#[cfg(test)]
mod properties;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use artifact::*;
pub use base::{BaseTemplate, PinnedBase};
pub use decide::{Command, Rejection, RetryRequest, decide, retry};
pub use event::*;
pub use evolve::{CorruptStream, evolve, replay};

use crate::failure::Failure;
use crate::ids::ArtifactId;
use crate::name::SecretId;

/// How often a build is attempted by itself unless the request says otherwise.
pub const ATTEMPTS_MAX_DEFAULT: u32 = 2;

/// The number of an attempt within its build. A report that carries another number than the
/// current attempt's comes too late, and is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

/// The state of a build. Each variant carries only what exists then.
#[derive(Clone, Debug, PartialEq)]
pub enum Build {
    /// Nothing was requested under this id.
    Absent,
    /// Accepted; no worker has it.
    Waiting(Accepted),
    /// A worker has it.
    Building(Accepted, Attempt),
    /// A worker has it and has been asked to stop.
    Cancelling(Accepted, Attempt),
    /// The template is there.
    Ready(Accepted, ArtifactId),
    /// It failed for good.
    Failed(Accepted, Failure),
    /// It was stopped before it was ready.
    Cancelled(Accepted),
}

/// What every accepted build has.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The request, as it is stored.
    pub requested: Box<Requested>,
    /// How many log entries there are: the offset of the next one.
    pub next_offset: u64,
    /// How many attempts were started.
    pub attempt_count: u32,
}

/// What a build has while a worker has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its fence.
    pub fence: Fence,
    /// The root filesystem has its size, or a finished artifact was found: it may be published.
    pub sized: bool,
}

impl Build {
    /// What was accepted, if anything was.
    pub fn accepted(&self) -> Option<&Accepted> {
        match self {
            Self::Absent => None,
            Self::Waiting(accepted)
            | Self::Building(accepted, _)
            | Self::Cancelling(accepted, _)
            | Self::Ready(accepted, _)
            | Self::Failed(accepted, _)
            | Self::Cancelled(accepted) => Some(accepted),
        }
    }

    /// Whether nothing can happen to the build any more.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Ready(..) | Self::Failed(..) | Self::Cancelled(_) => true,
            Self::Absent | Self::Waiting(_) | Self::Building(..) | Self::Cancelling(..) => false,
        }
    }

    /// The ids of the secrets that the build was requested with.
    pub fn secret_ids(&self) -> BTreeSet<SecretId> {
        self.accepted()
            .map(|accepted| {
                accepted
                    .requested
                    .definition
                    .secret_ids
                    .iter()
                    .cloned()
                    .collect()
            })
            .unwrap_or_default()
    }
}
