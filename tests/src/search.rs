//! Looks for words in files, and knows the forms that a word can hide in.

#![expect(
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and the places are computed beside"
)]

use std::io::Read as _;
use std::path::Path;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// What is read of a file at once.
const PIECE_BYTES: usize = 1 << 20;

/// Words that must not be found anywhere.
#[derive(Debug)]
pub struct Words {
    words: Vec<(String, Vec<u8>)>,
    automaton: AhoCorasick,
}

impl Words {
    /// These words, each with a name that may be told.
    ///
    /// # Panics
    /// If there are none.
    pub fn new(words: Vec<(String, Vec<u8>)>) -> Self {
        assert!(!words.is_empty(), "there is nothing to look for");
        let texts = words.iter().map(|(_, word)| word);
        let automaton = AhoCorasick::new(texts).expect("a few short words");
        Self { words, automaton }
    }

    /// All forms of a secret value that somebody could read it from: as it is, line by line, in
    /// base64 at each alignment, in hex, percent-encoded, escaped for JSON.
    ///
    /// # Panics
    /// Never: texts have a JSON form.
    pub fn forms_of(name: &str, value: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut forms = Vec::new();
        let mut lines: Vec<&[u8]> = value.split(|byte| *byte == b'\n').collect();
        if lines.len() > 1 {
            lines.push(value);
        }
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| line.len() >= 8) {
            let name = |form: &str| format!("{name}, part {number}, {form}");
            forms.push((name("as it is"), line.to_vec()));
            forms.push((name("hex"), hex(line)));
            forms.push((name("HEX"), hex(line).to_ascii_uppercase()));
            let text = String::from_utf8_lossy(line);
            let json = serde_json::to_string(&text).expect("a text");
            forms.push((name("JSON"), json.trim_matches('"').as_bytes().to_vec()));
            forms.push((name("percent"), percent(line)));
            for alignment in 0..3 {
                for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                    let padded = [&b"\0\0"[..alignment], line].concat();
                    let encoded = engine.encode(padded);
                    // Characters that hang on what stands before and behind are left out.
                    let from = [0, 2, 3][alignment];
                    let whole = (alignment + line.len()) / 3 * 4;
                    let kept = &encoded.as_bytes()[from..whole];
                    forms.push((name(&format!("base64 at {alignment}")), kept.to_vec()));
                }
            }
        }
        forms
    }

    /// Where in the files below `folder` a word stands: the word's name and the file.
    ///
    /// # Panics
    /// If a file cannot be read.
    pub fn below(&self, folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a folder of the service") {
                let entry = entry.expect("a folder of the service");
                let kind = entry.file_type().expect("a file of the service");
                let name = entry.path();
                for hit in self.find(name.as_os_str().as_encoded_bytes()) {
                    found.push(format!("{hit} in the name {}", name.display()));
                }
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    for hit in self.in_file(&entry.path()) {
                        found.push(format!("{hit} in {}", entry.path().display()));
                    }
                }
            }
        }
        found
    }

    /// Which words stand in a file. Reads in pieces that overlap: memory images are large.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn in_file(&self, path: &Path) -> Vec<&str> {
        let longest = self.words.iter().map(|(_, word)| word.len()).max();
        let overlap = longest.unwrap_or(1) - 1;
        let mut file = std::fs::File::open(path).expect("a file of the service");
        let mut window = Vec::new();
        let mut found = Vec::new();
        loop {
            let kept = window.len().min(overlap);
            window.drain(..window.len() - kept);
            let piece = u64::try_from(PIECE_BYTES).expect("a small number");
            let read = file.by_ref().take(piece).read_to_end(&mut window);
            if read.expect("a file of the service") == 0 {
                found.sort_unstable();
                found.dedup();
                return found;
            }
            if window.iter().any(|byte| *byte != 0) {
                found.extend(self.find(&window));
            }
        }
    }

    /// Which words stand in `bytes`.
    pub fn find(&self, bytes: &[u8]) -> Vec<&str> {
        let hits = self.automaton.find_overlapping_iter(bytes);
        let names = hits.map(|hit| self.words[hit.pattern().as_usize()].0.as_str());
        let mut names: Vec<&str> = names.collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    digits.collect::<String>().into_bytes()
}

/// Everything but RFC 3986's unreserved characters as `%XX`.
fn percent(bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            encoded.push(*byte);
        } else {
            encoded.extend(format!("%{byte:02X}").into_bytes());
        }
    }
    encoded
}
