//! Complete, printable lines from the bytes of one output stream, however they were cut.

/// The least that a piece of a line can be, in bytes: room for the longest UTF-8 character.
pub const LINE_BYTES_FLOOR: usize = 16;

/// What ends each piece but the last of a line that is too long.
pub const CONTINUED_MARKER: &str = " [line continues]";

/// Where the assembler is in an escape sequence (ECMA-48, sections 5.3 to 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    /// Ordinary text.
    None,
    /// After ESC, and after the intermediate bytes that may follow it.
    Start,
    /// In a control sequence, which a byte from `@` to `~` ends.
    Control,
    /// In a string (title, hyperlink, device control), which BEL or ESC `\` ends.
    Text,
    /// In a string, after ESC.
    TextEnd,
}

/// Turns bytes into lines: the same bytes give the same lines, whatever the chunks.
///
/// - A line ends at `\n` or `\r\n`. What follows a lone `\r` replaces what stood before it, as a
///   terminal would show a progress bar in the end.
/// - Escape sequences go, and so do control characters other than tab. A line end closes an
///   escape sequence that its writer left open. U+0085 stays: it is text to the clients.
/// - Invalid UTF-8 becomes U+FFFD, after assembly, so a character may arrive in pieces.
/// - A line longer than the bound is split; pieces but the last end in [`CONTINUED_MARKER`].
///   The bound is on the bytes that arrived; replaced ones can make a piece up to three times it.
#[derive(Clone, Debug)]
pub struct LineAssembler {
    line: Vec<u8>,
    line_bytes_max: usize,
    escape: Escape,
    /// A `\r` came: the next text starts the line anew.
    returned: bool,
}

impl LineAssembler {
    /// An assembler whose pieces of lines have at most `line_bytes_max` bytes, or
    /// [`LINE_BYTES_FLOOR`] if that is more.
    pub fn new(line_bytes_max: usize) -> Self {
        Self {
            line: Vec::new(),
            line_bytes_max: line_bytes_max.max(LINE_BYTES_FLOOR),
            escape: Escape::None,
            returned: false,
        }
    }

    /// Takes the next bytes and appends the lines that they complete to `lines`.
    pub fn push(&mut self, bytes: &[u8], lines: &mut Vec<String>) {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if self.escape == Escape::None && is_text(byte) {
                let run = rest.iter().take_while(|&&byte| is_text(byte)).count();
                let (text, after) = rest.split_at(run);
                self.push_text(text, lines);
                rest = after;
            } else {
                self.push_control(byte, lines);
                rest = after;
            }
        }
    }

    /// Ends the stream: the line that was never completed, if it has any text.
    pub fn finish(&mut self) -> Option<String> {
        self.escape = Escape::None;
        self.returned = false;
        if self.line.is_empty() {
            return None;
        }
        Some(self.take_line())
    }

    fn push_text(&mut self, mut text: &[u8], lines: &mut Vec<String>) {
        if std::mem::take(&mut self.returned) {
            self.line.clear();
        }
        while !text.is_empty() {
            if self.line.len() == self.line_bytes_max {
                self.split(lines);
            }
            let room = self.line_bytes_max.saturating_sub(self.line.len());
            let (now, later) = text.split_at(room.min(text.len()));
            self.line.extend_from_slice(now);
            text = later;
        }
    }

    fn push_control(&mut self, byte: u8, lines: &mut Vec<String>) {
        if byte == b'\n' {
            self.escape = Escape::None;
            self.returned = false;
            lines.push(self.take_line());
            return;
        }
        self.escape = match (self.escape, byte) {
            (Escape::Text, 0x1b) => Escape::TextEnd,
            (Escape::Text, 0x07) | (Escape::TextEnd, b'\\') => Escape::None,
            (_, 0x1b) | (Escape::Start, 0x20..=0x2f) => Escape::Start,
            (Escape::Start, b'[') | (Escape::Control, 0x20..=0x3f) => Escape::Control,
            // OSC, DCS, SOS, PM and APC.
            (Escape::Start, b']' | b'P' | b'X' | b'^' | b'_') | (Escape::Text, _) => Escape::Text,
            // The final byte of a sequence.
            (Escape::Start, 0x30..=0x7e) | (Escape::Control, 0x40..=0x7e) => Escape::None,
            // ESC inside a string that no `\` follows has ended it and begins a new sequence.
            (Escape::TextEnd, _) => {
                self.escape = Escape::Start;
                return self.push_control(byte, lines);
            }
            (Escape::None | Escape::Start | Escape::Control, _) => {
                // What cannot be part of a sequence ends it and counts by itself.
                self.escape = Escape::None;
                if byte == b'\r' {
                    self.returned = true;
                } else if is_text(byte) {
                    self.push_text(&[byte], lines);
                }
                return;
            }
        };
    }

    /// Gives out a full piece, without the start of a character that is still to come.
    fn split(&mut self, lines: &mut Vec<String>) {
        let keep = incomplete_suffix(&self.line);
        let rest = self.line.split_off(self.line.len().saturating_sub(keep));
        let mut piece = self.take_line();
        piece.push_str(CONTINUED_MARKER);
        lines.push(piece);
        self.line = rest;
    }

    fn take_line(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.line);
        let line = if text.chars().any(is_unwanted) {
            text.chars().filter(|&char| !is_unwanted(char)).collect()
        } else {
            text.into_owned()
        };
        self.line.clear();
        line
    }
}

/// Bytes that belong to the text: tab, printable ASCII, and all of a multi-byte character.
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)
}

/// Control characters that only show after decoding: C1, of which only U+0085 (next line) is text.
fn is_unwanted(char: char) -> bool {
    matches!(char, '\u{80}'..='\u{84}' | '\u{86}'..='\u{9f}')
}

/// How many bytes at the end are the start of a UTF-8 character that needs more of them.
fn incomplete_suffix(bytes: &[u8]) -> usize {
    for (index, &byte) in bytes.iter().rev().take(3).enumerate() {
        let have = index + 1;
        let needs = match byte {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            0x80..=0xbf => continue,
            0x00..=0x7f | 0xf8.. => 1,
        };
        return if needs > have { have } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assemble(max: usize, chunks: &[&[u8]]) -> Vec<String> {
        let mut assembler = LineAssembler::new(max);
        let mut lines = Vec::new();
        for chunk in chunks {
            assembler.push(chunk, &mut lines);
        }
        lines.extend(assembler.finish());
        lines
    }

    #[track_caller]
    fn check(input: &[u8], expected: &[&str]) {
        assert_eq!(assemble(1024, &[input]), expected);
    }

    #[test]
    fn lines_end_at_newlines_and_the_last_at_the_end() {
        check(b"one\n\ntwo\r\nthree", &["one", "", "two", "three"]);
        check(b"one\n", &["one"]);
        check(b"", &[]);
    }

    #[test]
    fn a_carriage_return_keeps_the_last_segment() {
        check(b" 1%\r 50%\r100%\ndone\n", &["100%", "done"]);
        check(b"100%\r", &["100%"]);
        check(b"100%\r\r\n", &["100%"]);
        check(b"100%\r\x1b[K\r\n", &["100%"]);
        check(b"one\r\ntwo", &["one", "two"]);
    }

    #[test]
    fn escape_sequences_go() {
        check(b"\x1b[1;31mred\x1b[0m plain", &["red plain"]);
        check(
            b"\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\",
            &["alink"],
        );
        check(b"\x1b(Bcharset \x1b7save\x1b=", &["charset save"]);
        check(b"\x1bP1$r0m\x1b\\dcs", &["dcs"]);
        check(b"\x1b[?25lhidden\x1b[?25h", &["hidden"]);
    }

    #[test]
    fn a_line_end_closes_an_open_escape_sequence() {
        check(b"\x1b]0;never closed\nnext\n", &["", "next"]);
        check(b"\x1b[12\nnext", &["", "next"]);
        check(b"text\x1b", &["text"]);
    }

    #[test]
    fn an_escape_in_an_open_string_begins_a_new_sequence() {
        check(b"\x1b]0;title\x1b[1mbold", &["bold"]);
    }

    #[test]
    fn control_characters_go_and_tabs_stay() {
        check(b"a\x00\x08b\tc\x7f\x0c", &["ab\tc"]);
        check(
            "a\u{9b}b\u{85}c\u{2028}d".as_bytes(),
            &["ab\u{85}c\u{2028}d"],
        );
    }

    #[test]
    fn invalid_utf8_is_replaced_after_assembly() {
        assert_eq!(
            assemble(1024, &[b"caf\xc3", b"\xa9 \xff!"]),
            ["café \u{fffd}!"]
        );
    }

    #[test]
    fn a_long_line_is_split_between_characters() {
        let text = "é".repeat(20);
        // One leading byte makes the sixteenth byte the first half of a character.
        let lines = assemble(16, &[format!("x{text}\nnext\n").as_bytes()]);
        assert_eq!(
            lines,
            [
                format!("x{}{CONTINUED_MARKER}", "é".repeat(7)),
                format!("{}{CONTINUED_MARKER}", "é".repeat(8)),
                "é".repeat(5),
                "next".to_owned(),
            ]
        );
    }

    #[test]
    fn a_line_of_just_the_bound_is_whole() {
        assert_eq!(assemble(16, &[&[b'x'; 16], b"\n"]), ["x".repeat(16)]);
    }

    #[test]
    fn a_line_of_a_megabyte_arrives_whole_in_pieces() {
        let input = vec![b'x'; 1 << 20];
        let chunks: Vec<&[u8]> = input.chunks(7).collect();
        let lines = assemble(16 * 1024, &chunks);
        assert_eq!(lines.len(), 64);
        let text: usize = lines.iter().map(|line| line.matches('x').count()).sum();
        assert_eq!(text, 1 << 20);
    }

    /// Bytes in which everything that the assembler treats specially is frequent.
    fn noisy() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            3 => any::<u8>(),
            6 => 0x20_u8..0x7f,
            5 => proptest::sample::select(b"\x1b\x1b\n\r\r[]\\P;0m\x07\t\xc3\xa9\xe2\x80\xa8".to_vec()),
        ];
        proptest::collection::vec(byte, 0..300)
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(
            input in noisy(),
            cuts in proptest::collection::vec(0_usize..300, 0..20),
            max in 16_usize..64,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut < input.len()).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(&input[from..cut]);
                from = cut;
            }
            chunks.push(&input[from..]);
            prop_assert_eq!(assemble(max, &chunks), assemble(max, &[&input]));
        }

        #[test]
        fn lines_are_printable_and_bounded(input in noisy(), max in 16_usize..64) {
            for line in assemble(max, &[&input]) {
                prop_assert!(
                    line.chars().all(|char| char == '\t' || char == '\u{85}' || !char.is_control()),
                    "{line:?}"
                );
                prop_assert!(line.len() <= 3 * max + CONTINUED_MARKER.len(), "{line:?}");
            }
        }

        #[test]
        fn plain_text_comes_out_as_it_went_in(text in "[ -~é\u{2028}\u{85}\t]{0,80}(\n[ -~é]{0,80}){0,5}") {
            let lines = assemble(1024, &[text.as_bytes(), b"\n"]);
            let expected: Vec<&str> = text.split('\n').collect();
            prop_assert_eq!(lines, expected);
        }
    }
}
