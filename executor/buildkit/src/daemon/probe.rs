//! Whether a daemon answers, and what it is.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use super::client::{Answer, Client, Unanswered};
use crate::limits::BuildkitLimits;

/// The most that is repeated of what `buildctl` says about a daemon that it cannot use, in bytes.
const MESSAGE_BYTES_MAX: usize = 600;

/// What a daemon says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonVersion {
    /// BuildKit's version, as the daemon was told when it was built: `v0.34.2`; development builds
    /// say `v0.0.0+unknown`.
    pub buildkit: String,
    /// The version of the Dockerfile frontend that is built in, if the daemon tells.
    pub frontend: Option<String>,
}

impl fmt::Display for DaemonVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.buildkit)?;
        match &self.frontend {
            Some(frontend) => write!(f, " with Dockerfile frontend {frontend}"),
            None => Ok(()),
        }
    }
}

/// Why a daemon cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// `buildctl` could not be run.
    #[error("buildctl cannot be run")]
    Buildctl(#[source] std::io::Error),
    /// The daemon did not answer in time: it is stopped or drowning, or something else listens there.
    #[error("it did not answer within {milliseconds} ms")]
    Silent {
        /// How long it was given.
        milliseconds: u64,
    },
    /// It cannot be reached, or does not talk to us.
    #[error("{0}")]
    Refused(String),
    /// Its answer makes no sense.
    #[error("its answer cannot be understood")]
    Answer(#[source] serde_json::Error),
    /// It has nothing that builds.
    #[error("it has no worker")]
    NoWorker,
}

#[derive(Deserialize)]
struct Worker {
    #[serde(rename = "buildkitVersion")]
    version: Version,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    version: String,
    #[serde(default)]
    dockerfile_version: Option<String>,
}

/// Asks a daemon for its workers: only one that can build has an answer.
pub(crate) async fn probe(
    client: &Client,
    limits: &BuildkitLimits,
) -> Result<DaemonVersion, ProbeError> {
    let args = ["debug", "workers", "--format", "{{json .}}"];
    let deadline = Duration::from_millis(limits.probe_ms_max);
    let answer = client.ask(args, deadline, limits.answer_bytes_max).await;
    let Answer {
        status,
        stdout,
        stderr,
    } = answer.map_err(|error| match error {
        Unanswered::Start(source) | Unanswered::Lost(source) => ProbeError::Buildctl(source),
        Unanswered::Late(_) => ProbeError::Silent {
            milliseconds: limits.probe_ms_max,
        },
    })?;
    if !status.success() {
        return Err(ProbeError::Refused(last_words(&stderr)));
    }
    parse(&stdout)
}

fn parse(workers: &[u8]) -> Result<DaemonVersion, ProbeError> {
    // Without a worker the list is `null`.
    let workers: Option<Vec<Worker>> =
        serde_json::from_slice(workers).map_err(ProbeError::Answer)?;
    let worker = workers.into_iter().flatten().next();
    let Version {
        version,
        dockerfile_version,
    } = worker.ok_or(ProbeError::NoWorker)?.version;
    Ok(DaemonVersion {
        buildkit: version,
        frontend: dockerfile_version.filter(|version| !version.is_empty()),
    })
}

/// The last line that `buildctl` said, which is the one with the error.
fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().rfind(|line| !line.trim().is_empty());
    let line = line.unwrap_or("buildctl failed without a word").trim();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    line.get(..line.floor_char_boundary(MESSAGE_BYTES_MAX))
        .unwrap_or(line)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_worker_tells_the_version() {
        let workers =
            br#"[{"id":"a","labels":{},"buildkitVersion":{"package":"p","version":"v0.34.2",
            "revision":"","dockerfileVersion":"1.28.0"},"cdiDevices":null}]"#;
        let version = parse(workers).unwrap();
        assert_eq!(version.buildkit, "v0.34.2");
        assert_eq!(version.frontend.as_deref(), Some("1.28.0"));
        assert_eq!(
            version.to_string(),
            "v0.34.2 with Dockerfile frontend 1.28.0"
        );
    }

    #[test]
    fn a_daemon_without_workers_cannot_be_used() {
        for none in ["null", "[]"] {
            assert!(matches!(parse(none.as_bytes()), Err(ProbeError::NoWorker)));
        }
        assert!(matches!(parse(b"hello"), Err(ProbeError::Answer(_))));
    }

    #[test]
    fn of_what_buildctl_says_the_last_line_counts() {
        let stderr = b"time=\"...\" level=warning msg=\"x\"\nerror: no such file\n\n";
        assert_eq!(last_words(stderr), "no such file");
        assert_eq!(last_words(b""), "buildctl failed without a word");
        let long = "\u{e4}".repeat(MESSAGE_BYTES_MAX);
        assert_eq!(last_words(long.as_bytes()).len(), MESSAGE_BYTES_MAX);
    }
}
