//! Every bound of the driver, with its unit.

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildkitLimits {
    /// How long a daemon may take to answer whether it is there, in milliseconds.
    pub probe_ms_max: u64,
    /// How long buildctl may take to end once it was asked to, in milliseconds; then it is killed.
    pub stop_ms_max: u64,
    /// The longest answer of a daemon to a question about itself, in bytes.
    pub answer_bytes_max: usize,
    /// How long a build may say nothing until its daemon is asked whether it is still there, in
    /// milliseconds.
    pub silence_ms_max: u64,
    /// How many times in a row a daemon may fail to answer that.
    pub unanswered_probes_max: u32,
    /// How long a daemon may take to say that a stopped build is over, in milliseconds.
    pub over_ms_max: u64,
    /// How long it may take to remove what a daemon remembers of a build, in milliseconds.
    pub forget_ms_max: u64,
    /// How long a whole build may take, in seconds.
    pub build_seconds_max: u64,
    /// The longest line of buildctl's progress, in bytes: a failed step's output comes again as one of
    /// about 350 KB.
    pub progress_line_bytes_max: usize,
    /// How many vertexes of a build are followed; a Dockerfile's instruction gives one to three.
    pub progress_vertexes_max: usize,
    /// How many notes and warnings of a build are told.
    pub progress_notes_max: usize,
    /// The longest title of a step, in bytes.
    pub step_title_bytes_max: usize,
    /// The longest note, warning or failure message, in bytes.
    pub message_bytes_max: usize,
    /// How much of what buildctl says beside its progress is kept, in bytes.
    pub text_tail_bytes_max: usize,
    /// How many lines of a failed step's output are kept.
    pub output_tail_lines_max: usize,
    /// The largest value of a secret, in bytes: BuildKit's own bound.
    pub secret_bytes_max: usize,
    /// The longest Dockerfile, in bytes.
    pub dockerfile_bytes_max: usize,
    /// How many instructions a Dockerfile may have, and how many its base images may add.
    pub dockerfile_instructions_max: usize,
    /// How much work replacing a Dockerfile's variables may be: one step for each byte that it makes and
    /// each place that it looks at.
    pub dockerfile_expansion_steps_max: usize,
}

impl Default for BuildkitLimits {
    fn default() -> Self {
        Self {
            probe_ms_max: 2_000,
            stop_ms_max: 2_000,
            answer_bytes_max: 4 * 1024 * 1024,
            silence_ms_max: 30_000,
            unanswered_probes_max: 3,
            over_ms_max: 5_000,
            forget_ms_max: 5_000,
            build_seconds_max: 3_600,
            progress_line_bytes_max: 4 * 1024 * 1024,
            progress_vertexes_max: 20_000,
            progress_notes_max: 1_000,
            step_title_bytes_max: 1_024,
            message_bytes_max: 8 * 1024,
            text_tail_bytes_max: 64 * 1024,
            output_tail_lines_max: 20,
            secret_bytes_max: 500 * 1024,
            dockerfile_bytes_max: 1024 * 1024,
            dockerfile_instructions_max: 4_096,
            dockerfile_expansion_steps_max: 16 * 1024 * 1024,
        }
    }
}
