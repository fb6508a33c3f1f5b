//! What `buildctl` says beside its progress: the reason of a failure, with the lines of the Dockerfile.
//!
//! ```text
//! time="…" level=warning msg="…"        about this host: left out
//! WARNING: Error parsing config file…   a warning
//! Dockerfile:3                          ┐
//! --------------------                  │
//!    2 |     RUN true                   ├ the excerpt
//!    3 | >>> RUN exit 42                │
//! --------------------                  ┘
//! error: failed to solve: …             the reason: this line, and all that follow
//! ```

use crate::event::Excerpt;

/// The fewest dashes that BuildKit draws around an excerpt are twenty.
const RULER: &str = "--------------------";

/// The lines of text so far.
#[derive(Debug)]
pub(crate) struct Text {
    bytes_max: usize,
    /// What follows `error: `.
    error: Option<String>,
    excerpt: Option<Excerpt>,
    /// An excerpt that is not at its end.
    open: Option<Excerpt>,
    /// The line before: it may name the place of an excerpt, and is told if there is nothing better.
    last: String,
}

impl Text {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            error: None,
            excerpt: None,
            open: None,
            last: String::new(),
        }
    }

    /// Takes a line, and gives the warning that it is, if it is one.
    pub(super) fn line(&mut self, line: &[u8]) -> Option<String> {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches('\r');
        if is_about_this_host(line) {
            return None;
        }
        if let Some(warning) = line.strip_prefix("WARNING: ") {
            return Some(warning.to_owned());
        }
        if let Some(error) = line.strip_prefix("error: ") {
            self.error = Some(shorten(error, self.bytes_max));
        } else if let Some(error) = &mut self.error {
            if error.len() + line.len() < self.bytes_max {
                error.push('\n');
                error.push_str(line);
            }
        } else {
            self.excerpt_line(line);
        }
        None
    }

    fn excerpt_line(&mut self, line: &str) {
        let is_ruler = line.starts_with(RULER) && line.bytes().all(|byte| byte == b'-');
        match (&mut self.open, is_ruler) {
            (Some(_), true) => {
                // The first one is the innermost.
                let closed = self.open.take();
                self.excerpt = self.excerpt.take().or(closed);
            }
            (Some(excerpt), false) => {
                if excerpt.text.len() + line.len() < self.bytes_max {
                    if !excerpt.text.is_empty() {
                        excerpt.text.push('\n');
                    }
                    excerpt.text.push_str(line);
                }
            }
            (None, true) => self.open = place(&self.last),
            (None, false) => {
                if !line.trim().is_empty() {
                    self.last = shorten(line, self.bytes_max);
                }
            }
        }
    }

    /// What `buildctl` gives as the reason, without `error: `; nothing if it gives none.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref().map(str::trim_end)
    }

    /// The last line that is none of the above.
    pub(crate) fn last(&self) -> &str {
        &self.last
    }

    /// The part of the Dockerfile that it shows.
    pub(crate) fn excerpt(&self) -> Option<&Excerpt> {
        self.excerpt.as_ref()
    }
}

/// A line of `buildctl`'s own log.
fn is_about_this_host(line: &str) -> bool {
    line.starts_with("time=\"") && line.contains("\" level=")
}

/// The place of an excerpt: `Dockerfile:3`.
fn place(line: &str) -> Option<Excerpt> {
    let (file, line) = line.rsplit_once(':')?;
    Some(Excerpt {
        file: file.to_owned(),
        line: line.parse().ok().filter(|&line| line > 0)?,
        text: String::new(),
    })
}

/// At most `bytes_max` of `text`: its beginning and, what matters more in a reason, its end.
pub(crate) fn shorten(text: &str, bytes_max: usize) -> String {
    const GAP: &str = " … ";
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let room = bytes_max.saturating_sub(GAP.len());
    let begin = text.floor_char_boundary(room / 3);
    let end = text.ceil_char_boundary(text.len() - (room - room / 3));
    let (begin, _) = text.split_at(begin);
    let (_, end) = text.split_at(end);
    let short = format!("{begin}{GAP}{end}");
    if short.len() > bytes_max {
        String::new()
    } else {
        short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &str) -> (Text, Vec<String>) {
        let mut text = Text::new(100);
        let warnings = lines
            .lines()
            .filter_map(|line| text.line(line.as_bytes()))
            .collect();
        (text, warnings)
    }

    #[test]
    fn the_reason_is_the_last_error_line_and_what_follows() {
        let (text, _) = read("error: one\nnoise\nerror: two\n\nmore\n\n");
        assert_eq!(text.error(), Some("two\n\nmore"));
        let (text, _) = read("panic: oh\n\ngoroutine 1");
        assert_eq!((text.error(), text.last()), (None, "goroutine 1"));
    }

    #[test]
    fn an_excerpt_stands_between_rulers_behind_its_place() {
        let (text, _) = read(
            "a/b:c.Dockerfile:12\n--------------------\n  11 |     A:1\n  12 | >>> B\n\
             --------------------\nother:1\n--------------------\nx\n--------------------\nerror: e",
        );
        let expected = Excerpt {
            file: "a/b:c.Dockerfile".to_owned(),
            line: 12,
            text: "  11 |     A:1\n  12 | >>> B".to_owned(),
        };
        assert_eq!(text.excerpt(), Some(&expected));
        assert_eq!(text.error(), Some("e"));
    }

    #[test]
    fn a_ruler_without_a_place_shows_nothing() {
        for lines in [
            "--------------------\nx\n--------------------",
            "Dockerfile:0\n--------------------\nx\n--------------------",
            "Dockerfile:3\n-----\nx\n-----",
            "Dockerfile:3\n--------------------\nx",
        ] {
            assert_eq!(read(lines).0.excerpt(), None, "{lines}");
        }
    }

    #[test]
    fn warnings_are_told_and_the_log_of_buildctl_is_not() {
        let (text, warnings) = read(
            "time=\"2026-11-28T12:37:47Z\" level=warning msg=\"x\"\nWARNING: no credentials\nerror: e\n\
             time=\"2026-11-28T12:37:47Z\" level=error msg=\"y\"",
        );
        assert_eq!(warnings, ["no credentials"]);
        assert_eq!((text.error(), text.last()), (Some("e"), ""));
    }

    #[test]
    fn a_long_text_keeps_its_beginning_and_its_end() {
        assert_eq!(shorten("0123456789", 10), "0123456789");
        assert_eq!(shorten("0123456789abc", 11), "01 … 9abc");
        assert_eq!(shorten("éééééééééé", 11), "é … éé");
        assert_eq!(shorten("0123456789abc", 4), "");
    }

    #[test]
    fn nothing_grows_beyond_its_bound() {
        let long = "x".repeat(1_000);
        let lines = format!(
            "D:1\n--------------------\n{0}--------------------\nerror: {long}\n{0}",
            "some line\n".repeat(1_000)
        );
        let (text, _) = read(&lines);
        assert!(text.error().unwrap().len() <= 100);
        assert!(text.excerpt().unwrap().text.len() <= 100);
    }
}
