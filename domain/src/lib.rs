//! What a template build is, and which rules hold: values and functions without IO.

pub mod digest;

pub use digest::Digest;
