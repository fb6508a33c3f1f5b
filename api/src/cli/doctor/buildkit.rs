//! BuildKit: its client on this host, and the daemons that Dockerfiles are built by.

use std::path::Path;
use std::time::Duration;

use executor::process::Tool;
use futures_util::future::join_all;
use serde::Deserialize;

use super::Part;
use super::parts::{locate, version};

/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first release whose client has all that the service asks of it: major and minor number.
const OLDEST: (u32, u32) = (0, 13);

/// Looks for the client, and asks the daemon at each address.
pub(super) async fn examine(buildctl: &Path, addresses: &[String]) -> Vec<Part> {
    let found = locate(buildctl);
    let client = match &found {
        None => Err(format!("{} not found", buildctl.display())),
        Some(path) => {
            let said = version(path, "--version").await;
            new_enough(&said)
                .map(|()| format!("{}: {said}", path.display()))
                .map_err(|reason| format!("{}: {said}: {reason}", path.display()))
        }
    };
    let daemons = addresses.iter().map(|address| async {
        let answer = match &found {
            None => Err("not asked, for want of buildctl".to_owned()),
            Some(buildctl) => ask(buildctl, address).await,
        };
        daemon_part(address, answer)
    });
    let mut parts = vec![client_part(client)];
    parts.extend(join_all(daemons).await);
    parts
}

/// The client, or what is wrong with it.
fn client_part(found: Result<String, String>) -> Part {
    Part {
        name: "buildctl",
        required: false,
        found: found.is_ok(),
        detail: found.unwrap_or_else(|reason| reason),
        purpose: "building Dockerfiles",
        how_to_get: "make setup builds it; or install BuildKit v0.13 or newer; then set buildkit.buildctl \
                     or have it on PATH",
    }
}

/// A daemon: its version, or why it cannot be used.
fn daemon_part(address: &str, answer: Result<String, String>) -> Part {
    let answer = answer.and_then(|version| match new_enough(&version) {
        Ok(()) => Ok(version),
        Err(reason) => Err(format!("{version}: {reason}")),
    });
    let (found, said) = match answer {
        Ok(version) => (true, version),
        Err(reason) => (false, reason),
    };
    Part {
        name: "buildkitd",
        required: false,
        found,
        detail: format!("{address}: {said}"),
        purpose: "building Dockerfiles",
        how_to_get: "make run brings one; or start buildkitd v0.13 or newer there, or name another in \
                     buildkit.daemon",
    }
}

/// Whether what a program says of itself names a release that is new enough. A build from a branch
/// says `v0.0.0`, and is believed to be.
fn new_enough(said: &str) -> Result<(), String> {
    let release = said.split_whitespace().find_map(release_of);
    match release {
        None => Err("no version of BuildKit".to_owned()),
        Some((0, 0)) => Ok(()),
        Some(release) if release >= OLDEST => Ok(()),
        Some(_) => Err(format!("v{}.{} or newer is needed", OLDEST.0, OLDEST.1)),
    }
}

/// The major and minor number of `v1.2.3` or `v1.2.3-rc1`.
fn release_of(word: &str) -> Option<(u32, u32)> {
    let mut numbers = word.strip_prefix('v')?.split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some((major, minor))
}

#[derive(Deserialize)]
struct Worker {
    #[serde(rename = "buildkitVersion")]
    buildkit: Version,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

/// The version of the daemon at `address`, or why there is none.
async fn ask(buildctl: &Path, address: &str) -> Result<String, String> {
    let asked = Tool::new(buildctl)
        .args(["--addr", address])
        .args(["debug", "workers", "--format", "{{json .}}"])
        .run(PATIENCE)
        .await;
    let finished = asked.map_err(|error| error.to_string())?;
    if !finished.status.success() {
        let said = String::from_utf8_lossy(&finished.stderr);
        let line = said.lines().rfind(|line| !line.trim().is_empty());
        let line = line.unwrap_or("buildctl failed without a word").trim();
        return Err(line.strip_prefix("error: ").unwrap_or(line).to_owned());
    }
    version_of(&finished.stdout)
}

/// What the first worker says: a daemon without one answers, and cannot build.
fn version_of(workers: &[u8]) -> Result<String, String> {
    let workers: Option<Vec<Worker>> =
        serde_json::from_slice(workers).map_err(|error| format!("not understood: {error}"))?;
    let first = workers.into_iter().flatten().next();
    first
        .map(|worker| worker.buildkit.version)
        .ok_or_else(|| "it has no worker".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_from_v0_13_on_are_new_enough() {
        for said in [
            "buildctl github.com/moby/buildkit v0.13.0 abc",
            "v0.34.2",
            "v1.0.0-rc1",
            "buildctl github.com/moby/buildkit v0.0.0+unknown",
        ] {
            assert_eq!(new_enough(said), Ok(()), "{said}");
        }
        for said in ["v0.12.5", "buildctl github.com/moby/buildkit v0.9.0 abc"] {
            let reason = new_enough(said).unwrap_err();
            assert_eq!(reason, "v0.13 or newer is needed", "{said}");
        }
        for said in ["", "very good", "0.34.2"] {
            assert_eq!(
                new_enough(said).unwrap_err(),
                "no version of BuildKit",
                "{said}"
            );
        }
    }

    #[test]
    fn a_daemon_is_found_if_it_answers_and_is_new_enough() {
        let part = daemon_part("unix:///a", Ok("v0.34.2".to_owned()));
        assert!(part.found);
        assert_eq!(part.detail, "unix:///a: v0.34.2");
        let part = daemon_part("unix:///a", Ok("v0.12.0".to_owned()));
        assert!(!part.found);
        assert_eq!(part.detail, "unix:///a: v0.12.0: v0.13 or newer is needed");
        let part = daemon_part("unix:///a", Err("connection refused".to_owned()));
        assert!(!part.found);
        assert_eq!(part.detail, "unix:///a: connection refused");
    }

    #[test]
    fn a_daemon_without_a_worker_cannot_build() {
        assert_eq!(version_of(b"null").unwrap_err(), "it has no worker");
        assert_eq!(version_of(b"[]").unwrap_err(), "it has no worker");
        let workers = br#"[{"id":"a","buildkitVersion":{"version":"v0.34.2"},"cdiDevices":null}]"#;
        assert_eq!(version_of(workers).unwrap(), "v0.34.2");
    }

    #[tokio::test]
    async fn without_the_client_no_daemon_is_asked() {
        let addresses = ["unix:///nowhere".to_owned()];
        let parts = examine(Path::new("/nowhere/buildctl"), &addresses).await;
        let details: Vec<&str> = parts.iter().map(|part| part.detail.as_str()).collect();
        let expected = [
            "/nowhere/buildctl not found",
            "unix:///nowhere: not asked, for want of buildctl",
        ];
        assert_eq!(details, expected);
        assert!(parts.iter().all(|part| !part.found));
    }
}
