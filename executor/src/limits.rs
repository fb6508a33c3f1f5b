//! Every bound of the worker, with its unit; all of them can be configured.

pub mod artifact;
pub mod layers;
pub mod native;
pub mod output;
pub mod rootfs;
pub mod vmm;
