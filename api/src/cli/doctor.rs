//! `nullspaced doctor`

mod buildkit;
mod parts;

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{Failure, Place, say, settings};

pub(super) const HELP: &str = "\
Examples:
  nullspaced doctor
  nullspaced doctor --json

The exit code is 0 if every required part was found, else 1. Give the same --config as to `serve`:
settings say where some parts are.";

/// Show which needed parts are there.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether every required part was.
    ok: bool,
    /// Each part.
    parts: Vec<Part>,
}

/// One part.
#[derive(Debug, Serialize)]
struct Part {
    /// What it is called.
    name: &'static str,
    /// Whether builds are impossible without it.
    required: bool,
    /// Whether it is there.
    found: bool,
    /// Its version, or where it is, or what is wrong with it.
    detail: String,
    /// What it is needed for.
    purpose: &'static str,
    /// How to get it.
    how_to_get: &'static str,
}

impl Doctor {
    pub(super) async fn run(self, place: &Place) -> Result<ExitCode, Failure> {
        let config = settings::load(place, &[])?.config;
        let parts = parts::examine(&config).await;
        let ok = parts.iter().all(|part| part.found || !part.required);
        let report = Report { ok, parts };
        if self.json {
            say(serde_json::to_string_pretty(&report)?)?;
        } else {
            say(table(&report))?;
        }
        Ok(if ok {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn table(report: &Report) -> String {
    let mut lines = Vec::new();
    for part in &report.parts {
        let mark = match (part.found, part.required) {
            (true, _) => "ok     ",
            (false, true) => "MISSING",
            (false, false) => "absent ",
        };
        lines.push(format!("{mark}  {:<22} {}", part.name, part.detail));
        if !part.found {
            lines.push(format!("           for: {}", part.purpose));
            lines.push(format!("           get: {}", part.how_to_get));
        }
    }
    let missing = report
        .parts
        .iter()
        .filter(|part| !part.found && part.required)
        .count();
    lines.push(match missing {
        0 => "Every required part is there.".to_owned(),
        1 => "One required part is missing.".to_owned(),
        count => format!("{count} required parts are missing."),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(found: bool, required: bool) -> Part {
        Part {
            name: "runc",
            required,
            found,
            detail: "runc 1.1".to_owned(),
            purpose: "containers",
            how_to_get: "apt-get install runc",
        }
    }

    #[test]
    fn a_missing_part_says_how_to_get_it() {
        let report = Report {
            ok: false,
            parts: vec![part(true, true), part(false, true), part(false, false)],
        };
        let table = table(&report);
        assert_eq!(table.matches("get: apt-get install runc").count(), 2);
        assert!(table.ends_with("One required part is missing."));
    }
}
