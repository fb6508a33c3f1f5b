//! One output stream of a step, from its bytes to what its log and its failure may show.

use super::lines::LineAssembler;
use super::mask::{Mask, MaskedStream};
use super::tail::Tail;
use crate::limits::output::OutputLimits;

/// Takes the bytes of one stream, gives its lines without secret values, and keeps the last of them.
#[derive(Debug)]
pub struct Feed {
    masked: MaskedStream,
    mask: Mask,
    assembler: LineAssembler,
    tail: Tail,
    /// Kept between calls only for its allocation; empty otherwise.
    bytes: Vec<u8>,
}

impl Feed {
    /// A feed that hides what `mask` knows.
    pub fn new(mask: &Mask, limits: &OutputLimits) -> Self {
        Self {
            masked: mask.stream(),
            mask: mask.clone(),
            assembler: LineAssembler::new(limits.line_bytes_max),
            tail: Tail::new(limits),
            bytes: Vec::new(),
        }
    }

    /// Takes bytes; the lines that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.masked.push(bytes, &mut self.bytes);
        self.lines()
    }

    /// Ends the stream: what was held back, and the line that was never completed.
    pub fn end(&mut self) -> Vec<String> {
        self.masked.flush(&mut self.bytes);
        let mut lines = self.lines();
        let last = self.assembler.finish();
        lines.extend(last.map(|line| self.shown(line)));
        lines
    }

    /// The last lines.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        self.assembler.push(&self.bytes, &mut lines);
        self.bytes.clear();
        lines.into_iter().map(|line| self.shown(line)).collect()
    }

    /// A line as it is shown. What an escape sequence parted has come together by now.
    fn shown(&mut self, line: String) -> String {
        let line = self.mask.hide(line);
        self.tail.push(&line);
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::secrets::SecretLimits;

    fn feed(tail_lines_max: usize) -> Feed {
        let id = "token".parse().unwrap();
        let mask = Mask::new([(&id, &b"hunter2hunter2"[..])], &SecretLimits::default());
        let limits = OutputLimits {
            tail_lines_max,
            line_bytes_max: 24,
            ..OutputLimits::default()
        };
        Feed::new(&mask, &limits)
    }

    #[test]
    fn bytes_arrive_as_lines_and_their_end_is_kept() {
        let mut feed = feed(2);
        assert_eq!(feed.push(b"one\ntw"), ["one"]);
        assert_eq!(feed.push(b"o\nthr"), ["two"]);
        assert_eq!(feed.end(), ["thr"]);
        assert_eq!(feed.tail().text(), "two\nthr");
    }

    #[test]
    fn a_value_is_hidden_however_it_is_parted() {
        for parts in [
            [&b"a hunter2"[..], b"hunter2 b\n"],
            [b"a hunter2\x1b[0m", b"hunter2 b\n"],
            // The piece of a long line ends within it.
            [b"0123456789 a hunter2", b"hunter2 b\n"],
        ] {
            let mut feed = feed(5);
            let lines: Vec<String> = parts.iter().flat_map(|part| feed.push(part)).collect();
            let text = lines
                .concat()
                .replace(crate::output::lines::CONTINUED_MARKER, "");
            assert!(text.ends_with("a [REDACTED] b"), "{text}");
            assert!(!feed.tail().text().contains("hunter2"));
        }
    }

    #[test]
    fn what_was_held_back_comes_at_the_end() {
        let mut feed = feed(5);
        assert_eq!(feed.push(b"the hunter"), Vec::<String>::new());
        assert_eq!(feed.end(), ["the hunter"]);
    }
}
