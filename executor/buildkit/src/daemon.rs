//! The daemons: their addresses, which of them answer, and which has the least to do.
