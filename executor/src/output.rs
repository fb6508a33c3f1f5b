//! From the raw bytes of a step to log lines, to batches of them, and to the end of its standard
//! error for a failure.
//!
//! ```text
//! bytes ──► MaskedStream ──► LineAssembler ──► lines ──► LogSender ══ bounded queue ══► batcher task ──► sink
//!                                                └─────► Tail
//! ```

pub mod batch;
pub mod budget;
pub mod feed;
pub mod lines;
pub mod mask;
pub mod tail;
