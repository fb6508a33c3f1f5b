//! A stream, line by line, with a bound on how much of a line is kept.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// How much is read at once, in bytes: what a pipe holds.
const CHUNK_BYTES: usize = 64 * 1024;

/// The lines of a stream.
#[derive(Debug)]
pub struct Lines<R> {
    reader: BufReader<R>,
    line_bytes_max: usize,
    /// What came of the line, as long as it is not too long.
    line: Vec<u8>,
    /// How long the line is as far as it came.
    bytes: u64,
    /// The line was given out, so the next one begins.
    given: bool,
}

/// A line of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// The line, without its end.
    Whole(&'a [u8]),
    /// It is longer than it may be and was not kept.
    TooLong {
        /// Its length.
        bytes: u64,
    },
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// The lines of `stream`, of which those longer than `line_bytes_max` are left out.
    pub fn new(stream: R, line_bytes_max: usize) -> Self {
        Self {
            reader: BufReader::with_capacity(CHUNK_BYTES, stream),
            line_bytes_max,
            line: Vec::new(),
            bytes: 0,
            given: false,
        }
    }

    /// The next line, or none at the end of the stream; a last line needs no end. Nothing is lost if the
    /// future is dropped.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        if std::mem::take(&mut self.given) {
            self.line.clear();
            self.bytes = 0;
        }
        loop {
            let chunk = self.reader.fill_buf().await?;
            if chunk.is_empty() {
                self.given = true;
                return Ok((self.bytes > 0).then(|| self.line()));
            }
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let (part, _) = chunk.split_at(end.unwrap_or(chunk.len()));
            self.bytes = self.bytes.saturating_add(length(part.len()));
            if self.bytes > length(self.line_bytes_max) {
                self.line = Vec::new();
            } else {
                self.line.extend_from_slice(part);
            }
            let taken = part.len() + usize::from(end.is_some());
            self.reader.consume(taken);
            if end.is_some() {
                self.given = true;
                return Ok(Some(self.line()));
            }
        }
    }

    fn line(&self) -> Line<'_> {
        if self.bytes > length(self.line_bytes_max) {
            Line::TooLong { bytes: self.bytes }
        } else {
            Line::Whole(&self.line)
        }
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[track_caller]
    fn text(line: Option<Line<'_>>) -> String {
        match line {
            Some(Line::Whole(line)) => String::from_utf8(line.to_vec()).unwrap(),
            Some(Line::TooLong { bytes }) => format!("<{bytes}>"),
            None => "<end>".to_owned(),
        }
    }

    async fn all(stream: &[u8], line_bytes_max: usize) -> Vec<String> {
        let mut lines = Lines::new(stream, line_bytes_max);
        let mut read = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            read.push(text(Some(line)));
        }
        assert_eq!(lines.next().await.unwrap(), None);
        read
    }

    #[tokio::test]
    async fn every_line_comes_once_and_the_last_needs_no_end() {
        assert_eq!(all(b"", 10).await, [""; 0]);
        assert_eq!(all(b"a\n\nb", 10).await, ["a", "", "b"]);
        assert_eq!(all(b"a\nb\n", 10).await, ["a", "b"]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_told_by_its_length_and_not_kept() {
        let long = "x".repeat(300_000);
        let lines = format!("ok\n{long}\n12345\n123456\nend");
        assert_eq!(
            all(lines.as_bytes(), 5).await,
            ["ok", "<300000>", "12345", "<6>", "end"]
        );
        let unended = format!("ok\n{long}");
        let mut lines = Lines::new(unended.as_bytes(), 5);
        lines.next().await.unwrap();
        assert_eq!(text(lines.next().await.unwrap()), "<300000>");
        assert_eq!(lines.line.capacity(), 0);
    }

    #[tokio::test]
    async fn a_line_that_comes_in_parts_survives_a_reader_that_gave_up_in_between() {
        let (mut writer, reader) = tokio::io::duplex(64);
        let mut lines = Lines::new(reader, 100);
        writer.write_all(b"first\nsec").await.unwrap();
        assert_eq!(text(lines.next().await.unwrap()), "first");
        tokio::select! {
            biased;
            _ = lines.next() => panic!("half a line is no line"),
            () = std::future::ready(()) => {}
        }
        writer.write_all(b"ond\n").await.unwrap();
        assert_eq!(text(lines.next().await.unwrap()), "second");
    }
}
