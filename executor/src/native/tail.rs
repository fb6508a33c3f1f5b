//! The end of a step's standard error, for the error that tells of its failure.

/// Keeps the last bytes of what is added.
#[derive(Debug)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    bytes_max: usize,
    cut: bool,
}

impl Tail {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            bytes_max,
            cut: false,
        }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Halving keeps the copying linear in what is added.
        if self.bytes.len() > 2 * self.bytes_max {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let excess = self.bytes.len().saturating_sub(self.bytes_max);
        self.cut |= excess > 0;
        self.bytes.drain(..excess);
    }

    /// The last lines, at most `lines_max`, without empty ones at the end; the first one may be cut off
    /// at its beginning. Of a line that was overwritten by carriage returns, the last state stays.
    pub(super) fn lines(mut self, lines_max: usize) -> Vec<String> {
        self.trim();
        let text = String::from_utf8_lossy(&self.bytes);
        let shown = |line: &str| {
            line.trim_end()
                .rsplit('\r')
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let mut lines: Vec<String> = text.trim_end().lines().map(shown).collect();
        let excess = lines.len().saturating_sub(lines_max);
        lines.drain(..excess);
        if excess == 0
            && self.cut
            && let Some(first) = lines.first_mut()
        {
            first.insert(0, '…');
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&str], bytes_max: usize, lines_max: usize) -> Vec<String> {
        let mut tail = Tail::new(bytes_max);
        for piece in pieces {
            tail.add(piece.as_bytes());
        }
        tail.lines(lines_max)
    }

    #[test]
    fn the_last_lines_stay() {
        assert_eq!(lines(&["a\nb", "\nc\n\n"], 100, 2), ["b", "c"]);
        assert_eq!(lines(&["10%\r50%\r100%\n"], 100, 2), ["100%"]);
        assert_eq!(lines(&[], 100, 2), [""; 0]);
    }

    #[test]
    fn a_long_line_is_cut_and_shows_it() {
        assert_eq!(
            lines(&["0123456789", "0123456789", "abcdef"], 8, 5),
            ["…89abcdef"]
        );
    }
}
