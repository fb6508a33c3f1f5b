//! QEMU's own protocol (QMP): one command at a time, and the events in between.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The events that are kept for somebody who may ask; QEMU sends few.
const EVENTS_MAX: usize = 256;

/// Why a command has no good result.
#[derive(Debug)]
pub(super) enum QmpError {
    /// QEMU has gone.
    Gone,
    /// QEMU does not answer.
    Silent(Duration),
    /// QEMU says no.
    Refused { command: String, reason: String },
    /// QEMU says something else.
    Strange { command: String, answer: String },
}

/// A line from QEMU; exactly one of the fields is there.
#[derive(Debug, Default, Deserialize)]
struct Line {
    #[serde(rename = "return")]
    result: Option<Value>,
    error: Option<Complaint>,
    event: Option<String>,
    data: Option<Value>,
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Complaint {
    desc: String,
}

/// Something that happened in QEMU.
#[derive(Debug)]
struct Event {
    name: String,
    data: Value,
}

/// The connection to one QEMU.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
    events: VecDeque<Event>,
    patience: Duration,
}

impl Qmp {
    /// Greets QEMU, which may still be starting; `patience` is for this and for each command.
    pub(super) async fn connect(stream: UnixStream, patience: Duration) -> Result<Self, QmpError> {
        let mut qmp = Self {
            stream: BufReader::new(stream),
            events: VecDeque::new(),
            patience,
        };
        let line = timeout(patience, qmp.read_line())
            .await
            .map_err(|_| QmpError::Silent(patience))??;
        if line.greeting.is_none() {
            return Err(QmpError::Strange {
                command: "greeting".to_owned(),
                answer: format!("{line:?}"),
            });
        }
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Executes a command.
    pub(super) async fn execute(
        &mut self,
        command: &str,
        arguments: Value,
    ) -> Result<Value, QmpError> {
        self.send(command, arguments, None).await
    }

    /// Executes a command that takes a descriptor.
    pub(super) async fn execute_with(
        &mut self,
        command: &str,
        arguments: Value,
        fd: BorrowedFd<'_>,
    ) -> Result<Value, QmpError> {
        self.send(command, arguments, Some(fd)).await
    }

    async fn send(
        &mut self,
        command: &str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Value, QmpError> {
        let mut line = json!({"execute": command, "arguments": arguments})
            .to_string()
            .into_bytes();
        line.push(b'\n');
        let patience = self.patience;
        let talk = async {
            self.write(&line, fd).await.map_err(|_| QmpError::Gone)?;
            loop {
                let line = self.read_line().await?;
                if let Some(name) = line.event {
                    self.keep(name, line.data);
                } else if let Some(complaint) = line.error {
                    return Err(QmpError::Refused {
                        command: command.to_owned(),
                        reason: complaint.desc,
                    });
                } else {
                    return Ok(line.result.unwrap_or_default());
                }
            }
        };
        timeout(patience, talk)
            .await
            .unwrap_or(Err(QmpError::Silent(patience)))
    }

    /// Waits for an event of this name whose data `matches`.
    pub(super) async fn wait_for(
        &mut self,
        name: &str,
        deadline: Duration,
        matches: impl Fn(&Value) -> bool,
    ) -> Result<Value, QmpError> {
        let wait = async {
            loop {
                while let Some(event) = self.events.pop_front() {
                    if event.name == name && matches(&event.data) {
                        return Ok(event.data);
                    }
                }
                let line = self.read_line().await?;
                if let Some(name) = line.event {
                    self.keep(name, line.data);
                }
            }
        };
        timeout(deadline, wait)
            .await
            .unwrap_or(Err(QmpError::Silent(deadline)))
    }

    fn keep(&mut self, name: String, data: Option<Value>) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(Event {
            name,
            data: data.unwrap_or_default(),
        });
    }

    async fn read_line(&mut self) -> Result<Line, QmpError> {
        let mut text = String::new();
        match self.stream.read_line(&mut text).await {
            Ok(1..) => serde_json::from_str(&text).map_err(|_| QmpError::Strange {
                command: "(any)".to_owned(),
                answer: text.trim().to_owned(),
            }),
            Ok(_) | Err(_) => Err(QmpError::Gone),
        }
    }

    async fn write(&mut self, line: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut left = line;
        let mut fd = fd;
        while !left.is_empty() {
            let stream = self.stream.get_ref();
            stream.writable().await?;
            let sent = stream.try_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let fds: Vec<_> = fd.into_iter().collect();
                if !fds.is_empty() {
                    control.push(SendAncillaryMessage::ScmRights(&fds));
                }
                let message = [IoSlice::new(left)];
                Ok(sendmsg(
                    stream,
                    &message,
                    &mut control,
                    SendFlags::NOSIGNAL,
                )?)
            });
            match sent {
                Ok(count) => {
                    left = left.get(count..).unwrap_or_default();
                    // It went with the first bytes.
                    fd = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
