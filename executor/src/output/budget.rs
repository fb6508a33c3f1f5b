//! How much a build may log in all, over all of its steps.

use std::sync::{Mutex, PoisonError};

use crate::limits::output::OutputLimits;

/// The line that stands where the output of a build was cut.
pub const LIMIT_REACHED: &str = "log limit reached, further output dropped";

/// The log budget of one build, shared by the batchers of its steps.
#[derive(Debug)]
pub struct LogBudget {
    bytes_max: u64,
    lines_max: u64,
    used: Mutex<LogUse>,
}

/// What a build has logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogUse {
    /// Lines that were kept, without the notice.
    pub lines: u64,
    /// Their text, in bytes.
    pub bytes: u64,
    /// Lines that were dropped because the budget was spent.
    pub dropped_lines: u64,
    /// Their text, in bytes.
    pub dropped_bytes: u64,
}

/// What becomes of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is logged.
    Keep,
    /// It is the first that is dropped: [`LIMIT_REACHED`] takes its place.
    Announce,
    /// It is dropped.
    Drop,
}

impl LogBudget {
    /// A fresh budget of `build_bytes_max` and `build_lines_max`.
    pub fn new(limits: &OutputLimits) -> Self {
        Self {
            bytes_max: limits.build_bytes_max,
            lines_max: limits.build_lines_max,
            used: Mutex::new(LogUse::default()),
        }
    }

    /// What was used up to now.
    pub fn used(&self) -> LogUse {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a line of `text_bytes`. After the first dropped line every line is dropped, so
    /// that the log has no hole in its middle.
    pub(crate) fn take(&self, text_bytes: usize) -> Verdict {
        let text_bytes = u64::try_from(text_bytes).unwrap_or(u64::MAX);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = used.bytes.saturating_add(text_bytes);
        if used.dropped_lines == 0 && used.lines < self.lines_max && bytes <= self.bytes_max {
            used.lines += 1;
            used.bytes = bytes;
            return Verdict::Keep;
        }
        used.dropped_lines += 1;
        used.dropped_bytes = used.dropped_bytes.saturating_add(text_bytes);
        if used.dropped_lines == 1 {
            Verdict::Announce
        } else {
            Verdict::Drop
        }
    }
}
