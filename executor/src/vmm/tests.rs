//! The driver on real parts: QEMU, Debian's kernel, the real agent, a root filesystem of busybox.

mod clones;
mod commands;
mod kit;
mod lifecycle;
mod network;
