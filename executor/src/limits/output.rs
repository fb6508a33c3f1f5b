//! Bounds of log lines, their batches and the log of a whole build.

/// How much output is kept, and how long it may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimits {
    /// The longest piece of a line, in bytes of output; a longer line is split.
    ///
    /// [`LINE_BYTES_FLOOR`](crate::output::lines::LINE_BYTES_FLOOR) is used when less is set: a
    /// piece must hold at least one character.
    pub line_bytes_max: usize,
    /// How long the first line of a batch waits for company, in milliseconds (design, section 2).
    pub batch_wait_ms_max: u64,
    /// The size of a batch, in bytes, each line counted with [`Self::line_overhead_bytes`].
    pub batch_bytes_max: usize,
    /// What a line costs beside its text when it is stored, in bytes; so that a flood of empty
    /// lines has a bound too.
    pub line_overhead_bytes: usize,
    /// How many lines may wait for the batcher before their producer has to.
    pub queue_lines_max: usize,
    /// The log of one build, in bytes of text.
    pub build_bytes_max: u64,
    /// The log of one build, in lines.
    pub build_lines_max: u64,
    /// How many of the last lines of standard error go into a failure.
    pub tail_lines_max: usize,
    /// How many bytes of them at most.
    pub tail_bytes_max: usize,
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self {
            line_bytes_max: 16 * 1024,
            batch_wait_ms_max: 20,
            batch_bytes_max: 64 * 1024,
            line_overhead_bytes: 64,
            queue_lines_max: 256,
            build_bytes_max: 64 * 1024 * 1024,
            build_lines_max: 200_000,
            tail_lines_max: 20,
            tail_bytes_max: 8 * 1024,
        }
    }
}
