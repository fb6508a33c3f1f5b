//! `nullspaced events verify|tail|replay|export`

mod text;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use commands::log::export::Export;
use domain::Digest;
use domain::ids::BuildId;
use domain::recorded::{Position, StreamName};

use super::door::{self, Door, Tail};
use super::{Failure, Place, complain, say, settings};
use crate::limits::{EXPORT_BYTES_MAX, EXPORT_EVENT_COUNT_MAX};
use crate::service::audit;
use crate::wire::position::WirePosition;

pub(super) const HELP: &str = "\
Examples:
  nullspaced events verify
      Check every event of the log: its checksum, its number, its link in the hash chain of its
      stream, and that the log reaches as far as it was written.

  nullspaced events tail --follow --type Failed
      Print builds that fail from now on, one JSON object a line.

  nullspaced events tail --stream build-tb_01k5…
  nullspaced events replay
      Fold all views once more from the log, beside the present ones, and compare every row.

  nullspaced events export --build tb_01k5… --out build.json
  nullspaced events verify --file build.json --head sha256:3f9a…
      Keep the events of a build in a file that can be checked anywhere, without the service.

The commands go through the service if it runs on the data folder; if none runs, they open the folder
themselves. A log that may be damaged is not opened: opening cuts off what cannot be read. `verify`
looks at a copy beside it, which needs as much space, and removes it again.

Exit codes: 0 done, and nothing is wrong; 3 something is damaged, or a view differs; 1 anything else.";

/// Something is not as it should be.
const WRONG: u8 = 3;

/// Check the event log, look into it, and prove the views by it.
#[derive(Debug, Args)]
pub(super) struct EventsCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check that the log, or an export, is what was written; says which events are not
    Verify {
        /// Check this export instead of the log; needs no data folder
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The hash that the last event of the export must have, as `export` told it
        #[arg(long, value_name = "HASH", requires = "file")]
        head: Option<Digest>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print events, one JSON object a line
    Tail {
        /// Wait for further events, until Ctrl-C or the end of the service
        #[arg(long)]
        follow: bool,
        /// Only events behind this position; `start` means all, `end` those to come
        /// [default: start, with --follow end]
        #[arg(long, value_name = "POSITION")]
        from: Option<String>,
        /// Only events of this type, for example `Failed`
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,
        /// Only events of this stream, for example `build-tb_01k5…` or `keys`
        #[arg(long, value_name = "STREAM")]
        stream: Option<String>,
    },
    /// Fold all views once more from the log, and compare every row with the present ones
    Replay {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write the events of a build to a file that `verify --file` checks by itself
    Export {
        /// The build
        #[arg(long, value_name = "ID")]
        build: BuildId,
        /// Where to; standard output if it is not given. What is there is replaced
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Why an `events` command was not done.
#[derive(Debug, thiserror::Error)]
enum EventsError {
    /// The file cannot be used.
    #[error("cannot {action} {path}")]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The file is too large.
    #[error("{path} is larger than {EXPORT_BYTES_MAX} bytes")]
    TooLarge { path: PathBuf },
    /// The build has too many events.
    #[error("the build has more than {EXPORT_EVENT_COUNT_MAX} events")]
    TooManyEvents,
    /// Only a service has something to come.
    #[error("no service runs on the data folder, so no events are to come: leave out `--from end`")]
    NothingToCome,
}

impl EventsCommand {
    pub(super) async fn run(self, place: &Place) -> Result<ExitCode, Failure> {
        match self.action {
            Action::Verify { file, head, json } => {
                let verified = match file {
                    Some(file) => audit::verify_export(&read(&file).await?, head.as_ref()),
                    None => door::verify(&settings::load(place, &[])?.config).await?,
                };
                print(json, &verified, || text::verified(&verified))?;
                Ok(code(verified.is_whole))
            }
            Action::Tail {
                follow,
                from,
                kind,
                stream,
            } => {
                let print = async |door: &Door| {
                    let after = after(door, follow, from.as_deref())?;
                    let tail = Tail {
                        after,
                        kind,
                        stream,
                        waits: false,
                    };
                    print_events(door, tail, follow).await
                };
                through(place, print).await.map(|()| ExitCode::SUCCESS)
            }
            Action::Replay { json } => {
                let replayed = through(place, async |door: &Door| door.replay().await).await?;
                print(json, &replayed, || text::replayed(&replayed))?;
                Ok(code(replayed.is_equal))
            }
            Action::Export { build, out } => {
                let export = through(place, async |door: &Door| collect(door, build).await).await?;
                write(&export, out).await.map(|()| ExitCode::SUCCESS)
            }
        }
    }
}

/// Does something with the data, and lets go of them.
async fn through<T>(
    place: &Place,
    work: impl AsyncFnOnce(&Door) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let door = Door::open(&settings::load(place, &[])?.config).await?;
    let done = Box::pin(work(&door)).await;
    door.close().await?;
    done
}

fn code(is_well: bool) -> ExitCode {
    if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(WRONG)
    }
}

fn print<T: serde::Serialize>(
    json: bool,
    answer: &T,
    text: impl FnOnce() -> Vec<String>,
) -> Result<(), Failure> {
    let text = if json {
        serde_json::to_string_pretty(answer)?
    } else {
        text().join("\n")
    };
    Ok(say(text)?)
}

/// The position behind which events are wanted.
fn after(door: &Door, follow: bool, from: Option<&str>) -> Result<String, EventsError> {
    let start = WirePosition(Position::START).to_string();
    match from {
        Some("start") => Ok(start),
        None if !follow || !door.is_service() => Ok(start),
        None => Ok("end".to_owned()),
        Some("end") if !door.is_service() => Err(EventsError::NothingToCome),
        Some(position) => Ok(position.to_owned()),
    }
}

/// Prints events, page by page, until there are no more, or, if they are followed, until the service
/// ends.
async fn print_events(door: &Door, mut tail: Tail, follow: bool) -> Result<(), Failure> {
    loop {
        let page = door.tail(&tail).await?;
        for event in &page.events {
            say(event.get())?;
        }
        if page.is_stopping {
            complain("the service stops: nothing more is to come")?;
            return Ok(());
        }
        tail.after = page.next;
        if page.is_last && !follow {
            return Ok(());
        }
        if page.is_last && !door.is_service() {
            complain("no service runs on the data folder: nothing more is to come")?;
            return Ok(());
        }
        tail.waits = page.is_last;
    }
}

/// All events of a build.
async fn collect(door: &Door, build: BuildId) -> Result<Export, Failure> {
    let mut events = Vec::new();
    loop {
        let from = u64::try_from(events.len()).unwrap_or(u64::MAX);
        let mut page = door.export(build.as_str(), from).await?;
        if page.events.is_empty() {
            return Ok(Export::new(StreamName::Build(build), events));
        }
        events.append(&mut page.events);
        if events.len() > EXPORT_EVENT_COUNT_MAX {
            return Err(EventsError::TooManyEvents.into());
        }
    }
}

/// Writes an export to where it is wanted.
async fn write(export: &Export, out: Option<PathBuf>) -> Result<(), Failure> {
    let bytes = export.to_bytes()?;
    match out {
        None => io::stdout().lock().write_all(&bytes)?,
        Some(path) => {
            let written = tokio::fs::write(&path, bytes).await;
            written.map_err(|source| EventsError::File {
                action: "write",
                path,
                source,
            })?;
        }
    }
    complain(&format!(
        "{}; the last has the hash {}. Keep that elsewhere: with `--head`, `events verify` \
         refuses a file that was made anew, too",
        text::counted(export.event_count, "event"),
        export.end
    ))?;
    Ok(())
}

/// The bytes of an export.
async fn read(path: &Path) -> Result<Vec<u8>, EventsError> {
    let failed = |source| EventsError::File {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let metadata = tokio::fs::metadata(path).await.map_err(failed)?;
    if metadata.len() > EXPORT_BYTES_MAX {
        return Err(EventsError::TooLarge {
            path: path.to_owned(),
        });
    }
    tokio::fs::read(path).await.map_err(failed)
}

#[cfg(test)]
mod tests;
