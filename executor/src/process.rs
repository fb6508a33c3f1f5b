//! External programs: one way to run them, with a deadline, a clean environment and bounded output.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use crate::holdings::{Holdings, Thing};

/// The most that is kept of each output stream of a tool, in bytes; the end is what matters.
pub const OUTPUT_TAIL_BYTES_MAX: usize = 64 * 1024;

/// A program to run: its name or path, arguments, and extra environment.
///
/// The host's environment is not passed on: a tool sees `PATH`, `LC_ALL=C` and what is added here.
#[derive(Clone, Debug)]
pub struct Tool {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    current_dir: Option<PathBuf>,
    holdings: Holdings,
}

/// What a program that ended left behind.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// The last [`OUTPUT_TAIL_BYTES_MAX`] bytes of its standard output.
    pub stdout: Vec<u8>,
    /// The last [`OUTPUT_TAIL_BYTES_MAX`] bytes of its standard error.
    pub stderr: Vec<u8>,
}

/// Why a program gave no good result.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started: it is missing, or the host is out of processes.
    #[error("cannot start `{program}`")]
    Start {
        /// The program.
        program: String,
        /// The cause.
        source: std::io::Error,
    },
    /// Its output could not be read, or it could not be waited for.
    #[error("lost `{program}` while it ran")]
    Lost {
        /// The program.
        program: String,
        /// The cause.
        source: std::io::Error,
    },
    /// It was killed because it took longer than it may.
    #[error("`{program}` did not end within {seconds} s and was killed")]
    Deadline {
        /// The program.
        program: String,
        /// The deadline in seconds.
        seconds: u64,
    },
    /// It ended with a failure.
    #[error("`{program}` failed ({status}): {stderr}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its standard error, trimmed.
        stderr: String,
    },
}

impl Tool {
    /// The program `program`, looked up in the tools' `PATH`.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
            current_dir: None,
            holdings: Holdings::default(),
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to the tool's environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.envs.push((name.into(), value.into()));
        self
    }

    /// Runs it for whoever keeps this list.
    #[must_use]
    pub fn held_by(mut self, holdings: &Holdings) -> Self {
        self.holdings = holdings.clone();
        self
    }

    /// Sets the folder in which the tool runs.
    #[must_use]
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.current_dir = Some(dir.into());
        self
    }

    /// The command that tokio spawns: clean environment, no standard input, killed when dropped.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("LC_ALL", "C")
            .envs(self.envs.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(dir) = &self.current_dir {
            command.current_dir(dir);
        }
        command
    }

    fn name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    fn file_name(&self) -> String {
        let name = Path::new(&self.program).file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Runs the tool to its end and gives what it left, whatever its exit code.
    ///
    /// # Errors
    /// [`ProcessError::Start`], [`ProcessError::Lost`] or [`ProcessError::Deadline`].
    pub async fn run(&self, deadline: Duration) -> Result<Finished, ProcessError> {
        let mut child = self
            .command()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| ProcessError::Start {
                program: self.name(),
                source,
            })?;
        let process = child.id().map(|pid| Thing::process(self.file_name(), pid));
        let held = self.holdings.hold(process);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ended = async {
            let (stdout, stderr, status) =
                tokio::try_join!(read_tail(stdout), read_tail(stderr), child.wait())?;
            Ok::<_, std::io::Error>(Finished {
                status,
                stdout,
                stderr,
            })
        };
        match tokio::time::timeout(deadline, ended).await {
            Ok(Ok(finished)) => {
                held.released();
                Ok(finished)
            }
            Ok(Err(source)) => Err(ProcessError::Lost {
                program: self.name(),
                source,
            }),
            Err(_) => Err(ProcessError::Deadline {
                program: self.name(),
                seconds: deadline.as_secs(),
            }),
        }
    }

    /// Runs the tool and takes any exit code but 0 for an error.
    ///
    /// # Errors
    /// As [`Tool::run`], and [`ProcessError::Failed`].
    pub async fn run_ok(&self, deadline: Duration) -> Result<Finished, ProcessError> {
        let finished = self.run(deadline).await?;
        if finished.status.success() {
            return Ok(finished);
        }
        Err(ProcessError::Failed {
            program: self.name(),
            status: finished.status,
            stderr: String::from_utf8_lossy(&finished.stderr).trim().to_owned(),
        })
    }
}

/// Reads a stream to its end and keeps its last [`OUTPUT_TAIL_BYTES_MAX`] bytes.
async fn read_tail(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut tail = Vec::new();
    let Some(mut stream) = stream else {
        return Ok(tail);
    };
    while stream.read_buf(&mut tail).await? > 0 {
        // Halving keeps the copying linear in what is read.
        if tail.len() > 2 * OUTPUT_TAIL_BYTES_MAX {
            tail.drain(..tail.len() - OUTPUT_TAIL_BYTES_MAX);
        }
    }
    tail.drain(..tail.len().saturating_sub(OUTPUT_TAIL_BYTES_MAX));
    Ok(tail)
}

/// Where `program` is in the tools' `PATH`, if it is installed.
pub fn find(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let program = program.as_ref();
    [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]
    .iter()
    .map(|dir| PathBuf::from(dir).join(program))
    .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Tool {
        Tool::new("sh").args(["-c", script])
    }

    #[tokio::test]
    async fn a_tool_sees_no_variable_of_the_host() {
        let finished = Tool::new("env")
            .env("ADDED", "1")
            .run_ok(Duration::from_secs(5))
            .await
            .unwrap();
        let mut names: Vec<&str> = std::str::from_utf8(&finished.stdout)
            .unwrap()
            .lines()
            .map(|line| line.split('=').next().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["ADDED", "LC_ALL", "PATH"]);
    }

    #[tokio::test]
    async fn a_failure_carries_the_end_of_standard_error() {
        let error = shell("echo why >&2; exit 3")
            .run_ok(Duration::from_secs(5))
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "`sh` failed (exit status: 3): why");
    }

    #[tokio::test]
    async fn a_tool_that_does_not_end_is_killed() {
        let error = shell("sleep 60")
            .run(Duration::from_millis(50))
            .await
            .unwrap_err();
        assert!(matches!(error, ProcessError::Deadline { .. }), "{error}");
    }

    #[tokio::test]
    async fn only_the_end_of_a_long_output_is_kept() {
        let finished = shell("head -c 1000000 /dev/zero; printf end")
            .run_ok(Duration::from_secs(10))
            .await
            .unwrap();
        assert_eq!(finished.stdout.len(), OUTPUT_TAIL_BYTES_MAX);
        assert!(finished.stdout.ends_with(b"end"));
    }
}
