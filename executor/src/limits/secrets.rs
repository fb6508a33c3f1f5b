//! Bounds of what is done to keep secret values out of logs and results.

/// From which length on values are hidden and searched for, and how much of that at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretLimits {
    /// The shortest value that the log hides, in bytes: a shorter one would hide half of the log.
    pub masked_bytes_min: usize,
    /// The shortest value that results are searched for, in bytes: a shorter one stands in some file by
    /// chance.
    pub searched_bytes_min: usize,
    /// The shortest word of a value of several lines that is looked for by itself, in bytes.
    pub word_bytes_min: usize,
    /// The different bytes that such a word has at least: `https-proxy-agent` is no secret.
    pub word_distinct_bytes_min: usize,
    /// The longest value that is looked for in every form, in bytes; of a longer one, only those that
    /// plain tools write, so that no request makes this worker hold many times what it brought.
    pub every_form_bytes_max: usize,
    /// The longest piece of a form that a log is compared with, in bytes: what one stream of output may
    /// be held back by.
    pub piece_bytes_max: usize,
    /// How often the beginning of a value may be found without the rest before it counts as the value:
    /// whoever repeats it keeps the search busy.
    pub beginnings_max: u32,
    /// How much of a file is read at once, in bytes.
    pub window_bytes: usize,
}

impl Default for SecretLimits {
    fn default() -> Self {
        Self {
            masked_bytes_min: 6,
            searched_bytes_min: 8,
            word_bytes_min: 20,
            word_distinct_bytes_min: 10,
            every_form_bytes_max: 64 * 1024,
            piece_bytes_max: 256,
            beginnings_max: 10_000,
            window_bytes: 1024 * 1024,
        }
    }
}
