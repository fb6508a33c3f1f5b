//! Every bound of the read side.

/// All of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of what keeps the views up to date.
    pub runner: RunnerLimits,
    /// Of the store on disk.
    pub embedded: EmbeddedLimits,
    /// Of questions.
    pub query: QueryLimits,
}

/// Bounds of the runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunnerLimits {
    /// How many events are applied in one commit. Between 256 and 1,000 the throughput is flat;
    /// above, only the latency grows.
    pub batch_events_max: usize,
    /// The pause after the first failed read of the log, in milliseconds; it doubles each time.
    pub retry_pause_ms_min: u64,
    /// The longest pause between reads of a log that fails, in milliseconds.
    pub retry_pause_ms_max: u64,
    /// How many reads may fail one after the other before the runner gives up.
    pub read_failures_max: u32,
    /// How often damaged views are folded anew before the runner gives up.
    pub rebuilds_max: u32,
    /// After how many events a long catch-up says how far it is.
    pub progress_events: u64,
    /// How many rows a replay compares while nothing is applied: the longest that it holds up.
    pub compared_rows_max: usize,
}

impl Default for RunnerLimits {
    fn default() -> Self {
        Self {
            batch_events_max: 512,
            retry_pause_ms_min: 100,
            retry_pause_ms_max: 5_000,
            // With the pauses above: about five minutes.
            read_failures_max: 60,
            rebuilds_max: 3,
            progress_events: 100_000,
            compared_rows_max: 1_024,
        }
    }
}

/// Bounds of the store on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddedLimits {
    /// How much of the store is kept in memory, in bytes. The engine exceeds it a few times over.
    pub cache_bytes_max: u64,
    /// How often the engine writes out what it has, in milliseconds. Never "not at all": the
    /// engine keeps what is not written out in memory.
    pub flush_interval_ms: u64,
}

impl Default for EmbeddedLimits {
    fn default() -> Self {
        Self {
            cache_bytes_max: 64 * 1024 * 1024,
            flush_interval_ms: 500,
        }
    }
}

/// Bounds of questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    /// How many rows one page of a filtered list looks at. A page that reaches the bound ends
    /// early and says where to go on.
    pub page_rows_scanned_max: usize,
    /// How many rows are read from the store at once.
    pub scan_rows_max: usize,
    /// How many builds of a line of retries are shown.
    pub lineage_builds_max: usize,
    /// How many events of a build are looked at to tell how it went: a step is about five.
    pub outline_marks_max: usize,
    /// How many events are folded for one answer about the past. What they make of it is held in
    /// memory: about as many bytes as the events have.
    pub past_events_max: usize,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            page_rows_scanned_max: 10_000,
            scan_rows_max: 256,
            lineage_builds_max: 500,
            outline_marks_max: 20_000,
            past_events_max: 200_000,
        }
    }
}
