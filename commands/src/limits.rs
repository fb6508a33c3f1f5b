//! Every bound of this crate, with its unit in its name.

/// Bounds of an event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// The largest stored event, in bytes of its JSON. Larger things are blobs.
    pub event_bytes_max: u32,
    /// All events of one append, in bytes of their JSON.
    pub append_bytes_max: u32,
    /// Events in one append.
    pub append_events_max: usize,
    /// Appends that wait for the writer; more callers wait to be let in.
    pub queued_appends_max: usize,
    /// Bytes of the appends that wait for the writer or are being written; at least
    /// [`LogLimits::append_bytes_max`].
    pub queued_bytes_max: u32,
    /// Appends that become durable together. More would make the batch, and sled's memory with
    /// it, large without being faster.
    pub group_appends_max: usize,
    /// Bytes that become durable together; one append may go beyond.
    pub group_bytes_max: usize,
    /// Events in one answer.
    pub read_events_max: usize,
    /// Bytes of events in one answer; its first event may go beyond.
    pub read_bytes_max: usize,
    /// How many of the things that are wrong with a log are told.
    pub damages_max: usize,
    /// What sled may keep of the log in memory, in bytes; it takes this loosely.
    pub cache_bytes: u64,
    /// How often sled writes out by itself, in milliseconds. Acknowledgements do not rely on it.
    pub flush_every_ms: u64,
    /// How old the anchor may be while events are written, in milliseconds.
    pub anchor_every_ms: u64,
    /// How long opening waits for another process to let go of the log, in milliseconds.
    pub lock_wait_ms_max: u64,
    /// The pause between two tries to get the lock, in milliseconds.
    pub lock_retry_ms: u64,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            event_bytes_max: 256 * 1024,
            append_bytes_max: 4 * 1024 * 1024,
            append_events_max: 4_096,
            queued_appends_max: 1_024,
            queued_bytes_max: 32 * 1024 * 1024,
            group_appends_max: 1_024,
            group_bytes_max: 4 * 1024 * 1024,
            read_events_max: 4_096,
            read_bytes_max: 16 * 1024 * 1024,
            damages_max: 100,
            cache_bytes: 64 * 1024 * 1024,
            flush_every_ms: 500,
            anchor_every_ms: 1_000,
            lock_wait_ms_max: 2_000,
            lock_retry_ms: 50,
        }
    }
}

/// Bounds of dispatching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DispatchLimits {
    /// How often a command is decided anew because somebody else appended first.
    pub attempts_max: u32,
    /// How often an append is repeated whose outcome is unknown.
    pub repeats_max: u32,
    /// The pause before such a repeat, in milliseconds.
    pub repeat_pause_ms: u64,
    /// Events that are read at once.
    pub page_events: usize,
    /// States of streams that are kept, for each kind of stream.
    pub cached_states_max: usize,
}

impl Default for DispatchLimits {
    fn default() -> Self {
        Self {
            attempts_max: 16,
            repeats_max: 3,
            repeat_pause_ms: 100,
            page_events: 1_024,
            cached_states_max: 256,
        }
    }
}

/// Bounds of the blob store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobLimits {
    /// The largest blob, in bytes.
    pub blob_bytes_max: u64,
    /// Pieces of an upload that wait to be written.
    pub queued_pieces_max: usize,
}

impl Default for BlobLimits {
    fn default() -> Self {
        Self {
            blob_bytes_max: 1024 * 1024 * 1024,
            queued_pieces_max: 8,
        }
    }
}
