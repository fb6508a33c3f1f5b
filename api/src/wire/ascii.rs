//! JSON that is ASCII alone.
//!
//! The client cuts a stream into lines the way Python's `splitlines` does, which also cuts at
//! U+0085, U+2028 and U+2029 (contract/behaviour.md section 4). serde_json leaves those alone, so
//! everything beyond ASCII is escaped here, and DEL with it.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// Writes compact JSON in which every character beyond ASCII is an escape.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsciiFormatter;

impl Formatter for AsciiFormatter {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut plain_from = 0;
        for (at, character) in fragment.char_indices() {
            if matches!(character, ' '..='~') {
                continue;
            }
            write_plain(writer, fragment, plain_from, at)?;
            plain_from = at + character.len_utf8();
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        write_plain(writer, fragment, plain_from, fragment.len())
    }

    // The rest is as compact as serde_json's own.
    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        CompactFormatter.begin_array_value(writer, first)
    }
}

fn write_plain<W: ?Sized + Write>(
    writer: &mut W,
    text: &str,
    from: usize,
    to: usize,
) -> io::Result<()> {
    // Both ends stand before or behind a whole character.
    writer.write_all(text.get(from..to).unwrap_or_default().as_bytes())
}

/// `value` as ASCII JSON.
///
/// # Errors
/// If `value` has a map with keys that are not text, or its own serializer fails.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(256);
    write(&mut bytes, value)?;
    Ok(bytes)
}

/// Appends `value` as ASCII JSON to `bytes`.
///
/// # Errors
/// As [`to_vec`].
pub fn write<T: Serialize + ?Sized>(bytes: &mut Vec<u8>, value: &T) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(bytes, AsciiFormatter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_beyond_ascii_is_escaped_and_reads_back() {
        let every_kind =
            "a\"\\\u{7f}\u{80}\u{85}\u{9f}é\u{2028}\u{2029}\u{feff}😀\u{1c}\u{1e}\u{b}\r\n";
        let bytes = to_vec(&[every_kind, "", "plain"]).unwrap();
        assert!(bytes.iter().all(|byte| matches!(byte, b' '..=b'~')));
        let text = String::from_utf8(bytes).unwrap();
        for escape in ["\\u0085", "\\u2028", "\\u2029", "\\ud83d\\ude00", "\\u007f"] {
            assert!(text.contains(escape), "{text}");
        }
        let read: Vec<String> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, [every_kind, "", "plain"]);
    }

    #[test]
    fn keys_are_escaped_too() {
        let bytes = to_vec(&serde_json::json!({"\u{2028}": [1, null, {"b": 1.5}]})).unwrap();
        assert_eq!(bytes, br#"{"\u2028":[1,null,{"b":1.5}]}"#);
    }
}
