//! Why the driver could not do something.

use std::io;
use std::path::{Path, PathBuf};

use crate::process::ProcessError;

/// What went wrong with the monitor or with a machine.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// A part that the driver needs is not there; the message says how to get it.
    #[error("{part} is missing at {path}: {remedy}")]
    Missing {
        /// The part.
        part: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// How to get it.
        remedy: &'static str,
    },
    /// The kernel image cannot be used.
    #[error("the kernel {path} cannot be used: {complaint}")]
    Kernel {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        complaint: String,
    },
    /// Hardware virtualisation was asked for and does not work.
    #[error("KVM was asked for and cannot be used: {complaint}")]
    Kvm {
        /// What the probe saw.
        complaint: String,
    },
    /// The shape of the machine is not possible, or not that of the snapshot.
    #[error("the machine is not possible: {complaint}")]
    Spec {
        /// What is wrong with it.
        complaint: String,
    },
    /// A file could not be used.
    #[error("cannot {doing} {path}")]
    File {
        /// As in "open".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The system refused something that is not about one file.
    #[error("cannot {doing}")]
    System {
        /// As in "make a pair of sockets".
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A tool of the driver failed.
    #[error("cannot {doing}")]
    Tool {
        /// As in "ask QEMU for its version".
        doing: &'static str,
        /// The cause.
        source: ProcessError,
    },
    /// QEMU or the machine in it ended, or its agent broke off.
    #[error("the machine ended while it should {doing}{tail}")]
    Ended {
        /// As in "boot".
        doing: String,
        /// The end of its console and of QEMU's standard error.
        tail: LastWords,
    },
    /// No answer came in time.
    #[error("the machine did not {doing} within {seconds} s{tail}")]
    Deadline {
        /// As in "boot".
        doing: String,
        /// The bound in seconds.
        seconds: u64,
        /// The end of its console and of QEMU's standard error.
        tail: LastWords,
    },
    /// The agent cannot do what was asked.
    #[error("the machine cannot {doing}: {reason}")]
    Refused {
        /// As in "run the command".
        doing: String,
        /// The agent's words.
        reason: String,
    },
    /// QEMU cannot do what was asked.
    #[error("QEMU refused `{command}`: {reason}")]
    Monitor {
        /// The command of its protocol.
        command: String,
        /// QEMU's words.
        reason: String,
    },
    /// The other side does not keep to the protocol.
    #[error("an answer to `{request}` is not what the protocol has there: {answer}")]
    Protocol {
        /// What was asked.
        request: String,
        /// What came.
        answer: String,
    },
}

/// What a machine said last: the end of its console and of QEMU's standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastWords {
    /// The console of the guest's kernel and agent.
    pub console: String,
    /// QEMU's standard error.
    pub stderr: String,
}

impl std::fmt::Display for LastWords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, text) in [("QEMU", &self.stderr), ("console", &self.console)] {
            if !text.is_empty() {
                write!(f, "; {name}: {text}")?;
            }
        }
        Ok(())
    }
}

impl VmmError {
    /// The error of `doing` something with the file `path`.
    pub(super) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }

    /// The error of `doing` something with the system.
    pub(super) fn system<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            doing,
            source: source.into(),
        }
    }

    /// The error of `doing` something by a tool.
    pub(super) fn tool(doing: &'static str) -> impl FnOnce(ProcessError) -> Self {
        move |source| Self::Tool { doing, source }
    }

    /// What the machine said last, if it ended or was silent.
    pub fn last_words(&self) -> Option<&LastWords> {
        match self {
            Self::Ended { tail, .. } | Self::Deadline { tail, .. } => Some(tail),
            Self::Missing { .. }
            | Self::Kernel { .. }
            | Self::Kvm { .. }
            | Self::Spec { .. }
            | Self::File { .. }
            | Self::System { .. }
            | Self::Tool { .. }
            | Self::Refused { .. }
            | Self::Monitor { .. }
            | Self::Protocol { .. } => None,
        }
    }
}

/// Runs what blocks apart from the threads that must not.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VmmError> + Send + 'static,
) -> Result<T, VmmError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(VmmError::System {
            doing: "finish work with files",
            source: io::Error::other(error),
        }),
    }
}
