//! Defaults of machines: user, working folder, environment, readiness.

use domain::definition::{ProbeSchedule, Readiness, RuntimeConfig};

use super::fields::Fields;
use crate::limits::Limits;

const MILLIS_PER_SECOND: u64 = 1000;

pub(super) fn runtime(top: Fields<'_>, limits: &Limits) -> RuntimeConfig {
    top.within("runtime_config", |fields| {
        fields.only(&[
            "default_user",
            "default_workdir",
            "default_envs",
            "readiness",
        ]);
        RuntimeConfig {
            default_user: user(fields, "default_user", limits),
            default_workdir: workdir(fields, limits),
            default_envs: fields.env("default_envs", limits),
            readiness: fields
                .within("readiness", |probe| readiness(probe, limits))
                .flatten(),
        }
    })
    .unwrap_or_default()
}

/// A user: a name or number, or two of them joined by `:`.
pub(super) fn user(fields: Fields<'_>, key: &str, limits: &Limits) -> Option<String> {
    let text = fields.text(key, limits.text_bytes_max)?;
    if text.contains(|character: char| character.is_whitespace() || character.is_control()) {
        fields.problem(key, "must be a user, or a user and a group joined by `:`");
    }
    Some(text.to_owned())
}

fn workdir(fields: Fields<'_>, limits: &Limits) -> Option<String> {
    let text = fields.text("default_workdir", limits.text_bytes_max)?;
    if !text.starts_with('/') {
        fields.problem("default_workdir", "must begin with `/`");
    }
    Some(text.to_owned())
}

fn readiness(probe: Fields<'_>, limits: &Limits) -> Option<Readiness> {
    const SCHEDULE: [&str; 4] = ["kind", "timeout_secs", "interval_ms", "startup_grace_secs"];
    let only = |more: &[&str]| probe.only(&[&SCHEDULE, more].concat());
    match probe.required_text("kind", limits.text_bytes_max)? {
        "tcp" => {
            only(&["port"]);
            Some(Readiness::Tcp {
                port: port(probe)?,
                schedule: schedule(probe, limits),
            })
        }
        "http" => {
            only(&["port", "path"]);
            let path = probe.required_text("path", limits.text_bytes_max);
            if path.is_some_and(|path| !is_request_path(path)) {
                probe.problem("path", "must begin with `/` and have no blank");
            }
            Some(Readiness::Http {
                port: port(probe)?,
                path: path?.to_owned(),
                schedule: schedule(probe, limits),
            })
        }
        "command" => {
            only(&["command"]);
            let command = probe.required_text("command", limits.command_bytes_max);
            Some(Readiness::Command {
                command: command?.to_owned(),
                schedule: schedule(probe, limits),
            })
        }
        "timeout" => {
            probe.only(&["kind", "timeout_ms"]);
            if !probe.has("timeout_ms") {
                probe.problem("timeout_ms", "is required");
            }
            let most = limits.readiness_secs_max.saturating_mul(MILLIS_PER_SECOND);
            Some(Readiness::Timeout {
                timeout_ms: probe.number("timeout_ms", 0..=most)?,
            })
        }
        other => {
            let shown: String = other.chars().take(40).collect();
            probe.problem(
                "kind",
                format!("`{shown}` is none of tcp, http, command, timeout"),
            );
            None
        }
    }
}

fn is_request_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic())
}

fn port(probe: Fields<'_>) -> Option<u16> {
    if !probe.has("port") {
        probe.problem("port", "is required");
    }
    let port = probe.number("port", 1..=u64::from(u16::MAX))?;
    // Within the range, which is one of u16.
    u16::try_from(port).ok()
}

fn schedule(probe: Fields<'_>, limits: &Limits) -> ProbeSchedule {
    let usual = ProbeSchedule::default();
    let seconds = 0..=limits.readiness_secs_max;
    let millis = 0..=limits.readiness_secs_max.saturating_mul(MILLIS_PER_SECOND);
    ProbeSchedule {
        timeout_secs: probe
            .number("timeout_secs", seconds.clone())
            .unwrap_or(usual.timeout_secs),
        interval_ms: probe
            .number("interval_ms", millis)
            .unwrap_or(usual.interval_ms),
        startup_grace_secs: probe
            .number("startup_grace_secs", seconds)
            .unwrap_or(usual.startup_grace_secs),
    }
}
