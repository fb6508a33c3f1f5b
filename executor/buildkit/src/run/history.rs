//! What a daemon remembers of a build.
//!
//! Most daemons record each build, with everything that its steps wrote, for any of their clients to
//! read: a step that prints a secret leaves it there. `buildctl` cannot remove one record; it can remove
//! all of finished builds that nobody pinned. So that is done after a build with secrets, if the daemon
//! has a record of it. Builds that are under way do not mind.
//!
//! It is an attempt: a daemon that does not answer keeps its records until its own bounds remove them. A
//! daemon of ours is better told not to record (`[history] maxEntries = 0`); then there is nothing to
//! do here.

use std::time::Duration;

use serde::Deserialize;

use crate::daemon::client::{Client, Unanswered};
use crate::invocation::MARK;
use crate::limits::BuildkitLimits;

/// How long to wait for a daemon to be done with a build whose client is gone.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a daemon may remember a build.
#[derive(Debug, thiserror::Error)]
enum Remembered {
    #[error("cannot ask for the records")]
    Ask(#[from] Unanswered),
    #[error("cannot read the records")]
    Read(#[from] serde_json::Error),
}

/// An event of the history; only what tells whose it is matters.
#[derive(Deserialize)]
struct Event {
    record: Record,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "FrontendAttrs", default)]
    options: std::collections::BTreeMap<String, String>,
    #[serde(rename = "CompletedAt", default)]
    completed: Option<serde::de::IgnoredAny>,
}

/// What of a build is in the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trace {
    None,
    UnderWay,
    Over,
}

/// Waits until the daemon says that it builds nothing with this mark; false if it does not say so in time.
pub(super) async fn is_over(client: &Client, mark: &str, limits: &BuildkitLimits) -> bool {
    let within = Duration::from_millis(limits.over_ms_max);
    let over = async {
        while look(client, mark, limits).await? == Trace::UnderWay {
            tokio::time::sleep(PAUSE).await;
        }
        Ok::<_, Remembered>(())
    };
    let address = client.daemon().address();
    match tokio::time::timeout(within, over).await {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(%address, error, "a daemon does not say whether a stopped build is over");
        }
        Err(_) => tracing::warn!(%address, "a daemon goes on with a build that was stopped"),
    }
    false
}

/// Makes the daemon forget the build with this mark, as far as it can.
pub(super) async fn forget(client: &Client, mark: &str, limits: &BuildkitLimits) {
    let within = Duration::from_millis(limits.forget_ms_max);
    let address = client.daemon().address();
    match tokio::time::timeout(within, remove(client, mark, limits)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(%address, error, "a daemon may keep the output of a build with secrets");
        }
        Err(_) => {
            tracing::warn!(%address, "a daemon keeps the output of a build with secrets");
        }
    }
}

/// What the daemon has of the build with this mark.
async fn look(client: &Client, mark: &str, limits: &BuildkitLimits) -> Result<Trace, Remembered> {
    let deadline = Duration::from_millis(limits.probe_ms_max);
    let ask = ["debug", "histories", "--format", "{{json .}}"];
    let records = client.ask(&ask, deadline, limits.answer_bytes_max).await?;
    Ok(trace(&records.stdout, mark)?)
}

async fn remove(client: &Client, mark: &str, limits: &BuildkitLimits) -> Result<(), Remembered> {
    let deadline = Duration::from_millis(limits.probe_ms_max);
    let ask = |args: &'static [&str]| client.ask(args, deadline, limits.answer_bytes_max);
    loop {
        match look(client, mark, limits).await? {
            Trace::None => return Ok(()),
            // It says that it failed when it meets a build that is under way, and goes on.
            Trace::Over => drop(ask(&["prune-histories"]).await?),
            Trace::UnderWay => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn trace(records: &[u8], mark: &str) -> serde_json::Result<Trace> {
    let mut trace = Trace::None;
    for event in serde_json::Deserializer::from_slice(records).into_iter::<Event>() {
        let record = event?.record;
        if record.options.get(MARK).is_some_and(|value| value == mark) {
            trace = match record.completed {
                Some(_) => Trace::Over,
                None => Trace::UnderWay,
            };
        }
    }
    Ok(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_found_by_its_mark_and_nothing_else() {
        let records = br#"
            {"type":1,"record":{"Ref":"a","FrontendAttrs":{"nullspace.invocation":"one"},"CompletedAt":{"seconds":1}}}
            {"type":1,"record":{"Ref":"b","FrontendAttrs":{"filename":"two"},"CompletedAt":{"seconds":1}}}
            {"record":{"Ref":"c","FrontendAttrs":{"nullspace.invocation":"three"}}}
            {"record":{"Ref":"d"}}"#;
        let of = |mark| trace(records, mark).unwrap();
        assert_eq!(of("one"), Trace::Over);
        assert_eq!(of("two"), Trace::None);
        assert_eq!(of("three"), Trace::UnderWay);
        assert!(trace(b"what?", "one").is_err());
    }
}
