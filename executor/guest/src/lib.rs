//! The protocol between the host and the guest agent, which is PID 1 of every machine.
//!
//! It knows nothing of virtual machine monitors and nothing of templates: two ends of a byte
//! stream exchange lines, see [`protocol`]. The agent itself is the binary of this crate; it needs
//! no libraries in the guest and takes its orders only from the stream.

pub mod protocol;
