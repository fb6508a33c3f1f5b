//! The worker: it consumes accepted builds, drives the tools that make a template of them, and
//! reports outcomes as commands.

pub mod artifact;
pub mod image;
pub mod layers;
pub mod limits;
pub mod native;
pub mod output;
pub mod process;
pub mod rootfs;
pub mod vmm;
