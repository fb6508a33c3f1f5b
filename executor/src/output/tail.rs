//! The last lines of a stream, for the message of a failure.

use std::collections::VecDeque;

use crate::limits::output::OutputLimits;

/// Keeps the last lines it was given, within a bound on lines and one on bytes.
#[derive(Clone, Debug)]
pub struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
    lines_max: usize,
    bytes_max: usize,
}

impl Tail {
    /// An empty tail with the bounds `tail_lines_max` and `tail_bytes_max`.
    pub fn new(limits: &OutputLimits) -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
            lines_max: limits.tail_lines_max,
            bytes_max: limits.tail_bytes_max,
        }
    }

    /// Adds a line; of one that is too long by itself, only the end is kept.
    pub fn push(&mut self, line: &str) {
        let start = line
            .char_indices()
            .map(|(index, _)| index)
            .chain([line.len()])
            .find(|index| line.len() - index <= self.bytes_max)
            .unwrap_or(line.len());
        let kept = line.get(start..).unwrap_or_default();
        self.bytes += kept.len();
        self.lines.push_back(kept.to_owned());
        while self.lines.len() > self.lines_max || self.bytes > self.bytes_max {
            match self.lines.pop_front() {
                Some(gone) => self.bytes -= gone.len(),
                None => return,
            }
        }
    }

    /// The lines, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// The lines as one text, without a line end after the last.
    pub fn text(&self) -> String {
        self.lines().collect::<Vec<_>>().join("\n")
    }

    /// Whether nothing was ever added.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(lines_max: usize, bytes_max: usize) -> Tail {
        Tail::new(&OutputLimits {
            tail_lines_max: lines_max,
            tail_bytes_max: bytes_max,
            ..OutputLimits::default()
        })
    }

    #[test]
    fn the_last_lines_are_kept_in_order() {
        let mut tail = tail(2, 100);
        assert!(tail.is_empty());
        for line in ["one", "two", "three"] {
            tail.push(line);
        }
        assert_eq!(tail.text(), "two\nthree");
    }

    #[test]
    fn older_lines_make_room_for_bytes() {
        let mut tail = tail(10, 8);
        for line in ["12345", "6789", "abcd"] {
            tail.push(line);
        }
        assert_eq!(tail.lines().collect::<Vec<_>>(), ["6789", "abcd"]);
    }

    #[test]
    fn of_a_long_line_the_end_is_kept_from_a_character_on() {
        let mut tail = tail(10, 4);
        tail.push("first");
        tail.push("aéé!");
        assert_eq!(tail.text(), "é!");
    }

    #[test]
    fn a_bound_of_zero_keeps_nothing() {
        let mut tail = tail(0, 100);
        tail.push("line");
        assert!(tail.is_empty());
    }
}
