//! The invariants of a build, for random histories.
