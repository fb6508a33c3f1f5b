//! What the image that was built says about itself, as settings of the template's machines.

use std::collections::BTreeSet;

use buildkit::dockerfile::Keyword;
use domain::build::{OciHealthcheck, OciMetadata};
use domain::definition::{Definition, ProbeSchedule, Readiness};

use super::super::Attempt;
use super::super::settle::{self, Defaults};
use super::prepare::Prepared;
use crate::image::ImageConfig;
use crate::native::step::quoted;

/// What BuildKit writes for a command in shell form.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Docker's own: what a check may take, and how many failures in a row count.
const CHECK_SECONDS: u64 = 30;
const CHECK_RETRIES: u64 = 3;
/// The longest pause between two tries, in seconds: Docker's own while a container starts.
const START_INTERVAL_SECONDS: u64 = 5;
const NANOS_PER_MILLI: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Settings of machines, and what is told of the image.
pub(super) struct Made {
    pub(super) defaults: Defaults,
    pub(super) oci: OciMetadata,
    /// The names of the variables that the Dockerfile sets.
    pub(super) env_keys: Vec<String>,
}

pub(super) fn of(attempt: &Attempt<'_>, prepared: &Prepared, image: &ImageConfig) -> Made {
    let definition = &attempt.job.requested.definition;
    let seconds_max = attempt.services.limits.worker.healthcheck_seconds_max;
    let mut oci = settle::oci_metadata(image);
    // A base such as Debian says `bash`, which is meant for people at terminals: only what the Dockerfile
    // itself says is taken for a service.
    let says = |keyword| prepared.dockerfile.setting(keyword).is_some();
    let is_told = says(Keyword::Cmd) || says(Keyword::Entrypoint);
    let start_cmd = is_told.then(|| start_command(image)).flatten();
    let readiness = oci
        .healthcheck
        .as_ref()
        .and_then(|check| readiness(check, seconds_max));
    if let Some(check) = &mut oci.healthcheck {
        let starts = start_cmd.is_some() || definition.start_cmd.is_some();
        check.mapped_readiness = readiness
            .clone()
            .filter(|_| starts && is_unsaid(definition));
    }
    Made {
        defaults: Defaults::of_image(image).starting(start_cmd, readiness),
        oci,
        env_keys: env_keys(image, prepared.base().map(|base| &base.config)),
    }
}

/// Whether the definition leaves open when its start command counts as up.
fn is_unsaid(definition: &Definition) -> bool {
    definition.runtime.readiness.is_none()
}

/// The variables that an image has and its base has not, or has with another value.
fn env_keys(image: &ImageConfig, base: Option<&ImageConfig>) -> Vec<String> {
    let inherited: BTreeSet<&String> = base.into_iter().flat_map(|base| &base.env).collect();
    let own = image
        .env
        .iter()
        .filter(|variable| !inherited.contains(variable));
    own.filter_map(|variable| Some(variable.split_once('=')?.0.to_owned()))
        .collect()
}

/// What a container of the image would run, as a line for `/bin/sh -c`; nothing if it says nothing.
fn start_command(image: &ImageConfig) -> Option<String> {
    let line = |words: &[String]| match words {
        [shell, flag, line] if [shell.as_str(), flag.as_str()] == SHELL => Some(line.clone()),
        _ => None,
    };
    // An entry point in shell form gets the command as arguments that it does not look at.
    if let Some(line) = line(&image.entrypoint) {
        return Some(line).filter(|line| !line.trim().is_empty());
    }
    let words: Vec<String> = [&image.entrypoint[..], &image.cmd[..]].concat();
    if let Some(line) = line(&words) {
        return Some(line).filter(|line| !line.trim().is_empty());
    }
    shell_line(&words)
}

/// Words as a line that a shell reads as these words.
fn shell_line(words: &[String]) -> Option<String> {
    let is_plain = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_@%+:,./-".contains(&byte))
    };
    let spelled: Vec<String> = words
        .iter()
        .map(|word| {
            if is_plain(word) {
                word.clone()
            } else {
                quoted(word)
            }
        })
        .collect();
    Some(spelled.join(" ")).filter(|line| !line.is_empty())
}

/// The probe that an image's own check comes to, if it has one that can be run.
fn readiness(check: &OciHealthcheck, seconds_max: u64) -> Option<Readiness> {
    let command = match check.test.as_slice() {
        [kind, line] if kind == "CMD-SHELL" => {
            Some(line.clone()).filter(|line| !line.is_empty())?
        }
        [kind, words @ ..] if kind == "CMD" => shell_line(words)?,
        _ => return None,
    };
    Some(Readiness::Command {
        command,
        schedule: schedule(check, seconds_max),
    })
}

/// A check passes once: there is no need to wait between tries as long as a running service is left alone.
/// It fails when as many tries as count could have failed after the time in which failures do not.
fn schedule(check: &OciHealthcheck, seconds_max: u64) -> ProbeSchedule {
    let usual = ProbeSchedule::default();
    let seconds = |nanos: Option<u64>| nanos.map(|nanos| nanos.div_ceil(NANOS_PER_SECOND));
    let interval = seconds(check.interval_ns).unwrap_or(CHECK_SECONDS);
    let one_try = seconds(check.timeout_ns).unwrap_or(CHECK_SECONDS);
    let retries = check.retries.unwrap_or(CHECK_RETRIES);
    let start = seconds(check.start_period_ns).unwrap_or(0);
    let whole = retries
        .saturating_mul(interval.saturating_add(one_try))
        .saturating_add(start);
    let interval_ms = check
        .interval_ns
        .map_or(usual.interval_ms, |nanos| nanos / NANOS_PER_MILLI);
    ProbeSchedule {
        timeout_secs: whole.clamp(usual.timeout_secs, seconds_max.max(usual.timeout_secs)),
        interval_ms: interval_ms.clamp(1, START_INTERVAL_SECONDS * 1000),
        startup_grace_secs: usual.startup_grace_secs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn command(entrypoint: &[&str], cmd: &[&str]) -> Option<String> {
        let image = ImageConfig {
            entrypoint: words(entrypoint),
            cmd: words(cmd),
            ..ImageConfig::default()
        };
        start_command(&image)
    }

    #[test]
    fn entry_point_and_command_become_one_line_for_the_shell() {
        for (entrypoint, cmd, expected) in [
            (
                &[][..],
                &["/srv/app", "--port", "80"][..],
                "/srv/app --port 80",
            ),
            (
                &["/entry.sh"],
                &["serve", "two words"],
                "/entry.sh serve 'two words'",
            ),
            (&["/entry.sh"], &[], "/entry.sh"),
            (
                &[],
                &["/bin/sh", "-c", "echo $HOME && exec app"],
                "echo $HOME && exec app",
            ),
            (&["/bin/sh", "-c", "exec app"], &["ignored"], "exec app"),
            (
                &["/bin/bash", "-c"],
                &["echo it's"],
                r"/bin/bash -c 'echo it'\''s'",
            ),
            (
                &[],
                &["/bin/sh", "-c", "echo $0", "name"],
                "/bin/sh -c 'echo $0' name",
            ),
            (&[], &["A=b", "", "~", "*"], "'A=b' '' '~' '*'"),
        ] {
            assert_eq!(command(entrypoint, cmd).as_deref(), Some(expected));
        }
        assert_eq!(command(&[], &[]), None);
        assert_eq!(command(&[], &["/bin/sh", "-c", " "]), None);
    }

    #[test]
    fn a_shell_reads_the_line_as_the_words_that_it_was_made_of() {
        let odd = words(&["a b", "c'd", "$x", "`y`", "\\", "\n", "-n", "é", "a=b", "#"]);
        let line = format!("printf '%s\\0' {}", shell_line(&odd).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let run = async {
            let mut shell = tokio::process::Command::new("/bin/sh");
            shell.args(["-c", &line]).output().await
        };
        let output = runtime.block_on(run).unwrap();
        let read: Vec<String> = output
            .stdout
            .split(|&byte| byte == 0)
            .map(|word| String::from_utf8(word.to_vec()).unwrap())
            .collect();
        assert_eq!(read[..odd.len()], odd);
    }

    fn check(test: &[&str]) -> OciHealthcheck {
        OciHealthcheck {
            test: words(test),
            ..OciHealthcheck::default()
        }
    }

    #[test]
    fn a_check_becomes_a_probe_if_it_is_a_command() {
        let command = |test: &[&str]| match readiness(&check(test), 3600) {
            Some(Readiness::Command { command, .. }) => Some(command),
            None => None,
            other => panic!("{other:?}"),
        };
        let shell = command(&["CMD-SHELL", "curl -f localhost || exit 1"]);
        assert_eq!(shell.as_deref(), Some("curl -f localhost || exit 1"));
        let plain = command(&["CMD", "curl", "-f", "http://localhost/a b"]);
        assert_eq!(plain.as_deref(), Some("curl -f 'http://localhost/a b'"));
        for none in [
            &["NONE"][..],
            &[],
            &["CMD"],
            &["CMD-SHELL", ""],
            &["OTHER", "x"],
        ] {
            assert_eq!(command(none), None, "{none:?}");
        }
    }

    #[test]
    fn the_times_of_a_check_are_kept_within_ours() {
        let second = NANOS_PER_SECOND;
        let of = |interval: u64, timeout: u64, start: u64, retries: u64, max| {
            let said = |seconds: u64| (seconds > 0).then_some(seconds * second);
            let check = OciHealthcheck {
                interval_ns: said(interval),
                timeout_ns: said(timeout),
                start_period_ns: said(start),
                retries: (retries > 0).then_some(retries),
                ..check(&["CMD", "x"])
            };
            let schedule = schedule(&check, max);
            (schedule.timeout_secs, schedule.interval_ms)
        };
        assert_eq!(of(0, 0, 0, 0, 3600), (180, 500));
        assert_eq!(of(2, 3, 60, 5, 3600), (85, 2000));
        assert_eq!(of(1, 1, 0, 1, 3600), (30, 1000));
        assert_eq!(of(300, 30, 0, 3, 3600), (990, 5000));
        assert_eq!(of(300, 30, 0, 3, 600), (600, 5000));
        assert_eq!(of(u64::MAX / second, 1, 1, u64::MAX, 600), (600, 5000));
    }

    #[test]
    fn the_variables_of_a_dockerfile_are_those_that_its_base_has_not_like_that() {
        let image = |env: &[&str]| ImageConfig {
            env: words(env),
            ..ImageConfig::default()
        };
        let base = image(&["PATH=/bin", "LANG=C"]);
        let made = image(&["PATH=/bin", "LANG=C.UTF-8", "PORT=80"]);
        assert_eq!(env_keys(&made, Some(&base)), ["LANG", "PORT"]);
        assert_eq!(env_keys(&made, None), ["PATH", "LANG", "PORT"]);
    }
}
