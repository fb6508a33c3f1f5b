//! The flags of an instruction: `--name=value` before its arguments.

/// Whether BuildKit takes a byte for a blank. It looks at bytes here, so that some that are parts of
/// longer characters count.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ' | 0x85 | 0xa0)
}

/// What comes after the first word and the blanks behind it.
pub(super) fn after_word(text: &str) -> &str {
    let bytes = text.as_bytes();
    let word = bytes.iter().position(|byte| is_blank(*byte));
    let rest = word.and_then(|end| {
        let blanks = bytes.iter().skip(end).position(|byte| !is_blank(*byte))?;
        text.get(end + blanks..)
    });
    rest.unwrap_or_default()
}

/// The flags, without their quotes and escapes, and what comes after them.
pub(super) fn split(text: &str, escape: char) -> (Vec<String>, String) {
    let bytes = text.as_bytes();
    let mut flags = Vec::new();
    let mut at = 0;
    loop {
        while bytes.get(at).is_some_and(|byte| is_blank(*byte)) {
            at += 1;
        }
        let rest = bytes.get(at..).unwrap_or_default();
        if !rest.starts_with(b"--") {
            return (flags, trimmed(rest));
        }
        let flag = Flag::read(rest, escape);
        at += flag.length;
        if flag.text == "--" && !flag.last {
            return (flags, trimmed(bytes.get(at..).unwrap_or_default()));
        }
        if flag.text != "--" {
            flags.push(flag.text);
        }
        if flag.last {
            return (flags, String::new());
        }
    }
}

fn trimmed(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

struct Flag {
    text: String,
    /// How many bytes it takes.
    length: usize,
    /// Whether the text ends with it.
    last: bool,
}

impl Flag {
    /// The flag at the beginning of `bytes`.
    fn read(bytes: &[u8], escape: char) -> Self {
        let mut text = String::new();
        let mut quote = None;
        let mut rest = bytes.iter().copied().enumerate();
        while let Some((length, byte)) = rest.next() {
            if quote == Some(byte) {
                quote = None;
            } else if char::from(byte) == escape {
                // At the end of the text it escapes nothing.
                text.extend(rest.next().map(|(_, escaped)| char::from(escaped)));
            } else if quote.is_some() {
                text.push(char::from(byte));
            } else if is_blank(byte) {
                return Self {
                    text,
                    length,
                    last: false,
                };
            } else if byte == b'\'' || byte == b'"' {
                quote = Some(byte);
            } else {
                text.push(char::from(byte));
            }
        }
        Self {
            text,
            length: bytes.len(),
            last: true,
        }
    }
}
