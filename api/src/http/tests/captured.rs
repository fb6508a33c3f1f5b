//! What the service logs about itself, and the search for values that must be nowhere.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use domain::ports::EventReader;
use domain::recorded::Position;

use super::support::TestApp;

#[derive(Default)]
struct Lines {
    readers: usize,
    bytes: Vec<u8>,
}

fn lines() -> MutexGuard<'static, Lines> {
    static LINES: LazyLock<Mutex<Lines>> = LazyLock::new(|| {
        // As `telemetry` does it, but at the most talkative level and into memory. Once for all tests
        // of this process: its threads are shared.
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(|| Writer)
            .try_init()
            .unwrap();
        Mutex::default()
    });
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Writer;

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut lines = lines();
        if lines.readers > 0 {
            lines.bytes.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps every line that this process logs while it lives; knows where they begin.
pub(super) struct Captured(usize);

impl Captured {
    pub(super) fn start() -> Self {
        let mut lines = lines();
        lines.readers += 1;
        Self(lines.bytes.len())
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        lines().bytes.get(self.0..).unwrap_or_default().to_vec()
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        let mut lines = lines();
        lines.readers -= 1;
        if lines.readers == 0 {
            lines.bytes = Vec::new();
        }
    }
}

/// The forms that a value is searched in: each of its lines as it is, and usual encodings of the
/// whole.
fn forms(value: &str) -> Vec<String> {
    let mut forms: Vec<String> = value.lines().map(str::to_owned).collect();
    forms.push(STANDARD.encode(value));
    forms.push(URL_SAFE_NO_PAD.encode(value));
    let hex = value.bytes().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    forms.push(hex);
    let debug = format!("{:?}", value.as_bytes());
    forms.push(debug.trim_matches(['[', ']']).to_owned());
    forms
}

/// Whether any form of `value` is in `bytes`.
pub(super) fn holds(bytes: &[u8], value: &str) -> bool {
    let text = String::from_utf8_lossy(bytes);
    forms(value).iter().any(|form| text.contains(form))
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

/// Where `value` is: stored events, files of the data folder (their names too), lines of the log.
pub(super) async fn places(app: &TestApp, captured: &Captured, value: &str) -> Vec<String> {
    let mut places = Vec::new();
    let log = &app.service.app.log;
    let events = EventReader::read_all(log, Position::START, 10_000).await;
    for recorded in events.unwrap() {
        if holds(format!("{recorded:?}").as_bytes(), value) {
            places.push(format!("event {:?}", recorded.position));
        }
    }
    let mut found = Vec::new();
    files(app.service.app.config.data_dir.path(), &mut found);
    for file in found {
        let content = std::fs::read(&file).unwrap_or_default();
        if holds(&content, value) || holds(file.to_string_lossy().as_bytes(), value) {
            places.push(format!("file {}", file.display()));
        }
    }
    if holds(&captured.bytes(), value) {
        places.push("the log".to_owned());
    }
    places
}
