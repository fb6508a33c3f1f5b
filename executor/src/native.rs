//! The native backend: every step of a declarative template in a container of its own, or done by our
//! own code inside the step's view.
//!
//! - [`container`]: one command in a container, with nothing of the host and nothing left of it.
//! - [`network`]: a network namespace that reaches the Internet and nothing of the host.
//! - [`view`]: file operations that cannot leave a root filesystem.

pub mod account;
pub mod builder;
mod bundle;
mod cgroup;
pub mod container;
pub mod context;
pub mod disk;
pub mod files;
pub mod git;
pub mod identity;
pub mod key;
mod mountpoints;
pub mod network;
mod oci_spec;
mod running;
mod seccomp;
pub mod step;
pub mod step_root;
mod supervisor;
mod tail;
pub mod view;

pub(crate) use builder::mounted_below;
pub(crate) use cgroup::groups_exist;
pub use container::{Containers, NetworkAccess};
pub use network::{FilteredNetwork, NetworkError};

#[cfg(test)]
mod container_tests;
#[cfg(test)]
mod isolation_tests;
#[cfg(test)]
mod network_tests;
#[cfg(test)]
mod testkit;
