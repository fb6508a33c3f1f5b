//! `nullspaced restore`

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;
use domain::ids::ArtifactId;
use executor::restore::Restored;

use super::door::Door;
use super::{Failure, Place, say, settings};
use crate::{telemetry, wiring};

pub(super) const HELP: &str = "\
Examples:
  nullspaced restore my-app
      Resume a machine, show how long it took and how large its disk is, and end it.

  nullspaced restore my-app:v1 --exec 'curl -s http://127.0.0.1:8000'
      Run a command in it; the exit code is the command's.

  nullspaced restore acme/my-app:v1 --owner acme --exec 'df -h /' --json
      Print one JSON object: stdout, stderr, exit_code, boot_to_agent_ms, disk_bytes and more. The
      exit code is then 0 whenever the machine was resumed.

REF is name, name:tag, name:tb_… (a build), namespace/name[:tag] or tmpl_… (an id). A machine changes
nothing of its template; the service may run or not.";

/// Resume a machine from a finished template.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The template, for example `my-app:v1`
    #[arg(value_name = "REF")]
    reference: String,
    /// A command to run in the machine, by /bin/sh -c
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// Print one JSON object instead of the command's own output
    #[arg(long)]
    json: bool,
    /// Whose template it is
    #[arg(long, default_value = "default", env = "NULLSPACED_OWNER")]
    owner: String,
}

impl Restore {
    pub(super) async fn run(self, place: &Place) -> Result<ExitCode, Failure> {
        let config = settings::load(place, &[])?.config;
        telemetry::start(&config.logging)?;
        let door = Door::open(&config).await?;
        let resolved = door.resolve(&self.owner, &self.reference).await;
        door.close().await?;
        let artifact: ArtifactId = resolved?.artifact_id.parse()?;
        let restored = wiring::restore::resume(&config, &artifact, self.exec.as_deref()).await?;
        if self.json {
            say(serde_json::to_string_pretty(&restored)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        print(&restored)?;
        let code = restored.exit_code.unwrap_or(0);
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
    }
}

/// What the command wrote goes where it wrote it; the rest to standard error.
fn print(restored: &Restored) -> io::Result<()> {
    let mut err = io::stderr().lock();
    writeln!(
        err,
        "resumed {} ({}): agent after {} ms, disk of {} MiB",
        restored.artifact_id,
        restored.machine,
        restored.boot_to_agent_ms,
        restored.disk_bytes / (1024 * 1024),
    )?;
    if let Some(text) = &restored.stderr {
        err.write_all(text.as_bytes())?;
    }
    let mut out = io::stdout().lock();
    if let Some(text) = &restored.stdout {
        out.write_all(text.as_bytes())?;
    }
    out.flush()
}
