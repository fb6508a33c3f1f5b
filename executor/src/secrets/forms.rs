//! The ways in which a value may come to be written: as it is, and as the usual tools encode it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use zeroize::Zeroizing;

use crate::limits::secrets::SecretLimits;

/// A way in which a value, or a part of it, may be written.
pub(crate) type Form = Zeroizing<Vec<u8>>;

/// After how many characters `base64` begins a new line, and OpenSSL.
const BASE64_COLUMNS: [usize; 2] = [76, 64];
/// After how many characters `xxd -p` does.
const HEX_COLUMNS: usize = 60;
/// What a URL leaves as it is.
const UNRESERVED: &[u8] = b"-_.~";
/// Public keys are no secret, though they look like one, and images are full of them.
const CERTIFICATE: [&[u8]; 2] = [b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"];

/// What the log must not show of a value, in pieces that it is compared with.
pub(crate) fn for_log(value: &[u8], limits: &SecretLimits) -> Vec<Form> {
    let bare = value.trim_ascii();
    let mut forms = Vec::new();
    for text in [bare, value].into_iter().skip(usize::from(bare == value)) {
        forms.push(owned(text));
        forms.extend(spellings(text, Tail::Shown, limits));
        forms.extend(lines_of(&base64(text), &BASE64_COLUMNS));
        forms.extend(lines_of(&hex(text, false), &[HEX_COLUMNS]));
    }
    let lines = value.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    forms.extend(lines.map(owned));
    forms.extend(words(value, limits).map(owned));
    forms.retain(|form| form.len() >= limits.masked_bytes_min);
    let pieces = forms
        .iter()
        .flat_map(|form| pieces(form, limits.piece_bytes_max));
    let mut pieces: Vec<Form> = pieces.map(owned).collect();
    // Spellings have much in common, and what they have is held once.
    pieces.sort_unstable_by(|one, other| one.as_slice().cmp(other));
    pieces.dedup();
    pieces
}

/// What no file may hold of a value, whole.
pub(crate) fn for_files(value: &[u8], limits: &SecretLimits) -> Vec<Form> {
    let text = value.trim_ascii();
    if text.len() < limits.searched_bytes_min {
        return Vec::new();
    }
    let mut forms = vec![owned(text)];
    forms.extend(spellings(text, Tail::Open, limits));
    let encoded = base64(text);
    for columns in BASE64_COLUMNS {
        let lines: Vec<&[u8]> = encoded.chunks(columns).collect();
        forms.push(Zeroizing::new(lines.join(&b'\n')));
    }
    forms.extend(words(value, limits).map(owned));
    forms.retain(|form| form.len() >= limits.searched_bytes_min);
    forms
}

/// Whether the last character of an encoding, which hangs on what follows the value, is part of a form.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tail {
    Shown,
    Open,
}

/// The value as the usual encodings spell it.
fn spellings(value: &[u8], tail: Tail, limits: &SecretLimits) -> Vec<Form> {
    let mut forms = Vec::new();
    base64_forms(value, &STANDARD, tail, &mut forms);
    forms.push(hex(value, false));
    if value.len() > limits.every_form_bytes_max {
        return forms;
    }
    base64_forms(value, &URL_SAFE, tail, &mut forms);
    forms.push(hex(value, true));
    let percent = [
        percent(value, UNRESERVED, true),
        percent(value, UNRESERVED, false),
        // Python's `quote` keeps slashes, JavaScript's `encodeURIComponent` these.
        percent(value, b"-_.~/", true),
        percent(value, b"-_.~!'()*", true),
        form_encoded(value),
    ];
    forms.extend(percent);
    if let Ok(text) = std::str::from_utf8(value) {
        let escapes: [fn(char) -> bool; 3] = [
            |_| false,
            // Python's default.
            |char| !(' '..='~').contains(&char),
            // Go's.
            |char| matches!(char, '<' | '>' | '&' | '\u{2028}' | '\u{2029}'),
        ];
        forms.extend(escapes.map(|also| json(text, also)));
    }
    forms
}

/// The value within base64 text, wherever in it the value begins: it shares its first and its last
/// character with what stands before and behind it.
fn base64_forms(value: &[u8], alphabet: &impl base64::Engine, tail: Tail, forms: &mut Vec<Form>) {
    for (before, shared) in [(0, 0), (1, 2), (2, 3)] {
        let mut bytes = Zeroizing::new(vec![0; before]);
        bytes.extend_from_slice(value);
        let encoded = Zeroizing::new(alphabet.encode(&*bytes).into_bytes());
        let padding = encoded
            .iter()
            .rev()
            .take_while(|&&byte| byte == b'=')
            .count();
        let unpadded = encoded.len() - padding;
        let sure = if padding == 0 { unpadded } else { unpadded - 1 };
        let ends: &[usize] = match tail {
            Tail::Shown => &[sure, unpadded, encoded.len()],
            Tail::Open => &[sure],
        };
        forms.extend(
            ends.iter()
                .filter_map(|&end| encoded.get(shared..end))
                .map(owned),
        );
    }
}

fn base64(value: &[u8]) -> Form {
    Zeroizing::new(STANDARD.encode(value).into_bytes())
}

fn hex(value: &[u8], upper: bool) -> Form {
    let mut text = Zeroizing::new(Vec::with_capacity(2 * value.len()));
    for byte in value {
        text.extend(digits(*byte, upper));
    }
    text
}

fn digits(byte: u8, upper: bool) -> [u8; 2] {
    let digit = |value: u8| match (value, upper) {
        (0..=9, _) => b'0' + value,
        (_, true) => b'A' + value - 10,
        (_, false) => b'a' + value - 10,
    };
    [digit(byte >> 4), digit(byte & 15)]
}

fn percent(value: &[u8], kept: &[u8], upper: bool) -> Form {
    let mut text = Zeroizing::new(Vec::with_capacity(3 * value.len()));
    for &byte in value {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            text.push(byte);
        } else {
            text.push(b'%');
            text.extend(digits(byte, upper));
        }
    }
    text
}

/// As browsers send forms.
fn form_encoded(value: &[u8]) -> Form {
    let mut text = Zeroizing::new(Vec::with_capacity(3 * value.len()));
    for part in value.split_inclusive(|&byte| byte == b' ') {
        let (part, blank) = match part {
            [part @ .., b' '] => (part, true),
            part => (part, false),
        };
        text.extend_from_slice(&percent(part, b"-_.*", true));
        if blank {
            text.push(b'+');
        }
    }
    text
}

/// The value within a JSON text, where the characters that `also` names are escaped, too.
fn json(text: &str, also: fn(char) -> bool) -> Form {
    let quoted = serde_json::to_string(text).expect("a text has a JSON form");
    let quoted = Zeroizing::new(quoted);
    let mut escaped = Zeroizing::new(Vec::with_capacity(6 * quoted.len()));
    let bare = quoted.get(1..quoted.len().saturating_sub(1));
    for char in bare.unwrap_or_default().chars() {
        let mut units = [0; 2];
        if !also(char) {
            escaped.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        for unit in char.encode_utf16(&mut units) {
            escaped.extend_from_slice(b"\\u");
            for byte in unit.to_be_bytes() {
                escaped.extend(digits(byte, false));
            }
        }
    }
    escaped
}

/// The lines that an encoded value is broken into.
fn lines_of(encoded: &[u8], columns: &[usize]) -> Vec<Form> {
    let mut lines = Vec::new();
    for &columns in columns {
        if encoded.len() > columns {
            lines.extend(encoded.chunks(columns).map(owned));
        }
    }
    lines
}

/// Words of a value of several lines that are long and mixed enough to be secrets themselves, such as the
/// token in a file of settings.
fn words<'a>(value: &'a [u8], limits: &SecretLimits) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let (bytes_min, distinct_min) = (limits.word_bytes_min, limits.word_distinct_bytes_min);
    let is_one_line = !value.trim_ascii().contains(&b'\n');
    let mut in_certificate = false;
    let lines = value.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    lines
        .filter(move |line| {
            let [begin, end] = CERTIFICATE;
            in_certificate |= *line == begin;
            let is_public = in_certificate;
            in_certificate &= *line != end;
            !is_public && !is_one_line
        })
        .flat_map(|line| line.split(|byte| byte.is_ascii_whitespace() || b"\"'=,;".contains(byte)))
        .filter(move |word| word.len() >= bytes_min && is_mixed(word, distinct_min))
}

fn is_mixed(word: &[u8], distinct_min: usize) -> bool {
    let distinct = (u8::MIN..=u8::MAX)
        .filter(|byte| word.contains(byte))
        .count();
    let is_address = word.windows(3).any(|window| window == b"://");
    distinct >= distinct_min
        && word.iter().any(u8::is_ascii_digit)
        && word.iter().any(u8::is_ascii_alphabetic)
        && !is_address
}

/// A form in pieces of at most so many bytes. The last is not shorter than the others.
fn pieces(form: &[u8], bytes_max: usize) -> impl Iterator<Item = &[u8]> {
    let last = form.len().saturating_sub(bytes_max.max(1));
    let starts = (0..last).step_by(bytes_max.max(1)).chain([last]);
    starts.filter_map(move |start| {
        let end = form.len().min(start.saturating_add(bytes_max));
        form.get(start..end)
    })
}

fn owned(bytes: &[u8]) -> Form {
    Zeroizing::new(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use domain::Digest;

    use super::*;

    fn has(forms: &[Form], text: &str) -> bool {
        forms.iter().any(|form| form.as_slice() == text.as_bytes())
    }

    #[track_caller]
    fn check(value: &str, expected: &[&str]) {
        let forms = for_log(value.as_bytes(), &SecretLimits::default());
        for form in expected {
            assert!(has(&forms, form), "{form}");
        }
    }

    #[test]
    fn a_value_is_known_in_each_of_its_spellings() {
        check(
            "p@ss w/rd>1?",
            &[
                "p@ss w/rd>1?",
                "cEBzcyB3L3JkPjE/",
                "cEBzcyB3L3JkPjE_",
                "704073732077 2f72643e313f".replace(' ', "").as_str(),
                "704073732077 2F72643E313F".replace(' ', "").as_str(),
                "p%40ss%20w%2Frd%3E1%3F",
                "p%40ss%20w%2frd%3e1%3f",
                "p%40ss%20w/rd%3E1%3F",
                "p%40ss+w%2Frd%3E1%3F",
                "p@ss w/rd\\u003e1?",
            ],
        );
        check(
            "say \"é\"\tto\\me",
            &["say \\\"é\\\"\\tto\\\\me", "say \\\"\\u00e9\\\"\\tto\\\\me"],
        );
    }

    #[test]
    fn base64_is_known_wherever_in_it_the_value_begins_and_ends() {
        let value = "hunter2hunter2";
        let forms = for_log(value.as_bytes(), &SecretLimits::default());
        for before in ["", "x", "xy", "xyz", "user:"] {
            for behind in ["", "z", "zz", "zzz"] {
                let text = STANDARD.encode(format!("{before}{value}{behind}"));
                assert!(
                    forms
                        .iter()
                        .any(|form| text.contains(std::str::from_utf8(form).unwrap())),
                    "{text}"
                );
            }
        }
        // At the end of the text, nothing of it stays.
        assert!(has(&forms, "aHVudGVyMmh1bnRlcjI=") && has(&forms, "aHVudGVyMmh1bnRlcjI"));
    }

    #[test]
    fn each_line_of_a_value_is_known_and_so_is_the_token_in_it() {
        let value = "registry=https://npm.example/\n//npm.example/:_authToken=npm_0123456789abcdefABCDEF\n}\n";
        check(
            value,
            &[
                value.trim(),
                "registry=https://npm.example/",
                "//npm.example/:_authToken=npm_0123456789abcdefABCDEF",
                "npm_0123456789abcdefABCDEF",
            ],
        );
        let forms = for_files(value.as_bytes(), &SecretLimits::default());
        assert!(has(&forms, "npm_0123456789abcdefABCDEF"));
        for common in ["registry=https://npm.example/", "https://npm.example/", "}"] {
            assert!(!has(&forms, common), "{common}");
        }
    }

    #[test]
    fn public_certificates_beside_a_key_are_not_searched_for() {
        let line = |letter: &str| {
            letter.repeat(4) + "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWX"
        };
        let value = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            line("C"),
            line("K"),
        );
        let forms = for_files(value.as_bytes(), &SecretLimits::default());
        assert!(has(&forms, &line("K")));
        assert!(!has(&forms, &line("C")));
        assert!(!has(&forms, "-----BEGIN PRIVATE KEY-----"));
    }

    #[test]
    fn an_encoded_value_is_known_line_by_line() {
        let parts: Vec<String> = (0..20).map(|number| format!("part-{number:04};")).collect();
        let value = parts.concat();
        let encoded = STANDARD.encode(&value);
        let log = for_log(value.as_bytes(), &SecretLimits::default());
        for columns in BASE64_COLUMNS {
            for line in encoded.as_bytes().chunks(columns) {
                assert!(has(&log, std::str::from_utf8(line).unwrap()));
            }
        }
        let files = for_files(value.as_bytes(), &SecretLimits::default());
        let wrapped: Vec<&str> = encoded
            .as_bytes()
            .chunks(76)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        assert!(has(&files, &wrapped.join("\n")));
    }

    #[test]
    fn a_short_value_is_neither_hidden_nor_searched_for() {
        let limits = SecretLimits::default();
        assert!(!has(&for_log(b"12345", &limits), "12345"));
        assert!(has(&for_log(b"123456", &limits), "123456"));
        assert!(for_files(b"1234567\n", &limits).is_empty());
        assert!(has(&for_files(b"12345678\n", &limits), "12345678"));
    }

    #[test]
    fn a_long_form_is_covered_by_its_pieces_and_no_piece_is_short() {
        let form: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for bytes_max in [1, 7, 256, 999, 1000, 1001] {
            let pieces: Vec<&[u8]> = pieces(&form, bytes_max).collect();
            let mut at = 0;
            for piece in &pieces {
                assert_eq!(piece.len(), bytes_max.min(form.len()));
                let start = piece.as_ptr().addr() - form.as_ptr().addr();
                assert!(start <= at, "a gap before {start}");
                at = start + piece.len();
            }
            assert_eq!(at, form.len());
        }
    }

    #[test]
    fn what_is_held_stays_in_proportion_to_the_value() {
        let limits = SecretLimits::default();
        for (bytes, times_max) in [(64 * 1024, 32), (500 * 1024, 16)] {
            let value: Vec<u8> = (0..bytes)
                .map(|at| Digest::of(format!("{at}").as_bytes()).as_bytes()[0])
                .collect();
            let held: usize = for_log(&value, &limits).iter().map(|form| form.len()).sum();
            assert!(held <= times_max * bytes, "{} times", held / bytes);
        }
    }
}
