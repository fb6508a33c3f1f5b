//! Every bound of the HTTP side, with its unit; all of them can be configured (`[limits]`).

use serde::{Deserialize, Serialize};

/// Bytes of a path in a template: the kernel's own bound, which counts a NUL at the end.
pub const PATH_BYTES_MAX: usize = 4095;
/// Bytes of one name in a path: what the file systems take.
pub const FILE_NAME_BYTES_MAX: usize = 255;
/// Builds, or moves of a tag, on one page of a history, at most: the contract's bound.
pub const PAGE_BUILD_COUNT_MAX: u64 = 100;
/// Builds, or moves of a tag, on one page of a history whose caller does not say.
pub const PAGE_BUILD_COUNT_DEFAULT: u64 = 50;
/// Deliveries of a webhook on one page, at most.
pub const PAGE_DELIVERY_COUNT_MAX: u64 = 100;
/// Deliveries on one page whose caller does not say.
pub const PAGE_DELIVERY_COUNT_DEFAULT: u64 = 50;

/// Events in one batch, or on one page of a trail, at most.
pub const PAGE_EVENT_COUNT_MAX: u64 = 1000;
/// Events in one batch, or on one page of a trail, whose caller does not say.
pub const PAGE_EVENT_COUNT_DEFAULT: u64 = 100;
/// Values of one filter of events.
pub const EVENT_FILTER_COUNT_MAX: usize = 100;

/// Events that an operator's command reads at once.
pub const TAIL_PAGE_EVENT_COUNT_MAX: usize = 1024;
/// Seconds that the service lets an operator's command wait for further events before it answers
/// that there are none.
pub const TAIL_WAIT_SECS_MAX: u64 = 20;
/// Events of one build that are exported.
pub const EXPORT_EVENT_COUNT_MAX: usize = 1_000_000;
/// Bytes of an export that is verified.
pub const EXPORT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Lines that are shown around those of a text that differ between two builds.
pub const DIFF_CONTEXT_LINES: usize = 3;
/// Milliseconds for which the shortest description of what differs in a text is looked for; then a
/// longer one is told.
pub const DIFF_TEXT_MS_MAX: u64 = 500;

/// Bytes of the value of one build secret: BuildKit's own bound.
pub const SECRET_BYTES_MAX: usize = 500 * 1024;

/// How much of anything a caller may send or hold open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a JSON body. Inlined files travel inside it as base64.
    pub json_body_bytes_max: usize,
    /// Bytes of one definition as it is recorded, which is without its files. The event log takes
    /// events of 256 KiB.
    pub definition_bytes_max: usize,
    /// Bytes of one uploaded file.
    pub blob_bytes_max: u64,
    /// Bytes of all files of one context together.
    pub context_bytes_max: u64,
    /// Files and folders of one context.
    pub context_file_count_max: usize,
    /// Steps of one template.
    pub step_count_max: usize,
    /// Packages of one install step, sources of one copy, items of one `copy_items`.
    pub step_item_count_max: usize,
    /// Tags of one request.
    pub tag_count_max: usize,
    /// Tags of one template that were assigned by hand.
    pub template_tag_count_max: usize,
    /// Names that one owner may keep for templates that are not there yet.
    pub claim_count_max: usize,
    /// Seconds that such a name is kept.
    pub claim_secs: u64,
    /// Builds of one owner that wait for a worker.
    pub waiting_build_count_max: usize,
    /// Entries of one environment.
    pub env_count_max: usize,
    /// Bytes of a command: of a `run` step, the start command, a readiness command.
    pub command_bytes_max: usize,
    /// Bytes of any other text: a path, a package, a value of an environment.
    pub text_bytes_max: usize,
    /// Bytes of a Dockerfile; it is a part of the definition.
    pub dockerfile_bytes_max: usize,
    /// Bytes of the values of all build secrets of one request together.
    pub secret_total_bytes_max: usize,
    /// Seconds that a readiness probe may be given.
    pub readiness_secs_max: u64,
    /// How many mistakes of one request are reported.
    pub problem_count_max: usize,
    /// Milliseconds between comments on a silent stream. The client gives up after 30 000.
    pub keepalive_ms: u64,
    /// Entries that a stream reads from the view at once.
    pub stream_entry_count_max: usize,
    /// Streams of events that are known by their owner; of more, some are looked up again.
    pub known_stream_count_max: usize,
    /// Events that are read from the log at once, for readers of events.
    pub event_page_count_max: usize,
    /// Bytes of events that are written at once; the first may go beyond.
    pub event_page_bytes_max: usize,
    /// Such pages that are kept for further readers.
    pub kept_event_page_count_max: usize,
    /// Frames that wait for one reader of events.
    pub event_queue_count_max: usize,
    /// Milliseconds that a reader of events may leave a frame before it is dropped.
    pub slow_reader_ms_max: u64,
    /// Events that are looked at for one batch.
    pub batch_scan_count_max: usize,
    /// Bytes of one batch, or of one page of a trail; the first event may go beyond.
    pub batch_bytes_max: usize,
    /// Milliseconds that a client may leave an answer unread before its connection is closed.
    pub unread_answer_ms_max: u32,
    /// Streams that are open at once.
    pub open_stream_count_max: usize,
    /// Requests larger than `json_body_bytes_max` that are looked at at once, for validation or a plan.
    pub inspection_count_max: usize,
    /// Answers about the past that are put together at once; more of them wait.
    pub past_view_count_max: usize,
    /// Bytes of an idempotency key.
    pub idempotency_key_bytes_max: usize,
    /// Seconds that an idempotency key leads to the build that its first request made.
    pub idempotency_secs: u64,
    /// Seconds that `POST /v1/templates` waits for the end of its build; no sign of life can be given
    /// meanwhile.
    pub blocking_build_secs_max: u64,
    /// Milliseconds that a write waits until its own effect is visible.
    pub read_your_write_ms_max: u64,
    /// Milliseconds between two bytes of a request's body before the request is given up.
    pub body_idle_ms_max: u64,
    /// Bytes of a refused body that are read and thrown away, so that the caller gets to read the
    /// refusal instead of a reset connection.
    pub refused_body_bytes_max: u64,
    /// Uploads that one owner has announced and not yet sent; the oldest are forgotten beyond.
    pub pending_upload_count_max: usize,
    /// Bytes of an `Authorization` header that are looked at.
    pub key_bytes_max: usize,
    /// Webhooks of one owner.
    pub webhook_count_max: usize,
    /// Bytes of the URL of a webhook.
    pub webhook_url_bytes_max: usize,
    /// Types of events, or templates, that one webhook names.
    pub webhook_filter_count_max: usize,
    /// Milliseconds that a receiver has to answer.
    pub webhook_timeout_ms: u64,
    /// How often an event is sent that is not taken, before it is given up.
    pub webhook_attempt_count_max: u32,
    /// Milliseconds before the second attempt; twice as many before each further one.
    pub webhook_backoff_ms_min: u64,
    /// Milliseconds between two attempts, at most.
    pub webhook_backoff_ms_max: u64,
    /// Deliveries of one webhook that are under way at once.
    pub webhook_concurrent_count_max: usize,
    /// Streams of which one webhook has something to send; no more is read until one has ended.
    pub webhook_lane_count_max: usize,
    /// Events that were given up, of one webhook; with so many it is paused.
    pub webhook_dead_letter_count_max: usize,
    /// Deliveries that are kept to be looked at, of one webhook; the oldest are forgotten beyond.
    pub webhook_kept_delivery_count_max: usize,
    /// Milliseconds between two looks for changed keys.
    pub key_refresh_ms: u64,
    /// Connections at once.
    pub connection_count_max: usize,
    /// Seconds that an idle connection is kept; longer than clients keep theirs, which is 5.
    pub idle_connection_secs_max: u64,
    /// Seconds that open requests have to end when the service stops.
    pub drain_secs_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            json_body_bytes_max: 16 * 1024 * 1024,
            definition_bytes_max: 240 * 1024,
            blob_bytes_max: 1024 * MIB,
            context_bytes_max: 4096 * MIB,
            context_file_count_max: 50_000,
            step_count_max: 500,
            step_item_count_max: 1000,
            tag_count_max: 32,
            template_tag_count_max: 1000,
            claim_count_max: 100,
            claim_secs: 15 * 60,
            waiting_build_count_max: 200,
            env_count_max: 500,
            command_bytes_max: 64 * 1024,
            text_bytes_max: 8 * 1024,
            dockerfile_bytes_max: 192 * 1024,
            secret_total_bytes_max: 4 * 1024 * 1024,
            readiness_secs_max: 3600,
            problem_count_max: 20,
            keepalive_ms: 5000,
            stream_entry_count_max: 256,
            known_stream_count_max: 16_384,
            event_page_count_max: 64,
            event_page_bytes_max: 1024 * 1024,
            kept_event_page_count_max: 32,
            event_queue_count_max: 16,
            slow_reader_ms_max: 30_000,
            batch_scan_count_max: 50_000,
            batch_bytes_max: 4 * 1024 * 1024,
            unread_answer_ms_max: 60_000,
            open_stream_count_max: 1024,
            inspection_count_max: 4,
            past_view_count_max: 4,
            idempotency_key_bytes_max: 255,
            idempotency_secs: 24 * 3600,
            blocking_build_secs_max: 1800,
            read_your_write_ms_max: 5000,
            body_idle_ms_max: 30_000,
            refused_body_bytes_max: 256 * MIB,
            pending_upload_count_max: 50_000,
            key_bytes_max: 512,
            webhook_count_max: 20,
            webhook_url_bytes_max: 2048,
            webhook_filter_count_max: 100,
            webhook_timeout_ms: 10_000,
            webhook_attempt_count_max: 12,
            webhook_backoff_ms_min: 2_000,
            webhook_backoff_ms_max: 30 * 60 * 1000,
            webhook_concurrent_count_max: 4,
            webhook_lane_count_max: 1_000,
            webhook_dead_letter_count_max: 100,
            webhook_kept_delivery_count_max: 1_000,
            key_refresh_ms: 250,
            connection_count_max: 4096,
            idle_connection_secs_max: 75,
            drain_secs_max: 10,
        }
    }
}
