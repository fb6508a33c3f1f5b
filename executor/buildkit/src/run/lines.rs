//! A stream of bytes, line by line, with a bound.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// The lines of a stream. A line longer than the bound is left out.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    bytes_max: usize,
    line: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The line is not whole yet.
    Open,
    /// The line is whole.
    Whole,
    /// The line is too long, and not at its end yet.
    TooLong,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(stream: R, bytes_max: usize) -> Self {
        Self {
            reader: BufReader::with_capacity(CHUNK_BYTES, stream),
            bytes_max,
            line: Vec::new(),
            state: State::Open,
        }
    }

    /// Reads on to the end of the next line; false at the end of the stream. Nothing is lost if the
    /// future is dropped.
    pub(super) async fn advance(&mut self) -> io::Result<bool> {
        if self.state == State::Whole {
            self.line.clear();
            self.state = State::Open;
        }
        loop {
            let chunk = self.reader.fill_buf().await?;
            if chunk.is_empty() {
                let rest = self.state == State::Open && !self.line.is_empty();
                self.state = State::Whole;
                return Ok(rest);
            }
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or(chunk);
            if self.line.len() + part.len() > self.bytes_max {
                self.state = State::TooLong;
                self.line.clear();
            } else if self.state == State::Open {
                self.line.extend_from_slice(part);
            }
            let taken = part.len() + usize::from(end.is_some());
            self.reader.consume(taken);
            match (end, self.state) {
                (None, _) => {}
                (Some(_), State::TooLong) => self.state = State::Open,
                (Some(_), State::Open | State::Whole) => {
                    self.state = State::Whole;
                    return Ok(true);
                }
            }
        }
    }

    /// The line that [`Self::advance`] came to, without its end.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn all(stream: &[u8], bytes_max: usize) -> Vec<String> {
        let mut lines = Lines::new(stream, bytes_max);
        let mut read = Vec::new();
        while lines.advance().await.unwrap() {
            read.push(String::from_utf8(lines.line().to_vec()).unwrap());
        }
        assert!(!lines.advance().await.unwrap());
        read
    }

    #[tokio::test]
    async fn every_line_comes_once_and_the_last_needs_no_end() {
        assert_eq!(all(b"", 10).await, [""; 0]);
        assert_eq!(all(b"a\n\nb", 10).await, ["a", "", "b"]);
        assert_eq!(all(b"a\nb\n", 10).await, ["a", "b"]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_left_out_and_the_next_is_not() {
        let long = [
            b"ok\n".as_slice(),
            &[b'x'; 300_000],
            b"\n12345\n123456\nend",
        ]
        .concat();
        assert_eq!(all(&long, 5).await, ["ok", "12345", "end"]);
        let unended = [b"ok\n".as_slice(), &[b'x'; 300_000]].concat();
        assert_eq!(all(&unended, 5).await, ["ok"]);
    }

    #[tokio::test]
    async fn a_line_that_comes_in_parts_survives_a_reader_that_gave_up_in_between() {
        let (mut writer, reader) = tokio::io::duplex(64);
        let mut lines = Lines::new(reader, 100);
        writer.write_all(b"first\nsec").await.unwrap();
        assert!(lines.advance().await.unwrap());
        assert_eq!(lines.line(), b"first");
        tokio::select! {
            biased;
            _ = lines.advance() => panic!("half a line is no line"),
            () = std::future::ready(()) => {}
        }
        writer.write_all(b"ond\n").await.unwrap();
        assert!(lines.advance().await.unwrap());
        assert_eq!(lines.line(), b"second");
    }
}
