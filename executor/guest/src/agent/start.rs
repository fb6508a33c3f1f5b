//! The machine's long-running command: its state, and the latest part of its output.

use std::collections::VecDeque;

use guest::protocol::{
    Blob, START_OUTPUT_BYTES_MAX, START_OUTPUT_KEPT_BYTES, StartState, StartStatus,
};

/// The output of the command, of which the latest [`START_OUTPUT_KEPT_BYTES`] are kept.
///
/// The host asks for it when it likes; so the command never waits for a host, and a snapshot finds
/// the channel silent.
#[derive(Debug, Default)]
pub(crate) struct Output {
    kept: VecDeque<u8>,
    /// The position after the last byte.
    end: u64,
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

impl Output {
    /// Adds what the command wrote.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        self.end += count(bytes.len());
        let excess = self.kept.len().saturating_sub(START_OUTPUT_KEPT_BYTES);
        self.kept.drain(..excess);
    }

    /// The state of the command with its output from `from` on.
    pub(crate) fn state(&self, status: StartStatus, from: u64) -> StartState {
        let oldest = self.end - count(self.kept.len());
        let from = from.clamp(oldest, self.end);
        // The difference is at most the number of kept bytes.
        let skip = usize::try_from(from - oldest).unwrap_or(usize::MAX);
        let output = self.kept.iter().skip(skip).take(START_OUTPUT_BYTES_MAX);
        StartState {
            status,
            from,
            output: Blob(output.copied().collect()),
            end: self.end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_read_on_from_any_position() {
        let mut output = Output::default();
        output.push(b"hello ");
        output.push(b"world");
        let state = output.state(StartStatus::Running, 6);
        assert_eq!((state.from, state.end), (6, 11));
        assert_eq!(state.output.0, b"world");
        assert_eq!(output.state(StartStatus::Running, 99).from, 11);
    }

    #[test]
    fn old_output_goes_and_its_absence_shows() {
        let mut output = Output::default();
        output.push(&vec![b'a'; START_OUTPUT_KEPT_BYTES]);
        output.push(b"end");
        let state = output.state(StartStatus::Running, 0);
        assert_eq!(state.from, 3);
        assert_eq!(state.output.0.len(), START_OUTPUT_BYTES_MAX);
        assert_eq!(
            output.state(StartStatus::Running, state.end - 3).output.0,
            b"end"
        );
    }
}
