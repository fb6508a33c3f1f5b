//! One output stream of a step, from its bytes to its log.

use domain::build::{LogLine, LogStream};
use domain::time::Timestamp;

use super::batch::{LogClosed, LogSender};
use super::lines::LineAssembler;
use super::tail::Tail;
use crate::limits::output::OutputLimits;

/// Takes the bytes of one stream, sends its lines to a batcher and keeps the last of them.
#[derive(Debug)]
pub struct Feed {
    stream: LogStream,
    assembler: LineAssembler,
    sender: LogSender,
    tail: Tail,
    /// Kept between calls only for its allocation; empty otherwise.
    lines: Vec<String>,
}

impl Feed {
    /// A feed of `stream` into `sender`.
    pub fn new(stream: LogStream, limits: &OutputLimits, sender: LogSender) -> Self {
        Self {
            stream,
            assembler: LineAssembler::new(limits.line_bytes_max),
            sender,
            tail: Tail::new(limits),
            lines: Vec::new(),
        }
    }

    /// Takes bytes that were read at `at`; waits while the log's queue is full.
    ///
    /// # Errors
    /// [`LogClosed`]: the log takes no more lines. The tail has them all the same.
    pub async fn push(&mut self, at: Timestamp, bytes: &[u8]) -> Result<(), LogClosed> {
        self.assembler.push(bytes, &mut self.lines);
        for text in &self.lines {
            self.tail.push(text);
        }
        let mut result = Ok(());
        for text in self.lines.drain(..) {
            if result.is_ok() {
                result = self.sender.send(line(self.stream, at, text)).await;
            }
        }
        result
    }

    /// Ends the stream: sends the line that was never completed, and gives the last lines.
    ///
    /// # Errors
    /// [`LogClosed`] beside the tail: the log did not take that line.
    pub async fn end(mut self, at: Timestamp) -> (Tail, Result<(), LogClosed>) {
        let Some(text) = self.assembler.finish() else {
            return (self.tail, Ok(()));
        };
        self.tail.push(&text);
        let result = self.sender.send(line(self.stream, at, text)).await;
        (self.tail, result)
    }
}

fn line(stream: LogStream, at: Timestamp, text: String) -> LogLine {
    LogLine { at, stream, text }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::output::batch::Batcher;
    use crate::output::budget::LogBudget;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_unix_micros(micros).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_arrive_as_stamped_lines_and_their_end_is_kept() {
        let limits = OutputLimits {
            tail_lines_max: 2,
            ..OutputLimits::default()
        };
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let budget = Arc::new(LogBudget::new(&limits));
        let batcher = Batcher::spawn(limits, budget, move |batch| {
            record.lock().unwrap().extend(batch);
            std::future::ready(Ok::<_, LogClosed>(()))
        });
        let mut feed = Feed::new(LogStream::Stderr, &limits, batcher.sender());
        feed.push(at(1), b"one\ntw").await.unwrap();
        feed.push(at(2), b"o\nthr").await.unwrap();
        let (tail, sent) = feed.end(at(3)).await;
        sent.unwrap();
        batcher.finish().await.unwrap();
        let expected = [(1, "one"), (2, "two"), (3, "thr")]
            .map(|(micros, text)| line(LogStream::Stderr, at(micros), text.to_owned()));
        assert_eq!(*seen.lock().unwrap(), expected);
        assert_eq!(tail.text(), "two\nthr");
    }
}
