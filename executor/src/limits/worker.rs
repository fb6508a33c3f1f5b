//! Bounds of the worker itself.

/// How much is built at once, and how long that may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerLimits {
    /// Builds that are built at once; the rest wait.
    pub concurrent_builds_max: usize,
    /// Builds of one owner that are built at once.
    pub owner_concurrent_builds_max: usize,
    /// Places in line that are recorded in one go, between two looks at the log.
    pub told_places_max: usize,
    /// How long one attempt of a build may take, in seconds.
    pub build_seconds_max: u64,
    /// How long running builds may go on after the service was asked to end, in seconds.
    pub drain_seconds_max: u64,
    /// How long the processes, mounts, namespaces and folders of a cancelled build may take to be gone, in
    /// milliseconds; what is there then is recorded as left.
    pub gone_ms_max: u64,
    /// The pause between two looks for them, in milliseconds.
    pub gone_look_ms: u64,
    /// Events that are read from the log at once.
    pub read_events_max: usize,
    /// How long a command in a restored machine may run, in seconds.
    pub exec_seconds_max: u64,
    /// What is kept of each of its output streams, in bytes.
    pub exec_output_bytes_max: usize,
    /// How long one try of a readiness probe may take, in seconds.
    pub probe_try_seconds_max: u64,
    /// How long one step may take, in seconds.
    pub step_seconds_max: u64,
    /// What a step may use of memory at least, in MiB, however small the machine is to be.
    pub step_memory_mib_min: u32,
    /// The longest listing of a context that is read, in bytes.
    pub context_listing_bytes_max: u64,
    /// What layers may take on the disk, in bytes, apart from those that are needed.
    pub layer_bytes_max: u64,
    /// The layers of a template, those of its base among them. Fewer than the kernel mounts.
    pub template_layers_max: usize,
    /// How much of the stores' filesystem layers leave free, in bytes, apart from those that are needed.
    pub layer_free_bytes_min: u64,
    /// Files of a build's copies that are told one by one; the others are counted.
    pub told_files_max: usize,
    /// Images that one Dockerfile may name.
    pub dockerfile_images_max: usize,
    /// How long an image's own health check is tried, in seconds.
    pub healthcheck_seconds_max: u64,
}

impl Default for WorkerLimits {
    fn default() -> Self {
        Self {
            concurrent_builds_max: 2,
            owner_concurrent_builds_max: 2,
            told_places_max: 16,
            build_seconds_max: 3600,
            drain_seconds_max: 30,
            gone_ms_max: 10_000,
            gone_look_ms: 5,
            read_events_max: 1000,
            exec_seconds_max: 600,
            exec_output_bytes_max: 16 * 1024 * 1024,
            probe_try_seconds_max: 10,
            step_seconds_max: 1800,
            step_memory_mib_min: 1024,
            context_listing_bytes_max: 64 * 1024 * 1024,
            layer_bytes_max: 20 * 1024 * 1024 * 1024,
            template_layers_max: 400,
            layer_free_bytes_min: 1024 * 1024 * 1024,
            told_files_max: 200,
            dockerfile_images_max: 64,
            healthcheck_seconds_max: 600,
        }
    }
}
