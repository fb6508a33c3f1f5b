//! The end of what a step wrote.

/// The last bytes of a stream.
#[derive(Debug)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    bytes_max: usize,
    /// The beginning is gone.
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

    /// Gives it out and begins anew.
    pub(super) fn take(&mut self) -> Self {
        let empty = Self::new(self.bytes_max);
        std::mem::replace(self, empty)
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Halving keeps the copying linear in what comes.
        if self.bytes.len() > self.bytes_max.saturating_mul(2) {
            self.trim();
        }
    }

    /// The last lines, at most `lines_max`, as a terminal would show them in the end, without the first
    /// if its beginning is gone: half a line may hold half of a secret value, which nobody would find.
    pub(super) fn lines(mut self, lines_max: usize) -> Vec<String> {
        self.trim();
        let text = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        if text.is_empty() {
            return Vec::new();
        }
        let whole = text.split(|&byte| byte == b'\n').skip(self.cut.into());
        let whole: Vec<&[u8]> = whole.collect();
        let (_, last) = whole.split_at(whole.len().saturating_sub(lines_max));
        last.iter().map(|line| shown(line)).collect()
    }

    fn trim(&mut self) {
        let surplus = self.bytes.len().saturating_sub(self.bytes_max);
        if surplus > 0 {
            self.bytes.drain(..surplus);
            self.cut = true;
        }
    }
}

/// What stands after the last carriage return, as a progress bar ends.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\r');
    text.rsplit('\r').next().unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(chunks: &[&str], expected: &[&str]) {
        let mut tail = Tail::new(10);
        for chunk in chunks {
            tail.push(chunk.as_bytes());
        }
        assert_eq!(tail.lines(2), expected);
    }

    #[test]
    fn the_last_whole_lines_are_kept() {
        check(&[], &[]);
        check(&["\n"], &[]);
        check(&["a"], &["a"]);
        check(&["a\nb", "\nc\n"], &["b", "c"]);
        check(&["a\n\n"], &["a", ""]);
        check(
            &["0123456789012345678901234567890123456789\nend\n"],
            &["end"],
        );
    }

    #[test]
    fn half_a_line_is_not_kept() {
        check(&["a long line\nend\n"], &["end"]);
        check(&["01234567890"], &[]);
        check(&["0123456789"], &["0123456789"]);
    }

    #[test]
    fn a_line_reads_as_it_would_on_a_terminal_in_the_end() {
        check(&["1%\r2%\r\n"], &["2%"]);
        let mut tail = Tail::new(100);
        tail.push(b"\xff\r\n");
        assert_eq!(tail.lines(1), ["\u{fffd}"]);
    }
}
